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
    """Restore the states of all streams from the JSON of `dump_states`.

    Raises:
        ValueError: if a stream is missing or unknown, or is one of another seed.
    """
    states = json.loads(dumped)
    if set(states) != set(generators):
        raise ValueError(f"expected the random streams {sorted(generators)}, got {sorted(states)}")
    for name, state in states.items():
        bits = generators[name].bit_generator
        ours = bits.state
        if state["state"]["inc"] != ours["state"]["inc"]:  # PCG64's increment is the seed's, and never changes
            raise ValueError(f"its random stream {name} is one of another seed than the run's")
        bits.state = state


class TaskNoise:
    """Noise, standard normal or uniform in [0, 1): a stream per task, which advances with that task alone.

    The noise of a task is the same whichever worker acts for it, whatever other tasks are in the batch, and
    however long their episodes are. It is drawn in blocks of time steps.

    Args:
        seeds: One per task.
        shape: Shape of a task's noise at one step.
        kind: Distribution of each number.
        block: Steps that are drawn at once.
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
        self._block = block
        self._uniform = kind == "uniform"
        self._buffer = np.empty((block, len(self._generators), *shape), np.float32)
        self._cursors = np.full(len(self._generators), block)
        self._tasks = np.arange(len(self._generators))

    def next(self, alive: Tensor | None = None) -> Tensor:
        """The next time step's noise, float32 of shape [task, *shape].

        Args:
            alive: Tasks whose episode goes on, bool [task]; the streams of the others wait, and their noise is
                arbitrary. None for all tasks.
        """
        going = self._tasks if alive is None else np.flatnonzero(alive.numpy())
        for task in going[self._cursors[going] == self._block]:
            generator, shape = self._generators[task], (self._block, *self._buffer.shape[2:])
            self._buffer[:, task] = (generator.random if self._uniform else generator.standard_normal)(
                shape, np.float32
            )
            self._cursors[task] = 0
        noise = self._buffer[np.minimum(self._cursors, self._block - 1), self._tasks]
        self._cursors[going] += 1
        return torch.from_numpy(noise)
