"""Measuring a study's learners: returns by adaptation episode on every held-out task."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from metarl.agent import Actor
from metarl.agents.teacher_student import TeacherStudent
from metarl.envs.observed import TaskObserved
from metarl.evaluation import adaptation_curve, halves
from metarl.experiments.configuration import encode
from metarl.experiments.console import Waiting
from metarl.experiments.runs import Run
from metarl.experiments.study.configuration import Learner, Study
from metarl.experiments.study.held_out import HeldOut
from metarl.loop import Progress
from metarl.runs import seeding
from metarl.runs.seeding import draw_seed
from metarl.workers import EnvMaker, Workers

_Curve = Callable[[HeldOut, Workers], dict[str, Any]]


def measured(study: Study, learner: Learner, run: Run, sets: Mapping[str, HeldOut]) -> dict[str, Any]:
    """The learner's returns on every set, as JSON types.

    Args:
        study: Study that compares the learner.
        learner: Learner whose run it is.
        run: Run trained to its end.
        sets: Held-out tasks by the name of their set.
    """
    agent, progress = run.restored()
    per_step = replace(learner, experiment=run.experiment).episodes_per_step

    def curve(held_out: HeldOut, workers: Workers) -> dict[str, Any]:
        return _curve(study, agent.actor(), workers, held_out, per_step)

    return _result(learner.name, run, progress, per_step, _on_sets(study, learner.name, run, sets, curve))


def teacher_measured(study: Study, learner: Learner, run: Run, sets: Mapping[str, HeldOut]) -> dict[str, Any]:
    """The returns of a student's teacher, which adapts to nothing, on every set, as JSON types."""
    agent, progress = run.restored()
    name = str(learner.teacher)
    assert isinstance(agent, TeacherStudent), "checked by its configuration"

    def curve(held_out: HeldOut, workers: Workers) -> dict[str, Any]:
        count = study.num_trials * (study.num_episodes + 1)  # as many episodes as its student has
        tasks = [task for task in held_out.tasks for _ in range(count)]
        seed = draw_seed(seeding.streams(study.seed)["evaluation"])
        returns = workers.collect(agent.informed_actor(tasks), tasks, 1, seed).returns()
        return {"episodes": [0]} | means(returns.double().numpy().reshape(1, len(held_out.tasks), count))

    return _result(name, run, progress, 1, _on_sets(study, name, run, sets, curve))


def _on_sets(study: Study, name: str, run: Run, sets: Mapping[str, HeldOut], curve: _Curve) -> dict[str, Any]:
    """The curves of a learner on every set, as the run's environments show their tasks."""
    curves: dict[str, Any] = {}
    for key, held_out in sets.items():
        family = TaskObserved(held_out.family) if run.experiment.observe_task else held_out.family
        maker = EnvMaker(family, study.horizon)
        with Workers(maker, num_threads=study.num_threads) as workers, Waiting(f"measuring {name} on {key}"):
            curves[key] = curve(held_out, workers)
    return curves


def _result(name: str, run: Run, progress: Progress, per_step: int, curves: dict[str, Any]) -> dict[str, Any]:
    """An evaluation as it is written."""
    return {
        "learner": name,
        "experiment": encode(run.experiment),
        "run": str(run.folder),
        "train_env_steps": progress.env_steps,
        "train_wall_s": round(progress.elapsed_s, 1),
        "episodes_per_step": per_step,
        "sets": curves,
    }


def _curve(
    study: Study,
    actor: Actor,
    workers: Workers,
    held_out: HeldOut,
    per_step: int,
) -> dict[str, Any]:
    """Returns by number of adaptation episodes, [point][task], means over trials and episodes."""
    steps, trials = study.num_episodes // per_step, study.num_trials
    # A gradient agent's step is from `per_step` episodes; its trials are repetitions of the task.
    tasks = held_out.tasks if actor.sequential else [task for task in held_out.tasks for _ in range(trials)]
    curve = adaptation_curve(
        actor,
        workers,
        tasks,
        seeding.streams(study.seed)["evaluation"],
        num_steps=steps,
        num_episodes=trials if actor.sequential else per_step,
    )
    samples = curve.returns.reshape(steps + 1, len(held_out.tasks), -1)
    return {"episodes": [step * per_step for step in range(steps + 1)]} | means(samples)


def means(samples: np.ndarray) -> dict[str, Any]:
    """Mean returns, [point][task], and those of either half of the samples, of [point, task, sample]."""
    parts = halves(samples)
    means = {"returns": samples.mean(2).tolist()}
    return means if parts is None else means | {"halves": [part.tolist() for part in parts]}
