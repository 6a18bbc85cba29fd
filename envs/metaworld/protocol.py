"""Any agent in Meta-World's own evaluation, `metaworld.evaluation.metalearning_evaluation`.

Meta-World runs one environment per task, for some episodes of adaptation and some of measurement. Episodes end at
success, so each ends at its own time, and every environment here has an actor of its own.

The protocol leaves out some values, which are filled in. The observation after an episode's last step is taken to
be the one before it. While measuring, no message contains rewards. An actor that goes on learning then needs
environments made with `recurrent_info_in_obs=True`, whose observations end in action, reward and done; even there
an episode's last reward is taken to be the one before. Without them, an actor that reads the outcome of its
actions, as RL2 does, is refused; PEARL acts on the posterior that it had when adaptation ended.

A caution before comparing numbers: the package counts the first episodes that end per environment name, and
successes end first. With several goals of an environment side by side its success rate is therefore too high.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from metarl.agent import Actor, Deployable, Outcome
from metarl.runs.seeding import task_seeds
from metarl.tasks import Task
from metarl.trajectories import Trajectories

_OBSERVATION, _ACTION, _REWARD_SCALE = 39, 4, 10.0


class Timestep(Protocol):
    """Meta-World's record of a step of all environments; see `metaworld.evaluation.Timestep`."""

    observation: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray


class _Step:
    """One step as Trajectories hold it, each [1, 1, ...]."""

    def __init__(self, observation: Tensor, actions: Tensor, records: dict[str, Tensor]) -> None:
        self.observation, self.actions, self.records = observation, actions, records
        self.reward = self.terminated = self.truncated = 0.0


@dataclass
class _Place:
    """State of one environment in the evaluation.

    Attributes:
        actor: Actor of this environment alone.
        seed: Seed of the actor's noise, [1].
        between: Whether an episode has ended, or none has begun.
        pending: Step whose outcome is not known yet.
        last_reward: Last reward that was observed while measuring.
        episodes: Episodes to adapt to; the last one may be incomplete.
    """

    actor: Actor
    seed: np.ndarray
    between: bool = True
    pending: _Step | None = None
    last_reward: float = 0.0
    episodes: list[list[_Step]] = field(default_factory=lambda: [[]])


