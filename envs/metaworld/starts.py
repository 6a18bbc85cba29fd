"""Starts of episodes: what the package's reset of a task leaves behind, computed once per task.

A reset of Meta-World settles the hand in 250 steps of physics, which takes as long as 50 steps of an episode, and
ends in the same state whenever the task is the same. The package's own code computes it here, with a model without
the meshes and pictures that only a camera sees.
"""

import copy
import functools
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from metarl.envs.metaworld.sawyer import CLASSES, FastStep

STATE = mujoco.mjtState.mjSTATE_INTEGRATION.value
_MOST_STARTS = 4096


@dataclass(frozen=True)
class Start:
    """The state that an episode of one task starts from.

    Attributes:
        state: Full state of the simulation, with the warm start of the solver.
        body_pos: Positions of the bodies in the model, metres [body, 3].
        site_pos: Positions of the sites in the model, metres [site, 3].
        observation: First observation, with the goal if it is observed, [39].
        values: Numbers that the package's reset noted in its object, by the attribute's name.
    """

    state: np.ndarray
    body_pos: np.ndarray
    site_pos: np.ndarray
    observation: np.ndarray
    values: dict[str, np.ndarray]


class _Resetting(FastStep):
    """An object of the package that has a model of its own, made for resets alone."""

    def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        model = copy.copy(physics_model(self.fullpath))
        self.nominal_positions = model.body_pos.copy(), model.site_pos.copy()
        return model, mujoco.MjData(model)

    def take_turn(self) -> None:
        """Begin with the model as it is before any task is set."""
        self.model.body_pos[:], self.model.site_pos[:] = self.nominal_positions


@functools.cache
def physics_model(path: str) -> mujoco.MjModel:
    """The model of a file without what only a camera sees: a seventh of the memory, the same physics to the bit.

    Shapes that touch nothing but have a name remain, as observations may contain their positions.
    """
    spec = mujoco.MjSpec.from_file(path)
    spec.compiler.discardvisual = True
    for geom in spec.geoms:
        if geom.name:  # what a sensor refers to is not discarded; the sensors themselves are never computed
            spec.add_sensor(
                type=mujoco.mjtSensor.mjSENS_FRAMEPOS, objtype=mujoco.mjtObj.mjOBJ_GEOM, objname=geom.name
            )
    model = spec.compile()
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_SENSOR.value
    return model


class Starts:
    """The starts of one class of environments; objects that compute them are made as threads need them.

    Args:
        name: Name of the environment, e.g. "reach-v3".
        reward_version: Version of the rewards, "v1" or "v2": some resets depend on it.
        goal_observed: Whether observations contain the goal.
    """

    def __init__(self, name: str, reward_version: str, goal_observed: bool) -> None:
        own = CLASSES[name]
        self._class = type(own.__name__, (_Resetting, own), {"__module__": __name__})
        self._reward_version, self.goal_observed = reward_version, goal_observed
        self._free: list[Any] = [self._new()]
        self._starts: OrderedDict[tuple[float, ...], Start] = OrderedDict()
        first = self._free[0]
        self.model: mujoco.MjModel = copy.copy(first.model)
        self.frame_skip: int = first.frame_skip
        self.action_scale: float = first.action_scale
        self.mocap_low, self.mocap_high = first.mocap_low, first.mocap_high
        first._partially_observable = not goal_observed
        first.__dict__.pop("sawyer_observation_space", None)
        space = first.sawyer_observation_space
        self.low, self.high = space.low, space.high

    def _new(self) -> Any:
        return self._class(reward_function_version=self._reward_version)

    def known(self, vector: tuple[float, ...]) -> Start | None:
        """The start of a task that was computed before, or None."""
        start = self._starts.get(vector)
        if start is not None:
            self._starts.move_to_end(vector)
        return start

    def compute(self, vector: tuple[float, ...]) -> Start:
        """Reset an object of the package with a task; several threads may do so at the same time."""
        try:
            env = self._free.pop()
        except IndexError:
            env = self._new()
        env.give(np.array(vector), goal_observed=self.goal_observed)
        observation, _ = env.reset()
        model, data = env.model, env._named.data
        state = np.zeros(mujoco.mj_stateSize(model, STATE))
        mujoco.mj_getState(model, data, state, STATE)
        start = Start(state, model.body_pos.copy(), model.site_pos.copy(), observation, _values(env))
        self._free.append(env)
        return start

    def keep(self, vector: tuple[float, ...], start: Start) -> None:
        """Keep a start for the next episode of its task; the least used go first."""
        self._starts[vector] = start
        if len(self._starts) > _MOST_STARTS:
            self._starts.popitem(last=False)


def _values(env: object) -> dict[str, np.ndarray]:
    """The numbers and short lists of numbers among an object's attributes."""
    values = {}
    for name, value in vars(env).items():
        if isinstance(value, bool) or not isinstance(value, int | float | np.number | np.ndarray):
            continue
        array = np.array(value, dtype=np.float64)
        if array.size <= 6:
            values[name] = array
    return values
