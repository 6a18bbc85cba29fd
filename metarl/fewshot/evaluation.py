"""Evaluation is a curve: accuracy, or squared error, after 0, 1, ... k adaptation steps on many episodes."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from metarl.fewshot.data.classes import ClassSource
from metarl.fewshot.data.drawn import FixedEpisodes
from metarl.fewshot.data.mixed import MixedEpisodes
from metarl.fewshot.episodes import Episodes, EpisodeSource, Examples
from metarl.fewshot.learner import Learner, ModuleLearner, Predictor, fault_of
from metarl.fewshot.metric import MetricLearner, Source
from metarl.fewshot.objectives import ByTargets, score_range
from metarl.intervals import Sampling

Adapt = Callable[[Examples, int], list[Predictor]]
"""Learns tasks from support sets in some steps; see `metarl.fewshot.learner.Learner.adapt`."""

OnTasks = Callable[[int, int], None]
"""Called with the number of tasks that are done, and of all."""

DRAWN_TOGETHER = 50
"""Number of tasks that are drawn by one call of a source, on which it depends what tasks a random stream gives.

It is the same wherever a learner is judged, so that all judge by the same tasks.
"""


def adaptation_scores(
    learner: Learner,
    source: EpisodeSource,
    rng: np.random.Generator,
    *,
    num_tasks: int,
    num_steps: int,
    score_every: int = 1,
    views: int = 1,
    tasks_at_once: int = DRAWN_TOGETHER,
    progress: OnTasks | None = None,
) -> tuple[str, np.ndarray]:
    """Adapt to fresh tasks step by step and score the query sets.

    Args:
        learner: Learner to evaluate; it is left as it is.
        source: Source of the tasks.
        rng: Random stream that the tasks are drawn from.
        num_tasks: Number of tasks.
        num_steps: Number of adaptation steps.
        score_every: Number of steps from one score to the next.
        views: Number of views of an image, itself and distorted copies, whose mean features a metric learner
            compares.
        tasks_at_once: Number of tasks that are held in memory together.
        progress: Function that is called after each part.

    Returns:
        The name of the learner's score, such as "accuracy" or "mse", and the score of every task after each step,
        float64 [step, task]; a single row of a learner that has no adaptation steps. The rows end where more
        steps than are trained for lead to a score that is not finite.

    Raises:
        FloatingPointError: if a score is not finite after no more steps than are trained for.
        ValueError: if several views are asked of a learner that does not embed every image by itself, or a number
            is too small.
    """
    check_least(1, score_every=score_every)
    check_least(0, num_steps=num_steps)
    parts, name = [], ""
    objective = learner.objective if isinstance(learner, ModuleLearner) else ByTargets()
    adapt, source = prepared(learner, source, views)
    for done, (support, query) in drawn_tasks(source, rng, num_tasks, tasks_at_once):
        predictors, name = adapt(support, num_steps), objective.score_name(query.targets)
        parts.append(
            torch.stack([objective.scores(p(query.inputs), query.targets) for p in predictors[::score_every]])
        )
        if progress is not None:
            progress(done, num_tasks)
    scores: np.ndarray = torch.cat(parts, 1).double().cpu().numpy()
    return name, scores[: _finite_rows(name, scores, score_every, learner)]


def drawn_tasks(
    source: EpisodeSource, rng: np.random.Generator, num_tasks: int, at_once: int
) -> Iterator[tuple[int, Episodes]]:
    """Tasks of a source, in parts, with the number of tasks so far; those of unequal sizes come one by one.

    The tasks do not depend on the size of the parts.

    Args:
        source: Source of the tasks.
        rng: Random stream that the tasks are drawn from.
        num_tasks: Number of tasks.
        at_once: Number of tasks of a part.

    Raises:
        ValueError: If a number is below 1.
    """
    check_least(1, num_tasks=num_tasks, tasks_at_once=at_once)
    done = 0
    while done < num_tasks:
        drawn = source.sample(min(DRAWN_TOGETHER, num_tasks - done), rng)
        for part in drawn.alone() if drawn.is_ragged else drawn.split(at_once):
            done += part.num_tasks
            yield done, part


def check_least(least: int, **numbers: int) -> None:
    """Raise a ValueError that names the first of some numbers that is below the least."""
    for name, number in numbers.items():
        if number < least:
            raise ValueError(f"{name} must be {least} or more, got {number}")


def prepared(learner: Learner, source: EpisodeSource, views: int) -> tuple[Adapt, EpisodeSource]:
    """The learner's way to learn tasks, and the source from its start, of features where `embedded` gives some."""
    if isinstance(source, FixedEpisodes):
        source = source.from_start()
    sources = source.sources if isinstance(source, MixedEpisodes) else (source,)
    plain = [part for part in sources if isinstance(part, ClassSource) and part.augmentation is None]
    if len(plain) < len(sources):
        if views > 1:
            raise ValueError(f"views must be 1 of what is not a plain image, got {views}")
        return learner.adapt, source
    check_views(learner, tuple(plain[0].data.examples.shape[1:]), views)
    pairs = [embedded(learner, part, views=views) for part in plain]
    features = [own for _, own in pairs]
    return pairs[0][0], source.with_sources(features) if isinstance(source, MixedEpisodes) else features[0]


def embedded(learner: Learner, source: Source, *, views: int = 1) -> tuple[Adapt, Source]:
    """The learner's way to learn tasks, and the source: of features, if the learner embeds every example alone."""
    if isinstance(learner, MetricLearner) and learner.embeds_rows_alone:
        return learner.adapt_to_features, learner.embed_classes(source, views=views)
    return learner.adapt, source


def check_views(learner: Learner, input_shape: tuple[int, ...], views: int) -> None:
    """Raise a ValueError unless a learner can compare so many views of examples of a shape."""
    if views == 1:
        return
    if not (isinstance(learner, MetricLearner) and learner.embeds_rows_alone):
        raise ValueError(
            f"views must be 1 for {type(learner).__name__}, got {views}; learners that compare features and "
            "normalise by running averages take more"
        )
    if len(input_shape) != 3:
        raise ValueError(f"views must be 1 of examples that are no images, got {views} of shape {input_shape}")


def _finite_rows(name: str, scores: np.ndarray, score_every: int, learner: Learner) -> int:
    """Rows before the first that is not finite; an error if that is of no more steps than are trained for."""
    bad = np.argwhere(~np.isfinite(scores))
    if not len(bad):
        return len(scores)
    row, task = bad[0]
    trained_for = max(1, learner.num_steps)
    if row * score_every <= trained_for:
        steps = row * score_every
        raise FloatingPointError(
            f"the {name} on task {task} is not finite after {steps} adaptation steps{fault_of(learner)}"
        )
    return int(row)


def summarise(name: str, scores: np.ndarray, score_every: int = 1) -> list[dict[str, Any]]:
    """One row per scored step: the mean over tasks and its 95% interval; tasks are independent.

    Args:
        name: Name of the score, such as "accuracy" or "mse".
        scores: Score of every task after each step, shape [step, task].
        score_every: Number of adaptation steps between two scored ones.
    """
    least, most = score_range(name)
    intervals = Sampling.independent(scores.shape[1]).mean_intervals(scores.T, least=least, most=most)
    return [
        {"step": place * score_every, f"{name}_mean": float(values.mean()), f"{name}_ci95": interval}
        for place, (values, interval) in enumerate(zip(scores, intervals, strict=True))
    ]
