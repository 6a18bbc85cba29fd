"""Labelled examples of one task in a file of arrays."""

from pathlib import Path

import numpy as np

from metarl.fewshot.episodes import Examples
from metarl.runs.reading import open_regular


def read_examples(path: Path) -> Examples:
    """The examples of an npz file with the arrays inputs [row, *input] and targets, [row] or [row, out].

    Bytes stand for numbers in [0, 1], and numbers become float32.

    Raises:
        ValueError: If it is no such file, or its arrays do not fit each other; one line.
    """
    try:
        with open_regular(path) as opened, np.load(opened, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in ("inputs", "targets")}
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # damaged archives raise many kinds
        raise ValueError(f"{path} must be an npz file with the arrays inputs and targets: {error}") from error
    for name, values in arrays.items():
        if values.dtype.kind not in "fiub" or (values.dtype.kind == "f" and not np.isfinite(values).all()):
            raise ValueError(f"{name} in {path} must be finite numbers, got {values.dtype}")
    return Examples.of_one_task(arrays["inputs"], arrays["targets"])
