"""A user's own environments: a benchmark in one call, and mistakes told in one line that names the environment."""

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from metarl.envs import CustomFamily, UniformTasks
from metarl.runs.cores import WorkerError
from metarl.tasks import Parameter, Task, Transition

ROOT = Path(__file__).resolve().parents[2]
Returned = Callable[["Own"], Any]


class Own(gymnasium.Env[np.ndarray, np.ndarray]):
    """An environment whose resets and steps return what a test wants."""

    observation_space: spaces.Space[Any] = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    metadata: dict[str, Any] = {}  # noqa: RUF012  # Gymnasium's own
    steps = 0
    gravity = 0.0

    def __init__(self, step: Returned, reset: Returned) -> None:
        self._step, self._reset = step, reset

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return self._reset(self)

    def step(self, action: np.ndarray) -> Any:
        self.steps += 1
        return self._step(self)


SEEN = np.zeros(2, np.float32)


def set_gravity(env: gymnasium.Env[Any, Any], task: Task) -> None:
    assert isinstance(env, Own)
    env.gravity = task["gravity"]  # type: ignore[assignment]


def fine(env: Own) -> Any:
    return SEEN, 1.0, False, False, {}


def fine_reset(env: Own) -> Any:
    return SEEN, {}


def own(
    step: Returned = fine, reset: Returned = fine_reset, info_names: tuple[str, ...] = (), **changes: Any
) -> CustomFamily:
    return CustomFamily(
        "own",
        (Parameter("gravity", low=0.0, high=10.0),),
        make=changes.get("make", lambda: Own(step, reset)),
        set_task=changes.get("set_task", set_gravity),
        horizon=5,
        info_names=info_names,
    )


TASK = Task.of("own", gravity=9.0)


def run(family: CustomFamily, steps: int = 1) -> list[Transition]:
    """The steps of one environment in this process."""
    env = family.make_env(1, num_threads=1)
    try:
        env.set_tasks([TASK])
        env.reset(seed=0)
        return [env.advance(np.zeros((1, 1), np.float32)) for _ in range(steps)]
    finally:
        env.close()


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        (None, "the reward must be a number, got None"),
        ("good", r"the reward must be a number, got 'good' \(str\)"),
        (np.ones(1), r"the reward must be a number, got an array of shape \(1,\)"),
        ([1.0], r"the reward must be a number, got \[1.0\] \(list\)"),
        (float("nan"), "the reward must be finite, got nan"),
        (np.float32(np.inf), "the reward must be finite, got inf"),
    ],
)
def test_a_reward_that_is_no_number_is_told(reward: object, said: str) -> None:
    with pytest.raises(ValueError, match=rf"^own \(gravity=9.0\): {said}$"):
        run(own(lambda env: (SEEN, reward, False, False, {})))


@pytest.mark.parametrize("reward", [1, 1.0, np.float32(1), np.float64(1), np.ones(()), True, np.int64(1)])
def test_every_number_is_a_reward(reward: Any) -> None:
    assert run(own(lambda env: (SEEN, reward, False, False, {})))[0].rewards.tolist() == [1.0]


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ((SEEN, 1.0, False, {}), "step must return .*, got 4 values; the old Gym API's done is terminated or"),
        (None, "step must return .*, got None"),
        ((SEEN, 1.0, False, False, {}, 0), "step must return .*, got 6 values"),
        ((SEEN, 1.0, None, False, {}), "terminated must be true or false, got None"),
        ((SEEN, 1.0, False, np.zeros(1, bool), {}), r"truncated must be .*, got an array of shape \(1,\)"),
        ((SEEN, 1.0, False, False, None), "the info must be a dictionary, got None"),
        ((np.zeros(3, np.float32), 1.0, False, False, {}), r"float32 of shape \(2,\), got shape \(3,\)"),
        ((["a", "b"], 1.0, False, False, {}), r"observations must .*, got <U1: \['a', 'b'\] \(list\)"),
        (([[1], [1, 2]], 1.0, False, False, {}), r"observations must .*, got \[\[1\], \[1, 2\]\] \(list\)"),
        ((None, 1.0, False, False, {}), r"observations must .*, got shape \(\)"),
    ],
)
def test_what_a_step_must_not_return_is_told(returned: object, said: str) -> None:
    with pytest.raises(ValueError, match=rf"^own \(gravity=9.0\): .*{said}"):
        run(own(lambda env: returned))


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (SEEN, r"reset must return \(observation, info\), got an array of shape \(2,\)"),
        ((SEEN, None), r"reset must return \(observation, info\), got "),
        ((np.zeros((2, 2), np.float32), {}), r"float32 of shape \(2,\), got shape \(2, 2\)"),
    ],
)
def test_what_a_reset_must_not_return_is_told(returned: object, said: str) -> None:
    with pytest.raises(ValueError, match=rf"^own \(gravity=9.0\): .*{said}"):
        run(own(reset=lambda env: returned))


