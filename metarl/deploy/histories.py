"""The experience that a policy was adapted to, in a summary that is saved with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from metarl.deploy.recordings import Recording
from metarl.deploy.single_env import Episode

_MOST_LISTED = 1000
"""Numbers of an observation, up to which each has a range of its own."""


@dataclass(frozen=True)
class AdaptedTo:
    """One adaptation: the episodes that were acted or read, and what was in them.

    Attributes:
        source: Origin of the transitions: an environment that was acted in, or a recording.
        gradient_steps: Number of gradient steps; 0 of an agent that learns as it reads.
        episodes: Number of episodes.
        steps: Number of steps.
        returns: Undiscounted return of every episode.
        successes: Success of every episode, where the environment reports it; empty otherwise.
        seed: Seed of the adaptation.
        observations: Least and greatest observations by part, {"": {"low": [...], "high": [...]}}.
        actions: Least and greatest actions that the environment received.
        rewards: Least and greatest rewards.
    """

    source: Literal["environment", "recording"]
    gradient_steps: int
    episodes: int
    steps: int
    returns: tuple[float, ...]
    successes: tuple[bool, ...]
    seed: int
    observations: Mapping[str, Any]
    actions: Mapping[str, Any]
    rewards: Mapping[str, Any]


def adapted_to(recording: Recording, episodes: Sequence[Episode], *, gradient_steps: int, seed: int) -> AdaptedTo:
    """The summary of an adaptation.

    Args:
        recording: All transitions of it.
        episodes: Episodes that were acted; empty if the recording was read.
        gradient_steps: Number of gradient steps.
        seed: Seed of the adaptation.
    """
    starts = np.concatenate(([0], recording.episode_ends[:-1]))
    returns = np.add.reduceat(np.asarray(recording.rewards, np.float64), starts)
    return AdaptedTo(
        source="environment" if episodes else "recording",
        gradient_steps=gradient_steps,
        episodes=len(returns),
        steps=len(recording.rewards),
        returns=tuple(float(value) for value in returns),
        successes=tuple(episode.success for episode in episodes if episode.success is not None),
        seed=seed,
        observations={name: value_range(part) for name, part in recording.observation_parts.items()},
        actions=value_range(recording.actions),
        rewards=value_range(recording.rewards),
    )


def value_range(values: np.ndarray) -> dict[str, Any]:
    """Least and greatest value of each number over the first axis, as JSON types; of a whole image one of all."""
    rows = np.asarray(values).reshape(len(values), -1)
    if rows.shape[1] > _MOST_LISTED:
        rows = rows.reshape(-1, 1)
    return {"low": rows.min(0).tolist(), "high": rows.max(0).tolist()}
