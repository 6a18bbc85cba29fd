"""Measuring a trained agent on tasks, beside the untrained one and what else makes its numbers mean something."""

from collections.abc import Mapping, Sequence
from typing import Any

from metarl.agent import Actor, ActsDeterministically, Collector
from metarl.evaluation import AdaptationCurve, adaptation_curve
from metarl.experiments.console import Waiting, show_curves, show_families, show_trials
from metarl.experiments.references import reference_actors
from metarl.runs import seeding
from metarl.tasks import Task, TaskFamily
from metarl.training import EvaluationConfig

TRAINED, UNTRAINED = "meta-trained", "untrained"


def measure(
    actors: Mapping[str, Actor],
    collector: Collector,
    tasks: Sequence[Task],
    settings: EvaluationConfig,
    *,
    family: TaskFamily,
    seed: int,
    exhaustive: bool,
) -> dict[str, Any]:
    """Evaluate actors on the same tasks, beside the family's reference strategies if they learn within trials.

    Args:
        actors: The meta-trained and the untrained actor, by `TRAINED` and `UNTRAINED`.
        collector: Runs the episodes.
        tasks: Tasks to adapt to.
        settings: Numbers of adaptation steps and of episodes.
        family: Family of the tasks.
        seed: Seed of the episodes.
        exhaustive: True where the tasks are the whole distribution, so that intervals are over repetitions.

    Returns:
        Adaptation curves, returns over trials and returns on each task, as JSON types.
    """
    sequential = actors[TRAINED].sequential
    if sequential:
        trials = [task for task in tasks for _ in range(settings.num_episodes)]
        actors = {**actors, **reference_actors(family, settings.num_steps + 1, trials)}
    curves = _curves(actors, collector, tasks, settings, seed=seed, exhaustive=exhaustive)
    rows = {name: curve.summary() for name, curve in curves.items()}
    result = {
        "adaptation": rows.pop(TRAINED),
        "baselines": rows,
        "tasks": [
            task.to_json() | _on_task(curves[TRAINED], i) | {"untrained": _on_task(curves[UNTRAINED], i)}
            for i, task in enumerate(tasks)
        ],
    }
    result |= _by_family(curves[TRAINED])
    if sequential:
        result["trials"] = {name: curve.trial_return() for name, curve in curves.items()}
    return result


def show(result: Mapping[str, Any]) -> None:
    """Print what was measured as tables."""
    unit = "trials" if "trials" in result else "episodes"
    what = f"{_count(result['tasks'], result['split'])}, {result['num_episodes']} {unit} each"
    title = f"{result['experiment']} after {result['train_env_steps']:,} steps: {what}"
    show_curves(title, {TRAINED: result["adaptation"], UNTRAINED: result["baselines"][UNTRAINED]})
    if "by_family" in result:
        show_families("meta-trained, by environment: before adaptation and after", result["by_family"])
    if "trials" in result:
        show_trials(f"return over the whole trial of {len(result['adaptation'])} episodes", result["trials"])


def _count(tasks: Sequence[Mapping[str, Any]], split: str) -> str:
    """How many tasks of what there are, and how many distinct ones."""
    kinds = len({str((task["family"], task["params"])) for task in tasks})
    distinct = "" if kinds == len(tasks) else f", {kinds} of them distinct"
    return f"{len(tasks)} {'given' if split == 'file' else split} tasks{distinct}"


def _by_family(curve: AdaptationCurve) -> dict[str, Any]:
    """The curve of each family as JSON types, if there are several."""
    families = curve.by_family()
    if len(families) < 2:
        return {}
    return {
        "by_family": {
            family: {"num_tasks": len(part.tasks), "adaptation": part.summary()}
            for family, part in families.items()
        }
    }


def _on_task(curve: AdaptationCurve, index: int) -> dict[str, list[float]]:
    """Return, and success where it is reported, by adaptation step on one task."""
    means = {"return_mean": curve.returns[:, index].mean(1).tolist()}
    if curve.successes is not None:
        means["success_mean"] = curve.successes[:, index].mean(1).tolist()
    return means


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