class Old(Own):
    """Of the old API: resets take no seed."""

    def reset(self) -> Any:  # type: ignore[override]
        return SEEN


def test_a_reset_without_a_seed_is_told() -> None:
    with pytest.raises(ValueError, match=r"^own \(gravity=9.0\): reset must take the keyword seed"):
        run(own(make=lambda: Old(fine, fine_reset)))


def test_an_image_of_other_integers_is_taken_and_of_fractions_refused() -> None:
    class Image(Own):
        observation_space = spaces.Box(0, 255, (2, 2, 1), np.uint8)

    def family(pixel: float) -> CustomFamily:
        picture = np.full((2, 2, 1), pixel)
        return own(
            make=lambda: Image(
                lambda env: (picture, 0.0, False, False, {}), lambda env: (np.zeros_like(picture), {})
            )
        )

    seen = run(family(200.0))[0].observations
    assert (seen.dtype, seen.shape, seen.max()) == (np.uint8, (1, 2, 2, 1), 200)
    with pytest.raises(ValueError, match=r"uint8 of shape \(2, 2, 1\), got float64"):
        run(family(0.5))


def test_observations_that_are_no_arrays_are_refused() -> None:
    class Words(Own):
        observation_space = spaces.Text(5)

    with pytest.raises(
        ValueError, match=r"own: observations must be of a Box, .* or of a Dict or Tuple of these, got Text"
    ):
        own(make=lambda: Words(fine, fine_reset)).make_env(1)


def test_an_info_only_at_the_last_step_is_taken_and_counts() -> None:
    def last(env: Own) -> Any:
        return SEEN, 0.0, env.steps == 3, False, {"is_success": True} if env.steps == 3 else {}

    for names in (("success",), ("is_success",)):
        transitions = run(own(last, info_names=names), 3)
        assert [t.infos["success"][0] for t in transitions] == [0.0, 0.0, 1.0]


def test_an_info_counts_for_the_step_that_reports_it() -> None:
    def first(env: Own) -> Any:
        return SEEN, 0.0, env.steps == 3, False, {"success": True} if env.steps == 1 else {}

    transitions = run(own(first, info_names=("success",)), 3)
    assert [t.infos["success"][0] for t in transitions] == [1.0, 0.0, 0.0]


def test_an_info_must_be_reported_in_every_episode() -> None:
    episodes: list[Own] = []

    def reset(env: Own) -> Any:
        episodes.append(env)
        return SEEN, {}

    env = own(
        lambda env: (SEEN, 0.0, True, False, {"success": True} if len(episodes) == 1 else {}),
        reset,
        info_names=("success",),
    ).make_env(1, num_threads=1)
    env.set_tasks([TASK])
    env.reset(seed=0)
    env.advance(np.zeros((1, 1), np.float32))
    env.reset(seed=0)
    with pytest.raises(ValueError, match="the info 'success' of info_names was reported at no step of an episode"):
        env.advance(np.zeros((1, 1), np.float32))


def test_an_info_that_is_no_number_is_told() -> None:
    with pytest.raises(ValueError, match=r"^own \(.*: the info 'success' must be a number, got 'yes' \(str\)$"):
        run(own(lambda env: (SEEN, 0.0, False, False, {"success": "yes"}), info_names=("success",)))


def test_a_task_that_cannot_be_set_is_told() -> None:
    def set_task(env: object, task: Task) -> None:
        task["weight"]

    with pytest.raises(ValueError, match=r"^own \(gravity=9.0\): setting the task failed with KeyError: 'weight'"):
        run(own(set_task=set_task))


def test_a_factory_that_makes_no_environment_is_told() -> None:
    with pytest.raises(TypeError, match=r"^own: its factory must return a gymnasium.Env, got None; "):
        run(own(make=lambda: None))
    with pytest.raises(TypeError, match="own: make must be a function, got 'CartPole-v1'"):
        own(make="CartPole-v1")


def test_a_lambda_is_refused_by_worker_processes() -> None:
    env = own().make_env(2, num_threads=2)
    with pytest.raises(ValueError, match="the task family 'own' must be picklable, its functions at the top"):
        env.set_tasks([TASK] * 2)


