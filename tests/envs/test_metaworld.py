"""Meta-World: tasks are data, splits do not leak, the faster step is the same, experts succeed."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import metaworld
import numpy as np
import pytest
import torch
from metaworld.env_dict import ALL_V3_ENVIRONMENTS, ML10_V3, ML25_V3, ML45_V3
from metaworld.policies import ENV_POLICY_MAP

from metarl.agent import Actions, Outcome
from metarl.envs import make_benchmark
from metarl.envs.metaworld.benchmarks import TasksByEnvironment, custom_benchmark
from metarl.envs.metaworld.family import MetaWorld, environment
from metarl.envs.metaworld.sawyer import ENVIRONMENTS, new_environment
from metarl.envs.metaworld.vectors import VECTORS
from metarl.evaluation import adaptation_curve
from metarl.tasks import Task, load_tasks, save_tasks
from metarl.trajectories import Trajectories
from metarl.workers import EnvMaker, Workers

FEW = ("push-v3", "stick-push-v3", "peg-insert-side-v3", "disassemble-v3")
"""Environments with one object and two, with contacts looked at, and with rotations from scipy."""


def package_environment(name: str, vector: tuple[float, ...], *, goal_observed: bool = False) -> Any:
    """The package's own environment with a task, set the package's own way."""
    env = ALL_V3_ENVIRONMENTS[name]()
    data = {"rand_vec": np.array(vector), "env_cls": type(env), "partially_observable": not goal_observed}
    env.set_task(metaworld._encode_task(name, data))
    return env


def held_actions(seed: int, steps: int) -> np.ndarray:
    """Actions that go somewhere: directions held for ten steps, and a gripper that opens and closes."""
    rng = np.random.default_rng(seed)
    actions = rng.uniform(-1, 1, (steps, 4)).astype(np.float32)
    actions[:, :3] = np.repeat(actions[::10, :3], 10, 0)[:steps]
    return actions


def compare(name: str, steps: int) -> None:
    """Two tasks of an environment, our steps between those of a neighbour that shares the model."""
    rng = np.random.default_rng(0)
    ours, neighbour = new_environment(name), new_environment(name)
    neighbour.give(np.array(VECTORS[name].draw(rng)), goal_observed=False)
    for goal_observed in (False, True):
        vector = VECTORS[name].draw(rng)
        theirs = package_environment(name, vector, goal_observed=goal_observed)
        ours.give(np.array(vector), goal_observed=goal_observed)
        expected, found = theirs.reset()[0], ours.reset()[0]
        neighbour.reset()
        assert expected.tobytes() == found.tobytes()
        for t, action in enumerate(held_actions(1, steps)):
            if t % 7 == 0:
                neighbour.step(action)
            expected, found = theirs.step(action), ours.step(action)
            assert expected[0].tobytes() == found[0].tobytes(), f"observation at step {t}"
            assert expected[1:] == found[1:], f"step {t}"


@pytest.mark.thorough
@pytest.mark.parametrize("name", FEW)
def test_the_faster_step_equals_the_packages(name: str) -> None:
    compare(name, 60)


@pytest.mark.slow
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_faster_step_equals_the_packages_over_episodes_of_every_environment(name: str) -> None:
    compare(name, 500)


@pytest.mark.thorough
def test_the_packages_own_step_is_an_option_and_shares_the_model_too() -> None:
    rng = np.random.default_rng(0)
    vectors = [VECTORS["push-v3"].draw(rng) for _ in range(2)]
    envs = [new_environment("push-v3", fast_step=False) for _ in vectors]
    assert envs[0].model is envs[1].model
    assert type(envs[0]).__mro__[2] is ALL_V3_ENVIRONMENTS["push-v3"]
    theirs = [package_environment("push-v3", vector) for vector in vectors]
    for env, vector in zip(envs, vectors, strict=True):
        env.give(np.array(vector), goal_observed=False)
    assert [e.reset()[0].tobytes() for e in envs] == [t.reset()[0].tobytes() for t in theirs]
    for action in held_actions(1, 30):
        for env, their in zip(envs, theirs, strict=True):
            expected, found = their.step(action), env.step(action)
            assert expected[0].tobytes() == found[0].tobytes()
            assert expected[1:] == found[1:]


@pytest.mark.thorough
def test_a_version_of_the_reward_is_passed_on() -> None:
    vector = np.array(VECTORS["reach-v3"].draw(np.random.default_rng(0)))
    for version in ("v1", "v2"):
        env = MetaWorld(reward_version=version).new_environment("reach-v3")
        theirs = ALL_V3_ENVIRONMENTS["reach-v3"](reward_function_version=version)
        theirs._last_rand_vec, theirs._set_task_called = vector, True
        env.give(vector, goal_observed=False)  # type: ignore[attr-defined]
        rewards = []
        for made in (env, theirs):
            made.reset()
            rewards.append([float(made.step(np.array([0, 1, 0, 0], np.float32))[1]) for _ in range(10)])
        assert rewards[0] == rewards[1]
        assert (max(rewards[0]) > 10) == (version == "v1")


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_vectors_are_drawn_from_the_packages_bounds(name: str) -> None:
    """Read off the class's source, because building all 50 takes a while; the slow test builds them."""
    vectors = VECTORS[name]
    assert len(vectors.low) == len(vectors.high) in (3, 6)
    assert (np.array(vectors.low) <= np.array(vectors.high)).all()
    drawn = [vectors.draw(np.random.default_rng(seed)) for seed in range(20)]
    for vector in drawn:
        vectors.check(vector)
    assert len(set(drawn)) == 20


