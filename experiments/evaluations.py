"""Evaluations of runs as their files hold them, checked once for all pages that show them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from metarl.runs.reading import read_json, shorten

_NUMBERS = ("num_tasks", "num_episodes", "train_env_steps", "train_tasks", "train_wall_s")


def read_evaluation(path: Path) -> Mapping[str, Any]:
    """The content of an evaluation, whose scores are numbers with intervals.

    Raises:
        ValueError: if the file cannot be read, or is no evaluation; says the place in it.
    """
    data: Any = read_json(path, "evaluation")
    wrong = next(_faults(data), None)
    if wrong is not None:
        raise ValueError(
            f"{path} is no evaluation: {wrong}; make it anew with `metarl evaluate {path.parent} --json FILE`"
        )
    evaluation: Mapping[str, Any] = data
    return evaluation


def _faults(data: Any) -> Iterator[str]:
    """What is wrong with an evaluation."""
    if not isinstance(data, dict):
        yield f"expected names with values, got {shorten(data)}"
        return
    for name in _NUMBERS:
        if (name in data or name == "num_tasks") and not _is_number(data.get(name)):
            yield f"expected {name} as a number, got {shorten(data.get(name))}"
    if not _is_curve(data.get("adaptation")):
        yield f"expected scores by adaptation step, got {shorten(data.get('adaptation'))}"
    for part, is_right in (("baselines", _is_curve), ("splits", _is_curve), ("trials", _is_score)):
        scores = data.get(part, {})
        if not isinstance(scores, dict) or not all(map(is_right, scores.values())):
            yield f"expected scores in {part}, got {shorten(scores)}"


def _is_curve(rows: Any) -> bool:
    """Whether these are scores by adaptation step."""
    return (
        isinstance(rows, list)
        and bool(rows)
        and all(_is_score(row) and type(row.get("step")) is int for row in rows)
    )


def _is_score(row: Any) -> bool:
    """Whether there is a headline number, and every mean is a number with an interval of two numbers, or None."""
    if not isinstance(row, dict):
        return False
    means = [name.removesuffix("_mean") for name in row if name.endswith("_mean")]
    bounds = [row.get(f"{name}_ci95") for name in means]
    return (
        bool(means)
        and all(_is_number(row[f"{name}_mean"]) for name in means)
        and all(
            each is None or (isinstance(each, list) and len(each) == 2 and all(map(_is_number, each)))
            for each in bounds
        )
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def score_name(row: Mapping[str, Any]) -> str:
    """The name of the score that a row of a few-shot evaluation has the mean of, such as "accuracy"."""
    return next((name.removesuffix("_mean") for name in row if name.endswith("_mean")), "score")


def score_words(name: str) -> str:
    """The name of a score in words."""
    return "mean squared error" if name == "mse" else name.replace("_", " ")
