"""Meta-World in one batch: the package's own step is the truth, for observations, rewards and successes."""

from pathlib import Path
from typing import Any

import metaworld
import numpy as np
import pytest
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.policies import ENV_POLICY_MAP

from metarl.envs import make_benchmark
from metarl.envs.metaworld.batch import MetaWorldEnv
from metarl.envs.metaworld.family import MetaWorld
from metarl.envs.metaworld.skills import SKILLS
from metarl.envs.metaworld.starts import Starts
from metarl.envs.metaworld.vectors import VECTORS
from metarl.tasks import Task

FEW = ("push-v3", "drawer-open-v3", "pick-place-v3", "stick-push-v3")
VERSIONS = ("v1", "v2")


class Package:
    """The package's own environment of a task, whose rewards are computed for actions in double precision."""

    def __init__(self, name: str, vector: tuple[float, ...], version: str, *, goal_observed: bool) -> None:
        env: Any = ALL_V3_ENVIRONMENTS[name](reward_function_version=version)
        data = {"rand_vec": np.array(vector), "env_cls": type(env), "partially_observable": not goal_observed}
        env.set_task(metaworld._encode_task(name, data))
        evaluate = env.evaluate_state
        env.evaluate_state = lambda obs, action: evaluate(obs, action.astype(np.float64))
        self.env, self.policy = env, ENV_POLICY_MAP[name]()  # type: ignore[no-untyped-call]
        self.observation = np.zeros(39)

    def reset(self) -> np.ndarray:
        self.observation = self.env.reset()[0]
        return self.observation

    def expert(self) -> np.ndarray:
        """The action of the scripted policy, which sees the goal."""
        seen = self.observation.copy()
        seen[36:] = self.env._target_pos
        action: np.ndarray = np.clip(self.policy.get_action(seen), -1, 1)
        return action

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, float]:
        self.observation, reward, _, _, info = self.env.step(action)
        return self.observation, float(reward), float(info["success"])


def tasks_of(name: str, count: int) -> list[Task]:
    rng = np.random.default_rng(0)
    return [Task.of(f"meta-world/{name}", rand_vec=VECTORS[name].draw(rng)) for _ in range(count)]


def compare(name: str, version: str, steps: int, *, goal_observed: bool) -> None:
    """Two tasks, an expert's row and a row of random actions each; one row begins anew in between."""
    tasks = [task for task in tasks_of(name, 2) for _ in range(2)]
    env = MetaWorld(reward_version=version, goal_observed=goal_observed).make_env(4, num_threads=2)
    assert isinstance(env, MetaWorldEnv)
    env.set_tasks(tasks)
    theirs = [
        Package(name, task["rand_vec"], version, goal_observed=goal_observed)  # type: ignore[arg-type]
        for task in tasks
    ]
    first, _ = env.reset(seed=0)
    assert first.tobytes() == np.array([their.reset() for their in theirs]).tobytes()
    rng = np.random.default_rng(1)
    held = np.zeros((4, 3))
    for t in range(steps):
        held = rng.uniform(-1, 1, (4, 3)) if t % 10 == 0 else held
        actions = np.concatenate((held, rng.uniform(-1, 1, (4, 1))), axis=1).astype(np.float32)
        actions[::2] = [their.expert() for their in theirs[::2]]
        if t == steps // 2:
            again, _ = env.reset(options={"reset_mask": np.arange(4) == 1})
            assert again[1].tobytes() == theirs[1].reset().tobytes()
        after = env.advance(actions)
        for row, their in enumerate(theirs):
            observation, reward, success = their.step(actions[row])
            assert after.observations[row].tobytes() == observation.tobytes(), f"step {t}, row {row}"
            assert after.rewards[row] == pytest.approx(reward, rel=1e-12, abs=1e-12), f"step {t}, row {row}"
            assert after.infos["success"][row] == success, f"step {t}, row {row}"
    env.close()


