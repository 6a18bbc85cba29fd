"""Random numbers for vectorised environments: one for every row, each from the row's own generator."""

from collections.abc import Callable, Sequence

import numpy as np

Draw = Callable[[np.random.Generator, int], np.ndarray]
"""Draws so many numbers from a generator."""


class RowNoise:
    """Numbers for the rows of a batch, drawn from each row's generator in blocks.

    A row's numbers depend on its own generator and on how many it has taken, never on the batch around it. A
    block costs one call per row instead of one call per row and step.

    Args:
        draw: Function that draws `count` numbers, e.g. `lambda rng, count: rng.random(count)`.
        num_rows: Number of rows in the batch.
        block: Number of numbers that are drawn at once.
    """

    def __init__(self, draw: Draw, num_rows: int, *, block: int = 128) -> None:
        self._draw = draw
        self._numbers = np.zeros((num_rows, block))
        self._taken = np.full(num_rows, block)
        self._every = np.arange(num_rows)

    def discard(self, rows: np.ndarray) -> None:
        """Forget what was drawn for the rows: they have new generators."""
        self._taken[rows] = self._numbers.shape[1]

    def next(self, rngs: Sequence[np.random.Generator], rows: np.ndarray | None) -> np.ndarray:
        """The next number of each of the rows (None: all), float64 [row].

        Args:
            rngs: Generators of all rows.
            rows: Indices of the rows that take a number; None for all.
        """
        index = self._every if rows is None else rows
        taken = self._taken[index]
        empty = index[taken == self._numbers.shape[1]]
        if len(empty):
            for row in empty:
                self._numbers[row] = self._draw(rngs[row], self._numbers.shape[1])
            self._taken[empty] = 0
            taken = self._taken[index]
        self._taken[index] = taken + 1
        numbers: np.ndarray = self._numbers[index, taken]
        return numbers
