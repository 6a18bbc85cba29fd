"""Evaluations of a study as they lie in its folder, checked before anything is computed from them."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metarl.experiments.study.held_out import HeldOut
from metarl.runs.reading import read_json, shorten

_NUMBERS = ("train_env_steps", "train_wall_s", "episodes_per_step")


def read_evaluation(path: Path, sets: Mapping[str, HeldOut]) -> dict[str, Any]:
    """Read the returns of one learner, as `metarl.experiments.study.running` writes them.

    Args:
        path: JSON file of the evaluation.
        sets: Held-out tasks by name of the set.

    Raises:
        ValueError: if the file is damaged or holds other tasks than the study's; one line.
    """
    data = read_json(path, "evaluation")
    try:
        _check(data, sets)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; delete it to measure again") from error
    evaluation: dict[str, Any] = data
    return evaluation


def _check(data: object, sets: Mapping[str, HeldOut]) -> None:
    curves = data.get("sets") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(curves, dict) or set(curves) != set(sets):
        raise ValueError(f"expected an evaluation with the sets {', '.join(sets)}, got {shorten(data)}")
    for name in _NUMBERS:
        number = data.get(name)
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number < 2**63:
            raise ValueError(f"{name} must be a number of zero or more, got {shorten(number)}")
    for name, held_out in sets.items():
        curve = curves[name]
        episodes = curve.get("episodes") if isinstance(curve, dict) else None
        if not isinstance(episodes, list) or not episodes or not all(_is_count(number) for number in episodes):
            raise ValueError(f"sets.{name}.episodes must be a list of counts, got {shorten(episodes)}")
        shape = (len(episodes), len(held_out.tasks))
        _check_array(curve.get("returns"), shape, f"sets.{name}.returns")
        if "halves" in curve:
            _check_array(curve["halves"], (2, *shape), f"sets.{name}.halves")


def _is_count(number: object) -> bool:
    return type(number) is int and 0 <= number < 2**31


def _check_array(values: object, shape: tuple[int, ...], name: str) -> None:
    """Raise a ValueError unless nested lists of finite numbers have a shape."""
    if not shape:
        if type(values) not in (int, float) or not math.isfinite(values):  # type: ignore[arg-type]
            raise ValueError(f"{name} must hold finite numbers, got {shorten(values)}")
        return
    if not isinstance(values, list) or len(values) != shape[0]:
        raise ValueError(f"{name} must have shape {shape} in lists, got {shorten(values)}")
    for number, value in enumerate(values):
        _check_array(value, shape[1:], f"{name}[{number}]")
