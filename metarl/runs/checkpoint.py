"""Checkpoints: all that a resumed run needs, written atomically, read without running code."""

import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch

FORMAT = "metarl-checkpoint-1"
FILE = "checkpoint.pt"
PREVIOUS = "checkpoint.previous.pt"


class CheckpointError(ValueError):
    """A file that is not a readable checkpoint of this project."""


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint into a run folder, keeping the one before as `checkpoint.previous.pt`.

    The new file is complete on disk before it takes the name: whenever the process dies, the folder holds a
    whole checkpoint.

    Args:
        folder: the run's.
        state: tensors, numbers, strings, and lists and dictionaries of them.
    """
    path, temporary = folder / FILE, folder / f"{FILE}.tmp"
    with temporary.open("wb") as file:
        torch.save({"format": FORMAT, **state}, file)
        file.flush()
        os.fsync(file.fileno())
    if path.exists():
        # A link, so that no moment passes without a file of either name.
        link = folder / f"{PREVIOUS}.tmp"
        link.unlink(missing_ok=True)
        try:
            os.link(path, link)
        except OSError:  # a file system without links
            shutil.copyfile(path, link)
        link.replace(folder / PREVIOUS)
    temporary.replace(path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint. Nothing in the file is executed.

    Raises:
        CheckpointError: if the file is missing, cut short, or not a checkpoint of this project.
    """
    if not path.exists():
        raise CheckpointError(f"no checkpoint at {path}; expected a file that `metarl train` wrote")
    previous = path.parent / PREVIOUS
    remedy = f"; {previous} holds the one before (--checkpoint {PREVIOUS})" if previous.exists() else ""
    if path.name == PREVIOUS:
        remedy = ""
    try:
        if not zipfile.is_zipfile(path):  # torch's reader of older formats raises anything on other files
            raise ValueError("not a zip file")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, LookupError, TypeError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path} is damaged or not a checkpoint{remedy}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise CheckpointError(
            f"{path} is not a metarl checkpoint: expected format {FORMAT!r}, got {found!r}{remedy}"
        )
    del state["format"]
    return state
