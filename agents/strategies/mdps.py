"""Strategies for tabular MDPs, on many tasks at once: the references for RL2 (Duan et al. 2016, section 3.2).

All are model-based. At the start of every episode they plan over its steps, exactly, in a model of the transitions
observed so far, and follow the plan to the episode's end. Ties between actions are broken at random.

The published columns (arXiv:1611.02779, table 2) are matched, nearly all within noise, with these choices, which
the paper leaves open. Rewards have a normal prior of mean 0 and deviation 1, although the tasks' means are drawn
around 1. Greedy and epsilon-greedy plan in the most probable model under a flat prior, in which untried actions
earn nothing. Constants are as in `metarl.experiments.references`. The true prior is worth much: greedy in its
posterior mean (`Beb` with bonus 0, prior_mean 1) earns 1892 in 100 episodes where greedy earns 1593, and with
bonus 10 it earns 2004, more than any published column.
"""

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from metarl.agent import Actions, Outcome
from metarl.agents.strategies.bandits import NUM_CANDIDATES, gamma_variates
from metarl.runs.seeding import TaskNoise
from metarl.trajectories import Trajectories

TIE = 1e-7  # actions whose values differ by less are equally good


class MdpStrategy(ABC):
    """Counts the observed transitions, plans when an episode starts and follows the plan.

    Args:
        num_states: Number of states S; observations are one-hot states.
        num_actions: Number of actions A.
        horizon: Number of steps in an episode.

    Attributes:
        epsilon: Probability of a random action instead of the planned one, in [0, 1].
        transitions: Number of times that each transition was observed, float64 [task, state, action, next state].
        earned: Sum of the rewards of each state and action, float64 [task, state, action].
    """

    sequential = True
    epsilon = 0.0

    def __init__(self, num_states: int, num_actions: int, horizon: int) -> None:
        self.num_states = num_states
        self.num_actions = num_actions
        self.horizon = horizon
        self._allocate(0)

    @abstractmethod
    def plan(self) -> np.ndarray:
        """Values of actions at every step of the episode that starts, [task, time, state, action]."""

    def start_noise(self, task_seeds: np.ndarray) -> None:  # noqa: B027 - most need none
        """Create the noise for planning from one seed per task."""

    def select(self, tasks: slice) -> "MdpStrategy":
        """The strategy itself: it starts every trial in the same state."""
        return self

    def begin(self, task_seeds: np.ndarray, num_parallel: int) -> None:
        """Start new trials, one per task."""
        if num_parallel != 1:
            raise ValueError(f"a trial's episodes follow one another, got {num_parallel} in parallel")
        self._allocate(len(task_seeds))
        self._lots = TaskNoise(task_seeds, (self.num_actions + 1,), kind="uniform")
        self.start_noise(task_seeds ^ np.uint64(1))  # other numbers than the lots are made of

    def begin_episode(self) -> None:
        """Plan the whole episode with the current counts."""
        self._values = self.plan()
        self._time = 0

    def act(self, observations: Tensor) -> Actions:
        """Actions [task, 1] in the observed states, [task, 1, state]."""
        self._states = observations[:, 0].argmax(-1).numpy()
        values = self._values[self._tasks, self._time, self._states]
        lots = self._lots.next().numpy()
        explore = lots[:, -1] < self.epsilon
        self._actions = (np.where(explore[:, None], 0.0, values) + TIE * lots[:, :-1]).argmax(1)
        self._time += 1
        actions = self._actions[:, None]
        return Actions(actions, torch.from_numpy(actions), {})

    def observe(self, outcome: Outcome) -> None:
        """Count the transitions and sum their rewards."""
        after, alive = outcome.observations[:, 0].argmax(-1).numpy(), outcome.alive[:, 0].numpy()
        at = (self._tasks, self._states, self._actions)
        self.transitions[(*at, after)] += alive
        self.earned[at] += alive * outcome.rewards[:, 0].numpy()

    def adapt(self, trajectories: Trajectories) -> "MdpStrategy":
        """The strategy itself: it adapts while it acts."""
        return self

    def visits(self) -> np.ndarray:
        """Number of times that each action was tried, [task, state, action]."""
        visits: np.ndarray = self.transitions.sum(-1)
        return visits

    def likeliest_model(self) -> tuple[np.ndarray, np.ndarray]:
        """Observed frequencies [task, state, action, next state] and mean rewards [task, state, action].

        An action that was not tried earns nothing, and all its next states are equally likely.
        """
        visits = self.visits()
        tried = np.maximum(visits, 1)
        frequencies = np.where(visits[..., None] > 0, self.transitions / tried[..., None], 1 / self.num_states)
        return frequencies, self.earned / tried

    def _allocate(self, num_tasks: int) -> None:
        shape = (num_tasks, self.num_states, self.num_actions)
        self.transitions = np.zeros((*shape, self.num_states))
        self.earned = np.zeros(shape)
        self._tasks = np.arange(num_tasks)
        self._states = self._actions = np.zeros(num_tasks, dtype=np.int64)
        self._values = np.zeros((num_tasks, self.horizon, *shape[1:]))
        self._time = 0


