"""Running a study: one learner after the other is trained and measured, and finished parts are not repeated.

study.json                     learners, settings and run folders of the study
tasks/SET.json                 the held-out tasks
runs/LEARNER/                  a run folder, as `metarl train` makes it
stable/checkpoint.pt           Stable-Baselines3's PPO, trained on randomised tasks
evaluations/LEARNER.json       returns by adaptation episode on every task
results.json  figure.png       see `metarl.experiments.study.report`
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metarl.agent import Actor
from metarl.agents.teacher_student import TeacherStudent
from metarl.envs import make_benchmark
from metarl.envs.observed import TaskObserved
from metarl.evaluation import adaptation_curve, halves
from metarl.experiments.agent_run import AgentRun
from metarl.experiments.configuration import Experiment, encode
from metarl.experiments.console import Waiting, duration, say
from metarl.experiments.loading import open_run, prepare_run
from metarl.experiments.places import Place
from metarl.experiments.runs import CONFIG, Run, checkpointed_iteration, make_run
from metarl.experiments.seeds import Member, train_members
from metarl.experiments.study.configuration import (
    FINE_TUNED,
    FROM_SCRATCH,
    TEST_EPISODES,
    Learner,
    StablePpo,
    Study,
)
from metarl.experiments.study.evaluations import read_evaluation
from metarl.experiments.study.held_out import HeldOut
from metarl.experiments.study.stable_baselines import Snapshot, StableLearner
from metarl.experiments.working import own_loggers, train_shown
from metarl.loop import Progress
from metarl.runs import seeding
from metarl.runs.checkpoint import CHECKPOINT
from metarl.runs.cores import WorkerError
from metarl.runs.files import write_json
from metarl.runs.loggers import closing
from metarl.runs.reading import read_json
from metarl.runs.seeding import draw_seed
from metarl.tasks import Task, save_tasks
from metarl.workers import EnvMaker, Workers

_SAME = ("benchmark", "horizon", "observe_task")
_Curve = Callable[[HeldOut, Workers], dict[str, Any]]


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
                write_json(evaluations / f"{learner.teacher}.json", _teacher_measured(study, learner, run, sets))
            write_json(path, _measured(study, learner, run, sets))
        time_left.end(learner.name, worked=not there and learner.name not in trained)
    if study.stable is not None:
        there = (evaluations / f"{FINE_TUNED}.json").exists() and (evaluations / f"{FROM_SCRATCH}.json").exists()
        if not there:
            time_left.begin("sb3", "training PPO, then on each held-out task")
            _run_stable(study, study.stable, folder, sets)
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


def _measured(study: Study, learner: Learner, run: Run, sets: Mapping[str, HeldOut]) -> dict[str, Any]:
    """The learner's returns on every set, as JSON types."""
    agent, progress = run.restored()
    per_step = replace(learner, experiment=run.experiment).episodes_per_step

    def curve(held_out: HeldOut, workers: Workers) -> dict[str, Any]:
        return _curve(study, agent.actor(), workers, held_out, per_step)

    return _result(learner.name, run, progress, per_step, _on_sets(study, learner.name, run, sets, curve))


def _teacher_measured(study: Study, learner: Learner, run: Run, sets: Mapping[str, HeldOut]) -> dict[str, Any]:
    """The returns of a student's teacher, which adapts to nothing, on every set, as JSON types."""
    agent, progress = run.restored()
    name = str(learner.teacher)
    assert isinstance(agent, TeacherStudent), "checked by its configuration"

    def curve(held_out: HeldOut, workers: Workers) -> dict[str, Any]:
        count = study.num_trials * (study.num_episodes + 1)  # as many episodes as its student has
        tasks = [task for task in held_out.tasks for _ in range(count)]
        seed = draw_seed(seeding.streams(study.seed)["evaluation"])
        returns = workers.collect(agent.informed_actor(tasks), tasks, 1, seed).returns()
        return {"episodes": [0]} | _means(returns.double().numpy().reshape(1, len(held_out.tasks), count))

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
    return {"episodes": [step * per_step for step in range(steps + 1)]} | _means(samples)