@pytest.mark.slow
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_bounds_and_distances_are_the_packages(name: str) -> None:
    """The package draws until a vector suits it: its draws pass our check, and ours are as close as its."""
    env = new_environment(name)
    space = env._random_reset_space
    assert VECTORS[name].low == tuple(space.low)
    assert VECTORS[name].high == tuple(space.high)
    env._set_task_called, env._freeze_rand_vec, env.seeded_rand_vec = True, False, True
    env.seed(0)
    env._reset_hand = lambda steps=50: setattr(env, "init_tcp", env.tcp_center)
    kept = []
    for _ in range(100):
        env.reset()
        kept.append(tuple(float(x) for x in env._last_rand_vec))
    for vector in kept:
        VECTORS[name].check(vector)
    if VECTORS[name].apart:
        rng = np.random.default_rng(0)
        ours = [VECTORS[name]._distance(np.array(VECTORS[name].draw(rng))) for _ in range(100)]
        theirs = [VECTORS[name]._distance(np.array(vector)) for vector in kept]
        assert min(theirs) == pytest.approx(min(ours), abs=0.05)  # neither keeps closer ones than the other


@pytest.mark.parametrize(("name", "split"), [("ml10", ML10_V3), ("ml25", ML25_V3), ("ml45", ML45_V3)])
def test_splits_are_the_packages(name: str, split: Any) -> None:
    benchmark = make_benchmark(name)
    for ours, theirs in ((benchmark.train, split["train"]), (benchmark.test, split["test"])):
        assert isinstance(ours, TasksByEnvironment)
        assert Counter(environment(task) for task in ours.tasks) == dict.fromkeys(theirs, 50)


@pytest.mark.parametrize(
    "name", ["ml10", "ml25", "ml45", "ml:reach,push/push,drawer-open", *(f"ml1-{e[:-3]}" for e in FEW)]
)
def test_train_and_test_share_no_task(name: str) -> None:
    benchmark = make_benchmark(name)
    assert isinstance(benchmark.train, TasksByEnvironment)
    assert isinstance(benchmark.test, TasksByEnvironment)
    train, test = set(benchmark.train.tasks), set(benchmark.test.tasks)
    assert len(train) == len(benchmark.train.tasks)
    assert len(test) == len(benchmark.test.tasks)
    assert train.isdisjoint(test)
    assert not {hash(task["rand_vec"]) for task in train} & {hash(task["rand_vec"]) for task in test}


