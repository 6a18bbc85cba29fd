"""The state of the simulations of one class after a step, for all rows at once."""

from collections.abc import Callable, Sequence
from functools import cached_property

import mujoco
import numpy as np

Gather = Callable[[str], np.ndarray]
"""Stacks an array of the simulations by its name in MuJoCo, [row, number]."""


_VECDOT = getattr(np, "vecdot", None)  # since numpy 2, and faster than a product of matrices


class Numbers:
    """Numbers of a model's names, looked up once.

    Args:
        model: Model with the names.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self._numbers: dict[tuple[str, str], int] = {}

    def of(self, kind: str, name: str) -> int:
        """The number of a body, site or geom, or the place of a joint among the positions."""
        number = self._numbers.get((kind, name))
        if number is None:
            named = getattr(self._model, kind)(name)
            number = self._numbers[kind, name] = int(named.qposadr[0]) if kind == "joint" else int(named.id)
        return number


class Rows:
    """Rows of one class after a step: positions by name, and what their resets noted.

    Args:
        numbers: Numbers of the names in the class's model.
        gather: Function that stacks an array of the rows' simulations.
        noted: Function that stacks what the rows' resets noted under a name.
        first: Function that returns what it was called with, [row], in the episode's first step, by a name.
        touching: Function that says whether both pads press on a geom, by the rows and the geom's name.

    Attributes:
        target: Positions of the goal, metres [row, 3].
        observations: Observations of the rows, [row, 39].
        actions: Actions of the rows, [row, 4].
    """

    def __init__(
        self,
        numbers: Numbers,
        gather: Gather,
        noted: Gather,
        first: Callable[[str, np.ndarray], np.ndarray],
        touching: Callable[[np.ndarray, str], np.ndarray],
    ) -> None:
        self._numbers, self._gather, self.noted, self.first = numbers, gather, noted, first
        self._touching = touching
        self.target = np.zeros((0, 3))
        self._arrays: dict[str, np.ndarray] = {}
        self.observations = np.zeros((0, 39))
        self.actions = np.zeros((0, 4))

    def _array(self, name: str) -> np.ndarray:
        if name not in self._arrays:
            self._arrays[name] = self._gather(name)
        return self._arrays[name]

    def _triple(self, name: str, number: int) -> np.ndarray:
        return self._array(name)[:, 3 * number : 3 * number + 3]

    def body(self, name: str) -> np.ndarray:
        """Positions of a body, metres [row, 3]."""
        return self._triple("xpos", self._numbers.of("body", name))

    def site(self, name: str) -> np.ndarray:
        """Positions of a site, metres [row, 3]."""
        return self._triple("site_xpos", self._numbers.of("site", name))

    def geom(self, name: str) -> np.ndarray:
        """Positions of a geom, metres [row, 3]."""
        return self._triple("geom_xpos", self._numbers.of("geom", name))

    def joint(self, name: str) -> np.ndarray:
        """Positions of a joint with one degree of freedom, [row]."""
        return self._array("qpos")[:, self._numbers.of("joint", name)]

    def body_quaternion(self, name: str) -> np.ndarray:
        """Rotations of a body as MuJoCo has them (w, x, y, z), [row, 4]."""
        number = self._numbers.of("body", name)
        return self._array("xquat")[:, 4 * number : 4 * number + 4]

    def rotation(self, kind: str, name: str) -> np.ndarray:
        """Rotations of a geom, body or site from its matrix (x, y, z, w), [row, 4]."""
        array = {"geom": "geom_xmat", "body": "xmat", "site": "site_xmat"}[kind]
        first = 9 * self._numbers.of(kind, name)
        return quaternions(self._array(array)[:, first : first + 9])

    @cached_property
    def tcp(self) -> np.ndarray:
        """Centres between the fingertips, metres [row, 3]."""
        tcp: np.ndarray = (self.right_tip + self.left_tip) / 2.0
        return tcp

    @property
    def right_tip(self) -> np.ndarray:
        """Positions of the right fingertip, metres [row, 3]."""
        return self.site("rightEndEffector")

    @property
    def left_tip(self) -> np.ndarray:
        """Positions of the left fingertip, metres [row, 3]."""
        return self.site("leftEndEffector")

    @property
    def hand(self) -> np.ndarray:
        """Observed positions of the hand, within its bounds, metres [row, 3]."""
        return self.observations[:, :3]

    @property
    def opened(self) -> np.ndarray:
        """Opening of the gripper as a share of the widest, [row]."""
        return self.observations[:, 3]

    @property
    def object(self) -> np.ndarray:
        """Observed positions of the first object, metres [row, 3]."""
        return self.observations[:, 4:7]

    def touching(self, rows: np.ndarray, geom: str) -> np.ndarray:
        """Whether both pads press on a geom, asked of the rows of a mask alone, bool [row]."""
        result = np.zeros(len(rows), dtype=np.bool_)
        chosen = np.flatnonzero(rows)
        if len(chosen):
            result[chosen] = self._touching(chosen, geom)
        return result

    def gripper_and_hand(self) -> np.ndarray:
        """The observation's first four numbers before they are bounded, [row, 4]."""
        first = np.empty((len(self._array("xpos")), 4))
        first[:, :3] = self.body("hand")
        opened = norm(self.body("rightclaw") - self.body("leftclaw")) / 0.1
        first[:, 3] = np.minimum(np.maximum(opened, 0.0), 1.0)
        return first


def norm(vectors: np.ndarray) -> np.ndarray:
    """Euclidean lengths, [row], with the sum that numpy's norm of one vector has."""
    columns = np.ascontiguousarray(vectors)
    if _VECDOT is None:
        squares = np.matmul(columns[:, None], columns[..., None])[:, 0, 0]
    else:
        squares = _VECDOT(columns, columns)
    lengths: np.ndarray = np.sqrt(squares)
    return lengths


def quaternions(matrices: np.ndarray) -> np.ndarray:
    """Quaternions (x, y, z, w) of rotation matrices [row, 9], by Shepperd's method, as scipy computes them."""
    m = matrices.T
    trace = m[0] + m[4] + m[8]
    largest = np.argmax(np.stack((m[0], m[4], m[8], trace)), axis=0)
    result = np.empty((len(matrices), 4))
    for i in np.unique(largest).tolist():
        rows = np.flatnonzero(largest == i)
        r = m[:, rows]
        quaternion: Sequence[np.ndarray]
        if i == 3:
            quaternion = (r[7] - r[5], r[2] - r[6], r[3] - r[1], 1 + trace[rows])
        else:
            j, k = (i + 1) % 3, (i + 2) % 3
            parts = [r[0]] * 4
            parts[i] = 1 - trace[rows] + 2 * r[4 * i]
            parts[j], parts[k] = r[3 * j + i] + r[3 * i + j], r[3 * k + i] + r[3 * i + k]
            parts[3] = r[3 * k + j] - r[3 * j + k]
            quaternion = parts
        x, y, z, w = quaternion
        length = np.sqrt(x * x + y * y + z * z + w * w)
        result[rows] = np.stack((x / length, y / length, z / length, w / length), axis=1)
    return result
