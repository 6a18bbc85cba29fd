"""The content of a checkpoint: what is trained, its random streams, and how far the run is."""

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from metarl.loop import Progress
from metarl.runs.checkpoint import CheckpointError, load_checkpoint
from metarl.runs.seeding import dump_states, load_states

_LOG = logging.getLogger(__name__)


class Stateful(Protocol):
    """An agent or learner whose state a checkpoint holds."""

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""


def state_of(
    trained: Stateful, generators: dict[str, np.random.Generator], progress: Progress, identity: str
) -> dict[str, Any]:
    """The content of a checkpoint that says whose it is, and on how many threads torch computed it."""
    return {
        "of": identity,
        "agent": trained.state_dict(),
        "generators": dump_states(generators),
        "progress": asdict(progress),
        "torch_threads": torch.get_num_threads(),
    }


def load_state(
    trained: Stateful, generators: Mapping[str, np.random.Generator], path: Path, identity: str
) -> Progress:
    """Put what is trained and its random streams where a checkpoint left them.

    Raises:
        CheckpointError: if the file is not a checkpoint.
        ValueError: if it is one of another agent, network, benchmark or seed, or its content is malformed.
    """
    state = load_checkpoint(path)
    owner = state.get("of")
    if owner != identity:
        raise ValueError(f"{path} is a checkpoint of {owner}, expected one of {identity}; use the run's own")
    try:
        progress = _progress(state.get("progress"))
        load_states(dict(generators), state["generators"])
        trained.load_state_dict(state["agent"])
    except Exception as error:  # what a hostile file makes a state's readers raise is anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1].strip()
        what = "is damaged, or a checkpoint of another agent or network than the run's"
        raise ValueError(f"{path} {what}: {reason}") from error
    _use_threads(state.get("torch_threads"), path)
    return progress


def progress_of(state: Mapping[str, Any], path: Path) -> Progress:
    """The progress in a checkpoint's content.

    Raises:
        CheckpointError: if it is missing or malformed.
    """
    try:
        return _progress(state.get("progress"))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error


def _progress(state: object) -> Progress:
    """The progress that a checkpoint holds, checked."""
    if not isinstance(state, dict) or not {"iteration", "env_steps"} <= set(state):
        raise ValueError(f"expected a progress with iteration and env_steps, got {state!r}")
    progress = Progress(**state)
    for name in ("iteration", "env_steps", "tasks"):
        count = getattr(progress, name)
        if type(count) is not int or not 0 <= count < 2**63:
            raise ValueError(f"expected {name} to be a whole number of zero or more, got {count!r}")
    for name in ("elapsed_s", "best"):
        number = getattr(progress, name)
        if not (type(number) in (int, float) and math.isfinite(number)) and (name, number) != ("best", None):
            raise ValueError(f"expected {name} to be a finite number, got {number!r}")
    if progress.elapsed_s < 0:
        raise ValueError(f"expected elapsed_s to be zero or more, got {progress.elapsed_s}")
    return progress


def _use_threads(num_threads: object, path: Path) -> None:
    """Have torch compute on as many threads as before: some of its sums depend on their number in the last bit."""
    present = torch.get_num_threads()
    if type(num_threads) is int and 1 <= num_threads <= 1024 and num_threads != present:
        _LOG.warning(
            "torch computes on %d threads, as %s was made with, instead of %d", num_threads, path, present
        )
        torch.set_num_threads(num_threads)
