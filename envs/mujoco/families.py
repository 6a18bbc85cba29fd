"""The MuJoCo task families of the meta-RL literature, on Gymnasium's v5 models.

Rewards follow the most used convention (the codes of Rothfuss et al. 2019, Rakelly et al. 2019 and Zintgraf et
al. 2020 agree unless a comment says otherwise). Contact costs are left out: the contact forces in those codes
have been zero since MuJoCo 2, so results were obtained without them, and the observation leaves them out too.
"""

from abc import abstractmethod
from collections.abc import Mapping

import numpy as np

from metarl.envs.mujoco.locomotion import LocomotionFamily, Motion
from metarl.envs.mujoco.robots import ANT, HALF_CHEETAH, HUMANOID, Robot
from metarl.learning.relabelling import RecordedSteps
from metarl.tasks import Parameter, Task

Params = Mapping[str, np.ndarray]
Terms = dict[str, np.ndarray]

_SIGN = Parameter("direction", choices=(-1.0, 1.0))


def _squares(actions: np.ndarray) -> np.ndarray:
    squares: np.ndarray = np.square(actions).sum(1)
    return squares


class RunForward(LocomotionFamily):
    """A robot rewarded as in Gymnasium's v5: one task, no parameters. Contact costs left out.

    Args:
        robot: Robot that runs.
    """

    def __init__(self, robot: Robot) -> None:
        self.robot = robot
        self.name = f"{robot.name}-forward"
        self.horizon = 1000

    def reward_terms(self, motion: Motion, actions: np.ndarray, params: Params) -> Terms:
        """Forward velocity, health and control cost with the robot's own weights."""
        robot = self.robot
        terms = {"reward_forward": robot.forward_weight * motion.velocity[:, 0]}
        if robot.healthy is not None:
            terms["reward_survive"] = robot.healthy_reward * motion.healthy
        terms["reward_ctrl"] = -robot.ctrl_weight * _squares(actions)
        return terms


