"""Bandits, tabular MDPs and GridNavi: their definitions by hand, their odds by counting, their independence."""

import numpy as np
import pytest

from metarl.envs.benchmarks import make_benchmark
from metarl.envs.toy.bandits import BernoulliBandit, GaussianBandit
from metarl.envs.toy.gridnavi import GOALS, GridNavi
from metarl.envs.toy.noise import RowNoise
from metarl.envs.toy.tabular import NUM_ACTIONS, NUM_STATES, RandomMdps, TabularMdp
from metarl.envs.toy.tmaze import TMaze
from metarl.tasks import Task


def _pull(family: BernoulliBandit | GaussianBandit, task: Task, arms: np.ndarray, seed: int = 0) -> np.ndarray:
    """Rewards of pulling arms [pull, row], each pull an episode of its own."""
    env = family.make_env(arms.shape[1])
    env.set_tasks([task] * arms.shape[1])
    rewards = []
    for pull, actions in enumerate(arms):
        env.reset(seed=seed if pull == 0 else None)
        step = env.advance(actions)
        assert step.truncated.all()
        assert not step.terminated.any()
        rewards.append(step.rewards)
    return np.array(rewards)


def test_a_bernoulli_arm_pays_one_as_often_as_its_probability_says() -> None:
    task = Task.of("bernoulli-bandit-k2", probabilities=(0.2, 0.7))
    arms = np.tile(np.array([0, 1]), (300, 100))
    rewards = _pull(BernoulliBandit(2), task, arms)
    assert set(np.unique(rewards)) == {0.0, 1.0}
    # 30,000 pulls of each arm: four standard errors are 0.0106
    assert rewards[arms == 0].mean() == pytest.approx(0.2, abs=0.0106)
    assert rewards[arms == 1].mean() == pytest.approx(0.7, abs=0.0106)


def test_a_gaussian_arm_pays_its_mean_with_unit_deviation() -> None:
    task = Task.of("gaussian-bandit-k2", means=(0.25, -3.0))
    arms = np.tile(np.array([0, 1]), (300, 100))
    rewards = _pull(GaussianBandit(2), task, arms)
    for arm, mean in enumerate((0.25, -3.0)):
        assert rewards[arms == arm].mean() == pytest.approx(mean, abs=4 / np.sqrt(30_000))
        assert rewards[arms == arm].std() == pytest.approx(1.0, abs=0.02)


def test_a_bandits_regret_is_what_the_best_arm_pays_more() -> None:
    env = BernoulliBandit(3).make_env(2)
    probabilities = ((0.2, 0.7, 0.5), (0.9, 0.0, 1.0))
    env.set_tasks([Task.of("bernoulli-bandit-k3", probabilities=p) for p in probabilities])
    env.reset(seed=0)
    np.testing.assert_allclose(env.advance(np.array([0, 2])).infos["regret"], [0.5, 0.0])
    env.reset(options={"reset_mask": np.array([False, True])})
    np.testing.assert_allclose(env.advance(np.array([1]), np.array([1])).infos["regret"], [1.0])


def test_pulls_of_one_row_are_independent_of_each_other() -> None:
    task = Task.of("bernoulli-bandit-k2", probabilities=(0.5, 0.5))
    rewards = _pull(BernoulliBandit(2), task, np.zeros((400, 100), dtype=np.int64))  # past a block of noise
    centred = rewards - 0.5
    # covariance of neighbouring pulls: zero, with a standard error of 0.25 / sqrt(39,900)
    assert abs((centred[1:] * centred[:-1]).mean()) < 4 * 0.25 / np.sqrt(39_900)


def test_a_rows_rewards_depend_on_its_seed_and_not_on_its_neighbours() -> None:
    task = Task.of("bernoulli-bandit-k2", probabilities=(0.5, 0.5))
    arms = np.zeros((200, 3), dtype=np.int64)
    together = _pull(BernoulliBandit(2), task, arms, seed=5)  # rows are seeded 5, 6, 7
    alone = _pull(BernoulliBandit(2), task, arms[:, :1], seed=6)
    np.testing.assert_array_equal(together[:, 1], alone[:, 0])
    assert (together[:, 0] != together[:, 1]).any()


def test_a_new_seed_forgets_the_noise_that_was_drawn_ahead() -> None:
    task = Task.of("bernoulli-bandit-k2", probabilities=(0.5, 0.5))
    env = BernoulliBandit(2).make_env(50)
    env.set_tasks([task] * 50)
    first = []
    for _ in range(2):
        env.reset(seed=3)
        first.append(env.advance(np.zeros(50, dtype=np.int64)).rewards)
    np.testing.assert_array_equal(first[0], first[1])


