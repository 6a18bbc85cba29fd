"""Reference strategies: their indices, posteriors and plans by hand."""

import itertools

import numpy as np
import pytest
import torch

from metarl.agent import Actor, Outcome
from metarl.agents.strategies import bandits, mdps
from metarl.agents.strategies.grid import SearchThenGo, search_order
from metarl.envs import make_benchmark
from metarl.envs.toy.gridnavi import GOALS, GridNavi
from metarl.experiments.references import reference_actors
from metarl.tasks import Task, TaskFamily
from metarl.workers import EnvMaker, Workers

NOTHING = torch.zeros(1, 1, 1)


def _begun(actor: bandits.BanditStrategy, pulls: list[float], paid: list[float], num_tasks: int = 1) -> None:
    """Start the actor on tasks of which this is known."""
    actor.begin(np.arange(num_tasks, dtype=np.uint64), 1)
    actor.pulls[:] = pulls
    actor.paid[:] = paid


def _outcome(rewards: list[float], observations: torch.Tensor | None = None) -> Outcome:
    shape = (len(rewards), 1)
    no, yes = torch.zeros(shape, dtype=torch.bool), torch.ones(shape, dtype=torch.bool)
    seen = torch.zeros(*shape, 1) if observations is None else observations
    return Outcome(seen, torch.tensor(rewards).view(shape), no, yes, yes, {})


def _collect(actor: Actor, family: TaskFamily, tasks: list[Task], num_episodes: int) -> np.ndarray:
    with Workers(EnvMaker(family, None), num_threads=1) as workers:
        returns: np.ndarray = workers.collect(actor, tasks, num_episodes, seed=2).returns().double().numpy()
    return returns


# Bandits


@pytest.mark.parametrize(
    ("gamma", "successes", "failures", "index"),
    [  # Gittins 1989, tables of the Bernoulli reward process; an arm's prior counts as one of each
        (0.5, 0, 0, 0.5590),
        (0.9, 0, 0, 0.7029),
        (0.9, 1, 0, 0.8001),
        (0.9, 2, 0, 0.8452),
        (0.9, 0, 1, 0.5001),
        (0.9, 1, 1, 0.6346),
        (0.9, 2, 1, 0.7072),
        (0.95, 0, 0, 0.7614),
        (0.99, 0, 0, 0.8699),
    ],
)
def test_gittins_indices_are_the_published_ones(gamma: float, successes: int, failures: int, index: float) -> None:
    table = bandits.gittins_indices(3, gamma)
    assert table[successes, failures] == pytest.approx(index, abs=2e-4)


def test_gittins_indices_exceed_the_mean_and_rise_with_gamma() -> None:
    patient, hasty = bandits.gittins_indices(6, 0.95), bandits.gittins_indices(6, 0.5)
    for successes, failures in ((0, 0), (2, 1), (1, 5), (6, 0)):
        mean = (successes + 1) / (successes + failures + 2)
        assert mean < hasty[successes, failures] < patient[successes, failures] < 1


def test_greedy_pulls_the_best_mean_and_the_first_of_equals() -> None:
    greedy = bandits.Greedy(3)
    _begun(greedy, [4, 2, 0], [1, 2, 0])
    assert greedy.means() == pytest.approx(np.array([[2 / 6, 3 / 4, 1 / 2]]))
    assert greedy.act(NOTHING).env_actions.tolist() == [[1]]
    _begun(greedy, [2, 2, 0], [1, 1, 0])
    assert greedy.act(NOTHING).env_actions.tolist() == [[0]]


def test_a_pull_is_counted_for_its_arm_alone() -> None:
    greedy = bandits.Greedy(2)
    greedy.begin(np.arange(2, dtype=np.uint64), 1)
    greedy.paid[1, 1] = greedy.pulls[1, 1] = 1.0
    assert greedy.act(torch.zeros(2, 1, 1)).actions.tolist() == [[0], [1]]
    greedy.observe(_outcome([1.0, 0.0]))
    assert greedy.pulls.tolist() == [[1, 0], [0, 2]]
    assert greedy.paid.tolist() == [[1, 0], [0, 1]]


def test_ucb1_bounds_by_hand() -> None:
    ucb1 = bandits.Ucb1(2, bonus=0.2)
    _begun(ucb1, [3, 0], [2, 0])
    # The fourth pull; with the prior 3 of 5 and 1 of 2: 0.6 + 0.2 sqrt(2 ln 4 / 5), 0.5 + 0.2 sqrt(2 ln 4 / 2).
    assert ucb1.scores() == pytest.approx(np.array([[0.74893, 0.73548]]), abs=1e-5)