def test_goals_of_other_seeds_are_others_in_both_splits() -> None:
    first, second = (custom_benchmark(["reach"], ["reach"], seed=seed) for seed in (0, 1))
    sets = [set(part.tasks) for b in (first, second) for part in (b.train, b.test)]  # type: ignore[attr-defined]
    assert len(set().union(*sets)) == 200  # Meta-World's own test goals of a seed are the next one's to train on


def test_a_sample_has_every_environment_equally_often() -> None:
    train = make_benchmark("ml10").train
    for count in (20, 25, 7, 500):
        tasks = train.sample(count, np.random.default_rng(0))
        by_name = Counter(environment(task) for task in tasks)
        assert len(tasks) == count
        assert len(by_name) == min(10, count)
        assert max(by_name.values()) - min(by_name.values()) <= 1
    assert len(set(train.sample(500, np.random.default_rng(0)))) == 500


def test_fresh_goals_are_drawn_anew_and_the_test_goals_stay() -> None:
    fixed, fresh = make_benchmark("ml10"), make_benchmark("ml10+fresh-goals")
    rng = np.random.default_rng(0)
    drawn = [task for _ in range(5) for task in fresh.train.sample(200, rng)]
    assert len(set(drawn)) == 1000
    assert set(drawn).isdisjoint(fresh.test.sample(250, rng))
    assert set(Counter(environment(task) for task in drawn).values()) == {100}
    for task in drawn:
        fresh.family.check(task)
    assert set(fresh.test.sample(250, rng)) == set(fixed.test.sample(250, rng))


