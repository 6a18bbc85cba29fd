"""A camera that looks at one row of the batched engine, by Gymnasium's off-screen viewer.

Without a screen it needs EGL or OSMesa, which are chosen here unless the environment variable MUJOCO_GL says so.
"""

import os
import sys
from collections.abc import Sequence
from ctypes.util import find_library
from typing import Any

import mujoco
import numpy as np

_NEEDS = (
    "drawing without a screen needs EGL or OSMesa: apt install libegl1 (or libosmesa6), "
    "and MUJOCO_GL=egl (or osmesa) chooses between them"
)


class Camera:
    """Pictures of a model's states.

    Args:
        model: Model with its looks: textures and materials.
        width: Width of the pictures, pixels.
        height: Height of the pictures, pixels.

    Raises:
        RuntimeError: if nothing can be drawn on this machine; says which package is missing.
    """

    def __init__(self, model: mujoco.MjModel, width: int = 480, height: int = 360) -> None:
        choose_backend()
        model.vis.global_.offwidth = max(width, model.vis.global_.offwidth)
        model.vis.global_.offheight = max(height, model.vis.global_.offheight)
        self._model, self._data = model, mujoco.MjData(model)
        mujoco.mj_forward(model, self._data)
        from gymnasium.envs.mujoco.mujoco_rendering import OffScreenViewer  # noqa: PLC0415  # needs the choice

        try:
            self._viewer: Any = OffScreenViewer(model, self._data, width, height)
        except Exception as error:  # each backend has errors of its own
            reason = " ".join(str(error).split())[:80] or type(error).__name__
            raise RuntimeError(f"{_NEEDS} ({reason})") from error
        self._moves = _moves_about(model)
        cam = self._viewer.cam
        cam.type = mujoco.mjtCamera.mjCAMERA_FREE.value
        cam.azimuth, cam.elevation = 90.0, -20.0
        cam.distance = _extent(model, self._data) * (2.2 if self._moves else 1.8)
        cam.lookat[:] = _centre(model, self._data)
        self._height = float(cam.lookat[2])

    def picture(self, qpos: np.ndarray, goals: Sequence[np.ndarray] = ()) -> np.ndarray:
        """The model at positions [nq], with goals [3] as spheres; uint8 [height, width, 3]."""
        self._data.qpos[:] = qpos
        mujoco.mj_forward(self._model, self._data)
        if self._moves:
            self._viewer.cam.lookat[:] = (*self._data.xpos[1, :2], self._height)
        for goal in goals:
            self._viewer.add_marker(
                type=mujoco.mjtGeom.mjGEOM_SPHERE.value, pos=goal, size=np.full(3, 0.15 if self._moves else 0.02),
                rgba=np.array([0.0, 0.62, 0.45, 0.9]), label="",
            )  # fmt: skip
        picture: np.ndarray = self._viewer.render("rgb_array")
        return picture.copy()

    def close(self) -> None:
        """Release the drawing context; a picture after that fails."""
        self._viewer.free()


def choose_backend() -> None:
    """Choose EGL or OSMesa by what is installed, on a machine without a screen, unless MUJOCO_GL is set.

    Raises:
        RuntimeError: if neither is there.
    """
    has_screen = sys.platform != "linux" or any(name in os.environ for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    if "MUJOCO_GL" in os.environ or has_screen:
        return
    for backend, library in (("egl", "EGL"), ("osmesa", "OSMesa")):
        if find_library(library) is not None:
            os.environ["MUJOCO_GL"] = backend
            return
    raise RuntimeError(_NEEDS)


def _moves_about(model: mujoco.MjModel) -> bool:
    """Whether the first body moves freely, so that a picture must follow it."""
    joints = [int(model.jnt_type[j]) for j in range(model.njnt) if model.jnt_bodyid[j] == 1]
    return any(kind in (mujoco.mjtJoint.mjJNT_FREE.value, mujoco.mjtJoint.mjJNT_SLIDE.value) for kind in joints)


def _robot_geoms(model: mujoco.MjModel) -> np.ndarray:
    """Which geoms are parts of the robot, not of the ground: bool [geom]."""
    planes = model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE.value
    moving: np.ndarray = ~planes & (model.geom_bodyid > 0)
    return moving if moving.any() else ~planes


def _centre(model: mujoco.MjModel, data: mujoco.MjData) -> np.ndarray:
    centre: np.ndarray = data.geom_xpos[_robot_geoms(model)].mean(0)
    return centre


def _extent(model: mujoco.MjModel, data: mujoco.MjData) -> float:
    """Diameter of the robot's geoms, metres."""
    robot = _robot_geoms(model)
    positions, radii = data.geom_xpos[robot], model.geom_rbound[robot]
    spans = (positions + radii[:, None]).max(0) - (positions - radii[:, None]).min(0)
    return float(max(spans.max(), 1e-3))