class MetaWorldAgent:
    """An actor with the interface that Meta-World's evaluation expects, `metaworld.evaluation.MetaLearningAgent`.

    Args:
        actor: Actor that is not adapted to any task; every environment gets a copy.
        seed: Seed of the exploration noise.
    """

    def __init__(self, actor: Actor, *, seed: int = 0) -> None:
        self._actor, self._seed = actor, seed
        self._places: list[_Place] = []
        self._rounds = 0
        self._outcomes_observed = False

    def init(self) -> None:
        """Start with new tasks and forget all earlier ones."""
        self._places = []
        self._rounds += 1

    def adapt_action(self, observations: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Actions [env, act] while adapting, to learn from; the dictionary is empty."""
        if not self._places:
            self._begin(len(observations))
        return self._act(observations), {}

    def step(self, timestep: Timestep) -> None:
        """Record the rewards and episode ends that followed the last actions."""
        for number, place in enumerate(self._places):
            step = place.pending
            if step is None:
                raise RuntimeError("step reports the outcome of actions; call adapt_action before it")
            step.reward = float(timestep.reward[number])
            step.terminated = float(timestep.terminated[number])
            step.truncated = float(timestep.truncated[number])
            place.episodes[-1].append(step)
            if step.terminated or step.truncated:
                self._answer(place, step.observation)
                place.episodes.append([])
                place.between = True

    def adapt(self) -> None:
        """Adapt to all complete episodes since the last call."""
        for place in self._places:
            if not place.actor.sequential:
                place.actor = place.actor.adapt(_trajectories(place.episodes[:-1]))
                place.actor.begin(place.seed, 1)
            place.episodes, place.pending, place.between = [[]], None, True

    def eval_action(self, observations: np.ndarray) -> np.ndarray:
        """Actions [env, act] while measuring.

        Raises:
            ValueError: If the actor reads outcomes and the observations do not contain them.
        """
        if not self._places:
            self._begin(len(observations))
        self._outcomes_observed = observations.shape[1] == _OBSERVATION + _ACTION + 2
        actor = self._places[0].actor
        if not self._outcomes_observed and isinstance(actor, Deployable) and actor.reads_outcomes:
            raise ValueError(
                "this agent reads rewards while it acts: make the environments with recurrent_info_in_obs=True, "
                f"whose observations have {_OBSERVATION + _ACTION + 2} numbers, got {observations.shape[1]}"
            )
        for number, place in enumerate(self._places):
            if not self._outcomes_observed:
                place.pending = None
            elif place.pending is not None:
                place.pending.reward = place.last_reward = _REWARD_SCALE * float(observations[number, -2])
        return self._act(observations)

    def reset(self, env_mask: np.ndarray) -> None:
        """Start an episode in the environments of the mask; their actors stay adapted to their tasks."""
        for place, ended in zip(self._places, env_mask, strict=False):  # there are none before the first action
            if ended and place.pending is not None and self._outcomes_observed:
                place.pending.truncated, place.pending.reward = 1.0, place.last_reward
                self._answer(place, place.pending.observation)
            place.between = place.between or bool(ended)

    def _begin(self, num_envs: int) -> None:
        seeds = task_seeds(self._seed + self._rounds, num_envs)
        self._places = [_Place(copy.copy(self._actor), seeds[i : i + 1]) for i in range(num_envs)]
        for place in self._places:
            place.actor.begin(place.seed, 1)

    def _act(self, observations: np.ndarray) -> np.ndarray:
        actions = []
        with torch.no_grad():
            for number, place in enumerate(self._places):
                observed = torch.from_numpy(observations[number, :_OBSERVATION].astype(np.float32)).view(1, 1, -1)
                if place.pending is not None:
                    self._answer(place, observed)
                if place.between:
                    place.actor.begin_episode()
                    place.between = False
                chosen = place.actor.act(observed)
                place.pending = _Step(observed, chosen.actions, chosen.records)
                actions.append(chosen.env_actions.reshape(-1))
        return np.stack(actions)

    @staticmethod
    def _answer(place: _Place, following: Tensor) -> None:
        """Pass the outcome of the pending step to the actor."""
        step = place.pending
        assert step is not None
        place.pending = None
        place.actor.observe(
            Outcome(
                observations=following,
                rewards=torch.tensor([[step.reward]]),
                terminated=torch.tensor([[bool(step.terminated)]]),
                truncated=torch.tensor([[bool(step.truncated)]]),
                alive=torch.tensor([[True]]),
                infos={},
            )
        )


def _trajectories(episodes: Sequence[Sequence[_Step]]) -> Trajectories:
    """The episodes of one task, padded to the longest."""
    longest = max(len(episode) for episode in episodes)

    def stack(values: Sequence[Sequence[Tensor]]) -> Tensor:
        rows = []
        for of_episode in values:
            joined = torch.cat([value[0] for value in of_episode])
            padding = joined.new_zeros((longest - len(joined), *joined.shape[1:]))
            rows.append(torch.cat((joined, padding)))
        return torch.stack(rows).unsqueeze(0)

    def numbers(name: str) -> Tensor:
        return stack([[torch.tensor([[float(getattr(step, name))]]) for step in e] for e in episodes])

    names: Any = episodes[0][0].records
    return Trajectories(
        tasks=(Task("meta-world", ()),),
        observations=stack([[step.observation for step in e] for e in episodes]),
        actions=stack([[step.actions for step in e] for e in episodes]),
        rewards=numbers("reward"),
        terminated=numbers("terminated").bool(),
        truncated=numbers("truncated").bool(),
        mask=stack([[torch.ones(1, 1) for _ in e] for e in episodes]).bool(),
        last_observations=torch.stack([e[-1].observation.view(-1) for e in episodes]).unsqueeze(0),
        records={name: stack([[step.records[name] for step in e] for e in episodes]) for name in names},
        infos={},
    )
