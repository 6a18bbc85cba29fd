"""Two ways to advance many simulations on MuJoCo's own threads, the same to the bit.

`mujoco.batch` (MuJoCo 3.17 and later) is used where it is installed, `mujoco.rollout` elsewhere.
"""

import importlib
import importlib.util
from collections.abc import Sequence
from types import ModuleType
from typing import Protocol

import mujoco
import numpy as np
from mujoco import rollout

FULL_PHYSICS = mujoco.mjtState.mjSTATE_FULLPHYSICS.value
_CONTROL = mujoco.mjtState.mjSTATE_CTRL.value
_PARTS = ("time", "qpos", "qvel", "act", "history", "plugin_state")  # in the order of a full physics state


class Backend(Protocol):
    """Advances simulations whose full physics states are rows of an array."""

    def set_models(self, models: Sequence[mujoco.MjModel]) -> None:
        """Simulate each row on a model of its own, from now on with as many rows as models."""

    def step(self, states: np.ndarray, controls: np.ndarray, rows: np.ndarray | None, skip: int) -> None:
        """Advance states [row, state] of some rows (None: all) by physics steps under held controls."""

    def close(self) -> None:
        """Stop the threads of the pool."""


class RolloutBackend:
    """`mujoco.rollout`: a pool of threads with one MjData each; models are given with every call.

    Args:
        model: Model of the sizes that all rows have.
        num_threads: Number of threads; 1 for the calling thread alone.
    """

    def __init__(self, model: mujoco.MjModel, num_threads: int) -> None:
        self._datas = [mujoco.MjData(model) for _ in range(num_threads)]
        self._pool = rollout.Rollout(nthread=num_threads if num_threads > 1 else 0)
        self._models: list[mujoco.MjModel] = []
        self._controls, self._trace = np.zeros((0, model.nu)), np.zeros((0, 0))

    def set_models(self, models: Sequence[mujoco.MjModel]) -> None:
        """Simulate each row on a model of its own, from now on with as many rows as models."""
        self._models = list(models)

    def step(self, states: np.ndarray, controls: np.ndarray, rows: np.ndarray | None, skip: int) -> None:
        """Advance states [row, state] of some rows (None: all) by physics steps under held controls."""
        count, size = len(controls), len(controls) * skip
        if len(self._trace) < size:
            self._controls = np.zeros((size, controls.shape[1]))
            self._trace = np.zeros((size, states.shape[1]))
        held = self._controls[:size].reshape(count, skip, controls.shape[1])
        trace = self._trace[:size].reshape(count, skip, states.shape[1])
        held[:] = controls[:, None]
        self._pool.rollout(
            self._models if rows is None else [self._models[row] for row in rows],
            self._datas,
            states if rows is None else states[rows],
            held,
            control_spec=_CONTROL,
            skip_checks=True,
            nstep=skip,
            state=trace,
        )
        states[slice(None) if rows is None else rows] = trace[:, -1]

    def close(self) -> None:
        """Stop the threads of the pool."""
        if self._pool.rollout_ is not None:
            self._pool.close()


class BatchBackend:
    """`mujoco.batch`: states and models of all rows stay with the threads.

    Args:
        model: Model of the sizes that all rows have.
        num_threads: Number of threads, the calling one among them.
    """

    def __init__(self, model: mujoco.MjModel, num_threads: int) -> None:
        self._module = _batch_module()
        self._model, self._num_threads, self._num_rows = model, num_threads, 0

    def set_models(self, models: Sequence[mujoco.MjModel]) -> None:
        """Simulate each row on a model of its own, from now on with as many rows as models."""
        if len(models) != self._num_rows:
            self._num_rows = len(models)
            self._batch = self._module.Batch(self._model, self._num_rows, self._num_threads)
            self._control = self._batch.bind("ctrl")
            bound = [self._batch.bind(part) for part in _PARTS if part in self._module.DATA_FIELDS]
            self._parts = [part[:, None] if part.ndim == 1 else part for part in bound]
        self._batch.set_models(list(models))

    def step(self, states: np.ndarray, controls: np.ndarray, rows: np.ndarray | None, skip: int) -> None:
        """Advance states [row, state] of some rows (None: all) by physics steps under held controls."""
        index = slice(None) if rows is None else rows
        ends = np.cumsum([part.shape[1] for part in self._parts])
        for part, end in zip(self._parts, ends, strict=True):
            part[index] = states[index, end - part.shape[1] : end]
        self._control[index] = controls
        # Like `mujoco.rollout` and unlike its `step`, it leaves a simulation that diverges where MuJoCo reset it.
        self._batch.rollout(skip, record=(), ids=None if rows is None else np.sort(rows))
        for part, end in zip(self._parts, ends, strict=True):
            states[index, end - part.shape[1] : end] = part[index]

    def close(self) -> None:
        """Stop the threads, which end with the batch."""
        self._num_rows = 0
        self.__dict__.pop("_batch", None)


def new_backend(model: mujoco.MjModel, num_threads: int, name: str | None = None) -> Backend:
    """A backend for rows of a model's sizes, "batch" or "rollout"; by default the first of them that there is.

    Raises:
        ValueError: If the name is another, or the backend is not in the installed MuJoCo.
    """
    if name not in (None, "batch", "rollout"):
        raise ValueError(f"expected a backend of batch or rollout, got {name!r}")
    if name == "batch" and not has_batch():
        raise ValueError(f"mujoco.batch is in MuJoCo 3.17 and later; {mujoco.__version__} is installed")
    if name == "rollout" or not has_batch() or not _whole(model):
        return RolloutBackend(model, num_threads)
    return BatchBackend(model, num_threads)


def has_batch() -> bool:
    """Whether the installed MuJoCo has `mujoco.batch`."""
    return importlib.util.find_spec("mujoco.batch") is not None


def _whole(model: mujoco.MjModel) -> bool:
    """Whether the parts that are bound make up a whole state of the model (its flexes have none of their own)."""
    data = mujoco.MjData(model)
    sizes = [1 if part == "time" else getattr(data, part).size for part in _PARTS if hasattr(data, part)]
    return bool(sum(sizes) == mujoco.mj_stateSize(model, FULL_PHYSICS))


def _batch_module() -> ModuleType:
    return importlib.import_module("mujoco.batch")
