"""The batched MuJoCo engine: many simulations advanced by MuJoCo's own thread pool.

The state of all simulations is one array, [row, state], and each row may have a model of its own. MuJoCo's
constraint warm start is disabled: the next state is then a pure function of state and control, so results do
not depend on threads, batch, order or backend, and a run resumes exactly. (With the warm start, a rollout one step
at a time leaves Gymnasium's trajectory within tens of steps, because the pool cannot return it.)
"""

from collections.abc import Sequence

import mujoco
import numpy as np

from metarl.envs.mujoco.backends import FULL_PHYSICS, new_backend
from metarl.runs.cores import usable_cores

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
        model: Model of every row; `set_models` gives rows their own.
        num_rows: Number of simulations.
        frame_skip: Number of physics steps per control step; `set_frame_skips` gives rows their own.
        num_threads: Number of threads in the pool; one per usable core by default, 0 for the calling thread.
        sense: Whether to compute position sensors; they cost a loop over rows.
        contacts: Whether to compute the forces of contacts; the last physics step of a control step then is a loop
            over rows in the calling thread.
        backend: MuJoCo's module that steps, "batch" or "rollout", with the same results; by default the first that
            the installed MuJoCo has.

    Attributes:
        states: Full physics states (time, qpos, qvel, act, plugin), float64 [row, state].
        sensors: Position sensors at the rows' states, float64 [row, sensor].
        contact_forces: Torques (N m) and forces (N) on bodies by contacts in the last physics step, as MuJoCo's
            cfrc_ext has them, float64 [row, body, 6]; zero where a row begins.
        frame_skips: Number of physics steps per control step, int64 [row].
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        num_rows: int,
        frame_skip: int,
        num_threads: int | None = None,
        *,
        sense: bool = True,
        contacts: bool = False,
        backend: str | None = None,
    ) -> None:
        threads = num_threads if num_threads is not None else usable_cores()
        if threads < 0:
            raise ValueError(f"num_threads must be 0 or more, got {threads}")
        threads = min(threads, num_rows)
        disable_warm_start(model)
        self.model = model
        self._frame_skip = frame_skip
        self._senses = sense and model.nsensordata > 0
        self._feels = contacts
        self._data = mujoco.MjData(model)
        self._backend = new_backend(model, max(1, threads), backend)
        self.resize(num_rows)

    def resize(self, num_rows: int) -> None:
        """Have so many simulations, of the engine's own model; the threads stay."""
        self.states = np.zeros((num_rows, mujoco.mj_stateSize(self.model, FULL_PHYSICS)))
        self.sensors = np.zeros((num_rows, self.model.nsensordata))
        self.contact_forces = np.zeros((num_rows, self.model.nbody if self._feels else 0, 6))
        self._models = [self.model] * num_rows
        self._backend.set_models(self._models)
        self.set_frame_skips(np.full(num_rows, self._frame_skip))

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
            ValueError: If there is not one model per row, or a model has other sizes.
        """
        if len(models) != len(self.states):
            raise ValueError(f"expected {len(self.states)} models, one per row, got {len(models)}")
        self.replace_models(np.arange(len(models)), models)

    def replace_models(self, rows: np.ndarray, models: Sequence[mujoco.MjModel]) -> None:
        """Give some rows other dynamics; their states stay. Checked as by `set_models`."""
        own = _sizes(self.model)
        for model in {id(model): model for model in models}.values():
            if (size := _sizes(model)) != own:
                raise ValueError(f"models must have the sizes {own} of {', '.join(_SIZES)}, got {size}")
            disable_warm_start(model)
        for row, model in zip(rows.tolist(), models, strict=True):
            self._models[row] = model
        self._backend.set_models(self._models)

    def set_frame_skips(self, frame_skips: np.ndarray) -> None:
        """Give each row its own number of physics steps per control step, int [row].

        Rows of the same number are simulated together: a step costs one call per distinct number.
        """
        if frame_skips.shape != (len(self.states),) or frame_skips.min() < 1:
            raise ValueError(f"expected {len(self.states)} frame skips of 1 or more, got {frame_skips}")
        self.frame_skips = frame_skips.astype(np.int64)

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
        self.contact_forces[rows] = 0.0
        self._sense(rows)

    def step(self, controls: np.ndarray, rows: np.ndarray | None = None) -> None:
        """Hold the controls [row, nu] for one control step in the rows (None: all)."""
        skips = self.frame_skips if rows is None else self.frame_skips[rows]
        first = int(skips[0])
        if (skips == first).all():
            self._advance(controls, rows, first)
        else:
            indices = np.arange(len(self.states)) if rows is None else rows
            for skip in np.unique(skips).tolist():
                self._advance(controls[skips == skip], indices[skips == skip], skip)
        self._sense(np.arange(len(self.states)) if rows is None else rows)

    def _advance(self, controls: np.ndarray, rows: np.ndarray | None, skip: int) -> None:
        """One control step of rows (None: all) that take the same number of physics steps."""
        if not self._feels:
            self._backend.step(self.states, controls, rows, skip)
            return
        if skip > 1:
            self._backend.step(self.states, controls, rows, skip - 1)
        data = self._data
        for row, control in zip(range(len(self.states)) if rows is None else rows.tolist(), controls, strict=True):
            model = self._models[row]
            mujoco.mj_setState(model, data, self.states[row], FULL_PHYSICS)
            data.ctrl[:] = control
            mujoco.mj_step(model, data)
            mujoco.mj_rnePostConstraint(model, data)
            mujoco.mj_getState(model, data, self.states[row], FULL_PHYSICS)
            self.contact_forces[row] = data.cfrc_ext

    def _sense(self, rows: np.ndarray) -> None:
        """Compute the rows' sensors; those of a rollout are one physics step older than its states."""
        if not self._senses:
            return
        data = self._data
        for row in rows:
            model = self._models[row]
            data.qpos[:] = self.qpos[row]
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
            mujoco.mj_sensorPos(model, data)
            self.sensors[row] = data.sensordata

    def close(self) -> None:
        """Stop the threads of the pool."""
        self._backend.close()


def _sizes(model: mujoco.MjModel) -> tuple[int, ...]:
    return tuple(getattr(model, name) for name in _SIZES)
