"""Running a study: one learner after the other is trained and measured, and finished parts are not repeated.

study.json                     learners, settings and run folders of the study
tasks/SET.json                 the held-out tasks
runs/LEARNER/                  a run folder, as `metarl train` makes it
stable/checkpoint.pt           Stable-Baselines3's PPO, trained on randomised tasks
evaluations/LEARNER.json       returns by adaptation episode on every task
results.json  figure.png       see `metarl.experiments.study.report`
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from metarl.experiments.agent_run import AgentRun
from metarl.experiments.configuration import Experiment
from metarl.experiments.console import duration, say
from metarl.experiments.loading import open_run, prepare_run
from metarl.experiments.places import Place
from metarl.experiments.runs import CONFIG, Run, checkpointed_iteration, make_run
from metarl.experiments.seeds import Member, train_members
from metarl.experiments.study.configuration import FINE_TUNED, FROM_SCRATCH, Learner, Study
from metarl.experiments.study.evaluations import read_evaluation
from metarl.experiments.study.fine_tuning import run_stable
from metarl.experiments.study.held_out import HeldOut
from metarl.experiments.study.measuring import measured, teacher_measured
from metarl.experiments.working import own_loggers, train_shown
from metarl.runs.cores import WorkerError
from metarl.runs.files import write_json
from metarl.runs.loggers import closing
from metarl.tasks import save_tasks

_SAME = ("benchmark", "horizon", "observe_task")


class Interrupted(Exception):
    """The user stopped the study; what is done is kept."""


class TimeLeft:
    """Time left of a study: the minutes that its parts once took, at the pace of this machine.

    Args:
        minutes: Minutes of every part, in their order.
    """

    def __init__(self, minutes: Mapping[str, float]) -> None:
        self._minutes, self._left = dict(minutes), dict(minutes)
        self._done_minutes = self._taken_s = 0.0
        self._began = time.monotonic()

    def begin(self, part: str, what: str) -> None:
        """Say which part begins and how long all that is left may take."""
        self._began = time.monotonic()
        number, count = len(self._minutes) - len(self._left) + 1, len(self._minutes)
        say(f"[{number}/{count}] {part}: {what}; about {duration(self.left_s)} left of the study")

    @property
    def left_s(self) -> float:
        """Estimated seconds until the end of the study."""
        pace = self._taken_s / (60 * self._done_minutes) if self._done_minutes else 1.0
        return 60 * pace * sum(self._left.values())

    def end(self, part: str, *, worked: bool) -> None:
        """Count a part as done; one that had been done before says nothing about the pace."""
        minutes = self._left.pop(part)
        if worked:
            self._done_minutes += minutes
            self._taken_s += time.monotonic() - self._began


def run_parts(
    study: Study, folder: Path, sets: Mapping[str, HeldOut], trained: Mapping[str, Path], own: str | None = None
) -> dict[str, Any]:
    """Train and measure all that is not done yet; returns the evaluations by the name of the learner.

    Args:
        study: Study to run.
        folder: Folder of the study.
        sets: Held-out tasks by the name of their set.
        trained: Run folders that learners are taken from instead of training them, by the name of the learner.
        own: FILE.py:NAME of the experiment that they were made with, if it is not built in.

    Raises:
        Interrupted: if the user stopped it.
    """
    evaluations = folder / "evaluations"
    for name in ("tasks", "runs", "evaluations"):
        (folder / name).mkdir(exist_ok=True)
    for name, held_out in sets.items():
        save_tasks(folder / "tasks" / f"{name}.json", held_out.tasks)
    time_left = TimeLeft(_minutes(study))
    for learner in study.learners:
        path = evaluations / f"{learner.name}.json"
        there = path.exists()
        if not there:
            time_left.begin(learner.name, "taken from a run" if learner.name in trained else "training")
            run = taken(study, learner, trained[learner.name], own) if learner.name in trained else None
            run = run or _trained(study, learner, folder)
            if learner.teacher is not None:  # first: the learner's own file says that all of it is there
                write_json(evaluations / f"{learner.teacher}.json", teacher_measured(study, learner, run, sets))
            write_json(path, measured(study, learner, run, sets))
        time_left.end(learner.name, worked=not there and learner.name not in trained)
    if study.stable is not None:
        there = (evaluations / f"{FINE_TUNED}.json").exists() and (evaluations / f"{FROM_SCRATCH}.json").exists()
        if not there:
            time_left.begin("sb3", "training PPO, then on each held-out task")
            run_stable(study, study.stable, folder, sets)
        time_left.end("sb3", worked=not there)
    return {name: read_evaluation(evaluations / f"{name}.json", sets) for name in participants(study)}


def participants(study: Study) -> list[str]:
    """The names in a study's results, in their order."""
    names = [name for learner in study.learners for name in (learner.teacher, learner.name) if name is not None]
    return names + ([FROM_SCRATCH, FINE_TUNED] if study.stable else [])


