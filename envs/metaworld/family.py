"""Meta-World's environments as one task family: a task is an environment's name and its vector."""

from collections.abc import Sequence

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from metarl.envs.gymnasium.checks import Env
from metarl.envs.gymnasium.family import GymnasiumFamily
from metarl.envs.metaworld.batch import MetaWorldEnv
from metarl.envs.metaworld.sawyer import Sharing, new_environment
from metarl.envs.metaworld.vectors import VECTORS, unknown_environment
from metarl.envs.vector import TaskVectorEnv
from metarl.runs.cores import usable_cores
from metarl.tasks import Parameter, Task

FAMILY = "meta-world"
VECTOR = "rand_vec"
_HAND = ([-0.525, 0.348, -0.0525, -1.0], [0.525, 1.025, 0.7, 1.0])  # and how far the gripper is open


class MetaWorld(GymnasiumFamily):
    """Meta-World's 50 environments: 500 steps, 4 actions (hand, gripper), 39 observations, success reported.

    A task is `Task.of("meta-world/reach-v3", rand_vec=...)`. Observations are the hand, the gripper and the
    objects now and one step before, and the goal, which is zero unless it is observed. An episode never ends
    early, and counts as a success if any of its steps does.

    Args:
        reward_version: Version of the rewards: "v2", between 0 and 10 (Yu et al. 2019), or the older "v1".
        goal_observed: Whether the observation contains the goal, for oracles.
        fast_step: Whether to step all environments as one batch in threads, instead of the package's own code in
            processes; observations are the same to the bit, rewards to the package's single precision.
    """

    name = FAMILY
    parameters = (Parameter(VECTOR, size=3),)  # 3 or 6 numbers, as the environment has it: see `check`
    horizon = longest = 500
    info_names = ("success",)
    steps_here_too = True

    def __init__(self, *, reward_version: str = "v2", goal_observed: bool = False, fast_step: bool = True) -> None:
        if reward_version not in ("v1", "v2"):
            raise ValueError(f"reward_version must be v1 or v2, got {reward_version!r}")
        self.reward_version, self.goal_observed, self.fast_step = reward_version, goal_observed, fast_step

    def kind(self, task: Task) -> str:
        """The name of the task's environment, e.g. "reach-v3"."""
        return environment(task)

    def new_environment(self, kind: str) -> Env:
        """Create one environment by its name, e.g. "reach-v3"."""
        return new_environment(kind, reward_version=self.reward_version, fast_step=self.fast_step)

    def give_task(self, env: Env, task: Task) -> None:
        """Set the task's vector in an environment, without the package's pickles."""
        assert isinstance(env, Sharing)
        env.give(np.array(task[VECTOR]), goal_observed=self.goal_observed)

    def make_env(
        self,
        num_envs: int,
        *,
        horizon: int | None = None,
        num_threads: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        timeout_s: float | None = 60.0,
    ) -> TaskVectorEnv:
        """A vector environment in threads of this process; with the package's step, in processes.

        Args:
            num_envs: Number of environments.
            horizon: Steps after which an episode is truncated; 500 by default.
            num_threads: Number of threads or processes, one per core by default.
            autoreset_mode: Behaviour of `step` after an episode ends.
            timeout_s: Longest time in seconds that one environment of a process may take over one call.
        """
        if not self.fast_step:
            return super().make_env(
                num_envs,
                horizon=horizon,
                num_threads=num_threads,
                autoreset_mode=autoreset_mode,
                timeout_s=timeout_s,
            )
        return MetaWorldEnv(
            self,
            num_envs,
            *self.spaces(),
            reward_version=self.reward_version,
            goal_observed=self.goal_observed,
            vector_of=_vector,
            num_threads=usable_cores() if num_threads is None else num_threads,
            max_episode_steps=self.checked_horizon(horizon),
            autoreset_mode=autoreset_mode,
        )

    def spaces(self) -> tuple[spaces.Box, spaces.Box]:
        """Spaces of observations [39] and actions [4], the same for all environments."""
        objects, goal = [np.inf] * 14, [np.inf if self.goal_observed else 0.0] * 3
        low = [*_HAND[0], *(-x for x in objects)] * 2 + [-x for x in goal]
        high = [*_HAND[1], *objects] * 2 + goal
        observations = spaces.Box(np.array(low), np.array(high), dtype=np.float64)
        return observations, spaces.Box(-1.0, 1.0, (4,), np.float32)

    def check(self, task: Task) -> None:
        """Raise a ValueError with the reason unless the task is one of Meta-World's."""
        family, _, name = task.family.partition("/")
        if family == FAMILY and name and name not in VECTORS:
            raise ValueError(f"a task of {task.family!r}: {unknown_environment(name)}")
        if family != FAMILY or not name:
            raise ValueError(
                f"expected a task of family '{FAMILY}/ENVIRONMENT', e.g. '{FAMILY}/reach-v3', got {task.family!r}"
            )
        names = [parameter for parameter, _ in task.params]
        if names != [VECTOR]:
            raise ValueError(f"a task of {task.family!r} must have exactly the parameter {VECTOR!r}, got {names}")
        try:
            VECTORS[name].check(task[VECTOR])
        except ValueError as error:
            raise ValueError(f"a task of {task.family!r}: {error}") from error

    def stack(self, tasks: Sequence[Task]) -> dict[str, np.ndarray]:
        """Check the tasks; stack nothing, as vectors differ in size and only their own environments read them."""
        for task in tasks:
            self.check(task)
        return {}


def _vector(task: Task) -> tuple[float, ...]:
    vector = task[VECTOR]
    assert isinstance(vector, tuple)  # checked when the task was given
    return vector


def environment(task: Task) -> str:
    """The name of the environment of a Meta-World task, e.g. "reach-v3"."""
    return task.family.partition("/")[2]
