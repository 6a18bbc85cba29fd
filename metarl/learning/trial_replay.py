"""Replay of whole trials: each in a ring of its own of the one replay store, read back as sequences of steps."""

from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metarl.learning.replay import MultiTaskReplay, example_observation
from metarl.learning.trials import Trials
from metarl.nets.actions import ActionMap
from metarl.tasks import HasSpaces
from metarl.trajectories import Observations, map_observations


class TrialStep(NamedTuple):
    """Steps of trials as they are stored, of any leading shape.

    Attributes:
        observations: Observations before the step, each part [..., *shape].
        actions: Actions as the policy put them out, [..., *shape].
        rewards: Rewards, [...].
        terminated: True where an episode's MDP ended, [...].
        truncated: True where a time limit cut an episode, [...].
    """

    observations: Observations
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor


class Sequences(NamedTuple):
    """Consecutive steps of trials, time first.

    Attributes:
        trials: Steps, [time, trial, ...]; padding follows where a trial ends.
        ends: True at the last step of a trial, [time, trial].
        learned: True at steps that are learned from, [time, trial]; those before only warm a memory up.
    """

    trials: Trials
    ends: Tensor
    learned: Tensor


class TrialReplay:
    """The latest trials of a run, of which batches of sequences are drawn.

    Args:
        env: Environment of the family, read for its observation space alone.
        actions: Map of the action space; it says what a stored action looks like.
        capacity: Number of transitions; the oldest trials are overwritten.
        longest: Most steps of a trial.
        device: Device that holds the trials and on which batches are drawn.

    Raises:
        ValueError: if not even one trial fits.
    """

    def __init__(
        self, env: HasSpaces, actions: ActionMap, *, capacity: int, longest: int, device: torch.device
    ) -> None:
        if capacity < longest:
            raise ValueError(
                f"replay_capacity must hold a trial of up to {longest} transitions, got {capacity}; raise it or "
                "lower num_episodes"
            )
        numbers = torch.float32 if actions.noise == "normal" else torch.int64
        example = TrialStep(
            example_observation(env.single_observation_space),
            torch.zeros(actions.shape, dtype=numbers),
            torch.zeros(()),
            torch.zeros((), dtype=torch.bool),
            torch.zeros((), dtype=torch.bool),
        )
        self.capacity = capacity // longest
        self.num_added = 0
        self._store = MultiTaskReplay(self.capacity, longest, example=example, device=device, unit="trials")

    @property
    def num_trials(self) -> int:
        """Number of trials in the store."""
        return min(self.num_added, self.capacity)

    @property
    def num_transitions(self) -> int:
        """Number of rows in the store; those of an older and longer trial are overwritten little by little."""
        return self._store.num_transitions

    def add(self, trials: Trials) -> None:
        """Store trials [time, trial].

        Raises:
            ValueError: if there are more than the store holds.
        """
        lengths = trials.mask.sum(0).tolist()
        if len(lengths) > self.capacity:
            raise ValueError(
                f"one collection brought {len(lengths)} trials and the replay holds {self.capacity}; raise "
                "replay_capacity or lower meta_batch_size"
            )
        steps = TrialStep(*trials[:5])
        for place, length in enumerate(lengths):
            rows = itemgetter((slice(length), place))
            trial = TrialStep(*(map_observations(rows, part) for part in steps))
            self._store.add(self.num_added % self.capacity, trial, num_context=length)
            self.num_added += 1

    def draw(self, num_trials: int, length: int, generator: torch.Generator, *, burn_in: int = 0) -> Sequences:
        """Sequences of trials that are drawn uniformly, with replacement.

        Args:
            num_trials: Number of sequences.
            length: Number of steps; a longer trial gives a part of it from a random step on.
            generator: Random generator of the device.
            burn_in: Number of first steps that are not learned from, but where a trial begins; trials' beginnings
                are drawn as often as it takes to learn from all their steps alike.
        """
        device = self._store.device
        early = max(0, length - burn_in) if burn_in else 0
        uniform = torch.rand(num_trials, generator=generator, device=device, dtype=torch.float64)
        drawn = self._store.draw_sequences((uniform * self.num_trials).long(), length, generator, early=early)
        places, steps, left = (part.T for part in drawn)
        mask = left >= 0
        warm = (steps[:1] == 0) | (steps - steps[:1] >= burn_in)
        trials = Trials(*self._store.gather(places), mask=mask, records={})
        return Sequences(trials, left == 0, mask & warm)

    def check_room(self) -> None:
        """Raise a MemoryError if the device's total memory is too small for the store."""
        self._store.check_room()

    def summary(self) -> str:
        """One line with the store's sizes and memory; nothing is allocated."""
        return self._store.summary()

    def save(self, path: Path) -> None:
        """Append what is new to the file."""
        self._store.save(path)

    def load(self, path: Path) -> None:
        """Read the trials of the state that `load_state_dict` restored."""
        self._store.load(path)

    def state_dict(self) -> dict[str, Any]:
        """The number of trials, and where they are in the store; `save` writes the rows to a file."""
        return self._store.state_dict() | {"trials": self.num_added}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state from `state_dict`; `load` reads the rows."""
        self._store.load_state_dict(state)
        self.num_added = int(state["trials"])
