"""Randomness: one seed, named independent streams, and noise that does not depend on how work is split.

A run owns one generator for each purpose, so that drawing one more evaluation task cannot change the
next training batch. Whatever is simulated is seeded by (task, episode), never by worker or thread.
"""

import json
import zlib
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

STREAMS = ("tasks", "test_tasks", "fresh_tasks", "workers", "evaluation", "train_tasks")


def streams(seed: int) -> dict[str, np.random.Generator]:
    """Independent random generators that are derived from one seed, by name.

    Args:
        seed: Seed of all random streams of a run, a non-negative integer.

    Raises:
        ValueError: If the seed is negative.
    """
    if seed < 0:
        raise ValueError(f"seed must be a non-negative integer, got {seed}")
    return {name: np.random.default_rng([seed, zlib.crc32(name.encode())]) for name in STREAMS}


def draw_seed(rng: np.random.Generator) -> int:
    """A seed in [0, 2^63) for one call that collects or initialises something."""
    return int(rng.integers(2**63))


def episode_seeds(seed: int, num_tasks: int, num_episodes: int) -> np.ndarray:
    """A seed for every episode of every task, uint64 of shape [task, episode]."""
    state = np.random.SeedSequence([seed, 0]).generate_state(num_tasks * num_episodes, np.uint64)
    return state.reshape(num_tasks, num_episodes)


def task_seeds(seed: int, num_tasks: int) -> np.ndarray:
    """A seed for the exploration noise of every task, uint64 of shape [task]."""
    return np.random.SeedSequence([seed, 1]).generate_state(num_tasks, np.uint64)


def torch_generator(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator on a device, seeded with the seed modulo 2^63."""
    return torch.Generator(device=device).manual_seed(seed % 2**63)


def dump_states(generators: dict[str, np.random.Generator]) -> str:
    """The states of all streams as JSON, for a checkpoint."""
    return json.dumps({name: rng.bit_generator.state for name, rng in generators.items()})


def load_states(generators: dict[str, np.random.Generator], dumped: str) -> None:
    """Restore the states of all streams from the JSON of `dump_states`."""
    for name, state in json.loads(dumped).items():
        generators[name].bit_generator.state = state


class TaskNoise:
    """Noise, standard normal or uniform in [0, 1), one generator per task, drawn in blocks of time steps.

    Since every task owns its generator, the noise of a task is the same whichever worker acts for it
    and whatever other tasks are in the batch.
    """

    def __init__(
        self,
        seeds: Sequence[int] | np.ndarray,
        shape: tuple[int, ...],
        *,
        kind: Literal["normal", "uniform"] = "normal",
        block: int = 32,
    ) -> None:
        self._generators = [np.random.default_rng(int(seed)) for seed in seeds]
        self._shape = (block, *shape)
        self._uniform = kind == "uniform"
        self._buffer = torch.empty(0)
        self._cursor = 0

    def next(self) -> Tensor:
        """The next time step's noise, float32 of shape [task, *shape]."""
        if self._cursor == len(self._buffer):
            drawn = [
                g.random(self._shape, np.float32) if self._uniform else g.standard_normal(self._shape, np.float32)
                for g in self._generators
            ]
            self._buffer = torch.from_numpy(np.stack(drawn, axis=1))
            self._cursor = 0
        self._cursor += 1
        return self._buffer[self._cursor - 1]
