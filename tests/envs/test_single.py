"""One task as a plain Gymnasium environment: the steps of a row of the batch, and pictures of it."""

import os
import subprocess
import sys
import tomllib
from ctypes.util import find_library
from importlib import import_module
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_sb3

from metarl.envs import CustomFamily, benchmark_names, make_benchmark, single_env
from metarl.envs.registration import BENCHMARKS, env_id, register_envs
from metarl.envs.single import SingleTaskEnv
from metarl.tasks import Benchmark, Parameter, Task

ROOT = Path(__file__).resolve().parents[2]
CAN_DRAW = any(find_library(name) is not None for name in ("EGL", "OSMesa")) or "DISPLAY" in os.environ
needs_gl = pytest.mark.skipif(not CAN_DRAW, reason="neither EGL nor OSMesa is installed (apt install libegl1)")
KINDS = ["point", "gridnavi", "bernoulli-bandit-k5", "tabular-mdp", "half-cheetah-vel", "ant-goal"]
KINDS += ["half-cheetah-dynamics", "half-cheetah-failing-motor"]


class Lamp(gymnasium.Env[np.ndarray, Any]):
    """Its picture is one colour, its brightness the task."""

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(2, start=3)
    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    brightness = 0.0

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        return np.zeros(1, np.float32), float(action), False, False, {}

    def render(self) -> Any:
        assert self.render_mode == "rgb_array"
        return np.full((4, 6, 3), int(self.brightness), np.uint8)


def set_brightness(env: gymnasium.Env[Any, Any], task: Task) -> None:
    env.unwrapped.brightness = task["brightness"]  # type: ignore[attr-defined]


def lamps() -> Benchmark:
    parameters = [Parameter("brightness", low=0.0, high=255.0)]
    return CustomFamily("lamp", parameters, make=Lamp, set_task=set_brightness, horizon=5).benchmark()


@pytest.mark.parametrize("name", KINDS)
def test_steps_are_those_of_a_row_of_the_batch(name: str) -> None:
    benchmark = make_benchmark(name)
    tasks = benchmark.train.sample(3, np.random.default_rng(5))
    batch = benchmark.family.make_env(3, num_threads=1)
    batch.set_tasks(tasks)
    observations, _ = batch.reset(seed=[11, 22, 33])
    env = single_env(benchmark, tasks[1])
    observation, _ = env.reset(seed=22)
    np.testing.assert_array_equal(observation, observations[1])
    env.action_space.seed(0)
    for _ in range(min(12, batch.max_episode_steps)):
        action = env.action_space.sample()
        after = batch.advance(np.stack([action] * 3))
        observation, reward, terminated, truncated, infos = env.step(action)
        np.testing.assert_array_equal(observation, after.observations[1])
        assert (reward, terminated, truncated) == (after.rewards[1], after.terminated[1], after.truncated[1])
        assert {key: float(value) for key, value in infos.items()} == {
            key: float(values[1]) for key, values in after.infos.items()
        }
        if terminated or truncated:
            break
    env.close()
    batch.close()


@pytest.mark.filterwarnings("ignore")  # unbounded observations are what they are
@pytest.mark.parametrize("name", ["point", "gridnavi", "half-cheetah-dir", "tabular-mdp"])
def test_checkers_of_gymnasium_and_stable_baselines_pass(name: str) -> None:
    check_env(single_env(name), skip_render_check=True)
    check_env_sb3(single_env(name), skip_render_check=True)


def test_a_reset_draws_a_task_unless_one_is_fixed() -> None:
    env = single_env("point")
    drawn = {env.reset(seed=3)[0].tobytes() and env.task, *(env.reset()[0].tobytes() and env.task for _ in "abc")}
    assert len(drawn) == 4
    env.reset(seed=3)
    first = env.task
    env.reset(seed=3)
    assert env.task == first
    env.reset(options={"task": Task.of("point", goal=(0.25, 0.5))})
    env.reset()
    assert env.task == Task.of("point", goal=(0.25, 0.5))


