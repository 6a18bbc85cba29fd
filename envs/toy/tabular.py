"""Random tabular MDPs (Duan et al. 2016, arXiv:1611.02779, section 3.2), vectorised in numpy."""

from collections.abc import Mapping, Sequence

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from metarl.envs.toy.noise import RowNoise
from metarl.envs.vector import Infos, NumpyFamily, TaskVectorEnv
from metarl.tasks import Parameter, Task, TaskDistribution

NUM_STATES, NUM_ACTIONS = 10, 5


class TabularMdp(NumpyFamily):
    """10 states, 5 actions, 10 steps from state 0; the observation is the state, one-hot.

    A task gives the transition probabilities P(s'|s, a), flattened from [s, a, s'], and the mean rewards,
    flattened from [s, a]; a reward is normal with standard deviation 1.
    """

    name = "tabular-mdp"
    horizon = 10
    parameters = (
        Parameter("transitions", NUM_STATES * NUM_ACTIONS * NUM_STATES, low=0.0, high=1.0),
        Parameter("mean_rewards", NUM_STATES * NUM_ACTIONS),
    )

    def check(self, task: Task) -> None:
        """Raise a ValueError unless the task is of this family and its transitions are probabilities."""
        super().check(task)
        sums = np.reshape(task["transitions"], (NUM_STATES, NUM_ACTIONS, NUM_STATES)).sum(2)
        wrong = np.argwhere(np.abs(sums - 1) > 1e-6)
        if len(wrong):
            state, action = wrong[0]
            raise ValueError(
                f"the transitions of state {state} and action {action} must sum to 1, got {sums[state, action]:g}"
            )

    def new_env(self, num_envs: int, max_episode_steps: int, autoreset_mode: AutoresetMode | str) -> "TabularEnv":
        """Create an environment of many MDPs, one per row."""
        return TabularEnv(self, num_envs, max_episode_steps, autoreset_mode)


class RandomMdps(TaskDistribution):
    """Rows of P from a flat Dirichlet distribution, mean rewards normal of mean 1 and deviation 1."""

    family = TabularMdp()

    def sample(self, num_tasks: int, rng: np.random.Generator) -> list[Task]:
        """Draw independent tabular MDPs as tasks."""
        rows = rng.dirichlet(np.ones(NUM_STATES), (num_tasks, NUM_STATES * NUM_ACTIONS)).reshape(num_tasks, -1)
        means = rng.normal(1.0, 1.0, (num_tasks, NUM_STATES * NUM_ACTIONS))
        return [
            Task(self.family.name, (("transitions", tuple(p)), ("mean_rewards", tuple(m))))
            for p, m in zip(rows.tolist(), means.tolist(), strict=True)
        ]


class TabularEnv(TaskVectorEnv):
    """Tabular MDPs, one task each.

    The infos hold the regret: by how much the expected return of the rest of the episode is less after this action
    than after the best one, Q*(s, a) - V*(s) with its sign turned.
    """

    def __init__(
        self,
        family: TabularMdp,
        num_envs: int,
        max_episode_steps: int,
        autoreset_mode: AutoresetMode | str,
    ) -> None:
        super().__init__(
            family,
            num_envs,
            spaces.Box(0.0, 1.0, (NUM_STATES,), np.float32),
            spaces.Discrete(NUM_ACTIONS),
            max_episode_steps=max_episode_steps,
            autoreset_mode=autoreset_mode,
        )
        self._one_hot = np.eye(NUM_STATES, dtype=np.float32)
        self._states = np.zeros(num_envs, dtype=np.int64)
        self._cumulative = np.zeros((num_envs, NUM_STATES, NUM_ACTIONS, NUM_STATES))
        self._means = np.zeros((num_envs, NUM_STATES, NUM_ACTIONS))
        self._regrets = np.zeros((max_episode_steps, num_envs, NUM_STATES, NUM_ACTIONS), dtype=np.float32)
        self._uniforms = RowNoise(lambda rng, count: rng.random(count), num_envs)
        self._normals = RowNoise(lambda rng, count: rng.standard_normal(count), num_envs)
        self._rows = np.arange(num_envs)

    def _set_task_params(self, params: Mapping[str, np.ndarray], tasks: Sequence[Task]) -> None:
        transitions = params["transitions"].reshape(self._cumulative.shape)
        self._cumulative = transitions.cumsum(-1)
        self._means = params["mean_rewards"].reshape(self._means.shape)
        best = np.zeros((self.num_envs, NUM_STATES))
        for step in reversed(range(self.max_episode_steps)):
            returns = self._means + np.einsum("esat,et->esa", transitions, best)
            best = returns.max(2)
            self._regrets[step] = best[:, :, None] - returns

    def _seeded(self, rows: np.ndarray) -> None:
        self._uniforms.discard(rows)
        self._normals.discard(rows)

    def _begin(self, rows: np.ndarray, rngs: Sequence[np.random.Generator]) -> tuple[np.ndarray, Infos]:
        self._states[rows] = 0
        return self._one_hot[self._states[rows]], {}

    def _simulate(
        self, actions: np.ndarray, rows: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Infos]:
        index = self._rows if rows is None else rows
        states = self._states[index]
        rewards = self._means[index, states, actions] + self._normals.next(self._rngs, rows)
        regrets = self._regrets[self._elapsed[index], index, states, actions]
        # The last sum may be 1 - 1e-16: the last state takes what is left.
        below = self._cumulative[index, states, actions, :-1] <= self._uniforms.next(self._rngs, rows)[:, None]
        self._states[index] = below.sum(1)
        terminated = np.zeros(len(index), dtype=np.bool_)
        return self._one_hot[self._states[index]], rewards, terminated, {"regret": regrets}
