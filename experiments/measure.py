"""Measuring a trained agent on tasks, beside the untrained one and what else makes its numbers mean something."""

from collections.abc import Mapping, Sequence
from typing import Any

from metarl.agent import Actor, ActsDeterministically, Collector
from metarl.evaluation import AdaptationCurve, adaptation_curve
from metarl.experiments.configuration import make_agent
from metarl.experiments.console import Waiting, show_curves, show_families, show_trials
from metarl.experiments.loading import restored
from metarl.experiments.references import reference_actors
from metarl.experiments.runs import Run
from metarl.runs import seeding
from metarl.tasks import Task
from metarl.training import EvaluationConfig


def measure(
    run: Run,
    collector: Collector,
    checkpoint: str,
    tasks: Sequence[Task],
    settings: EvaluationConfig,
    *,
    seed: int,
    split: str = "test",
) -> dict[str, Any]:
    """Evaluate a checkpoint and its baselines on the same tasks, show them, and return them as JSON types.

    The baselines are the untrained agent and, for an agent that learns within trials, the reference strategies
    of its task family.

    Args:
        run: whose agent.
        collector: runs the episodes.
        checkpoint: file name of one of the run's checkpoints.
        tasks: to adapt to.
        settings: numbers of adaptation steps and of episodes.
        seed: of the episodes.
        split: what the tasks are of: "test", "train", or "file" for a user's own.
    """
    agent, progress = restored(run, checkpoint)
    trained = agent.actor()
    actors = {"meta-trained": trained, "untrained": make_agent(run.experiment, run.benchmark).actor()}
    if trained.sequential:
        trials = [task for task in tasks for _ in range(settings.num_episodes)]
        actors |= reference_actors(run.benchmark.family, settings.num_steps + 1, trials)
    # The tasks of a user's file are all that is asked about; others may be drawn from a distribution.
    distribution = run.benchmark.train if split == "train" else run.benchmark.test
    exhaustive = split == "file" or distribution.exhausted_by(tasks)
    curves = _curves(actors, collector, tasks, settings, seed=seed, exhaustive=exhaustive)
    rows = {name: curve.summary() for name, curve in curves.items()}
    unit = "trials" if trained.sequential else "episodes"
    what = f"{_count(tasks, split)}, {settings.num_episodes} {unit} each"
    title = f"{run.name} after {progress.env_steps:,} steps: {what}"
    show_curves(title, {name: rows[name] for name in ("meta-trained", "untrained")})
    result = {
        "experiment": run.name,
        "seed": run.experiment.seed,
        "evaluation_seed": seed,
        "split": split,
        "num_tasks": len(tasks),
        "num_episodes": settings.num_episodes,
        "horizon": run.experiment.horizon or run.benchmark.family.horizon,
        "train_env_steps": progress.env_steps,
        "train_wall_s": round(progress.elapsed_s, 1),
        "tasks_exhaust_the_distribution": exhaustive,
        "tasks_shared_with_training": run.benchmark.shared or split == "train",
        "adaptation": rows.pop("meta-trained"),
        "baselines": rows,
        "tasks": [
            task.to_json() | _on_task(curves["meta-trained"], i) | {"untrained": _on_task(curves["untrained"], i)}
            for i, task in enumerate(tasks)
        ],
    }
    result |= _by_family(curves["meta-trained"])
    if trained.sequential:
        sums = {name: curve.trial_return() for name, curve in curves.items()}
        show_trials(f"return over the whole trial of {settings.num_steps + 1} episodes", sums)
        result["trials"] = sums
    return result


def _count(tasks: Sequence[Task], split: str) -> str:
    """How many tasks of what there are, and how many distinct ones."""
    kinds = len(set(tasks))
    distinct = "" if kinds == len(tasks) else f", {kinds} of them distinct"
    return f"{len(tasks)} {'given' if split == 'file' else split} tasks{distinct}"


def _by_family(curve: AdaptationCurve) -> dict[str, Any]:
    """The curve of each family, shown and as JSON types, if there are several."""
    families = curve.by_family()
    if len(families) < 2:
        return {}
    parts = {
        family: {"num_tasks": len(part.tasks), "adaptation": part.summary()} for family, part in families.items()
    }
    show_families("meta-trained, by environment: before adaptation and after", parts)
    return {"by_family": parts}


def _on_task(curve: AdaptationCurve, index: int) -> dict[str, list[float]]:
    """Return, and success where it is reported, by adaptation step on one task."""
    found = {"return_mean": curve.returns[:, index].mean(1).tolist()}
    if curve.successes is not None:
        found["success_mean"] = curve.successes[:, index].mean(1).tolist()
    return found


def _curves(
    actors: Mapping[str, Actor],
    collector: Collector,
    tasks: Sequence[Task],
    settings: EvaluationConfig,
    *,
    seed: int,
    exhaustive: bool,
) -> dict[str, AdaptationCurve]:
    """The adaptation curve of every actor on the same tasks."""
    rng = seeding.streams(seed)["evaluation"]
    curves = {}
    for name, actor in actors.items():
        with Waiting(f"evaluating {name}, adaptation step") as waiting:
            curves[name] = adaptation_curve(
                actor,
                collector,
                tasks,
                rng,
                num_steps=settings.num_steps,
                num_episodes=settings.num_episodes,
                exhaustive=exhaustive,
                # Baselines that choose at random have no mode.
                deterministic=settings.deterministic and isinstance(actor, ActsDeterministically),
                progress=waiting.progress,
            )
    return curves
