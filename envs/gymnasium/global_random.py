"""Global random numbers (`np.random`, `random`) of environments that draw from them, made to repeat.

An environment should draw from its own `np_random`. One that draws from the global generators would give other
episodes in every run, and in every number of processes. Its draws are noticed while it runs its first episode; the
global generators are then seeded with every reset, and every environment continues its own streams.
"""

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np

_WATCHED_STEPS = 200
"""Calls of every environment, from its first reset on, in which global draws are noticed: 0.2 ms each."""


class GlobalRandom:
    """The global random streams of the environments of some rows.

    Attributes:
        used: Whether an environment has drawn from a global generator.
    """

    def __init__(self) -> None:
        self.used = False
        self._streams: dict[int, tuple[Any, Any]] = {}
        self._calls: dict[int, int] = {}

    @contextlib.contextmanager
    def of_row(self, row: int, seed: int | None = None) -> Iterator[None]:
        """Let what runs inside draw from the row's streams; the caller's own state is put back.

        Args:
            row: Number of the environment.
            seed: Seed of the row's streams where an episode begins; None continues them.
        """
        calls = self._calls[row] = self._calls.get(row, 0) + 1
        if not self.used and calls > _WATCHED_STEPS:
            yield
            return
        if seed is not None:
            self._streams[row] = (np.random.RandomState(seed).get_state(), random.Random(seed).getstate())
        outside = _state()
        _set_state(self._streams.get(row, outside))
        before = _state()
        try:
            yield
        finally:
            after = _state()
            self.used = self.used or _differ(before, after)
            self._streams[row] = after
            _set_state(outside)


def _state() -> tuple[Any, Any]:
    return np.random.get_state(), random.getstate()  # noqa: NPY002  # what the environment draws from


def _set_state(state: tuple[Any, Any]) -> None:
    np.random.set_state(state[0])  # noqa: NPY002
    random.setstate(state[1])


def _differ(first: tuple[Any, Any], second: tuple[Any, Any]) -> bool:
    numpys, pythons = zip(first, second, strict=True)
    same_keys = np.array_equal(numpys[0][1], numpys[1][1])
    return not same_keys or numpys[0][2:] != numpys[1][2:] or pythons[0] != pythons[1]
