"""Measuring a trained few-shot learner on every split, beside the untrained one."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from metarl.experiments.console import Waiting, show_table
from metarl.experiments.evaluations import score_name, score_words
from metarl.fewshot.data.drawn import FixedEpisodes
from metarl.fewshot.episodes import EpisodeSource
from metarl.fewshot.evaluation import adaptation_scores, summarise
from metarl.fewshot.learner import Learner
from metarl.fewshot.sources import Sources
from metarl.fewshot.training import FewshotEvaluationConfig
from metarl.runs import seeding

Rows = list[dict[str, Any]]


def measure(
    learner: Learner, untrained: Learner, sources: Sources, settings: FewshotEvaluationConfig, *, seed: int
) -> dict[str, Any]:
    """Evaluate a learner on every split, and the untrained one on test tasks, or others where there are none.

    Args:
        learner: Trained learner.
        untrained: The same learner before training.
        sources: Tasks of every split.
        settings: Numbers of tasks and of adaptation steps.
        seed: Seed of the tasks.

    Returns:
        Scores by adaptation step, as JSON types; of a list of tasks the last score of each, too.
    """

    def scores_of(measured: Learner, source: EpisodeSource, what: str) -> tuple[str, np.ndarray]:
        rng = seeding.streams(seed)["evaluation"]
        with Waiting(f"evaluating {what}, task") as waiting:
            return adaptation_scores(
                measured,
                source,
                rng,
                num_tasks=settings.num_tasks,
                num_steps=settings.num_steps,
                score_every=settings.score_every,
                views=settings.views,
                progress=waiting.progress,
            )

    def rows_of(measured: Learner, source: EpisodeSource, what: str) -> Rows:
        return summarise(*scores_of(measured, source, what), settings.score_every)

    judged = next(name for name in ("test", "validation", "train") if name in sources.held_out)
    name, scores = scores_of(learner, sources.held_out[judged], f"{judged} tasks")
    splits = {
        split: summarise(name, scores, settings.score_every)
        if split == judged
        else rows_of(learner, source, f"{split} tasks")
        for split, source in sources.held_out.items()
    }
    baseline = rows_of(untrained, sources.held_out[judged], "the untrained learner")
    by_task = (
        {"scores_by_task": scores[-1].tolist()} if isinstance(sources.held_out[judged], FixedEpisodes) else {}
    )
    return {
        **by_task,
        "adaptation": splits.pop(judged),
        "judged": judged,
        "splits": splits,
        "baselines": {"untrained": baseline},
    }


def show(result: Mapping[str, Any]) -> None:
    """Print scores by adaptation step as a table."""
    judged = result.get("judged", "test")  # older results always have test tasks
    curves = {
        **result["splits"],
        judged: result["adaptation"],
        f"{judged}, untrained": result["baselines"]["untrained"],
    }
    name = score_name(result["adaptation"][0])
    percent, digits, label = (100, 2, "accuracy, %") if name == "accuracy" else (1, 4, score_words(name))
    lines = []
    for tasks, rows in curves.items():
        for row in rows:
            bounds = row[f"{name}_ci95"]
            interval = (
                "-" if bounds is None else "[" + ", ".join(f"{percent * b:.{digits}f}" for b in bounds) + "]"
            )
            lines.append([tasks, str(row["step"]), f"{percent * row[f'{name}_mean']:.{digits}f}", interval])
    views = "" if result["views"] == 1 else f"; {result['views']} views"
    title = f"{result['experiment']} after {result['train_tasks']:,} tasks: {result['num_tasks']} episodes"
    together = "; transductive" if result.get("transductive") else ""  # older results do not say it
    chosen = f"; step size {result['inner_lr']:g}, chosen on validation tasks" if "inner_lr" in result else ""
    title += f" of {result['episodes']}; {norms(result['normalisation'])}{together}{chosen}{views}"
    show_table(title, ["tasks", "adaptation steps", label, "95% interval"], lines, keys=2)


def norms(normalisation: str | None) -> str:
    """The words for the way that batch norm is computed."""
    return "no batch norm" if normalisation is None else f"batch norm: {normalisation}"