def test_thompson_sampling_pulls_an_arm_as_often_as_it_is_best() -> None:
    thompson = bandits.Thompson(2)
    _begun(thompson, [0, 1], [0, 1], num_tasks=100)
    second = np.concatenate([thompson.scores().argmax(1) for _ in range(200)])
    # P(U < X) for U ~ Beta(1, 1), X ~ Beta(2, 1) is E[X] = 2/3; 4 standard errors of 20000 draws are 0.0133.
    assert second.mean() == pytest.approx(2 / 3, abs=0.0133)


@pytest.mark.parametrize("shape", [1.0, 2.5, 300.0])
def test_gamma_variates_have_their_mean_variance_and_skewness(shape: float) -> None:
    normals = np.random.default_rng(0).standard_normal((1000, 2, 3, 100), np.float32)
    variates = bandits.gamma_variates(np.full((1000, 100), shape), normals).astype(np.float64)
    standardised = (variates - shape) / np.sqrt(shape)
    # 100000 draws; 4 standard errors at most: 0.013, 0.036 (kurtosis 9 at shape 1), and 0.3.
    assert standardised.mean() == pytest.approx(0.0, abs=0.013)
    assert (standardised**2).mean() == pytest.approx(1.0, abs=0.036)
    assert (standardised**3).mean() == pytest.approx(2 / np.sqrt(shape), abs=0.3)


def test_optimistic_thompson_sampling_never_falls_below_the_mean() -> None:
    plain, optimistic = bandits.Thompson(3), bandits.OptimisticThompson(3)
    for actor in (plain, optimistic):
        _begun(actor, [9, 2, 0], [3, 1, 0], num_tasks=50)
    expected = np.maximum(plain.scores(), [4 / 11, 2 / 4, 1 / 2])
    np.testing.assert_array_equal(optimistic.scores(), expected)


def test_likeliest_thompson_sampling_keeps_the_sample_of_highest_density() -> None:
    plain, likeliest = bandits.Thompson(2), bandits.LikeliestThompson(2, num_samples=3)
    for actor in (plain, likeliest):
        _begun(actor, [9, 2], [3, 2], num_tasks=50)
    samples = np.stack([plain.scores() for _ in range(3)]).astype(np.float64)  # [sample, task, arm]
    density = samples[..., 0] ** 3 * (1 - samples[..., 0]) ** 6 * samples[..., 1] ** 2
    expected = samples[density.argmax(0), np.arange(50)]
    np.testing.assert_allclose(likeliest.scores(), expected, rtol=1e-6)


def test_normal_thompson_sampling_has_the_posterior_of_the_mean() -> None:
    actor = bandits.NormalThompson(2, prior_count=12.0)
    _begun(actor, [4, 0], [10, 0], num_tasks=200)
    drawn = np.stack([actor.scores() for _ in range(100)]).reshape(-1, 2)
    # Prior 12 pulls of mean 0.5, so (6 + 10) / 16 and 1/2; deviations 1 / sqrt(count). 20000 draws, 4 errors.
    assert drawn.mean(0) == pytest.approx(np.array([1.0, 0.5]), abs=0.0082)
    assert drawn.std(0) == pytest.approx(np.array([0.25, 12**-0.5]), abs=0.006)


def test_epsilon_greedy_pulls_any_arm_with_probability_epsilon() -> None:
    actor = bandits.EpsilonGreedy(4, epsilon=0.4)
    _begun(actor, [0, 1, 0, 0], [0, 1, 0, 0], num_tasks=100)
    arms = np.concatenate([actor.scores().argmax(1) for _ in range(200)])
    # 4 standard errors of 20000 draws are at most 0.0130.
    assert np.bincount(arms) / len(arms) == pytest.approx(np.array([0.1, 0.7, 0.1, 0.1]), abs=0.013)


