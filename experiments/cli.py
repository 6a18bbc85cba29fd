"""The command line: metarl list | train | resume | evaluate | bench."""

import contextlib
import importlib
import io
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import tyro

from metarl import seeding
from metarl.checkpoint import FILE as CHECKPOINT
from metarl.envs import benchmark_names, make_benchmark
from metarl.evaluation import AdaptationCurve, adaptation_curve
from metarl.experiments.configuration import Experiment, make_agent, make_workers
from metarl.experiments.console import TrainingDisplay, Waiting, duration, say, show_curves, show_table
from metarl.experiments.presets import PRESETS, preset
from metarl.experiments.runs import EVALUATION, Run, checkpoint_path, create_run, extend_run, open_run
from metarl.tasks import Task, load_tasks
from metarl.training import TrainingDiverged, restore, train, write_json
from metarl.workers import WorkerError

Arguments = TypeVar("Arguments")

USAGE = """usage: metarl COMMAND ...

  metarl list [experiments | benchmarks]
  metarl train EXPERIMENT [--out DIR] [--seed N] [any field of the configuration]
  metarl resume DIR
  metarl evaluate DIR [--tasks FILE.json | --num-tasks N] [--seed N] [--json FILE]
  metarl bench NAME [--json FILE]

`metarl COMMAND --help` describes a command, `metarl train EXPERIMENT --help` its fields."""


@dataclass(frozen=True)
class ListArguments:
    """List what there is."""

    what: tyro.conf.Positional[Literal["experiments", "benchmarks"]] = "experiments"


@dataclass(frozen=True)
class TrainArguments:
    """Train an experiment in a new run folder.

    Attributes:
        experiment: the configuration; any field can be overridden.
        out: run folder to make; by default the next free runs/NAME-seedN.
    """

    experiment: Annotated[Experiment, tyro.conf.arg(name="")]
    out: Path | None = None


@dataclass(frozen=True)
class ResumeArguments:
    """Continue a run that was stopped.

    Attributes:
        folder: the run's.
        iterations: train to this many in all instead of the configured number.
    """

    folder: tyro.conf.Positional[Path]
    iterations: int | None = None


@dataclass(frozen=True)
class EvaluateArguments:
    """Measure a trained agent on held-out tasks.

    Attributes:
        folder: the run's.
        tasks: a JSON file with a list of {"family": ..., "params": {...}}.
        num_tasks: draw this many fresh test tasks instead of the run's own.
        num_steps: adaptation steps; the run's own number by default.
        num_episodes: per task and step; the run's own number by default.
        seed: of the fresh tasks and the episodes.
        json: write the result to this new file too.
        checkpoint: which of the run's checkpoints.
    """

    folder: tyro.conf.Positional[Path]
    tasks: Path | None = None
    num_tasks: int | None = None
    num_steps: int | None = None
    num_episodes: int | None = None
    seed: int = 0
    json: Path | None = None
    checkpoint: str = CHECKPOINT


@dataclass(frozen=True)
class BenchArguments:
    """Measure this project beside its peers, in one run, and report ratios.

    Attributes:
        name: of the measurement.
        json: write the result to this new file too.
        repeats: measurements of each contender; medians are reported.
    """

    name: tyro.conf.Positional[Literal["rollout", "meta-gradient"]]
    json: Path | None = None
    repeats: int = 5