class Random(MdpStrategy):
    """Takes actions at random, all with the same probability."""

    def plan(self) -> np.ndarray:
        """Zeros: all actions tie, and ties are broken at random."""
        return np.zeros((len(self._tasks), self.horizon, self.num_states, self.num_actions))


class Greedy(MdpStrategy):
    """Follows the best plan in the most probable model."""

    def plan(self) -> np.ndarray:
        """Values of actions in the most probable model."""
        return action_values(*self.likeliest_model(), horizon=self.horizon)


class EpsilonGreedy(Greedy):
    """Follows the best plan in the most probable model, but acts at random with probability epsilon per step."""

    def __init__(self, num_states: int, num_actions: int, horizon: int, epsilon: float) -> None:
        super().__init__(num_states, num_actions, horizon)
        if not 0 <= epsilon <= 1:
            raise ValueError(f"epsilon must be in [0, 1], got {epsilon}")
        self.epsilon = epsilon


class Beb(MdpStrategy):
    """Bayesian exploration bonus: plans in the posterior mean plus bonus / (1 + S + visits) (Kolter and Ng 2009).

    Args:
        num_states: Number of states S; observations are one-hot states.
        num_actions: Number of actions A.
        horizon: Number of steps in an episode.
        bonus: Weight beta of the exploration bonus, not negative.
        prior_mean: Mean of the normal prior over mean rewards.
    """

    def __init__(
        self, num_states: int, num_actions: int, horizon: int, bonus: float, *, prior_mean: float = 0.0
    ) -> None:
        super().__init__(num_states, num_actions, horizon)
        if bonus < 0:
            raise ValueError(f"bonus must not be negative, got {bonus}")
        self.bonus = bonus
        self.prior_mean = prior_mean

    def plan(self) -> np.ndarray:
        """Values in the posterior mean with bonuses."""
        counts = self.visits() + self.num_states  # with the Dirichlet prior's, one of each next state
        frequencies = (self.transitions + 1) / counts[..., None]
        rewards = posterior_mean_rewards(self.earned, self.visits(), self.prior_mean)
        return action_values(frequencies, rewards + self.bonus / (1 + counts), horizon=self.horizon)


class Psrl(MdpStrategy):
    """Follows the best plan in a model sampled from the posterior (Strens 2000, Osband et al. 2013).

    With several samples it is optimistic (OPSRL): an action's value is the highest of all samples.

    The prior is a flat Dirichlet distribution over next states, and a normal one of deviation 1 over mean rewards.

    Args:
        num_states: Number of states S; observations are one-hot states.
        num_actions: Number of actions A.
        horizon: Number of steps in an episode.
        num_samples: Number of models sampled at the start of an episode, at least 1.
        prior_mean: Mean of the normal prior over mean rewards.
    """

    def __init__(
        self,
        num_states: int,
        num_actions: int,
        horizon: int,
        *,
        num_samples: int = 1,
        prior_mean: float = 0.0,
    ) -> None:
        super().__init__(num_states, num_actions, horizon)
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, got {num_samples}")
        self.num_samples = num_samples
        self.prior_mean = prior_mean

    def start_noise(self, task_seeds: np.ndarray) -> None:
        """Create the noise of one sampled model: for its gamma variates, and a normal per state and action."""
        rewards = self.num_states * self.num_actions
        gammas = NUM_CANDIDATES * 3 * rewards * self.num_states
        self._noise = TaskNoise(task_seeds, (gammas + rewards,), block=1)

    def plan(self) -> np.ndarray:
        """Values of actions, the highest of all sampled models."""
        values = action_values(*self.sample(), horizon=self.horizon)
        for _ in range(self.num_samples - 1):
            values = np.maximum(values, action_values(*self.sample(), horizon=self.horizon))
        return values

    def sample(self) -> tuple[np.ndarray, np.ndarray]:
        """Transitions [task, state, action, next state] and rewards [task, state, action] from the posterior."""
        noise, visits = self._noise.next().numpy(), self.visits()
        num_rewards = self.num_states * self.num_actions
        normals = noise[:, :-num_rewards].reshape(-1, NUM_CANDIDATES, 3, *self.transitions.shape[1:])
        gammas = gamma_variates(1 + self.transitions, normals).astype(np.float64)
        rewards = posterior_mean_rewards(self.earned, visits, self.prior_mean)
        rewards += noise[:, -num_rewards:].reshape(visits.shape) / np.sqrt(1 + visits)
        return gammas / gammas.sum(-1, keepdims=True), rewards


