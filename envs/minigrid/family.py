"""MiniGrid's and BabyAI's environments as task families: a task is a layout, or what the environment asks for.

The package runs the grids; what the walker sees is computed here (`view`), as its own code takes most of a step.
"""

import contextlib
import difflib
import importlib
import io
import re
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from metarl.envs.gymnasium.checks import Env
from metarl.envs.gymnasium.family import GymnasiumFamily
from metarl.envs.minigrid.view import view
from metarl.tasks import Parameter, Task

LAYOUT = "layout"
MOST_LAYOUTS = 2**31
_SPREAD = np.array([25, 51, 85], dtype=np.uint8)  # 11 kinds, 6 colours and 4 states, spread over 0 to 255
_KINDS = (11, 6, 3)  # numbers of kinds, colours and states, as in the package's own one-hot pictures
_WORDS = tuple(
    re.findall(
        r"\S+",
        """, a after and at avoid ball behind blue box door end fetch find from front get go goal green grey
        hallway in key lava left matching must near next object of on open opening pick purple put reach red
        right room rooms square the then to traverse unlock up use yellow you your""",
    )
)
_LONGEST = 40  # words of a mission; BabyAI's longest have 37


class MiniGrid(GymnasiumFamily):
    """Layouts of one environment of MiniGrid or BabyAI.

    Observations are the 7 x 7 x 3 picture that the walker sees (kind, colour and state of every cell, spread over
    0 to 255; or one-hot, 7 x 7 x 20 of 0 and 255), its direction, and perhaps the mission as numbers of words.
    Success is any reward, which comes at the end: 1 - 0.9 of the share of the steps that it took.

    Args:
        environment: Name of the environment in the package, e.g. "MiniGrid-FourRooms-v0".
        new_layouts: Whether every episode has a new layout, so that all tasks are one, instead of the task's.
        mission: Whether the observation has the mission; by default rewards alone tell what is to be done.
        one_hot: Whether the picture has a plane for every kind, colour and state instead of their numbers.
    """

    info_names = ("success",)
    steps_here_too = True

    def __init__(
        self, environment: str, *, new_layouts: bool = False, mission: bool = False, one_hot: bool = False
    ) -> None:
        self.environment, self.new_layouts = environment, new_layouts
        self.mission, self.one_hot = mission, one_hot
        self.name = f"minigrid/{environment}"
        layout = Parameter(LAYOUT, low=0, high=MOST_LAYOUTS - 1)
        self.parameters = () if new_layouts else (layout,)
        env = self.new_environment("")
        limits = []
        for seed in range(5):  # some levels of BabyAI have limits by layout
            env.reset(seed=seed)
            limits.append(int(env.unwrapped.max_steps))  # type: ignore[attr-defined]  # all of the package's have one
        env.close()
        self.horizon = max(limits)

    def new_environment(self, kind: str) -> Env:
        """One environment of the package, without a layout yet."""
        return _Layouts(_package_environment(self.environment), mission=self.mission, one_hot=self.one_hot)

    def give_task(self, env: Env, task: Task) -> None:
        """Set the layout of the episodes that follow; none where every episode has its own."""
        assert isinstance(env, _Layouts)
        env.layout = None if self.new_layouts else int(task[LAYOUT])  # type: ignore[arg-type]  # checked: a number

    def check(self, task: Task) -> None:
        """Raise a ValueError with the reason unless the task is one of this family's, with a whole number."""
        super().check(task)
        if not self.new_layouts and task[LAYOUT] != int(task[LAYOUT]):  # type: ignore[arg-type]  # as above
            raise ValueError(f"a task of {task.family!r}: its layout must be a whole number, got {task[LAYOUT]}")


