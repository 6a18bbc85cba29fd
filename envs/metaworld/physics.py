"""The simulations of one class of Meta-World's environments, stepped row by row in several threads.

Every row has data of its own, as in the package, so that the solver's warm start and the package's extra forward
pass are as they are there. Rows share a model per thread: tasks differ in it by the positions of bodies and sites,
which are put in place before a row's step. MuJoCo's steps release Python's lock, so threads run at the same time.
"""

import copy
from collections.abc import Sequence

import mujoco
import numpy as np

from metarl.envs.metaworld.rows import Numbers, Rows
from metarl.envs.metaworld.starts import STATE, Start, Starts

_UPRIGHT = (1, 0, 1, 0)


class ClassPhysics:
    """Rows of one class.

    Args:
        starts: Starts of the class's episodes.
        num_threads: Number of threads that step rows; each has a model of its own from its first step on.
    """

    def __init__(self, starts: Starts, num_threads: int) -> None:
        self.starts = starts
        self._numbers = Numbers(starts.model)
        self._models: list[mujoco.MjModel | None] = [starts.model, *[None] * (num_threads - 1)]
        self._placed: list[Start | None] = [None] * num_threads
        self._datas: list[mujoco.MjData] = []
        self._views: dict[str, list[np.ndarray]] = {}
        self._starts: list[Start] = []
        self._noted: dict[str, np.ndarray] = {}
        self._remembered: dict[str, np.ndarray] = {}
        self._previous = np.zeros((0, 18))

    def resize(self, num_rows: int) -> None:
        """Have this many rows, none of which is in an episode."""
        model = self.starts.model
        self._datas += [mujoco.MjData(model) for _ in range(num_rows - len(self._datas))]
        self._views = {}
        self._starts = [_NONE] * num_rows
        self._noted, self._remembered = {}, {}
        self._previous = np.zeros((num_rows, 18))

    def begin(self, rows: Sequence[int], starts: Sequence[Start]) -> np.ndarray:
        """Put rows at the beginning of episodes; first observations [row, 39]."""
        model = self.starts.model
        for row, start in zip(rows, starts, strict=True):
            mujoco.mj_resetData(model, self._datas[row])
            mujoco.mj_setState(model, self._datas[row], start.state, STATE)
            self._starts[row] = start
            self._previous[row] = start.observation[:18]
            for values in self._remembered.values():
                values[row] = np.nan
        self._noted = {}
        return np.array([start.observation for start in starts])

    def controls(self, rows: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions of the hand's guide [row, 3] and controls of the fingers [row, 2] of a step."""
        starts = self.starts
        guide = self._gather("mocap_pos", rows)
        guide = guide + np.minimum(np.maximum(actions[:, :3], -1), 1) * starts.action_scale
        guide = np.minimum(np.maximum(guide, starts.mocap_low), starts.mocap_high)
        return guide, np.stack((actions[:, 3], -actions[:, 3]), axis=1).astype(np.float64)

    def step(self, thread: int, row: int, guide: np.ndarray, fingers: np.ndarray) -> None:
        """Step one row in a thread."""
        model = self._models[thread]
        if model is None:
            model = self._models[thread] = copy.copy(self.starts.model)
        data, start = self._datas[row], self._starts[row]
        if self._placed[thread] is not start:
            model.body_pos[:], model.site_pos[:] = start.body_pos, start.site_pos
            self._placed[thread] = start
        data.mocap_pos[0] = guide
        data.mocap_quat[0] = _UPRIGHT
        data.ctrl[:] = fingers
        mujoco.mj_step(model, data, nstep=self.starts.frame_skip)
        mujoco.mj_forward(model, data)

    def rows(self, rows: np.ndarray) -> Rows:
        """The state of rows after their last step."""
        return Rows(
            self._numbers,
            lambda name: self._gather(name, rows),
            lambda name: self._note(name)[rows],
            lambda name, values: self._remember(name, values, rows),
            lambda chosen, geom: self._touching(rows[chosen], geom),
        )

    def observe(self, rows: np.ndarray, current: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """Observations [row, 39] of rows: their present part [row, 18], that of the step before, and the goals."""
        starts = self.starts
        observations = np.zeros((len(rows), 39))
        observations[:, :18], observations[:, 18:36] = current, self._previous[rows]
        if starts.goal_observed:
            observations[:, 36:] = goals
        self._previous[rows] = current
        bounded: np.ndarray = np.minimum(np.maximum(observations, starts.low), starts.high)
        return bounded

    def state(self, row: int) -> tuple[np.ndarray, Start]:
        """Positions of a row's joints [nq], and the start of its episode."""
        return self._datas[row].qpos.copy(), self._starts[row]

    def _touching(self, rows: np.ndarray, geom: str) -> np.ndarray:
        """Whether both pads press on a geom, bool [row]."""
        model = self.starts.model
        number, pads = model.geom(geom).id, [model.geom(f"{side}pad_geom").id for side in ("left", "right")]
        return np.array([_presses(self._datas[row], number, pads) for row in rows.tolist()], dtype=np.bool_)

    def _gather(self, name: str, rows: np.ndarray) -> np.ndarray:
        views = self._views.get(name)
        if views is None:
            views = self._views[name] = [getattr(data, name).reshape(-1) for data in self._datas]
        chosen = views[: len(self._starts)] if len(rows) == len(self._starts) else [views[row] for row in rows]
        return np.concatenate(chosen).reshape(len(rows), -1)

    def _note(self, name: str) -> np.ndarray:
        if name not in self._noted:
            blank = np.full_like(next(s for s in self._starts if s is not _NONE).values[name], np.nan)
            self._noted[name] = np.array([start.values.get(name, blank) for start in self._starts])
        return self._noted[name]

    def _remember(self, name: str, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
        if name not in self._remembered:
            self._remembered[name] = np.full(len(self._starts), np.nan)
        remembered = self._remembered[name]
        remembered[rows] = np.where(np.isnan(remembered[rows]), values, remembered[rows])
        result: np.ndarray = remembered[rows]
        return result


_NONE = Start(np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(0), {})


def _presses(data: mujoco.MjData, geom: int, pads: Sequence[int]) -> bool:
    pairs, forces, addresses = data.contact.geom, data.efc_force, data.contact.efc_address
    of_geom = (pairs == geom).any(1)
    for pad in pads:
        contacts = np.flatnonzero(of_geom & (pairs == pad).any(1))
        if not sum(forces[addresses[contact]] for contact in contacts) > 0:
            return False
    return True
