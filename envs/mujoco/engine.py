"""The batched MuJoCo engine: many simulations advanced by `mujoco.rollout`'s persistent thread pool.

The state of all simulations is one array, [row, state], and each row may have a model of its own. MuJoCo's
constraint warm start is disabled: the next state is then a pure function of state and control, so results do
not depend on threads, batch or order, and a run resumes exactly. (With the warm start, a rollout one step at a
time leaves Gymnasium's trajectory within tens of steps, because the pool cannot return it.)
"""

from collections.abc import Sequence

import mujoco
import numpy as np
from mujoco import rollout

from metarl.cores import usable_cores

_FULL_PHYSICS = mujoco.mjtState.mjSTATE_FULLPHYSICS.value
_CONTROL = mujoco.mjtState.mjSTATE_CTRL.value

# The engine's MjData are laid out by these, so a model that differs in one would be written out of bounds.
_SIZES = (
    "nq", "nv", "nu", "na", "nbody", "njnt", "ngeom", "nsite", "ncam", "nlight", "neq", "ntendon", "nwrap",
    "nsensor", "nsensordata", "nmocap", "nplugin", "npluginstate", "nuserdata", "nflexvert", "nflexelem",
    "nflexedge", "nbvh", "ntree", "nM", "nD", "nB", "nC", "nJmom",
)  # fmt: skip


def disable_warm_start(model: mujoco.MjModel) -> None:
    """Make each step of the model a pure function of (state, control)."""
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_WARMSTART.value


class BatchedPhysics:
    """The states of many simulations, and their step.

    Args:
        model: the model of every row; `set_models` gives rows their own.
        num_rows: number of simulations.
        frame_skip: physics steps per control step.
        num_threads: threads in the pool; one per usable core by default, 0 for the calling thread.

    Attributes:
        states: full physics states (time, qpos, qvel, act, plugin), float64 [row, state].
        sensors: position sensors at the rows' states, float64 [row, sensor].
    """

    def __init__(
        self, model: mujoco.MjModel, num_rows: int, frame_skip: int, num_threads: int | None = None
    ) -> None:
        threads = num_threads if num_threads is not None else usable_cores()
        if threads < 0:
            raise ValueError(f"num_threads must be 0 or more, got {threads}")
        threads = min(threads, num_rows)
        disable_warm_start(model)
        self.model = model
        self.frame_skip = frame_skip
        self.states = np.zeros((num_rows, mujoco.mj_stateSize(model, _FULL_PHYSICS)))
        self.sensors = np.zeros((num_rows, model.nsensordata))
        self._models = [model] * num_rows
        self._datas = [mujoco.MjData(model) for _ in range(max(1, threads))]
        self._pool = rollout.Rollout(nthread=threads if threads > 1 else 0)
        self._controls = np.zeros((num_rows, frame_skip, model.nu))
        self._trace = np.zeros((num_rows, frame_skip, self.states.shape[1]))

    @property
    def qpos(self) -> np.ndarray:
        """Generalised positions, a view of the states, [row, nq]."""
        return self.states[:, 1 : 1 + self.model.nq]

    @property
    def qvel(self) -> np.ndarray:
        """Generalised velocities, a view of the states, [row, nv]."""
        return self.states[:, 1 + self.model.nq : 1 + self.model.nq + self.model.nv]

    def set_models(self, models: Sequence[mujoco.MjModel]) -> None:
        """Give each row its own dynamics; the models must have the sizes of the engine's own model.

        Raises:
            ValueError: if there is not one model per row, or a model has other sizes.
        """
        if len(models) != len(self.states):
            raise ValueError(f"expected {len(self.states)} models, one per row, got {len(models)}")
        own = _sizes(self.model)
        for size in {_sizes(model) for model in {id(model): model for model in models}.values()}:
            if size != own:
                raise ValueError(f"models must have the sizes {own} of {', '.join(_SIZES)}, got {size}")
        for model in models:
            disable_warm_start(model)
        self._models = list(models)

    def model_of(self, row: int) -> mujoco.MjModel:
        """The model that a row is simulated with."""
        return self._models[row]

    def set_states(self, rows: np.ndarray, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """Put rows at time zero with the given positions [row, nq] and velocities [row, nv].

        The rows' sensors are computed at these states.
        """
        nq, nv = self.model.nq, self.model.nv
        self.states[rows] = 0.0
        self.states[rows, 1 : 1 + nq] = qpos
        self.states[rows, 1 + nq : 1 + nq + nv] = qvel
        self._sense(rows)

    def step(self, controls: np.ndarray, rows: np.ndarray | None = None) -> None:
        """Hold the controls [row, nu] for one control step in the rows (None: all)."""
        if rows is None:
            self._controls[:] = controls[:, None]
            self._roll(self._models, self.states, self._controls, self._trace)
            self.states[:] = self._trace[:, -1]
            self._sense(np.arange(len(self.states)))
            return
        count = len(rows)
        self._controls[:count] = controls[:, None]
        self._roll(
            [self._models[row] for row in rows],
            self.states[rows],
            self._controls[:count],
            self._trace[:count],
        )
        self.states[rows] = self._trace[:count, -1]
        self._sense(rows)

    def _sense(self, rows: np.ndarray) -> None:
        """Compute the rows' sensors; those of a rollout are one physics step older than its states."""
        if not self.model.nsensordata:
            return
        data = self._datas[0]
        for row in rows:
            model = self._models[row]
            data.qpos[:] = self.qpos[row]
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
            mujoco.mj_sensorPos(model, data)
            self.sensors[row] = data.sensordata

    def _roll(
        self,
        models: list[mujoco.MjModel],
        states: np.ndarray,
        controls: np.ndarray,
        trace: np.ndarray,
    ) -> None:
        self._pool.rollout(
            models,
            self._datas,
            states,
            controls,
            control_spec=_CONTROL,
            skip_checks=True,
            nstep=self.frame_skip,
            state=trace,
        )

    def close(self) -> None:
        """Stop the threads."""
        if self._pool.rollout_ is not None:
            self._pool.close()


def _sizes(model: mujoco.MjModel) -> tuple[int, ...]:
    return tuple(getattr(model, name) for name in _SIZES)