def test_every_environment_is_in_the_batch() -> None:
    assert SKILLS.keys() == set(ALL_V3_ENVIRONMENTS)


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:Constant")  # a scripted policy asks for more than an action can be
@pytest.mark.parametrize("name", FEW)
def test_the_batch_equals_the_package(name: str) -> None:
    compare(name, "v2", 24, goal_observed=name == "push-v3")


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:Constant")
@pytest.mark.parametrize("name", ["pick-place-v3", "door-close-v3"])
def test_the_batch_equals_the_package_with_the_older_rewards(name: str) -> None:
    compare(name, "v1", 24, goal_observed=False)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Constant")
@pytest.mark.parametrize("goal_observed", [False, True])
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", sorted(SKILLS))
def test_the_batch_equals_the_package_over_episodes(name: str, version: str, goal_observed: bool) -> None:
    compare(name, version, 450, goal_observed=goal_observed)


def mixture(threads: int) -> tuple[MetaWorldEnv, np.ndarray]:
    benchmark = make_benchmark("ml:reach,push,drawer-open/reach")
    env = benchmark.family.make_env(6, num_threads=threads)
    assert isinstance(env, MetaWorldEnv)
    env.set_tasks(benchmark.train.sample(6, np.random.default_rng(0)))
    return env, np.random.default_rng(1).uniform(-1, 1, (8, 6, 4)).astype(np.float32)


@pytest.mark.thorough
def test_rows_of_a_mixture_do_not_depend_on_threads_or_on_the_rows_stepped_beside_them() -> None:
    (together, actions), (alone, _) = mixture(3), mixture(1)
    assert len({task.family for task in together.tasks}) == 3
    first, _ = together.reset(seed=0)
    again, _ = alone.reset(seed=0)
    assert first.tobytes() == again.tobytes()
    for action in actions:
        after = together.advance(action)
        for rows in (np.array([0, 3, 5]), np.array([1, 2, 4])):
            part = alone.advance(action[rows], rows)
            assert part.observations.tobytes() == after.observations[rows].tobytes()
            assert part.rewards.tobytes() == after.rewards[rows].tobytes()
    together.close()
    alone.close()


def test_some_rows_can_begin_before_the_others() -> None:
    env, actions = mixture(1)
    rows = np.array([0, 3])
    env.reset(options={"reset_mask": np.isin(np.arange(6), rows)})
    after = env.advance(actions[0][rows], rows)
    assert np.isfinite(after.rewards).all()
    env.close()


def test_an_action_that_is_no_number_does_what_it_does_in_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo logs its warning there
    [task] = tasks_of("push-v3", 1)
    their = Package("push-v3", task["rand_vec"], "v2", goal_observed=False)  # type: ignore[arg-type]
    env = MetaWorld().make_env(1)
    env.set_tasks([task])
    assert env.reset(seed=0)[0][0].tobytes() == their.reset().tobytes()
    action = np.array([np.nan, 0, 0, 0], np.float32)
    for _ in range(2):
        after, (observation, reward, _) = env.advance(action[None]), their.step(action)
        assert after.observations[0].tobytes() == observation.tobytes()
        assert after.rewards[0] == reward
    env.close()


def test_a_start_is_computed_once_per_task(monkeypatch: pytest.MonkeyPatch) -> None:
    computed = []
    compute = Starts.compute
    monkeypatch.setattr(Starts, "compute", lambda self, vector: computed.append(vector) or compute(self, vector))
    env = MetaWorld().make_env(4, num_threads=1)
    task, other = tasks_of("reach-v3", 2)
    env.set_tasks([task, task, other, other])
    first, _ = env.reset(seed=0)
    again, _ = env.reset(seed=1)
    assert len(computed) == 2
    assert first.tobytes() == again.tobytes()
    assert first[0].tobytes() != first[2].tobytes()
    env.close()


def test_a_closed_environment_takes_no_tasks() -> None:
    env = MetaWorld().make_env(1)
    env.close()
    with pytest.raises(RuntimeError, match="the environment was closed; make a new one"):
        env.set_tasks(tasks_of("reach-v3", 1))
