"""Memory that the caller and its environment processes share: one array per quantity, one row per environment."""

from ctypes import c_byte
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from metarl.observations import describe, row_format
from metarl.runs.starting import process_context


@dataclass(frozen=True)
class SharedArrays:
    """Actions, observations, rewards and flags of the environments, by row.

    Attributes:
        observations: Latest observations, [row, ...], as `metarl.observations.row_format` stores them.
        actions: Actions of the next step, [row, ...].
        rewards: Rewards of the last step, float64 [row].
        terminated: True where the last step ended the MDP, [row].
        truncated: True where the environment cut the episode itself, [row].
        infos: Reported numbers of the last step, NaN where one was not reported, float64 [row, info].
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    infos: np.ndarray

    def rows(self, rows: slice) -> "SharedArrays":
        """Views of some rows."""
        return SharedArrays(**{name: array[rows] for name, array in vars(self).items()})


@dataclass(frozen=True)
class ArrayLayout:
    """Places of the arrays in shared memory: one after the other.

    Attributes:
        num_rows: Number of environments.
        observations: Observation space of one environment.
        actions: Action space of one environment.
        num_infos: Number of reported numbers.
    """

    num_rows: int
    observations: spaces.Space[Any]
    actions: spaces.Space[Any]
    num_infos: int

    def _fields(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        fields = {
            "rewards": ((), np.dtype(np.float64)),
            "infos": ((self.num_infos,), np.dtype(np.float64)),
            "terminated": ((), np.dtype(np.bool_)),
            "truncated": ((), np.dtype(np.bool_)),
        }
        if self.actions.shape is None or self.actions.dtype is None:
            raise ValueError(f"actions must be arrays or numbers, got the space {describe(self.actions)}")
        fields["actions"] = (self.actions.shape, self.actions.dtype)
        fields["observations"] = row_format(self.observations)
        return fields

    def memory(self) -> Any:
        """Room for the arrays, without a name: it is freed with its last user, however that ends."""
        size = sum(self._size(shape, dtype) for shape, dtype in self._fields().values())
        return process_context().RawArray(c_byte, size)

    def arrays(self, memory: Any) -> SharedArrays:
        """The arrays in memory that `memory` made."""
        arrays, offset = {}, 0
        for name, (shape, dtype) in self._fields().items():
            count = self.num_rows * int(np.prod(shape))
            arrays[name] = np.frombuffer(memory, dtype, count, offset).reshape(self.num_rows, *shape)
            offset += self._size(shape, dtype)
        return SharedArrays(**arrays)

    def _size(self, shape: tuple[int, ...], dtype: Any) -> int:
        size = self.num_rows * int(np.prod(shape)) * int(np.dtype(dtype).itemsize)
        return -(-size // 8) * 8