class Ucrl2(MdpStrategy):
    """Follows the best plan in the best of all plausible models (Jaksch et al. 2010).

    After t steps, rewards are plausible within scale sqrt(7 log(2SAt / delta) / 2n) of their mean and transitions
    within an L1 distance of scale sqrt(14 S log(2At / delta) / n), n the visits, at least 1. The original plans
    for the average reward of a trial without end, whenever the visits of a state and action have doubled. This one
    is episodic and plans at the start of every episode, for its rewards.

    Args:
        num_states: Number of states S; observations are one-hot states.
        num_actions: Number of actions A.
        horizon: Number of steps in an episode.
        scale: Factor of the confidence radii, not negative; 1 has the proven regret bound, smaller ones earn more.
        delta: Probability that the true model is not plausible, in (0, 1).
    """

    def __init__(
        self, num_states: int, num_actions: int, horizon: int, scale: float, *, delta: float = 0.05
    ) -> None:
        super().__init__(num_states, num_actions, horizon)
        if scale < 0:
            raise ValueError(f"scale must not be negative, got {scale}")
        if not 0 < delta < 1:
            raise ValueError(f"delta must be in (0, 1), got {delta}")
        self.scale = scale
        self.delta = delta

    def plan(self) -> np.ndarray:
        """Values of actions in the most favourable plausible model."""
        visits = self.visits()
        time = visits.sum((1, 2), keepdims=True) + 1
        tried = np.maximum(visits, 1)
        log_steps = np.log(2 * self.num_actions * time / self.delta)
        reward_radii = np.sqrt(3.5 * (log_steps + np.log(self.num_states)) / tried)
        radii = np.sqrt(14 * self.num_states * log_steps / tried)
        frequencies, rewards = self.likeliest_model()
        return optimistic_values(
            frequencies, rewards + self.scale * reward_radii, self.scale * radii, horizon=self.horizon
        )


def posterior_mean_rewards(earned: np.ndarray, visits: np.ndarray, prior_mean: float) -> np.ndarray:
    """Posterior means of mean rewards, [task, state, action]: prior deviation and noise are both 1."""
    means: np.ndarray = (prior_mean + earned) / (1 + visits)
    return means


def action_values(transitions: np.ndarray, rewards: np.ndarray, *, horizon: int) -> np.ndarray:
    """Undiscounted values of actions under the best plan, by backward induction.

    Args:
        transitions: Transition probabilities, [task, state, action, next state].
        rewards: Expected rewards, [task, state, action].
        horizon: Number of steps in an episode.

    Returns:
        Expected sums of the rewards from each step on, [task, time, state, action].
    """
    values = np.empty((len(rewards), horizon, *rewards.shape[1:]))
    flat = transitions.reshape(len(rewards), -1, transitions.shape[-1])
    ahead = np.zeros((len(rewards), transitions.shape[-1], 1))
    for time in range(horizon - 1, -1, -1):
        values[:, time] = rewards + (flat @ ahead).reshape(rewards.shape)
        ahead = values[:, time].max(-1)[..., None]
    return values


def optimistic_values(
    transitions: np.ndarray, rewards: np.ndarray, radii: np.ndarray, *, horizon: int
) -> np.ndarray:
    """Values of actions under the best plan and the best transitions within an L1 distance (extended iteration).

    Args:
        transitions: Transition probabilities, [task, state, action, next state].
        rewards: Upper bounds of the expected rewards, [task, state, action].
        radii: Largest L1 distances of plausible transition probabilities, [task, state, action].
        horizon: Number of steps in an episode.

    Returns:
        Upper bounds of the sums of rewards from each step on, [task, time, state, action].
    """
    values = np.empty((len(rewards), horizon, *rewards.shape[1:]))
    ahead = np.zeros((len(rewards), transitions.shape[-1]))
    for time in range(horizon - 1, -1, -1):
        best_first = np.argsort(-ahead, axis=1, kind="stable")
        ranked = np.take_along_axis(transitions, best_first[:, None, None], axis=-1)
        shifted = toward_first(ranked, radii)
        ranked_ahead = np.take_along_axis(ahead, best_first, axis=1)
        values[:, time] = rewards + np.einsum("msan,mn->msa", shifted, ranked_ahead)
        ahead = values[:, time].max(-1)
    return values


def toward_first(probabilities: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Probabilities [..., state] with half the L1 radius [...] moved to the first state, from the last ones."""
    summed = probabilities.cumsum(-1) + radii[..., None] / 2
    return np.diff(np.minimum(summed, 1.0), axis=-1, prepend=0.0)