class UsageError(ValueError):
    """An argument that cannot be used; the message is one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    commands: dict[str, Callable[[list[str]], int]] = {
        "list": _list,
        "train": _train,
        "resume": _resume,
        "evaluate": _evaluate,
        "bench": _bench,
    }
    if not words or words[0] in ("-h", "--help"):
        say(USAGE)
        return 0 if words else 2
    try:
        if words[0] not in commands:
            raise UsageError(f"unknown command {words[0]!r}; known: {', '.join(commands)}")
        return commands[words[0]](words[1:])
    except (TrainingDiverged, WorkerError) as error:
        return _fail(error, 1)
    except (ValueError, OSError) as error:
        return _fail(error, 2)
    except KeyboardInterrupt:
        print("metarl: interrupted", file=sys.stderr)
        return 130


def _fail(error: Exception, status: int) -> int:
    print(f"metarl: error: {' '.join(str(error).split())}", file=sys.stderr)
    return status


def _list(words: list[str]) -> int:
    arguments = _parse(ListArguments, words, "metarl list")
    if arguments.what == "benchmarks":
        benchmarks = [make_benchmark(name) for name in benchmark_names()]
        rows = [(b.name, "shared" if b.shared else "disjoint", b.description) for b in benchmarks]
        show_table("Benchmarks", ("name", "train and test tasks", "description"), rows, text_columns=3)
    else:
        rows = [(name, p.experiment.benchmark, p.source) for name, p in PRESETS.items()]
        show_table("Experiments", ("name", "benchmark", "source"), rows, text_columns=3)
    return 0


def _train(words: list[str]) -> int:
    if not words or words[0].startswith("-"):
        raise UsageError(f"train needs an experiment's name; known: {', '.join(PRESETS)}")
    name = words[0]
    default = TrainArguments(experiment=preset(name))
    arguments = _parse(TrainArguments, words[1:], f"metarl train {name}", default)
    run = create_run(name, arguments.experiment, arguments.out)
    say(f"{name}: {run.benchmark.description}")
    say(f"run folder {run.folder}")
    return _work(run)


def _resume(words: list[str]) -> int:
    arguments = _parse(ResumeArguments, words, "metarl resume")
    run = open_run(arguments.folder)
    if arguments.iterations is not None:
        run = extend_run(run, arguments.iterations)
    return _work(run)


def _work(run: Run) -> int:
    """Train until done or interrupted, then evaluate."""
    experiment = run.experiment
    agent = make_agent(experiment, run.benchmark)
    with make_workers(experiment, run.benchmark) as workers:
        with (
            TrainingDisplay(experiment.training.iterations) as display,
            _interruptible(run.folder) as interrupted,
        ):
            progress = train(
                agent,
                run.benchmark,
                workers,
                experiment.training,
                experiment.evaluation,
                folder=run.folder,
                seed=experiment.seed,
                test_tasks=run.test_tasks,
                report=display.report,
                stop=interrupted,
            )
        if progress.iteration < experiment.training.iterations:
            say(f"stopped at iteration {progress.iteration}; continue with: metarl resume {run.folder}")
            return 130
        say(f"trained on {progress.env_steps:,} environment steps in {duration(progress.elapsed_s)}")
        result = _measure(run, workers, CHECKPOINT, run.test_tasks, EvaluateArguments(run.folder))
    write_json(run.folder / EVALUATION, result)
    say(f"written to {run.folder / EVALUATION}; again, or on other tasks: metarl evaluate {run.folder}")
    return 0


@contextlib.contextmanager
def _interruptible(folder: Path) -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C or termination into a request to stop after the iteration; the second is at once."""
    requested: list[int] = []

    def request(number: int, frame: object) -> None:
        if requested:
            raise KeyboardInterrupt
        requested.append(number)
        print(
            f"\nstopping after this iteration, with a checkpoint in {folder}; again to stop at once",
            file=sys.stderr,
        )

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(requested)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _evaluate(words: list[str]) -> int:
    arguments = _parse(EvaluateArguments, words, "metarl evaluate")
    if arguments.tasks is not None and arguments.num_tasks is not None:
        raise UsageError("--tasks and --num-tasks exclude each other: give the tasks or their number")
    for name in ("num_tasks", "num_episodes"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    if arguments.num_steps is not None and arguments.num_steps < 0:
        raise UsageError(f"--num-steps must not be negative, got {arguments.num_steps}")
    _check_new(arguments.json)
    run = open_run(arguments.folder)
    tasks = run.test_tasks
    if arguments.tasks is not None:
        tasks = load_tasks(arguments.tasks, run.benchmark.family)
    elif arguments.num_tasks is not None:
        rng = seeding.streams(arguments.seed)["test_tasks"]
        tasks = run.benchmark.test.sample(arguments.num_tasks, rng)
    with make_workers(run.experiment, run.benchmark) as workers:
        result = _measure(run, workers, arguments.checkpoint, tasks, arguments)
    if arguments.json is not None:
        write_json(arguments.json, result)
        say(f"written to {arguments.json}")
    return 0


def _measure(
    run: Run, workers: Any, checkpoint: str, tasks: Sequence[Task], arguments: EvaluateArguments
) -> dict[str, Any]:
    """Evaluate a checkpoint and the untrained agent on tasks, and show both."""
    settings = run.experiment.evaluation
    num_steps = settings.num_steps if arguments.num_steps is None else arguments.num_steps
    num_episodes = settings.num_episodes if arguments.num_episodes is None else arguments.num_episodes
    agent = make_agent(run.experiment, run.benchmark)
    untrained = make_agent(run.experiment, run.benchmark)
    progress = restore(agent, seeding.streams(run.experiment.seed), checkpoint_path(run, checkpoint))
    rng = seeding.streams(arguments.seed)["evaluation"]

    def measure(actor: Any, what: str) -> AdaptationCurve:
        with Waiting(f"evaluating the {what} agent, adaptation step") as waiting:
            return adaptation_curve(
                actor,
                workers,
                tasks,
                rng,
                num_steps=num_steps,
                num_episodes=num_episodes,
                progress=waiting.progress,
            )

    curve, baseline = measure(agent.actor(), "trained"), measure(untrained.actor(), "untrained")
    resampling = np.random.default_rng(arguments.seed)
    rows, baseline_rows = curve.summary(resampling), baseline.summary(resampling)
    kinds = len(set(tasks))
    distinct = "" if kinds == len(tasks) else f", {kinds} of them distinct"
    what = f"{len(tasks)} test tasks{distinct}, {num_episodes} episodes each"
    title = f"{run.name} after {progress.env_steps:,} steps: {what}"
    show_curves(title, {"meta-trained": rows, "untrained": baseline_rows})
    return {
        "experiment": run.name,
        "seed": run.experiment.seed,
        "evaluation_seed": arguments.seed,
        "num_tasks": len(tasks),
        "num_episodes": num_episodes,
        "train_env_steps": progress.env_steps,
        "train_wall_s": round(progress.elapsed_s, 1),
        "tasks_shared_with_training": run.benchmark.shared,
        "adaptation": rows,
        "baselines": {"untrained": baseline_rows},
        "tasks": [
            {**task.to_json(), "return_mean": [float(step[i].mean()) for step in curve.returns]}
            for i, task in enumerate(tasks)
        ],
    }


def _bench(words: list[str]) -> int:
    arguments = _parse(BenchArguments, words, "metarl bench")
    if arguments.repeats < 1:
        raise UsageError(f"--repeats must be at least 1, got {arguments.repeats}")
    _check_new(arguments.json)
    # Imported when asked for: a bench imports its peers.
    bench = importlib.import_module(f"metarl.experiments.bench.{arguments.name.replace('-', '_')}")
    result: dict[str, Any] = bench.bench(arguments.repeats)
    if arguments.json is not None:
        write_json(arguments.json, result)
        say(f"written to {arguments.json}")
    return 0


def _check_new(path: Path | None) -> None:
    if path is None:
        return
    if path.exists():
        raise UsageError(f"{path} exists and is left as it is; give --json another name")
    if not path.parent.is_dir():
        raise UsageError(f"cannot write {path}: its folder does not exist")


def _parse(kind: type[Arguments], words: list[str], program: str, default: Arguments | None = None) -> Arguments:
    """Parse with tyro; what it says of a bad argument becomes one line."""
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(
                kind,
                args=words,
                prog=program,
                default=tyro.MISSING_NONPROP if default is None else default,
                config=(tyro.conf.AvoidSubcommands, tyro.conf.FlagConversionOff),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        plain = re.sub(r"\x1b\[[0-9;]*m", "", errors.getvalue())
        inside = [line.strip("│ ") for line in plain.splitlines() if line[:1] not in "╭╰"]
        text = " ".join(line for line in inside if line.strip("─"))
        text = re.sub(r"For full helptext, (see|run) (.*)", r"see `\2`", text)
        raise UsageError(text) from None