def draws_globally(env: Own) -> Any:
    seen = np.array([np.random.uniform(-1, 1), random.uniform(-1, 1)], np.float32)  # noqa: NPY002
    return (seen, 0.0, False, False, {}) if env.steps else (seen, {})


def make_global() -> Own:
    return Own(draws_globally, draws_globally)


def global_family() -> CustomFamily:
    return own(make=make_global)


@pytest.mark.thorough
@pytest.mark.parametrize("num_threads", [1, 2])
def test_global_random_numbers_repeat_and_are_warned_of(num_threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    outside = random.Random(3).getstate()
    random.setstate(outside)
    seen = []
    for _ in range(2):
        env = global_family().make_env(3, num_threads=num_threads)
        env.set_tasks([TASK] * 3)
        with pytest.warns(RuntimeWarning, match="own: the environment draws from numpy's or Python's global"):
            first, _ = env.reset(seed=7)
        steps = [env.advance(np.zeros((3, 1), np.float32)).observations for _ in range(3)]
        seen.append(np.stack([first, *steps]))
        env.close()
    assert np.array_equal(*seen)
    assert len(np.unique(seen[0][..., 0])) == 12  # no two rows or steps are alike
    assert random.getstate() == outside
    alone = global_family().make_env(1, num_threads=1)  # neither does the number of processes matter
    alone.set_tasks([TASK])
    with pytest.warns(RuntimeWarning, match="global"):
        assert np.array_equal(alone.reset(seed=8)[0][0], seen[0][0, 1])


def test_a_mistake_in_a_worker_process_is_told_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    env = own(make=make_wrong).make_env(2, num_threads=2)
    env.set_tasks([TASK] * 2)
    with pytest.raises(WorkerError, match=r"process 0 failed: ValueError: own \(gravity=9.0\): reset must return"):
        env.reset(seed=0)
    env.close()


def make_wrong() -> Own:
    return Own(fine, fine)


def test_a_benchmark_in_one_call() -> None:
    family = own()
    benchmark = family.benchmark(train={"gravity": (1.0, 2.0)}, test={"gravity": (4, 5)}, name="falls")
    rng = np.random.default_rng(0)
    gravities = [
        [task["gravity"] for task in tasks.sample(20, rng)] for tasks in (benchmark.train, benchmark.test)
    ]
    assert 1.0 <= min(gravities[0]) < max(gravities[0]) <= 2.0
    assert 4.0 <= min(gravities[1]) < max(gravities[1]) <= 5.0
    assert (benchmark.name, benchmark.shared, benchmark.family) == ("falls", False, family)
    listed = family.benchmark(train=[TASK], test=[TASK])
    assert listed.shared
    assert listed.train.sample(2, rng) == [TASK, TASK]
    assert family.benchmark().test.sample(1, rng) != family.benchmark().train.sample(1, rng)


def test_ranges_that_no_task_can_have_are_refused() -> None:
    with pytest.raises(ValueError, match="'own' has no parameter 'weight'; it has gravity"):
        own().benchmark(train={"weight": (0, 1)})
    with pytest.raises(ValueError, match=r"'gravity' must lie within \[0, 10\] and not be empty, got \[5, 11\]"):
        own().benchmark(train={"gravity": (5, 11)})
    with pytest.raises(ValueError, match=r"the range of 'gravity' must be \(low, high\), got 5"):
        own().benchmark(train={"gravity": 5})  # type: ignore[dict-item]
    free = CustomFamily("free", (Parameter("x"),), make=make_global, set_task=set_gravity, horizon=1)
    with pytest.raises(ValueError, match="to be drawn, parameter 'x' needs finite bounds"):
        free.benchmark()


def test_uniform_tasks_take_choices_and_lists() -> None:
    parameters = (Parameter("side", choices=(-1.0, 1.0)), Parameter("goal", size=2, low=-1.0, high=1.0))
    family = CustomFamily("two", parameters, make=make_global, set_task=set_gravity, horizon=1)
    tasks = UniformTasks(family, {"goal": (0.0, 0.5)}).sample(30, np.random.default_rng(0))
    assert {task["side"] for task in tasks} == {-1.0, 1.0}
    goals = np.array([task["goal"] for task in tasks])
    assert goals.shape == (30, 2)
    assert goals.min() >= 0.0
    assert 0.25 < goals.max() <= 0.5
    only = UniformTasks(family, {"side": (0.0, 1.0)}).sample(5, np.random.default_rng(0))
    assert {task["side"] for task in only} == {1.0}


def test_a_family_of_ones_own_needs_no_simulator() -> None:
    code = "import sys, metarl.envs; metarl.envs.CustomFamily; assert 'mujoco' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
