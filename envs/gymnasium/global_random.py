"""Global random numbers (`np.random`, `random`) of environments that draw from them, made to repeat.

An environment should draw from its own `np_random`. One that draws from the global generators would give other
episodes in every run, and in every number of processes. Its draws are noticed while it runs its first episode; the
global generators are then seeded with every reset, and every environment continues its own streams.
"""

import contextlib
import ctypes
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

_WATCHED_STEPS = 200
"""Calls of every environment, from its first reset on, in which global draws are noticed: 0.03 ms each."""
_KEYS = 624  # words of a Mersenne twister, before its position


class GlobalRandom:
    """The global random streams of the environments of some rows.

    Attributes:
        used: Whether an environment has drawn from a global generator.
    """

    def __init__(self) -> None:
        self.used = False
        self._seeds: dict[int, int] = {}
        self._streams: dict[int, tuple[Any, Any]] = {}
        self._calls: dict[int, int] = {}

    @contextlib.contextmanager
    def of_rows(self, rows: Sequence[int]) -> Iterator[None]:
        """Put the caller's own global state back after calls of rows, one by one in `of_row`."""
        if not (self.used or any(self._calls.get(row, 0) < _WATCHED_STEPS for row in rows)):
            yield
            return
        outside = _state()
        try:
            yield
        finally:
            _set_state(outside)

    @contextlib.contextmanager
    def of_row(self, row: int, seed: int | None = None) -> Iterator[None]:
        """Let what runs inside draw from the row's streams.

        Args:
            row: Number of the environment.
            seed: Seed of the row's streams where an episode begins; None continues them.
        """
        calls = self._calls[row] = self._calls.get(row, 0) + 1
        if not self.used and calls > _WATCHED_STEPS:
            yield
            return
        if seed is not None:
            self._seeds[row] = seed
            self._streams.pop(row, None)
        if row in self._streams:
            _set_state(self._streams[row])
        elif row in self._seeds:  # a stream of which nothing was drawn is where its seed puts it
            np.random.seed(self._seeds[row])  # noqa: NPY002  # what the environment draws from
            random.seed(self._seeds[row])
        before = _fingerprint()
        try:
            yield
        finally:
            if self.used or _fingerprint() != before:
                self.used = True
                self._streams[row] = _state()


def _state() -> tuple[Any, Any]:
    return np.random.get_state(), random.getstate()  # noqa: NPY002  # what the environment draws from


def _set_state(state: tuple[Any, Any]) -> None:
    np.random.set_state(state[0])  # noqa: NPY002
    random.setstate(state[1])


def _fingerprint() -> tuple[Any, ...]:
    """Numbers that change with every draw and seed; numpy's are read in place, as a copy of its state is slow."""
    pythons = random.getstate()[1]
    generator = np.random.get_bit_generator()  # type: ignore[attr-defined]  # missing in the stubs
    if type(generator) is not np.random.MT19937:
        return (repr(generator.state), *pythons[:2], pythons[-1])
    words = (ctypes.c_uint32 * (_KEYS + 1)).from_address(generator.ctypes.state_address)
    return words[0], words[1], words[_KEYS], *pythons[:2], pythons[-1]