def test_a_new_seed_forgets_what_was_drawn_ahead_for_a_tabular_mdp() -> None:
    env = TabularMdp().make_env(50)
    env.set_tasks(RandomMdps().sample(1, np.random.default_rng(0)) * 50)
    steps = []
    for _ in range(2):
        env.reset(seed=3)
        steps.append(env.advance(np.zeros(50, dtype=np.int64)))
    np.testing.assert_array_equal(steps[0].rewards, steps[1].rewards)
    np.testing.assert_array_equal(steps[0].observations, steps[1].observations)
    assert len(set(steps[0].rewards)) == 50


def test_row_noise_serves_some_rows_without_touching_the_others() -> None:
    def rngs() -> list[np.random.Generator]:
        return [np.random.default_rng(i) for i in range(3)]

    noise = RowNoise(lambda rng, count: rng.random(count), 3, block=2)
    generators = rngs()
    taken = [noise.next(generators, np.array([1]))[0] for _ in range(3)]
    np.testing.assert_array_equal(taken, rngs()[1].random(3))
    np.testing.assert_array_equal(noise.next(generators, None)[[0, 2]], [r.random() for r in rngs()[::2]])


def test_a_bandit_needs_two_arms() -> None:
    with pytest.raises(ValueError, match="at least 2 arms, got 1"):
        BernoulliBandit(1)


@pytest.mark.thorough
def test_tabular_transitions_and_rewards_have_the_tasks_odds() -> None:
    task = RandomMdps().sample(1, np.random.default_rng(0))[0]
    transitions = np.reshape(task["transitions"], (NUM_STATES, NUM_ACTIONS, NUM_STATES))
    means = np.reshape(task["mean_rewards"], (NUM_STATES, NUM_ACTIONS))
    rows = 10_000
    env = TabularMdp().make_env(rows)
    env.set_tasks([task] * rows)
    observations, _ = env.reset(seed=1)
    assert observations.argmax(1).tolist() == [0] * rows
    step = env.advance(np.full(rows, 3))
    counts = np.bincount(step.observations.argmax(1), minlength=NUM_STATES) / rows
    np.testing.assert_allclose(counts, transitions[0, 3], atol=4 * 0.5 / np.sqrt(rows))
    assert step.rewards.mean() == pytest.approx(means[0, 3], abs=4 / np.sqrt(rows))
    assert step.rewards.std() == pytest.approx(1.0, abs=0.02)
    states = step.observations.argmax(1)
    here = states == 4
    after = env.advance(np.full(rows, 1)).observations.argmax(1)[here]
    counts = np.bincount(after, minlength=NUM_STATES) / len(after)
    np.testing.assert_allclose(counts, transitions[4, 1], atol=4 * 0.5 / np.sqrt(len(after)))


def test_a_tabular_episode_takes_ten_steps() -> None:
    env = TabularMdp().make_env(1)
    env.set_tasks(RandomMdps().sample(1, np.random.default_rng(0)))
    env.reset(seed=0)
    assert [bool(env.advance(np.zeros(1, dtype=np.int64)).truncated[0]) for _ in range(10)] == [False] * 9 + [True]


@pytest.mark.thorough
def test_a_tabular_regret_is_the_return_that_an_action_loses() -> None:
    tasks = RandomMdps().sample(3, np.random.default_rng(0))
    rows = 3 * 4000
    env = TabularMdp().make_env(rows, horizon=4)
    env.set_tasks([task for task in tasks for _ in range(4000)])
    rng = np.random.default_rng(1)
    env.reset(seed=0)
    steps = [env.advance(rng.integers(0, NUM_ACTIONS, rows)) for _ in range(4)]
    # The last step's, by hand; and whatever is played, rewards and regrets together make up the best return.
    states, last = steps[-2].observations.argmax(1), steps[-1].infos["regret"]
    means = np.array([np.reshape(task["mean_rewards"], (NUM_STATES, NUM_ACTIONS)) for task in tasks])
    best = means.max(2)[np.repeat(np.arange(3), 4000), states]
    assert (last <= best - means.min() + 1e-6).all()
    assert (last == 0).mean() == pytest.approx(1 / NUM_ACTIONS, abs=0.02)
    made_up = sum(step.rewards + step.infos["regret"] for step in steps).reshape(3, 4000)
    for row, task in zip(made_up, tasks, strict=True):
        assert row.mean() == pytest.approx(_best_return(task, 4, 0), abs=4 * row.std() / np.sqrt(4000))


def _best_return(task: Task, steps: int, state: int) -> float:
    """Expected return of the best policy from a state on, by recursion."""
    values = np.zeros(NUM_STATES)
    transitions = np.reshape(task["transitions"], (NUM_STATES, NUM_ACTIONS, NUM_STATES))
    means = np.reshape(task["mean_rewards"], (NUM_STATES, NUM_ACTIONS))
    for _ in range(steps):
        values = np.array(
            [max(means[s, a] + transitions[s, a] @ values for a in range(NUM_ACTIONS)) for s in range(NUM_STATES)]
        )
    return float(values[state])


