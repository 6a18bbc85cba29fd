"""MiniGrid and BabyAI: the walker's view beside the package's, layouts as tasks, missions as words."""

import importlib
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from metarl.envs import make_benchmark, single_env
from metarl.envs.minigrid.benchmarks import minigrid_benchmark
from metarl.envs.minigrid.family import MiniGrid, _package_environment, environment_named, mission_words
from metarl.envs.minigrid.view import view
from metarl.tasks import Task

LOOKED_AT = ("minigrid-memorys7", "minigrid-doorkey-6x6", "minigrid-lavacrossings9n2", "babyai-keyinbox")


@pytest.mark.thorough
@pytest.mark.parametrize("name", LOOKED_AT)
def test_the_walker_sees_what_the_package_shows(name: str) -> None:
    env: Any = _package_environment(environment_named(name))
    rng, carrying, outside = np.random.default_rng(1), 0, 0
    for seed in range(3):
        env.reset(seed=seed)
        for _ in range(250):
            picture = env.step(int(rng.choice(7, p=(0.15, 0.15, 0.3, 0.2, 0.05, 0.15, 0.0))))[0]["image"]
            assert np.array_equal(view(env), picture)
            assert picture.dtype == view(env).dtype
            carrying += env.carrying is not None
            outside += min(*env.agent_pos, env.width - env.agent_pos[0]) < 3
    assert outside > 0 or name == "babyai-keyinbox"  # it looked beyond the grid
    assert carrying > 0 or name not in ("minigrid-doorkey-6x6", "babyai-keyinbox")


def test_a_task_is_a_layout_that_every_episode_begins_in() -> None:
    benchmark = minigrid_benchmark("minigrid-fourrooms")
    rng = np.random.default_rng(0)
    layouts = {t["layout"] for t in benchmark.train.sample(50, rng)}
    assert not layouts & {t["layout"] for t in benchmark.test.sample(50, rng)}
    env = benchmark.family.make_env(2, num_threads=1)
    env.set_tasks([Task.of(benchmark.family.name, layout=number) for number in (3, 4)])
    first, _ = env.reset(seed=0)
    again, _ = env.reset(seed=99)
    assert np.array_equal(first["image"], again["image"])
    assert np.array_equal(first["direction"], again["direction"])
    assert not np.array_equal(first["image"][0], first["image"][1])
    env.close()


def test_with_new_layouts_the_environment_is_the_task() -> None:
    benchmark = minigrid_benchmark("minigrid-memorys7+new-layouts")
    assert benchmark.shared
    (task,) = set(benchmark.test.sample(3, np.random.default_rng(0)))
    env = benchmark.family.make_env(1, num_threads=1)
    env.set_tasks([task])
    pictures = {env.reset(seed=seed)[0]["image"].tobytes() for seed in range(8)}
    assert len(pictures) > 1
    assert env.reset(seed=3)[0]["image"].tobytes() == env.reset(seed=3)[0]["image"].tobytes()
    env.close()


def test_reaching_the_goal_is_a_success_and_codes_are_spread_over_a_byte() -> None:
    env = single_env("minigrid-empty-5x5", layout=0)
    seen, _ = env.reset(seed=0)
    assert seen["image"].dtype == np.uint8
    assert seen["image"][..., 0].max() == 8 * 25  # the goal, the greatest kind in view
    for action in (2, 2, 1, 2):
        _, reward, terminated, _, info = env.step(action)
        assert not terminated
        assert info["success"] == 0
    _, reward, terminated, _, info = env.step(2)
    assert terminated
    assert reward == pytest.approx(1 - 0.9 * 5 / 100)
    assert info["success"] == 1


def test_one_hot_pictures_have_a_plane_for_every_kind_as_the_packages_own_have() -> None:
    wrappers = importlib.import_module("minigrid.wrappers")
    own = wrappers.OneHotPartialObsWrapper(_package_environment(environment_named("minigrid-doorkey-6x6")))
    ours = single_env("minigrid-doorkey-6x6+one-hot", layout=4)
    expected, (observed, _) = own.reset(seed=4)[0]["image"], ours.reset(seed=0)
    assert observed["image"].shape == (7, 7, 20) == ours.observation_space["image"].shape
    assert observed["image"].dtype == np.uint8
    rng = np.random.default_rng(0)
    for action in rng.integers(0, 6, 30):
        assert np.array_equal(observed["image"], 255 * expected)
        expected, observed = own.step(int(action))[0]["image"], ours.step(int(action))[0]
    assert len(np.unique(np.argmax(expected[..., :11], -1))) > 2  # walls, floor and something else in view


def test_missions_are_numbers_of_words_where_they_are_asked_for() -> None:
    family = minigrid_benchmark("babyai-gotoredball+mission").family
    observations = family.make_env(1, num_threads=1).single_observation_space
    assert isinstance(observations, spaces.Dict)
    assert observations["mission"] == spaces.MultiDiscrete([55] * 40)
    words = mission_words("Go to the red ball")
    assert (words[:5] > 0).all()
    assert not words[5:].any()
    assert len(set(words[:5].tolist())) == 5
    assert not np.array_equal(words, mission_words("go to the blue ball"))
    with pytest.raises(ValueError, match="'violet'"):
        mission_words("go to the violet ball")
    with pytest.raises(ValueError, match="at most 40 words"):
        mission_words("go " * 41)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("minigrid-fourroom", "did you mean minigrid-fourrooms"),
        ("minigrid-memorys7+fresh", r"take \+mission, \+new-layouts"),
        ("babyai-", "unknown MiniGrid environment"),
    ],
)
def test_what_there_is_not_is_one_line(name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        make_benchmark(name)
    assert "\n" not in str(caught.value)


def test_a_layout_is_a_whole_number() -> None:
    family = MiniGrid("MiniGrid-Empty-5x5-v0")
    for layout, words in ((0.5, "whole number"), (-1.0, "in")):
        with pytest.raises(ValueError, match=words):
            family.check(Task.of(family.name, layout=layout))


def test_without_the_package_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ValueError, match=r"pip install 'metarl-toolkit\[grids\]'"):
        environment_named("minigrid-fourrooms")
