"""Measuring a trained few-shot learner on every split, beside the untrained one."""

from collections.abc import Mapping, Sequence
from typing import Any

from metarl.experiments.configuration import make_device
from metarl.experiments.console import Waiting, show_table
from metarl.experiments.fewshot.configuration import make_learner
from metarl.experiments.fewshot.runs import FewshotRun
from metarl.experiments.runs import checkpoint_path
from metarl.fewshot.episodes import EpisodeSource
from metarl.fewshot.evaluation import adaptation_scores, summarise
from metarl.fewshot.learner import Learner
from metarl.fewshot.sources import Sources
from metarl.fewshot.training import FewshotEvaluationConfig
from metarl.loop import load_state
from metarl.runs import seeding

Rows = list[dict[str, Any]]


def measure(
    run: FewshotRun, sources: Sources, checkpoint: str, settings: FewshotEvaluationConfig, *, seed: int
) -> dict[str, Any]:
    """Evaluate a checkpoint on every split, and the untrained learner on test tasks; show and return the scores.

    Args:
        run: whose learner.
        sources: of its tasks.
        checkpoint: file name of one of the run's checkpoints.
        settings: numbers of tasks and adaptation steps.
        seed: of the tasks.
    """
    device = make_device(run.experiment.device)
    learner, untrained = (make_learner(run.experiment, device) for _ in range(2))
    generators = seeding.streams(run.experiment.seed)
    progress = load_state(learner, generators, checkpoint_path(run, checkpoint), run.identity)
    name = ""

    def rows_of(measured: Learner, source: EpisodeSource, what: str) -> Rows:
        nonlocal name
        rng = seeding.streams(seed)["evaluation"]
        with Waiting(f"evaluating {what}, task") as waiting:
            name, scores = adaptation_scores(
                measured,
                source,
                rng,
                num_tasks=settings.num_tasks,
                num_steps=settings.num_steps,
                score_every=settings.score_every,
                views=settings.views,
                progress=waiting.progress,
            )
        return summarise(name, scores, settings.score_every)

    splits = {split: rows_of(learner, source, f"{split} tasks") for split, source in sources.held_out.items()}
    baseline = rows_of(untrained, sources.held_out["test"], "the untrained learner")
    normalisation = learner.normalisation
    what = run.experiment.data.describe()
    norms = "no batch norm" if normalisation is None else f"batch norm: {normalisation}"
    seen = "" if settings.views == 1 else f"; {settings.views} views"
    title = f"{run.name} after {progress.tasks:,} tasks: {settings.num_tasks} episodes of {what}; {norms}{seen}"
    show_scores(title, name, splits | {"test, untrained": baseline})
    return {
        "experiment": run.name,
        "seed": run.experiment.seed,
        "evaluation_seed": seed,
        "num_tasks": settings.num_tasks,
        "episodes": what,
        "normalisation": normalisation,
        "views": settings.views,
        "train_tasks": progress.tasks,
        "train_wall_s": round(progress.elapsed_s, 1),
        "adaptation": splits.pop("test"),
        "splits": splits,
        "baselines": {"untrained": baseline},
    }


def show_scores(title: str, name: str, curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Print scores by adaptation step, each a sequence of the rows of `summarise`."""
    percent = 100 if name == "accuracy" else 1
    digits = 2 if name == "accuracy" else 4
    label = "accuracy, %" if name == "accuracy" else "mean squared error"
    lines = []
    for tasks, rows in curves.items():
        for row in rows:
            bounds = row[f"{name}_ci95"]
            interval = (
                "-" if bounds is None else "[" + ", ".join(f"{percent * b:.{digits}f}" for b in bounds) + "]"
            )
            lines.append([tasks, str(row["step"]), f"{percent * row[f'{name}_mean']:.{digits}f}", interval])
    show_table(title, ["tasks", "adaptation steps", label, "95% interval"], lines)
