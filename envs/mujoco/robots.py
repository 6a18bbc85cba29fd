"""The robots: Gymnasium's v5 models with their frame skip, reset noise, observation and limits of health."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import gymnasium.envs.mujoco
import mujoco
import numpy as np

from metarl.runs.configs import MOST_REPEATS, Configuration, check_counts, check_not_negative

ASSETS = Path(gymnasium.envs.mujoco.__file__).parent / "assets"
"""Folder of Gymnasium's model files."""

Healthy = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Robot(Configuration):
    """One of Gymnasium's MuJoCo locomotion models, or another model file.

    Attributes:
        xml_file: Name of a file in Gymnasium's assets, or an absolute path.
        frame_skip: Number of physics steps per environment step.
        hidden_qpos: Number of leading positions that are left out of the observation (1: x; 2: x and y).
        reset_noise: Range of the initial positions around the model's, uniform in +-reset_noise.
        velocity_noise: Distribution of the initial velocities: reset_noise times a normal, or uniform in
            +-reset_noise.
        forward_weight: Reward per metre per second forward, as in v5.
        ctrl_weight: Weight of the cost on the sum of squared actions, as in v5.
        healthy_reward: Reward per healthy step, as in v5.
        velocity_limit: Bound to which observed velocities are clipped, in both directions.
        healthy: Function of qpos and qvel that returns bool [row]; None when an episode never terminates.
        com_body: Body whose subtree's centre of mass gives the velocity; None: the root's position.
    """

    name: str
    xml_file: str
    frame_skip: int
    hidden_qpos: int
    reset_noise: float
    velocity_noise: Literal["normal", "uniform"]
    forward_weight: float = 1.0
    ctrl_weight: float = 0.0
    healthy_reward: float = 0.0
    velocity_limit: float = np.inf
    healthy: Healthy | None = None
    com_body: str | None = None

    def __post_init__(self) -> None:
        check_counts(self, "frame_skip", most=MOST_REPEATS)
        check_counts(self, "hidden_qpos", least=0)
        check_not_negative(self, "reset_noise")

    def build_model(self) -> mujoco.MjModel:
        """A fresh MjModel of the robot."""
        return compiled(self.build_spec())

    def build_spec(self) -> mujoco.MjSpec:
        """The robot's model before it is compiled, to add to."""
        spec = mujoco.MjSpec.from_file(str(ASSETS / self.xml_file))
        for texture in spec.textures:  # 500 of an MjModel's 520 KB are textures that nobody sees
            texture.width = min(texture.width, 8)
            texture.height = min(texture.height, 48)
        if self.com_body is not None:
            spec.add_sensor(
                name="com",
                type=mujoco.mjtSensor.mjSENS_SUBTREECOM,
                objtype=mujoco.mjtObj.mjOBJ_BODY,
                objname=self.com_body,
            )
        return spec

    def reset_states(
        self, model: mujoco.MjModel, rngs: Sequence[np.random.Generator]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Initial positions [row, nq] and velocities [row, nv], drawn as Gymnasium's v5 draws them."""
        noise = self.reset_noise
        qpos = np.empty((len(rngs), model.nq))
        qvel = np.empty((len(rngs), model.nv))
        for row, rng in enumerate(rngs):
            qpos[row] = rng.uniform(-noise, noise, model.nq)
            if self.velocity_noise == "normal":
                qvel[row] = noise * rng.standard_normal(model.nv)
            else:
                qvel[row] = rng.uniform(-noise, noise, model.nv)
        return qpos + model.qpos0, qvel

    def observe(self, qpos: np.ndarray, qvel: np.ndarray, hidden_qpos: int | None = None) -> np.ndarray:
        """Positions but the hidden ones, and velocities, [row, feature]."""
        hidden = self.hidden_qpos if hidden_qpos is None else hidden_qpos
        if np.isfinite(self.velocity_limit):
            qvel = np.clip(qvel, -self.velocity_limit, self.velocity_limit)
        return np.concatenate((qpos[:, hidden:], qvel), axis=1)


def compiled(spec: mujoco.MjSpec) -> mujoco.MjModel:
    """The model of a specification, without MuJoCo 4's warning about an attribute of Gymnasium's half-cheetah."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "compiler attribute 'settotalmass' is deprecated", UserWarning)
        return spec.compile()


def _ant_healthy(qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
    finite: np.ndarray = np.isfinite(qpos).all(1) & np.isfinite(qvel).all(1)
    healthy: np.ndarray = finite & (qpos[:, 2] >= 0.2) & (qpos[:, 2] <= 1.0)
    return healthy


def _humanoid_healthy(qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
    healthy: np.ndarray = (qpos[:, 2] > 1.0) & (qpos[:, 2] < 2.0)
    return healthy


def _walker_healthy(qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
    return (qpos[:, 1] > 0.8) & (qpos[:, 1] < 2.0) & (qpos[:, 2] > -1.0) & (qpos[:, 2] < 1.0)


def _hopper_healthy(qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
    state = np.concatenate((qpos[:, 2:], qvel), axis=1)
    bounded = ((state > -100.0) & (state < 100.0)).all(1)
    return bounded & (qpos[:, 1] > 0.7) & (qpos[:, 2] > -0.2) & (qpos[:, 2] < 0.2)


HALF_CHEETAH = Robot("half-cheetah", "half_cheetah.xml", 5, 1, 0.1, "normal", forward_weight=1.0, ctrl_weight=0.1)
ANT = Robot(
    "ant", "ant.xml", 5, 2, 0.1, "normal",
    forward_weight=1.0, ctrl_weight=0.5, healthy_reward=1.0, healthy=_ant_healthy,
)  # fmt: skip
HUMANOID = Robot(
    "humanoid", "humanoid.xml", 5, 2, 0.01, "uniform",
    forward_weight=1.25, ctrl_weight=0.1, healthy_reward=5.0, healthy=_humanoid_healthy, com_body="torso",
)  # fmt: skip
WALKER2D = Robot(
    "walker2d", "walker2d_v5.xml", 4, 1, 0.005, "uniform",
    forward_weight=1.0, ctrl_weight=0.001, healthy_reward=1.0, velocity_limit=10.0, healthy=_walker_healthy,
)  # fmt: skip
HOPPER = Robot(
    "hopper", "hopper.xml", 4, 1, 0.005, "uniform",
    forward_weight=1.0, ctrl_weight=0.001, healthy_reward=1.0, velocity_limit=10.0, healthy=_hopper_healthy,
)  # fmt: skip
ROBOTS = {robot.name: robot for robot in (HALF_CHEETAH, ANT, HUMANOID, WALKER2D, HOPPER)}
"""The robots by name."""