def test_random_mdps_are_flat_dirichlet_with_mean_rewards_about_one() -> None:
    tasks = RandomMdps().sample(200, np.random.default_rng(0))
    transitions = np.array([task["transitions"] for task in tasks])
    means = np.array([task["mean_rewards"] for task in tasks])
    # a component of Dirichlet(1, ..., 1) over ten has mean 1/10 and variance 9/1100; 10,000 rows of ten
    assert transitions.mean() == pytest.approx(0.1, abs=1e-9)
    assert transitions.var() == pytest.approx(9 / 1100, rel=0.03)
    assert means.mean() == pytest.approx(1.0, abs=4 / np.sqrt(means.size))
    assert means.std() == pytest.approx(1.0, abs=0.03)


def test_transitions_that_are_no_probabilities_are_refused() -> None:
    task = RandomMdps().sample(1, np.random.default_rng(0))[0]
    transitions = list(task["transitions"])  # type: ignore[arg-type]
    transitions[7 * 5 * 10 + 2 * 10] += 0.25 - transitions[7 * 5 * 10 + 2 * 10]
    wrong = Task.of("tabular-mdp", transitions=transitions, mean_rewards=task["mean_rewards"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="of state 7 and action 2 must sum to 1, got"):
        TabularMdp().check(wrong)


def test_a_walk_on_the_grid_earns_a_tenth_off_until_the_goal_and_one_on_it() -> None:
    env = GridNavi().make_env(1)
    env.set_tasks([Task.of("gridnavi", goal=(2.0, 1.0))])
    observations, _ = env.reset(seed=0)
    assert observations.tolist() == [[0, 0]]
    walk = [3, 4, 2, 1, 2, 0]  # down and left into the walls, right, up, right onto the goal, stay
    cells = [(0, 0), (0, 0), (1, 0), (1, 1), (2, 1), (2, 1)]
    for action, cell in zip(walk, cells, strict=True):
        step = env.advance(np.array([action]))
        assert step.observations.tolist() == [list(cell)]
        assert step.rewards[0] == (1.0 if cell == (2, 1) else -0.1)
        assert step.infos["success"][0] == (cell == (2, 1))


def test_every_action_moves_its_own_way_on_the_grid() -> None:
    env = GridNavi().make_env(5)
    env.set_tasks([Task.of("gridnavi", goal=(4.0, 4.0))] * 5)
    env.reset(seed=0)
    for action in (1, 2):  # to (1, 1), away from the walls
        env.advance(np.full(5, action))
    step = env.advance(np.arange(5))  # no-op, up, right, down, left
    assert step.observations.tolist() == [[1, 1], [1, 2], [2, 1], [1, 0], [0, 1]]


def test_the_grid_has_a_wall_on_all_four_sides() -> None:
    env = GridNavi().make_env(4)
    env.set_tasks([Task.of("gridnavi", goal=(2.0, 1.0))] * 4)
    env.reset(seed=0)
    for _ in range(6):
        step = env.advance(np.array([1, 2, 3, 4]))  # up, right, down, left
    assert step.observations.tolist() == [[0, 4], [4, 0], [0, 0], [0, 0]]


def test_goals_are_the_21_cells_away_from_the_start() -> None:
    assert len(GOALS) == len(set(GOALS)) == 21
    assert {(0, 0), (0, 1), (1, 1), (1, 0)}.isdisjoint(GOALS)


def test_the_sign_is_shown_once_and_the_right_arm_pays() -> None:
    env = TMaze(3).make_env(2)
    env.set_tasks([Task.of("tmaze-3", way=1.0), Task.of("tmaze-3", way=-1.0)])
    observations, _ = env.reset(seed=0)
    assert observations.tolist() == [[1, 1, 0], [-1, 1, 0]]
    for place in (1, 2, 3):
        step = env.advance(np.array([0, 0]))
        assert step.observations.tolist() == [[0, 0, place == 3]] * 2
        assert step.rewards.tolist() == [0, 0]
    step = env.advance(np.array([2, 2]))  # up
    assert step.terminated.tolist() == [True, True]
    assert step.rewards.tolist() == [1, 0]
    assert step.infos["success"].tolist() == [1, 0]


def test_falling_behind_in_a_corridor_costs_a_step_each() -> None:
    env = TMaze(4).make_env(3, horizon=6)
    env.set_tasks([Task.of("tmaze-4", way=1.0)] * 3)
    env.reset(seed=0)
    returns = np.zeros(3)
    for actions in ([2, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0], [2, 0, 0]):
        step = env.advance(np.array(actions))
        returns += step.rewards
    # into the wall and one behind ever after, then right; one back, two behind; at the junction, waiting twice
    assert returns.tolist() == [1 - 5 / 4, -5 / 4, -2 / 4]
    assert step.terminated.tolist() == [True, False, False]
    assert step.truncated[1:].tolist() == [True, True]


@pytest.mark.parametrize("name", ["tmaze-", "tmaze-0", "tmaze-x", "tmaze--3", "tmaze-99999999999"])
def test_a_length_that_is_none_is_said(name: str) -> None:
    with pytest.raises(ValueError, match="T-maze"):
        make_benchmark(name)
