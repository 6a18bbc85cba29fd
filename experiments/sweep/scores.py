"""The one number that trials are compared by; higher is better."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from metarl.experiments.loading import AnyExperiment
from metarl.experiments.prepared import experiment as experiment_of
from metarl.experiments.runs import EVALUATION
from metarl.experiments.working import train
from metarl.runs.reading import read_json

Measure = Literal["return", "success", "accuracy", "error"]
"""Quantity of an evaluation that a score is; of an error its negative."""

_KEYS = {
    "return": ("return_mean", 1),
    "success": ("success_mean", 1),
    "accuracy": ("accuracy_mean", 1),
    "error": ("mse_mean", -1),
}
_CURVES = (
    ("train/trial_return", 1),
    ("train/return_post", 1),
    ("train/accuracy_post", 1),
    ("train/mse_post", -1),
    ("loss/outer", -1),
)
"""Metrics that may stand for progress while training, the best first, and the sign that makes more better."""


def score_of(result: Mapping[str, Any], measure: Measure | None = None) -> float:
    """The score of an evaluation, at its last adaptation step; of few-shot learners on validation classes if any.

    Args:
        result: Evaluation of a run.
        measure: Quantity that counts; by default the mean return, of few-shot learners accuracy or the error.

    Raises:
        ValueError: if the evaluation does not hold it.
    """
    curve = (result.get("splits") or {}).get("validation") or result.get("adaptation") or [{}]
    last = curve[-1]
    for name, (key, sign) in _KEYS.items():
        if measure in (None, name) and key in last:
            return sign * float(last[key])
    there = [name for name, (key, _) in _KEYS.items() if key in last]
    raise ValueError(
        f"the evaluation has no {measure or 'score'}; it has {', '.join(there) or 'none that is known'}"
    )


def score_in(folder: Path, measure: Measure | None = None) -> float:
    """The score of a run that was trained and evaluated; see `score_of`."""
    result: Mapping[str, Any] = read_json(folder / EVALUATION, "evaluation")
    return score_of(result, measure)


def progress_score(metrics: Mapping[str, float]) -> float | None:
    """The score of an iteration while training; None if the agent reports nothing that could be one."""
    return next((sign * metrics[name] for name, sign in _CURVES if name in metrics), None)


def score(
    experiment: AnyExperiment | str,
    settings: Mapping[str, Any] | None = None,
    *,
    out: Path | str | None = None,
    measure: Measure | None = None,
) -> float:
    """Train an experiment with some of its settings changed, and give its score.

        metarl.score("point-promp", {"agent.outer_lr": 1e-3, "training.iterations": 20})

    Args:
        experiment: Name of a preset, FILE.py:NAME, or an experiment.
        settings: Values by dotted names; only of an experiment that is named.
        out: Run folder to make and keep; by default nothing is kept.
        measure: Quantity that counts; by default the mean return, of few-shot learners accuracy or the error.

    Returns:
        The quantity at the last adaptation step, of an error its negative.
    """
    if isinstance(experiment, str):
        options = {f"--{name.replace('_', '-')}": str(value) for name, value in (settings or {}).items()}
        experiment = experiment_of(experiment, *(word for pair in options.items() for word in pair))
    elif settings:
        raise ValueError("settings change an experiment that is named; use dataclasses.replace on others")
    if out is not None:
        return score_in(train(experiment, out=out).folder, measure)
    with tempfile.TemporaryDirectory() as folder:
        return score_in(train(experiment, out=Path(folder) / "run").folder, measure)