class GoalAlongX(LocomotionFamily):
    """A robot whose task is a single number that only the reward for its velocity along x depends on."""

    def task_reached(self, steps: RecordedSteps, rng: np.random.Generator) -> Task:
        """The task that the mean velocity of the steps was good at."""
        return self.task_of(float(steps.infos["x_velocity"].mean()))

    def rewards_in(self, task: Task, steps: RecordedSteps) -> np.ndarray:
        """Rewards with another task, [step]; the other terms stay as they are."""
        infos, number = steps.infos, np.array(task[self.parameters[0].name])
        others: np.ndarray = steps.rewards - infos["reward_forward"]
        others += self.forward_reward(infos["x_velocity"], number)
        return others

    @abstractmethod
    def task_of(self, velocity: float) -> Task:
        """The task that a velocity in m/s is good at."""

    @abstractmethod
    def forward_reward(self, velocities: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """The term reward_forward at velocities in m/s [row], of tasks with these numbers."""


class HalfCheetahDir(GoalAlongX):
    """Run forward or backward: d * v_x - 0.05 |a|^2 with d in {-1, +1}."""

    name = "half-cheetah-dir"
    robot = HALF_CHEETAH
    parameters = (_SIGN,)
    horizon = 100  # Rothfuss et al. 2019

    def reward_terms(self, motion: Motion, actions: np.ndarray, params: Params) -> Terms:
        """Velocity along the direction, and control cost."""
        return {
            "reward_forward": self.forward_reward(motion.velocity[:, 0], params["direction"]),
            "reward_ctrl": -0.05 * _squares(actions),
        }

    def task_of(self, velocity: float) -> Task:
        """The direction of a velocity."""
        return Task.of(self.name, direction=1.0 if velocity >= 0 else -1.0)

    def forward_reward(self, velocities: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Velocities along the directions of tasks."""
        along: np.ndarray = numbers * velocities
        return along


class HalfCheetahVel(GoalAlongX):
    """Run at a target speed: -|v_x - g| - 0.05 |a|^2, g in m/s."""

    name = "half-cheetah-vel"
    robot = HALF_CHEETAH
    parameters = (Parameter("velocity", low=0.0, high=10.0),)
    horizon = 100

    def reward_terms(self, motion: Motion, actions: np.ndarray, params: Params) -> Terms:
        """Distance to the target velocity, and control cost."""
        return {
            "reward_forward": self.forward_reward(motion.velocity[:, 0], params["velocity"]),
            "reward_ctrl": -0.05 * _squares(actions),
        }

    def task_of(self, velocity: float) -> Task:
        """A velocity as the target, where it may be one."""
        return Task.of(self.name, velocity=min(max(velocity, 0.0), 10.0))

    def forward_reward(self, velocities: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Minus the distances to target velocities."""
        distances: np.ndarray = np.abs(velocities - numbers)
        return -distances


class AntDir(LocomotionFamily):
    """Walk forward or backward: d * v_x - 0.5 |a|^2 + 1 with d in {-1, +1}; ends when z leaves [0.2, 1]."""

    name = "ant-dir"
    robot = ANT
    parameters = (_SIGN,)

    def reward_terms(self, motion: Motion, actions: np.ndarray, params: Params) -> Terms:
        """Velocity along the direction, health, and control cost."""
        return _ant_terms(params["direction"] * motion.velocity[:, 0], motion, actions)


class AntDir2D(LocomotionFamily):
    """Walk along a heading: v . (cos h, sin h) - 0.5 |a|^2 + 1, h in radians in [0, 2 pi]."""

    name = "ant-dir-2d"
    robot = ANT
    parameters = (Parameter("heading", low=0.0, high=2 * np.pi),)

    def reward_terms(self, motion: Motion, actions: np.ndarray, params: Params) -> Terms:
        """Velocity along the heading, health, and control cost."""
        return _ant_terms(_along(motion.velocity, params["heading"]), motion, actions)


class AntGoal(LocomotionFamily):
    """Walk to a goal: -|x - g_x| - |y - g_y| - 0.1 |a|^2, never ends early; the position is observed."""

    name = "ant-goal"
    robot = ANT
    parameters = (Parameter("goal", size=2, low=-10.0, high=10.0),)
    terminate_when_unhealthy = False
    position_observed = True

    def reward_terms(self, motion: Motion, actions: np.ndarray, params: Params) -> Terms:
        """L1 distance to the goal, and control cost."""
        return {
            "reward_goal": -np.abs(motion.position - params["goal"]).sum(1),
            "reward_ctrl": -0.1 * _squares(actions),
        }


class AntGoalSquare(AntGoal):
    """Walk to a goal: 4.05 - |x - g_x| - |y - g_y| - 0.005 |a|^2; ends when z leaves [0.2, 1] (Finn 2017)."""

    name = "ant-goal-square"
    terminate_when_unhealthy = True

    def reward_terms(self, motion: Motion, actions: np.ndarray, params: Params) -> Terms:
        """L1 distance to the goal, health, and control cost."""
        return {
            "reward_goal": 4.0 - np.abs(motion.position - params["goal"]).sum(1),
            "reward_survive": np.full(len(actions), 0.05),
            "reward_ctrl": -0.005 * _squares(actions),
        }


class HumanoidDir(LocomotionFamily):
    """Walk along a heading: 1.25 v_com . (cos h, sin h) - 0.1 |a|^2 + 5; ends when z leaves (1, 2).

    Rakelly et al. 2019 write 0.25 dx / timestep, which is the same number: their velocity is divided by the
    simulator's timestep instead of the step's duration of five of them. The observation is positions and
    velocities (45 numbers); the derived body quantities of Gymnasium's 348 are left out.
    """

    name = "humanoid-dir"
    robot = HUMANOID
    parameters = (Parameter("heading", low=0.0, high=2 * np.pi),)

    def reward_terms(self, motion: Motion, actions: np.ndarray, params: Params) -> Terms:
        """Velocity of the centre of mass along the heading, health, and control cost."""
        return {
            "reward_forward": 1.25 * _along(motion.velocity, params["heading"]),
            "reward_survive": np.full(len(actions), 5.0),
            "reward_ctrl": -0.1 * _squares(actions),
        }


def _along(velocity: np.ndarray, heading: np.ndarray) -> np.ndarray:
    along: np.ndarray = velocity[:, 0] * np.cos(heading) + velocity[:, 1] * np.sin(heading)
    return along


def _ant_terms(forward: np.ndarray, motion: Motion, actions: np.ndarray) -> Terms:
    return {
        "reward_forward": forward,
        "reward_survive": np.ones(len(actions)),
        "reward_ctrl": -0.5 * _squares(actions),
    }
