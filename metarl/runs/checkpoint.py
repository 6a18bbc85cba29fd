"""Checkpoints: all that a resumed run needs, written atomically, checked and read without running code."""

import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from metarl.runs.files import atomic_file

FORMAT = "metarl-checkpoint-1"
CHECKPOINT = "checkpoint.pt"
PREVIOUS = "checkpoint.previous.pt"
BEST = "checkpoint.best.pt"
INITIAL = "initial.pt"
"""Weights that a run starts from, if they are another run's."""
_LOG = logging.getLogger(__name__)


class CheckpointError(ValueError):
    """A file that is not a readable checkpoint of this project."""


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint into a run folder, keeping the one before as `checkpoint.previous.pt`.

    The new file is complete on disk before it takes the name: whenever the process dies, the folder holds a
    whole checkpoint.

    Args:
        folder: Run folder.
        state: Tensors, numbers, strings, and lists and dictionaries of them.

    Raises:
        WriteError: if the disk is full or the file cannot be written; the checkpoints are as they were.
    """
    with atomic_file(folder / CHECKPOINT, previous=folder / PREVIOUS) as file:
        torch.save({"format": FORMAT, **state}, file)


def save_best(folder: Path, state: dict[str, Any]) -> None:
    """Write `checkpoint.best.pt`, in place of the one that was the best until now."""
    with atomic_file(folder / BEST) as file:
        torch.save({"format": FORMAT, **state}, file)


def save_initial(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Write `initial.pt`, the weights that a run starts from."""
    with atomic_file(folder / INITIAL) as file:
        torch.save({"format": FORMAT, "weights": dict(weights)}, file)


def latest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that a run goes on from: the last, or the one before where that is missing; or None."""
    if (folder / CHECKPOINT).exists():
        return folder / CHECKPOINT
    if not (folder / PREVIOUS).exists():
        return None
    _LOG.warning("%s is missing; going on from %s", folder / CHECKPOINT, folder / PREVIOUS)
    return folder / PREVIOUS


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, after a check of every record's checksum. Nothing in the file is executed.

    Raises:
        CheckpointError: if the file is missing, cut short, damaged, or not a checkpoint of this project; names the
            command that goes back to the checkpoint before, if that is sound.
    """
    try:
        return _read(path)
    except CheckpointError as error:
        previous = path.with_name(PREVIOUS)
        if path.name != CHECKPOINT or not _is_sound(previous):
            raise
        command = f"`metarl resume {path.parent} --checkpoint {PREVIOUS}`"
        raise CheckpointError(f"{error}; {command} goes back to the one before, which is sound") from error


def _is_sound(path: Path) -> bool:
    try:
        _read(path)
    except CheckpointError:
        return False
    return True


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise CheckpointError(f"no checkpoint at {path}; expected a file that `metarl train` wrote")
    try:
        _check_records(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged or hostile file makes a reader raise is anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{path} is damaged or not a checkpoint: {reason}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        came = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise CheckpointError(f"{path} is not a metarl checkpoint: expected format {FORMAT!r}, got {came!r}")
    del state["format"]
    return cast(dict[str, Any], state)


def _check_records(path: Path) -> None:
    """Raise an error unless the file is a zip archive whose records have the checksums that it says they have."""
    if not zipfile.is_zipfile(path):  # torch's reader of older formats raises anything on other files
        raise ValueError("expected a zip file")
    with zipfile.ZipFile(path) as archive:
        for record in archive.infolist():
            if record.compress_type != zipfile.ZIP_STORED:  # torch compresses nothing, a zip bomb is compressed
                raise ValueError(f"expected records that are not compressed, got {record.filename}")
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"the checksum of its record {damaged} is wrong")
