"""Locomotion task families on the batched engine: one environment class, and a reward per family.

A family names a robot, its task parameters and its reward terms; observation, health and physics are the
robot's. All terms are computed for all rows at once from the state array before and after a step.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import mujoco
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from metarl.envs.mujoco.camera import Camera
from metarl.envs.mujoco.engine import BatchedPhysics
from metarl.envs.mujoco.robots import ASSETS, Robot, compiled
from metarl.envs.vector import Infos, TaskVectorEnv
from metarl.tasks import Parameter, Task, TaskFamily


class Motion(NamedTuple):
    """One control step of the rows that were stepped.

    Attributes:
        position: Position (x, y) of the root after the step, metres [row, 2]; y is zero for planar robots.
        velocity: Mean velocity over the step of the root, or of the centre of mass if the robot has a `com_body`,
            m/s [row, 2].
        healthy: Whether the robot is healthy after the step, bool [row].
        qpos: Generalised positions after the step, [row, nq].
        qvel: Generalised velocities after the step, [row, nv].
        positions: Positions after the step of the bodies and sites that the family measures, by name, metres
            [row, 3].
        velocities: Mean velocities of the same over the step, m/s [row, 3].
        params: Parameters of the rows' tasks, by name, [row] or [row, size]; a target that has changed within the
            episode is the new one.
        contacts: Torques (N m) and forces (N) by contacts in the step's last physics step, by the name of the body
            that they act on, as MuJoCo's cfrc_ext has them, [row, 6]; empty where the family has no `felt` bodies.
    """

    position: np.ndarray
    velocity: np.ndarray
    healthy: np.ndarray
    qpos: np.ndarray
    qvel: np.ndarray
    positions: Mapping[str, np.ndarray] = MappingProxyType({})
    velocities: Mapping[str, np.ndarray] = MappingProxyType({})
    params: Mapping[str, np.ndarray] = MappingProxyType({})
    contacts: Mapping[str, np.ndarray] = MappingProxyType({})


class LocomotionFamily(TaskFamily):
    """A robot, the parameters that its tasks vary, and its reward."""

    robot: Robot
    terminate_when_unhealthy: ClassVar[bool] = True
    position_observed: ClassVar[bool] = False
    horizon: int = 200
    parameters: tuple[Parameter, ...] = ()

    @property
    def measured(self) -> Mapping[str, str]:
        """Names of the model's sensors of positions that `Motion` has, by the names that it has them under."""
        return {}

    @property
    def felt(self) -> Sequence[str]:
        """Names of all bodies of the model, in its order, if `Motion` is to have the contact forces on them."""
        return ()

    def healthy(self, motion: Motion) -> np.ndarray | None:
        """Whether rows are healthy by the family's own ranges, bool [row]; None where it has none."""
        return None

    @abstractmethod
    def reward_terms(
        self, motion: Motion, actions: np.ndarray, params: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Named reward terms, each of shape [row]; the reward is their sum, in this order."""

    @property
    def frame_skip(self) -> int:
        """Physics steps per environment step."""
        return self.robot.frame_skip

    def build_model(self) -> mujoco.MjModel:
        """A fresh nominal model."""
        return self.robot.build_model()

    def build_looks(self) -> mujoco.MjModel:
        """A model to draw: the robot's own, with its textures; it has the same positions."""
        return compiled(mujoco.MjSpec.from_file(str(ASSETS / self.robot.xml_file)))

    def goals(self, task: Task) -> list[np.ndarray]:
        """Places to reach that a task names, metres, each [3], to be drawn."""
        return [
            np.append(np.array(task[p.name]), 0.0) for p in self.parameters if p.name == "goal" and p.size == 2
        ]

    def model_for(self, task: Task, nominal: mujoco.MjModel) -> mujoco.MjModel:
        """The model of a task. A family whose dynamics vary returns an edited `copy.copy(nominal)`.

        After editing masses or inertias call `mujoco.mj_setConst`, or derived constants keep their nominal values.
        """
        return nominal

    def make_env(
        self,
        num_envs: int,
        *,
        horizon: int | None = None,
        num_threads: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    ) -> "LocomotionEnv":
        """A batched environment for tasks of this family."""
        return LocomotionEnv(
            self, num_envs, horizon=horizon, num_threads=num_threads, autoreset_mode=autoreset_mode
        )


class LocomotionEnv(TaskVectorEnv):
    """Sub-environments of one locomotion family on the batched engine."""

    family: LocomotionFamily

    def __init__(
        self,
        family: LocomotionFamily,
        num_envs: int,
        *,
        horizon: int | None = None,
        num_threads: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    ) -> None:
        self.robot = family.robot
        self._nominal = family.build_model()
        self._hidden_qpos = 0 if family.position_observed else self.robot.hidden_qpos
        size = self._nominal.nq + self._nominal.nv - self._hidden_qpos
        low, high = self._nominal.actuator_ctrlrange.T.astype(np.float32)
        super().__init__(
            family,
            num_envs,
            spaces.Box(-np.inf, np.inf, (size,), np.float64),
            spaces.Box(low, high, dtype=np.float32),
            max_episode_steps=family.horizon if horizon is None else horizon,
            autoreset_mode=autoreset_mode,
        )
        self._measured = {name: int(self._nominal.sensor(s).adr[0]) for name, s in family.measured.items()}
        senses = self.robot.com_body is not None or bool(self._measured)
        self._felt = family.felt
        self.physics = BatchedPhysics(
            self._nominal, num_envs, family.frame_skip, num_threads, sense=senses, contacts=bool(self._felt)
        )
        self._com = int(self._nominal.sensor("com").adr[0]) if self.robot.com_body is not None else 0
        self.dt: float = self._nominal.opt.timestep * family.frame_skip
        self._params: dict[str, np.ndarray] = {}
        self._camera: Camera | None = None

    def resize(self, num_envs: int) -> bool:
        """Take another number of rows, up to the capacity, and keep the threads."""
        if num_envs > self.capacity:
            return False
        self._take_rows(num_envs)
        self.physics.resize(num_envs)
        return True

    def _set_task_params(self, params: Mapping[str, np.ndarray], tasks: Sequence[Task]) -> None:
        self._params = dict(params)
        models = {task: self.family.model_for(task, self._nominal) for task in dict.fromkeys(tasks)}
        self.physics.set_models([models[task] for task in tasks])

    def _begin(self, rows: np.ndarray, rngs: Sequence[np.random.Generator]) -> tuple[np.ndarray, Infos]:
        self.physics.set_states(rows, *self.robot.reset_states(self._nominal, rngs))
        position = self._root(rows)
        return self._observe(rows), {"x_position": position[:, 0]}

    def _simulate(
        self, actions: np.ndarray, rows: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Infos]:
        index: slice | np.ndarray = slice(None) if rows is None else rows
        actions = actions.astype(np.float64)
        before, measured = self._tracked(index).copy(), self._measure(index)
        self.physics.step(self._controls(actions, index), rows)
        qpos, qvel = self.physics.qpos[index], self.physics.qvel[index]
        healthy = self.robot.healthy(qpos, qvel) if self.robot.healthy else np.ones(len(qpos), np.bool_)
        velocity = (self._tracked(index) - before) / self._duration(index)
        params = self._row_params(index)
        positions = self._measure(index)
        velocities = {name: (positions[name] - measured[name]) / self._duration(index) for name in positions}
        contacts = {name: self.physics.contact_forces[index, i] for i, name in enumerate(self._felt)}
        motion = Motion(self._root(index), velocity, healthy, qpos, qvel, positions, velocities, params, contacts)
        terms = self.family.reward_terms(motion, actions, params)
        rewards = np.sum(list(terms.values()), axis=0)
        terminated = ~healthy if self.family.terminate_when_unhealthy else np.zeros(len(qpos), np.bool_)
        within = self.family.healthy(motion)
        if within is not None:
            terminated = terminated | ~within
        infos = {
            "x_position": motion.position[:, 0],
            "x_velocity": motion.velocity[:, 0],
            "y_velocity": motion.velocity[:, 1],
            **terms,
        }
        return self._observe(index), rewards, terminated, infos

    def _row_params(self, index: slice | np.ndarray) -> dict[str, np.ndarray]:
        """Parameters of the rows' tasks that hold in this step, by name, [row] or [row, size]."""
        return {name: values[index] for name, values in self._params.items()}

    def _goals(self, row: int) -> list[np.ndarray]:
        """Places to reach in a row at present, metres, each [3]."""
        return self.family.goals(self._tasks[row])

    def _controls(self, actions: np.ndarray, index: slice | np.ndarray) -> np.ndarray:
        """The controls of the actuators in this step for the actions [row, action]."""
        return actions

    def _duration(self, index: slice | np.ndarray) -> float | np.ndarray:
        """Length of this step, seconds; an array [row, 1] where rows differ."""
        return self.dt

    def _observe(self, index: slice | np.ndarray) -> np.ndarray:
        return self.robot.observe(self.physics.qpos[index], self.physics.qvel[index], self._hidden_qpos)

    def _root(self, index: slice | np.ndarray) -> np.ndarray:
        """x and y of the root, [row, 2]; only robots that hide both have a y."""
        qpos = self.physics.qpos[index]
        position = np.zeros((len(qpos), 2))
        columns = 2 if self.robot.hidden_qpos == 2 else 1
        position[:, :columns] = qpos[:, :columns]
        return position

    def _measure(self, index: slice | np.ndarray) -> dict[str, np.ndarray]:
        """Where the bodies and sites are that the family measures, by name, a copy [row, 3]."""
        sensors = self.physics.sensors[index]
        return {name: sensors[:, first : first + 3].copy() for name, first in self._measured.items()}

    def _tracked(self, index: slice | np.ndarray) -> np.ndarray:
        """Position (x, y) whose change is the velocity, [row, 2]."""
        return (
            self._root(index)
            if self.robot.com_body is None
            else self.physics.sensors[index, self._com : self._com + 2]
        )

    @property
    def render_fps(self) -> int:
        """Number of control steps per second."""
        return round(1 / self.dt)

    @property
    def control_period_s(self) -> float:
        """Seconds between two actions."""
        return self.dt

    def render_row(self, row: int) -> np.ndarray:
        """The robot of a row, followed by a camera, and the goal of its task if it has one."""
        if self._camera is None:
            self._camera = Camera(self.family.build_looks())
        return self._camera.picture(self.physics.qpos[row], self._goals(row))

    def close_extras(self, **kwargs: object) -> None:
        """Stop the engine's threads."""
        self.physics.close()
        if self._camera is not None:
            self._camera.close()
            self._camera = None