def test_test_tasks_are_drawn_when_asked_for() -> None:
    benchmark = make_benchmark("sparse-point")
    held_out = set(benchmark.test.tasks)  # type: ignore[attr-defined]
    for test in (False, True):
        env = single_env(benchmark, test=test)
        env.reset(seed=0)
        assert (env.task in held_out) is test


def test_every_benchmark_has_a_gymnasium_name() -> None:
    assert sorted(BENCHMARKS) == benchmark_names()
    register_envs()
    register_envs()  # again does no harm
    env = gymnasium.make(env_id("half-cheetah-vel"), velocity=2.0)
    assert env.spec is not None
    assert env.spec.id == "metarl/HalfCheetahVel-v0"
    env.reset(seed=0)
    task = env.unwrapped.task  # type: ignore[attr-defined]
    assert task == Task.of("half-cheetah-vel", velocity=2.0)
    other = gymnasium.make("metarl/Task-v0", benchmark="point-uniform-start", goal=(0.5, 0.5), horizon=2)
    other.reset(seed=0)
    other.step(other.action_space.sample())
    assert other.step(other.action_space.sample())[3]
    assert len({env_id(name) for name in BENCHMARKS}) == len(BENCHMARKS)


def test_gymnasium_knows_the_names_by_an_entry_point_that_imports_no_simulator() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, function = project["entry-points"]["gymnasium.envs"]["metarl"].partition(":")
    assert getattr(import_module(module), function) is register_envs
    heavy = "{'torch', 'mujoco', 'metarl.envs.benchmarks'}"
    code = f"import sys, metarl.envs.registration; print(*{heavy} & set(sys.modules))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == ""


@pytest.mark.parametrize("name", ["point", "gridnavi"])
def test_toy_worlds_are_drawn(name: str) -> None:
    env = single_env(name, render_mode="rgb_array")
    with pytest.raises(gymnasium.error.ResetNeeded, match="reset before render"):
        env.render()
    env.reset(seed=0)
    before = env.render()
    assert before.dtype == np.uint8
    assert before.shape == (360, 360, 3)
    moving = np.array([0.1, 0.1], np.float32) if name == "point" else 1
    env.step(moving)
    assert (env.render() != before).any()


@pytest.mark.thorough
@needs_gl
@pytest.mark.parametrize("name", ["half-cheetah-vel", "ant-goal", "half-cheetah-dynamics"])
def test_robots_are_drawn(name: str) -> None:
    env = single_env(name, render_mode="rgb_array")
    env.reset(seed=0)
    before = env.render()
    assert before.shape == (360, 480, 3)
    assert len(np.unique(before.reshape(-1, 3), axis=0)) > 100  # textures, not a blank
    env.step(env.action_space.sample())
    assert (env.render() != before).any()
    env.close()


def test_an_environment_of_ones_own_is_drawn_by_itself() -> None:
    env = single_env(lamps(), brightness=7.0, render_mode="rgb_array")
    env.reset(seed=0)
    assert env.step(env.action_space.sample())[1] in (3.0, 4.0)
    np.testing.assert_array_equal(env.render(), np.full((4, 6, 3), 7))
    env.close()


@pytest.mark.thorough
def test_a_window_shows_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    pygame = pytest.importorskip("pygame")
    env = single_env("gridnavi", render_mode="human")
    env.reset(seed=0)
    env.step(0)
    assert env.render() is None
    assert pygame.display.get_surface().get_size() == (360, 360)
    env.close()
    assert pygame.display.get_surface() is None


def test_mistakes_are_told_in_one_line() -> None:
    with pytest.raises(ValueError, match="cannot be drawn; leave render_mode out"):
        single_env("tabular-mdp", render_mode="rgb_array")
    with pytest.raises(ValueError, match='render_mode must be "rgb_array", "human" or None'):
        single_env("point", render_mode="ansi")
    with pytest.raises(ValueError, match="must have exactly the parameters"):
        single_env("point", gaol=(0.0, 0.0))
    with pytest.raises(ValueError, match="either a task or its parameters"):
        single_env("point", Task.of("point", goal=(0.0, 0.0)), goal=(0.0, 0.0))
    with pytest.raises(gymnasium.error.ResetNeeded):
        SingleTaskEnv(make_benchmark("point").train).step(np.zeros(2))
