"""The view of a walker of MiniGrid, computed without copies of its grid: equal to the package's to the number.

The package slices, turns and encodes grids of Python objects cell by cell, which takes most of a step's time.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

_EMPTY, _WALL = (1, 0, 0), (2, 5, 0)  # codes of an empty cell and of a wall: kind, colour, state
_FORWARD = ((1, 0), (0, 1), (-1, 0), (0, -1))  # by direction


def view(env: Any) -> np.ndarray:
    """The picture that the walker of a MiniGrid environment sees, uint8 [column, row, (kind, colour, state)]."""
    size, grid = env.agent_view_size, env.grid
    x, y = int(env.agent_pos[0]), int(env.agent_pos[1])
    places = _places(size, int(env.agent_dir), (grid.width, grid.height), (x, y))
    cells = [grid.grid[place] if place >= 0 else _OUTSIDE for place in places]
    clear = [0] * size  # by row, a bit for every column that is looked through
    for row in range(size):
        for column in range(size):
            cell = cells[row * size + column]
            if cell is None or cell.see_behind():
                clear[row] |= 1 << column
    picture = np.zeros((size, size, 3), dtype=np.uint8)
    visible = [(1 << size) - 1] * size if env.see_through_walls else _seen(clear)
    for row in range(size):
        for column in range(size):
            if visible[row] >> column & 1:
                cell = cells[row * size + column]
                picture[column, row] = _EMPTY if cell is None else cell.encode()
    if visible[size - 1] >> (size // 2) & 1:
        picture[size // 2, size - 1] = _EMPTY if env.carrying is None else env.carrying.encode()
    return picture


class _Outside:
    """A cell beyond the grid, which looks like a wall."""

    def see_behind(self) -> bool:
        return False

    def encode(self) -> tuple[int, int, int]:
        return _WALL


_OUTSIDE = _Outside()


@functools.lru_cache(maxsize=100_000)
def _places(size: int, direction: int, extent: tuple[int, int], at: tuple[int, int]) -> tuple[int, ...]:
    """Places in the grid's list of the cells that are seen, row by row, the farthest first; -1 beyond the grid."""
    (fx, fy), (width, height), (x, y) = _FORWARD[direction], extent, at
    places = []
    for ahead in reversed(range(size)):
        for side in range(-(size // 2), size - size // 2):
            column, row = x + fx * ahead - fy * side, y + fy * ahead + fx * side
            places.append(row * width + column if 0 <= column < width and 0 <= row < height else -1)
    return tuple(places)


def _seen(clear: Sequence[int]) -> list[int]:
    """Bits of the columns that are seen, by row, from the bits of those that are looked through."""
    size = len(clear)
    visible = [0] * size
    visible[-1] = 1 << size // 2
    for row in reversed(range(size)):
        visible[row], above = _spread(visible[row], clear[row], size)
        if row:
            visible[row - 1] |= above
    return visible


@functools.lru_cache(maxsize=100_000)
def _spread(visible: int, clear: int, size: int) -> tuple[int, int]:
    """Bits of a row that are seen sideways of those seen already, and bits of the row ahead."""
    above = 0
    for column in range(size - 1):
        if visible >> column & clear >> column & 1:
            visible |= 2 << column
            above |= 3 << column
    for column in reversed(range(1, size)):
        if visible >> column & clear >> column & 1:
            visible |= 1 << column - 1
            above |= 3 << column - 1
    return visible, above