def test_random_pulls_earn_a_half() -> None:
    pulls = 10
    benchmark = make_benchmark("bernoulli-bandit-k5")
    tasks = benchmark.test.sample(1000, np.random.default_rng(1))
    rewards = _collect(bandits.Random(5), benchmark.family, tasks, pulls).sum(1)
    assert rewards.mean() == pytest.approx(0.5 * pulls, abs=4 * rewards.std() / 1000**0.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bandits.Greedy(1), "at least 2 arms"),
        (lambda: bandits.EpsilonGreedy(2, epsilon=1.5), "epsilon"),
        (lambda: bandits.Ucb1(2, bonus=-1.0), "bonus"),
        (lambda: bandits.Gittins(2, 10, gamma=1.0), "gamma"),
        (lambda: bandits.LikeliestThompson(2, num_samples=0), "num_samples"),
        (lambda: bandits.Greedy(2).begin(np.zeros(1, np.uint64), 2), "2 in parallel"),
        (lambda: mdps.EpsilonGreedy(2, 2, 3, epsilon=-0.1), "epsilon"),
        (lambda: mdps.Beb(2, 2, 3, bonus=-1.0), "bonus"),
        (lambda: mdps.Psrl(2, 2, 3, num_samples=0), "num_samples"),
        (lambda: mdps.Ucrl2(2, 2, 3, scale=-1.0), "scale"),
        (lambda: mdps.Ucrl2(2, 2, 3, scale=1.0, delta=0.0), "delta"),
        (lambda: mdps.Greedy(2, 2, 3).begin(np.zeros(1, np.uint64), 2), "2 in parallel"),
        (lambda: SearchThenGo(2, [(2, 0)], 5), "grid of 2 x 2"),
        (lambda: SearchThenGo(5, [(4, 4)], 7), "8 steps away"),
    ],
)
def test_nonsense_is_rejected(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=message):
        make()


# MDPs