def _minutes(study: Study) -> dict[str, float]:
    minutes = {learner.name: learner.minutes for learner in study.learners}
    return minutes | ({"sb3": study.stable.minutes} if study.stable else {})


def _experiment(study: Study, learner: Learner) -> Experiment:
    return replace(learner.experiment, seed=study.seed, num_threads=study.num_threads)


def train_elsewhere(study: Study, folder: Path, trained: Mapping[str, Path], place: Place) -> None:
    """Train side by side, at a place such as a cluster, the learners that are not measured yet.

    Args:
        study: Study that compares the learners.
        folder: Folder of the study.
        trained: Run folders that learners are taken from instead.
        place: Place of the runs.

    Raises:
        Interrupted: if the user stopped it.
        WorkerError: if a run failed; names it.
    """
    (folder / "runs").mkdir(exist_ok=True)
    members = [
        Member(_begun(study, learner, folder).folder, learner.name)
        for learner in study.learners
        if learner.name not in trained and not (folder / "evaluations" / f"{learner.name}.json").exists()
    ]
    status = train_members(members, place=place)
    for member in members:
        if member.state == "failed":
            raise WorkerError(f"{member.folder}: {member.line}")
    if status:
        raise Interrupted


def _begun(study: Study, learner: Learner, folder: Path) -> Run:
    """The learner's run in its folder, new or with exactly the study's configuration."""
    experiment, place = _experiment(study, learner), folder / "runs" / learner.name
    there = (place / CONFIG).is_file()
    run = open_run(place) if there else make_run(prepare_run(learner.name, experiment), place)
    if run.experiment != experiment:
        raise ValueError(f"{place} has another configuration than the study; give the study another --out")
    return run


def _trained(study: Study, learner: Learner, folder: Path) -> Run:
    """The learner's run, trained to its end."""
    run = _begun(study, learner, folder)
    with closing(own_loggers(run)) as loggers:
        progress, interrupted = train_shown(run, loggers)
    if interrupted:
        raise Interrupted
    say(f"trained on {progress.env_steps:,} environment steps in {duration(progress.elapsed_s)}")
    return run


def taken(study: Study, learner: Learner, folder: Path, own: str | None = None) -> Run:
    """A run that was trained elsewhere, instead of a learner's own.

    Args:
        study: Study that compares the learner.
        learner: Learner that the run is taken for.
        folder: Run folder.
        own: FILE.py:NAME of the experiment that the run was made with, if it is not built in.

    Raises:
        ValueError: if it is of something else than the learner, or not trained to its end.
    """
    run = open_run(folder, experiment=own).on_device("cpu")
    if not isinstance(run, AgentRun):
        raise ValueError(f"the run {folder} for {learner.name} must be of an agent, got a {run.kind} run")
    candidate = replace(learner, experiment=run.experiment)
    for name, actual, expected in (
        *((name, getattr(run.experiment, name), getattr(learner.experiment, name)) for name in _SAME),
        ("agent", _kind_of_agent(run, learner), type(learner.experiment.agent).__name__),
        ("memory or gradient steps", candidate.adapts, learner.adapts),
    ):
        if actual != expected:
            raise ValueError(f"the run {folder} for {learner.name} must have {name} {expected}, got {actual}")
    if candidate.episodes_per_step > study.num_episodes:
        raise ValueError(
            f"the run {folder} for {learner.name} takes {candidate.episodes_per_step} episodes for a step; "
            f"give --num-episodes as many at least, got {study.num_episodes}"
        )
    done, iterations = checkpointed_iteration(run), run.experiment.training.iterations
    if done < iterations:
        raise ValueError(
            f"the run {folder} for {learner.name} was trained for {done} of its {iterations} iterations; "
            f"go on with `metarl resume {folder}` first"
        )
    return run


def _kind_of_agent(run: AgentRun, learner: Learner) -> str:
    """The name of the class of the run's agent; the learner's own for one that derives from it."""
    expected, actual = type(learner.experiment.agent), type(run.experiment.agent)
    return (expected if issubclass(actual, expected) else actual).__name__
