"""Multi-armed bandits (Duan et al. 2016, arXiv:1611.02779, section 3.1): one pull is one episode."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from metarl.envs.toy.noise import RowNoise
from metarl.envs.vector import Infos, NumpyFamily, TaskVectorEnv
from metarl.tasks import Parameter, Task


class BanditFamily(NumpyFamily):
    """A bandit of so many arms. There is nothing to observe: the observation is one zero.

    Args:
        num_arms: Number of arms k, at least 2.

    Attributes:
        kind: Distribution of the rewards, the first part of the family's name.
        arms: Parameter of a task with one number per arm.
    """

    horizon = 1
    kind: ClassVar[str]
    arms: ClassVar[Parameter]

    def __init__(self, num_arms: int) -> None:
        if num_arms < 2:
            raise ValueError(f"a bandit must have at least 2 arms, got {num_arms}")
        self.num_arms = num_arms
        self.name = f"{self.kind}-k{num_arms}"
        self.parameters = (Parameter(self.arms.name, num_arms, self.arms.low, self.arms.high),)

    @abstractmethod
    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """The random numbers from which rewards are computed, [count]."""

    @abstractmethod
    def rewards(self, arms: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Rewards [row] of pulling arms with these parameters [row]."""

    def new_env(self, num_envs: int, max_episode_steps: int, autoreset_mode: AutoresetMode | str) -> "BanditEnv":
        """Create an environment of many bandits, one per row."""
        return BanditEnv(self, num_envs, max_episode_steps, autoreset_mode)


class BernoulliBandit(BanditFamily):
    """Arm i pays 1 with probability p_i and 0 otherwise."""

    kind = "bernoulli-bandit"
    arms = Parameter("probabilities", low=0.0, high=1.0)

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Uniform random numbers in [0, 1), [count]."""
        return rng.random(count)

    def rewards(self, arms: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """1 with the arm's probability."""
        paid: np.ndarray = np.where(noise < arms, 1.0, 0.0)
        return paid


class GaussianBandit(BanditFamily):
    """Arm i pays a normal of mean m_i and standard deviation 1."""

    kind = "gaussian-bandit"
    arms = Parameter("means", low=-10.0, high=10.0)

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Standard normal random numbers, [count]."""
        return rng.standard_normal(count)

    def rewards(self, arms: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """The arm's mean plus noise."""
        paid: np.ndarray = arms + noise
        return paid


class BanditEnv(TaskVectorEnv):
    """Bandits of one family, one task each. The infos hold the regret: what the best arm pays more, expected."""

    family: BanditFamily

    def __init__(
        self,
        family: BanditFamily,
        num_envs: int,
        max_episode_steps: int,
        autoreset_mode: AutoresetMode | str,
    ) -> None:
        super().__init__(
            family,
            num_envs,
            spaces.Box(0.0, 0.0, (1,), np.float32),
            spaces.Discrete(family.num_arms),
            max_episode_steps=max_episode_steps,
            autoreset_mode=autoreset_mode,
        )
        self._arms = np.zeros((num_envs, family.num_arms))
        self._best = np.zeros(num_envs)
        self._noise = RowNoise(family.draw, num_envs)
        self._nothing = np.zeros((num_envs, 1), dtype=np.float32)
        self._rows = np.arange(num_envs)

    def _set_task_params(self, params: Mapping[str, np.ndarray], tasks: Sequence[Task]) -> None:
        self._arms = params[self.family.arms.name]
        self._best = self._arms.max(1)

    def _seeded(self, rows: np.ndarray) -> None:
        self._noise.discard(rows)

    def _begin(self, rows: np.ndarray, rngs: Sequence[np.random.Generator]) -> tuple[np.ndarray, Infos]:
        return self._nothing[rows], {}

    def _simulate(
        self, actions: np.ndarray, rows: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Infos]:
        index = self._rows if rows is None else rows
        expected = self._arms[index, actions]
        rewards = self.family.rewards(expected, self._noise.next(self._rngs, rows))
        terminated = np.zeros(len(index), dtype=np.bool_)
        return self._nothing[index], rewards, terminated, {"regret": self._best[index] - expected}