def _random_model(num_tasks: int, num_states: int, num_actions: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    shape = (num_tasks, num_states, num_actions)
    return rng.dirichlet(np.ones(num_states), shape), rng.normal(size=shape)


def test_action_values_are_those_of_the_best_of_all_plans() -> None:
    transitions, rewards = _random_model(3, 2, 2)
    horizon = 3
    best = np.full(3, -np.inf)
    for choices in itertools.product(range(2), repeat=2 * horizon):
        plan = np.array(choices).reshape(horizon, 2)  # [time, state]
        for task in range(3):
            state, earned = np.array([1.0, 0.0]), 0.0
            for actions in plan:
                earned += state @ rewards[task, [0, 1], actions]
                state = state @ transitions[task, [0, 1], actions]
            best[task] = max(best[task], earned)
    values = mdps.action_values(transitions, rewards, horizon=horizon)
    assert values.shape == (3, horizon, 2, 2)
    assert values[:, 0, 0].max(-1) == pytest.approx(best)
    assert values[:, -1] == pytest.approx(rewards)


@pytest.mark.parametrize(
    ("radius", "expected"),
    [(0.0, [0.2, 0.3, 0.5]), (0.4, [0.4, 0.3, 0.3]), (1.4, [0.9, 0.1, 0.0]), (4.0, [1.0, 0.0, 0.0])],
)
def test_optimistic_transitions_by_hand(radius: float, expected: list[float]) -> None:
    moved = mdps.toward_first(np.array([[0.2, 0.3, 0.5]]), np.array([radius]))
    assert moved[0] == pytest.approx(np.array(expected))


def test_optimism_is_planning_in_the_mean_without_radii_and_dreaming_with_wide_ones() -> None:
    transitions, rewards = _random_model(4, 3, 2)
    narrow, wide = np.zeros_like(rewards), np.full_like(rewards, 2.0)
    planned = mdps.action_values(transitions, rewards, horizon=5)
    assert mdps.optimistic_values(transitions, rewards, narrow, horizon=5) == pytest.approx(planned)
    # With an L1 distance of 2 every action can lead to the best state for certain, and does.
    best = rewards.max((1, 2))[:, None, None]
    dreamt = mdps.optimistic_values(transitions, rewards, wide, horizon=5)
    assert dreamt[:, 0] == pytest.approx(rewards + 4 * best)


def _seen(actor: mdps.MdpStrategy) -> None:
    """In one task of 2 states and 2 actions, action 1 led from state 0 twice to state 1, earning 1 and 2."""
    actor.begin(np.zeros(1, dtype=np.uint64), 1)
    actor.transitions[0, 0, 1] = [0, 2]
    actor.earned[0, 0, 1] = 3.0


def test_the_likeliest_model_by_hand() -> None:
    greedy = mdps.Greedy(2, 2, 2)
    _seen(greedy)
    frequencies, rewards = greedy.likeliest_model()
    assert frequencies[0].tolist() == [[[0.5, 0.5], [0.0, 1.0]], [[0.5, 0.5], [0.5, 0.5]]]
    assert rewards[0].tolist() == [[0.0, 1.5], [0.0, 0.0]]
    # With 2 steps to go: action 0 leads to state 0, worth 1.5, half of the time.
    assert greedy.plan()[0].tolist() == [[[0.75, 1.5], [0.75, 0.75]], [[0.0, 1.5], [0.0, 0.0]]]


def test_beb_plans_in_the_posterior_mean_with_its_bonus_by_hand() -> None:
    beb = mdps.Beb(2, 2, 1, bonus=6.0, prior_mean=0.5)
    _seen(beb)
    # Rewards (0.5 + 3) / (1 + 2) where seen and 0.5 elsewhere; bonuses 6 / (1 + 2 + 2) and 6 / (1 + 2).
    assert beb.plan()[0, 0] == pytest.approx(np.array([[2.5, 3.5 / 3 + 1.2], [2.5, 2.5]]))


@pytest.mark.thorough
def test_posterior_samples_have_the_posterior_means_and_deviations() -> None:
    psrl = mdps.Psrl(2, 2, 3, prior_mean=0.5)
    psrl.begin(np.arange(4000, dtype=np.uint64), 1)
    psrl.transitions[:, 0, 1] = [0, 2]
    psrl.earned[:, 0, 1] = 3.0
    transitions, rewards = psrl.sample()
    assert transitions.sum(-1) == pytest.approx(np.ones((4000, 2, 2)))
    # Dirichlet(1, 3) and Dirichlet(1, 1); deviations at most 0.29, so 4 standard errors are 0.0183.
    assert transitions.mean(0)[0, 1] == pytest.approx(np.array([0.25, 0.75]), abs=0.0183)
    assert transitions.mean(0)[1, 0] == pytest.approx(np.array([0.5, 0.5]), abs=0.0183)
    # Normals of deviation 1 / sqrt(3) and 1; 4 standard errors of mean and deviation.
    assert rewards.mean(0)[0] == pytest.approx(np.array([0.5, 3.5 / 3]), abs=0.0633)
    assert rewards.std(0)[0] == pytest.approx(np.array([1.0, 3**-0.5]), abs=0.045)


def test_opsrl_takes_the_highest_of_all_samples_values() -> None:
    psrl, opsrl = mdps.Psrl(3, 2, 4), mdps.Psrl(3, 2, 4, num_samples=3)
    for actor in (psrl, opsrl):
        actor.begin(np.arange(5, dtype=np.uint64), 1)
    np.testing.assert_array_equal(opsrl.plan(), np.max([psrl.plan() for _ in range(3)], axis=0))


def test_ucrl2_radii_by_hand() -> None:
    ucrl2 = mdps.Ucrl2(2, 2, 1, scale=0.5, delta=0.1)
    _seen(ucrl2)
    # t = 3: half of sqrt(7 ln(2 * 2 * 2 * 3 / 0.1) / 2n) is 2.18988 with one visit or none, and 1.54848 with two.
    values = ucrl2.plan()[0, 0]
    assert values == pytest.approx(np.array([[2.18988, 1.5 + 1.54848], [2.18988, 2.18988]]), abs=1e-4)
    greedy, cold = mdps.Greedy(2, 2, 3), mdps.Ucrl2(2, 2, 3, scale=0.0)
    for actor in (greedy, cold):
        _seen(actor)
    assert cold.plan() == pytest.approx(greedy.plan())


def test_equal_actions_are_drawn_by_lot_and_better_ones_are_not() -> None:
    greedy = mdps.Greedy(2, 3, 1)
    greedy.begin(np.arange(3000, dtype=np.uint64), 1)
    greedy.begin_episode()
    one_hot = torch.eye(2)[torch.zeros(3000, dtype=torch.long)].unsqueeze(1)
    chosen = np.bincount(greedy.act(one_hot).env_actions[:, 0]) / 3000
    assert chosen == pytest.approx(np.full(3, 1 / 3), abs=0.0345)  # 4 standard errors
    greedy.earned[:, 0, 2], greedy.transitions[:, 0, 2, 0] = 0.01, 1.0
    greedy.begin_episode()
    assert (greedy.act(one_hot).env_actions == 2).all()


def test_steps_are_counted_where_they_were_made() -> None:
    greedy = mdps.Greedy(3, 2, 2)
    greedy.begin(np.arange(2, dtype=np.uint64), 1)
    greedy.begin_episode()
    states = torch.eye(3)
    actions = greedy.act(states[[0, 2]].unsqueeze(1)).actions[:, 0].tolist()
    greedy.observe(_outcome([0.5, -1.0], states[[1, 2]].unsqueeze(1)))
    expected, earned = np.zeros((2, 3, 2, 3)), np.zeros((2, 3, 2))
    expected[0, 0, actions[0], 1] = expected[1, 2, actions[1], 2] = 1
    earned[0, 0, actions[0]], earned[1, 2, actions[1]] = 0.5, -1.0
    np.testing.assert_array_equal(greedy.transitions, expected)
    np.testing.assert_array_equal(greedy.earned, earned)


# GridNavi


def test_the_search_sees_every_cell_without_a_detour() -> None:
    order = search_order(GOALS, 15)
    assert sorted(order) == sorted(GOALS)
    steps = [abs(x - a) + abs(y - b) for (x, y), (a, b) in itertools.pairwise([(0, 0), *order])]
    assert steps[:14] == [2] + [1] * 13  # a new cell at each step from the second: 15 in all
    assert [x + y for x, y in order[14:]] == [2, 3, 4, 5, 6, 7, 8]  # from (0, 0) again, and straight on
    assert steps[15:] == [1] * 6


def test_the_goal_is_found_stayed_on_and_gone_back_to_straight() -> None:
    tasks = [Task.of("gridnavi", goal=(float(x), float(y))) for x, y in GOALS]
    returns = _collect(SearchThenGo(5, GOALS, 15), GridNavi(), tasks, 4)
    found = {cell: step for step, cell in enumerate(search_order(GOALS, 15)[:14], 2)}
    for (x, y), (first, *later) in zip(GOALS, returns, strict=True):
        step = found.get((x, y), 16)
        assert first == pytest.approx((16 - step) - 0.1 * (step - 1), abs=1e-5)
        assert later == pytest.approx([(16 - x - y) - 0.1 * (x + y - 1)] * 3, abs=1e-5)
    assert returns[:, 0].mean() == pytest.approx(4.0, abs=1e-5)


# All


@pytest.mark.parametrize(
    ("benchmark", "num_episodes", "names"),
    [
        ("bernoulli-bandit-k5", 12, "Random Gittins TS OTS UCB1 epsilon-greedy Greedy"),
        ("gaussian-bandit-k5", 12, "Random TS UCB1 Greedy"),
        ("tabular-mdp", 3, "Random PSRL OPSRL UCRL2 BEB epsilon-greedy Greedy"),
        ("gridnavi", 2, "SearchThenGo"),
        ("half-cheetah-dir", 2, ""),
    ],
)
def test_a_tasks_result_does_not_depend_on_the_batch_around_it(
    benchmark: str, num_episodes: int, names: str
) -> None:
    family = make_benchmark(benchmark).family
    tasks = make_benchmark(benchmark).test.sample(6, np.random.default_rng(0))
    actors = reference_actors(family, num_episodes, [])
    assert list(actors) == names.split()
    for actor in actors.values():
        together = _play(actor, family, tasks, range(6), num_episodes)
        apart = [_play(actor, family, [tasks[i]], [i], num_episodes) for i in range(6)]
        np.testing.assert_array_equal(together, np.concatenate(apart))


def _play(
    actor: Actor, family: TaskFamily, tasks: list[Task], seeds: "list[int] | range", num_episodes: int
) -> np.ndarray:
    """Rewards [task, step] of trials with given seeds."""
    env = family.make_env(len(tasks))
    env.set_tasks(tasks)
    actor.begin(np.array(seeds, dtype=np.uint64), 1)
    rewards = []
    for episode in range(num_episodes):
        observations, _ = env.reset(seed=[100 + s for s in seeds] if episode == 0 else None)
        actor.begin_episode()
        for _ in range(env.max_episode_steps):
            seen = torch.from_numpy(observations).float().unsqueeze(1)
            transition = env.advance(actor.act(seen).env_actions[:, 0])
            observations = transition.observations
            seen = torch.from_numpy(observations).float().unsqueeze(1)
            actor.observe(_outcome(transition.rewards.tolist(), seen))
            rewards.append(transition.rewards)
    env.close()
    return np.stack(rewards, axis=1)
