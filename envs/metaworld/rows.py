"""The state of the simulations of one class after a step, for all rows at once."""

from collections.abc import Callable, Sequence
from functools import cached_property

import mujoco
import numpy as np

Gather = Callable[[str], np.ndarray]
"""Stacks an array of the simulations by its name in MuJoCo, [row, number]."""


class Rows:
    """Rows of one class after a step: positions by name, and what their resets noted.

    Args:
        model: A model of the class, for the numbers of its names.
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
        model: mujoco.MjModel,
        gather: Gather,
        noted: Gather,
        first: Callable[[str, np.ndarray], np.ndarray],
        touching: Callable[[np.ndarray, str], np.ndarray],
    ) -> None:
        self._model, self._gather, self.noted, self.first = model, gather, noted, first
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
        return self._triple("xpos", self._model.body(name).id)

    def site(self, name: str) -> np.ndarray:
        """Positions of a site, metres [row, 3]."""
        return self._triple("site_xpos", self._model.site(name).id)

    def geom(self, name: str) -> np.ndarray:
        """Positions of a geom, metres [row, 3]."""
        return self._triple("geom_xpos", self._model.geom(name).id)

    def joint(self, name: str) -> np.ndarray:
        """Positions of a joint with one degree of freedom, [row]."""
        return self._array("qpos")[:, int(self._model.joint(name).qposadr[0])]

    def body_quaternion(self, name: str) -> np.ndarray:
        """Rotations of a body as MuJoCo has them (w, x, y, z), [row, 4]."""
        number = self._model.body(name).id
        return self._array("xquat")[:, 4 * number : 4 * number + 4]

    def rotation(self, kind: str, name: str) -> np.ndarray:
        """Rotations of a geom, body or site from its matrix (x, y, z, w), [row, 4]."""
        array, number = {
            "geom": ("geom_xmat", mujoco.mjtObj.mjOBJ_GEOM),
            "body": ("xmat", mujoco.mjtObj.mjOBJ_BODY),
            "site": ("site_xmat", mujoco.mjtObj.mjOBJ_SITE),
        }[kind]
        first = 9 * mujoco.mj_name2id(self._model, number, name)
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
    lengths: np.ndarray = np.sqrt(np.matmul(columns[:, None, :], columns[:, :, None])[:, 0, 0])
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