def _means(samples: np.ndarray) -> dict[str, Any]:
    """Mean returns, [point][task], and those of either half of the samples, of [point, task, sample]."""
    parts = halves(samples)
    means = {"returns": samples.mean(2).tolist()}
    return means if parts is None else means | {"halves": [part.tolist() for part in parts]}


def _run_stable(study: Study, config: StablePpo, folder: Path, sets: Mapping[str, HeldOut]) -> None:
    """PPO on randomised tasks, then on each held-out task from that and from nothing."""
    torch.set_num_threads(1)  # SB3's networks are small
    start, wall_s = _randomised(study, config, folder / "stable")
    for name, beginning in ((FROM_SCRATCH, None), (FINE_TUNED, start)):
        path = folder / "evaluations" / f"{name}.json"
        if path.exists():
            continue
        say(f"{name}: PPO on every held-out task, {study.num_episodes} episodes each")
        result = {
            "learner": name,
            "train_env_steps": beginning.steps if beginning else 0,
            "train_wall_s": wall_s if beginning else 0.0,
            "episodes_per_step": 1,
            "sets": {
                key: _stable_curve(study, config, held_out, beginning, f"{name} on {key}, task")
                for key, held_out in sets.items()
            },
        }
        write_json(path, result)


def _randomised(study: Study, config: StablePpo, folder: Path) -> tuple[Snapshot, float]:
    """PPO trained on randomised tasks, now or before, and how long that took."""
    path, took = folder / CHECKPOINT, folder / "took.json"
    if not (path.exists() and took.exists()):
        folder.mkdir(exist_ok=True)
        benchmark, rng = make_benchmark(study.benchmark), seeding.streams(study.seed)["tasks"]
        threads = study.num_threads
        env = benchmark.family.make_env(config.num_envs, horizon=study.horizon, num_threads=threads)
        rollouts = max(1, round(config.total_steps / (config.num_envs * env.max_episode_steps)))
        began = time.monotonic()
        learner = StableLearner(
            env,
            lambda: benchmark.train.sample(config.num_envs, rng),
            config,
            learning_rate=config.outer_lr,
            seed=study.seed,
        )
        try:
            with Waiting("sb3 on randomised tasks, rollout") as waiting:
                for rollout in range(rollouts):
                    learner.learn(1)
                    waiting.progress(rollout + 1, rollouts)
            learner.snapshot().save(folder)
        finally:
            learner.close()
        write_json(took, {"wall_s": round(time.monotonic() - began, 1)})
    entries = read_json(took, "duration of the training")
    wall_s = entries.get("wall_s") if isinstance(entries, dict) else None
    if not isinstance(wall_s, int | float):
        raise ValueError(f"{took} must hold the wall_s of the training, a number; delete it to train again")
    return Snapshot.load(path), float(wall_s)


def _stable_curve(
    study: Study, config: StablePpo, held_out: HeldOut, start: Snapshot | None, what: str
) -> dict[str, Any]:
    """Returns after so many episodes of PPO on the task alone, [point][task]; one learner per task."""
    total = study.num_episodes
    points = sorted({0, 1, total // 4, total // 2, total})
    count = TEST_EPISODES * study.num_trials
    samples = np.zeros((len(points), len(held_out.tasks), count))
    maker, rng = EnvMaker(held_out.family, study.horizon), seeding.streams(study.seed)["evaluation"]
    with Workers(maker, num_threads=study.num_threads) as workers, Waiting(what) as waiting:
        for number, task in enumerate(held_out.tasks):
            env = maker(1, 1)
            learner = StableLearner(
                env,
                _Always(task),
                config,
                learning_rate=config.inner_lr,
                seed=draw_seed(rng),
                start=start,
            )
            try:
                for place, point in enumerate(points):
                    if place:
                        learner.learn(point - points[place - 1])
                    episodes = workers.collect(learner.actor(), [task], count, draw_seed(rng))
                    samples[place, number] = episodes.returns()[0].double().numpy()
            finally:
                learner.close()
            waiting.progress(number + 1, len(held_out.tasks))
    return {"episodes": points} | _means(samples)


@dataclass(frozen=True)
class _Always:
    """Draws one task."""

    task: Task

    def __call__(self) -> list[Task]:
        return [self.task]