def test_tasks_go_through_json(tmp_path: Path) -> None:
    benchmark = make_benchmark("ml10")
    tasks = benchmark.test.sample(10, np.random.default_rng(0))
    save_tasks(tmp_path / "tasks.json", tasks)
    assert load_tasks(tmp_path / "tasks.json", benchmark.family) == tasks
    assert json.loads((tmp_path / "tasks.json").read_text())[0]["family"].startswith("meta-world/")


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (Task.of("half-cheetah-dir", direction=1.0), "expected a task of family 'meta-world/ENVIRONMENT'"),
        (
            Task.of("meta-world/fly-v3", rand_vec=(0.0, 0.8, 0.1)),
            "environment 'fly-v3'; known: ",
        ),
        (
            Task.of("meta-world/reach-v3", goal=(0.0, 0.8, 0.1)),
            "exactly the parameter 'rand_vec', got \\['goal'\\]",
        ),
        (Task.of("meta-world/reach-v3", rand_vec=(0.0, 0.8, 0.1)), "must be a list of 6 numbers"),
        (Task.of("meta-world/reech-v3", rand_vec=(0.0, 0.8, 0.1)), "'reech-v3'; did you mean reach"),
        (
            Task.of("meta-world/drawer-open-v3", rand_vec=(0, 0.6, 0)),
            "open-v3': rand_vec.1. .position y",
        ),
        (
            Task.of("meta-world/reach-v3", rand_vec=(0, 0.6, 0.02, 0, 0.8, 3)),
            "rand_vec.5. .goal z. must be",
        ),
        (Task.of("meta-world/box-close-v3", rand_vec=(0, 0.55, 0.02, 0, 0.7, 0.133)), "at least 0.25 m apart"),
    ],
)
def test_a_task_that_is_not_one_is_refused(task: Task, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        MetaWorld().check(task)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ml1-fly", "unknown Meta-World environment 'fly'; known: assembly, "),
        ("ml1-pick-plase", "unknown Meta-World environment 'pick-plase'; did you mean pick-place"),
        ("ml11", "unknown benchmark 'ml11'; Meta-World's are: ml1-ENVIRONMENT, ml10"),
        ("ml10+goals", "unknown options in 'ml10\\+goals'"),
        ("ml:reach,reach/push", "an environment must be given once, got reach, reach"),
    ],
)
def test_a_benchmark_that_is_not_there_is_refused(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make_benchmark(name)


def test_more_steps_than_an_episode_has_are_refused() -> None:
    with pytest.raises(ValueError, match="meta-world has at most 500 steps in an episode, got the horizon 501"):
        MetaWorld().make_env(1, horizon=501)


def test_a_pickled_task_of_the_package_is_not_loaded() -> None:
    with pytest.raises(TypeError, match="a pickle, which is not loaded"):
        new_environment("reach-v3").set_task(metaworld.types.Task("reach-v3", b""))


def test_goals_are_hidden_unless_asked_for() -> None:
    for name, hidden in (("ml1-reach", True), ("ml1-reach+goal-observed", False)):
        benchmark = make_benchmark(name)
        [task] = benchmark.train.sample(1, np.random.default_rng(0))
        env = benchmark.family.make_env(1, num_threads=1)
        env.set_tasks([task])
        observations, _ = env.reset(seed=0)
        after = env.advance(np.zeros((1, 4), np.float32)).observations
        goal = np.array(task["rand_vec"])[3:]
        for found in (observations, after):
            assert np.array_equal(found[0, 36:], np.zeros(3) if hidden else goal)
        env.close()


class Expert:
    """Meta-World's scripted policies as an actor: they see the goal."""

    sequential = False

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._policies = [ENV_POLICY_MAP[name]() for name in names]

    def select(self, tasks: slice) -> "Expert":
        return Expert(self._names[tasks])

    def begin(self, task_seeds: np.ndarray, num_parallel: int) -> None:
        pass

    def begin_episode(self) -> None:
        pass

    def observe(self, outcome: Outcome) -> None:
        pass

    def act(self, observations: torch.Tensor) -> Actions:
        rows = [
            [policy.get_action(row) for row in of_task]
            for policy, of_task in zip(self._policies, observations.double().numpy(), strict=True)
        ]
        actions = np.clip(np.array(rows), -1, 1).astype(np.float32)
        return Actions(actions, torch.from_numpy(actions), {})

    def adapt(self, trajectories: Trajectories) -> "Expert":
        return self


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:Constant")  # a scripted policy asks for more than an action can be
def test_scripted_experts_succeed_and_the_idle_do_not() -> None:
    """Through our workers and our evaluation, where a success at any step counts."""
    benchmark = make_benchmark("ml:reach,push,drawer-open/reach,push,drawer-open+goal-observed")
    tasks = sorted(benchmark.test.sample(12, np.random.default_rng(0)), key=environment)
    experts = Expert([environment(task) for task in tasks])
    with Workers(EnvMaker(benchmark.family, 150), num_threads=1) as workers:
        curve = adaptation_curve(experts, workers, tasks, np.random.default_rng(0), num_steps=0, num_episodes=1)
        assert curve.successes is not None
        rates = {
            name: float(np.mean([curve.successes[0, i] for i, t in enumerate(tasks) if environment(t) == name]))
            for name in ("reach-v3", "push-v3", "drawer-open-v3")
        }
        assert min(rates.values()) >= 0.75, rates
        assert np.mean(list(rates.values())) >= 0.9, rates
        idle = workers.collect(Idle(), tasks, 1, seed=0).successes()
    assert idle is not None
    assert not idle.any()


class Idle(Expert):
    """Holds the hand still."""

    def __init__(self) -> None:
        super().__init__([])

    def act(self, observations: torch.Tensor) -> Actions:
        actions = np.zeros((*observations.shape[:2], 4), np.float32)
        return Actions(actions, torch.from_numpy(actions), {})


@pytest.mark.thorough
def test_results_do_not_depend_on_the_number_of_processes() -> None:
    benchmark = make_benchmark("ml10")
    tasks = benchmark.train.sample(4, np.random.default_rng(0))
    actions = np.stack([held_actions(row, 5) for row in range(4)], 1)
    found = []
    for threads in (1, 2):
        env = benchmark.family.make_env(4, num_threads=threads)
        env.set_tasks(tasks)
        observations, _ = env.reset(seed=0)
        steps = [env.advance(action) for action in actions]
        found.append([observations.tobytes()] + [s.observations.tobytes() + s.rewards.tobytes() for s in steps])
        env.close()
    assert found[0] == found[1]