class _Layouts(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment whose episodes begin in one layout, and whose observations are numbers."""

    def __init__(self, env: Env, *, mission: bool, one_hot: bool) -> None:
        super().__init__(env)
        self.layout: int | None = None
        self._reads, self._one_hot = mission, one_hot
        parts: dict[str, spaces.Space[Any]] = {
            "image": spaces.Box(0, 255, (7, 7, sum(_KINDS) if one_hot else 3), np.uint8),
            "direction": spaces.Discrete(4),
        }
        if mission:
            parts["mission"] = spaces.MultiDiscrete([len(_WORDS) + 1] * _LONGEST)
        self.observation_space = spaces.Dict(parts)
        inner: Any = env.unwrapped
        # The package calls it at every step and reset; all its environments have this one.
        inner.gen_obs = lambda: {"image": view(inner), "direction": inner.agent_dir, "mission": inner.mission}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode, in the task's layout if there is one."""
        with contextlib.redirect_stdout(io.StringIO()):  # BabyAI prints every layout that it rejects
            observation, info = self.env.reset(seed=seed if self.layout is None else self.layout, options=options)
        return self._observed(observation), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take a step; the info says whether it succeeded."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return (
            self._observed(observation),
            float(reward),
            terminated,
            truncated,
            info | {"success": float(reward) > 0},
        )

    def _observed(self, observation: dict[str, Any]) -> dict[str, Any]:
        picture = observation["image"]
        picture = one_hot_picture(picture) if self._one_hot else picture * _SPREAD
        observed = {"image": picture, "direction": np.int64(observation["direction"])}
        return observed | {"mission": mission_words(observation["mission"])} if self._reads else observed


def one_hot_picture(picture: np.ndarray) -> np.ndarray:
    """Planes of 0 and 255, [column, row, kinds then colours then states], of numbers [column, row, 3]; uint8."""
    planes = [picture[..., part, None] == np.arange(kinds) for part, kinds in enumerate(_KINDS)]
    return np.concatenate(planes, axis=-1) * np.uint8(255)


def mission_words(mission: str) -> np.ndarray:
    """The numbers of a mission's words, int64 [40]; zeros after its end.

    Raises:
        ValueError: if the mission has an unknown word, or too many.
    """
    words = re.findall(r"[a-z]+|,", mission.lower())
    unknown = [word for word in words if word not in _WORDS]
    if unknown or len(words) > _LONGEST:
        what = f" with {unknown[0]!r}" if unknown else ""
        raise ValueError(f"a mission must have at most {_LONGEST} words of MiniGrid 3.2's, got {mission!r}{what}")
    numbers = np.zeros(_LONGEST, dtype=np.int64)
    numbers[: len(words)] = [_WORDS.index(word) + 1 for word in words]
    return numbers


def package_names() -> dict[str, str]:
    """Names of the package's environments by our short ones: minigrid-fourrooms of MiniGrid-FourRooms-v0.

    Raises:
        ValueError: if the package is not installed, with what to install.
    """
    try:
        importlib.import_module("minigrid")
    except ImportError as error:
        raise ValueError(
            f"MiniGrid and BabyAI need the package minigrid ({error}): pip install 'metarl-toolkit[grids]'"
        ) from error
    names = sorted(name for name in gymnasium.registry if name.startswith(("MiniGrid-", "BabyAI-")))
    return {re.sub(r"-v\d+$", "", name).lower(): name for name in names if "-WFC-" not in name}


def environment_named(short: str) -> str:
    """The package's name of an environment, e.g. "MiniGrid-FourRooms-v0" of "minigrid-fourrooms".

    Raises:
        ValueError: if there is none, with the nearest names.
    """
    names = package_names()
    if short.lower() in names:
        return names[short.lower()]
    close = difflib.get_close_matches(short.lower(), names, n=3)
    meant = (
        f"did you mean {' or '.join(close)}?" if close else f"there are {len(names)}, such as minigrid-fourrooms"
    )
    raise ValueError(f"unknown MiniGrid environment {short!r}; {meant}")


def _package_environment(name: str) -> Env:
    package_names()  # registers them, or says what to install
    with contextlib.redirect_stdout(io.StringIO()):
        return gymnasium.make(name, disable_env_checker=True).unwrapped
