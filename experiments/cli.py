"""The command line: metarl list | train | resume | evaluate | study | bench."""

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from metarl.agent import KeepsData
from metarl.envs import benchmark_names, make_benchmark
from metarl.envs.metaworld import DESCRIPTIONS as METAWORLD_DESCRIPTIONS
from metarl.experiments.arguments import UsageError, check_new, overridden, parse
from metarl.experiments.configuration import (
    Device,
    Experiment,
    encode,
    experiment_benchmark,
    make_agent,
    make_workers,
)
from metarl.experiments.console import say, show_table
from metarl.experiments.fewshot import commands as fewshot
from metarl.experiments.fewshot.configuration import data_name
from metarl.experiments.finishing import finished, stopped
from metarl.experiments.loggers import make_loggers
from metarl.experiments.measure import measure
from metarl.experiments.presets.fewshot import PRESETS as FEWSHOT_PRESETS
from metarl.experiments.presets.table import PRESETS, preset
from metarl.experiments.resuming import ResumeArguments, to_resume
from metarl.experiments.runs import (
    Run,
    checkpoint_path,
    create_run,
    extend_run,
    on_device,
    open_run,
)
from metarl.experiments.study.command import study_command
from metarl.experiments.study.presets import STUDIES
from metarl.experiments.train_run import train_run
from metarl.loop import TrainingDiverged
from metarl.runs import seeding
from metarl.runs.allocator import keep_freed_memory
from metarl.runs.checkpoint import FILE as CHECKPOINT
from metarl.runs.configs import check_counts
from metarl.runs.cores import WorkerError
from metarl.runs.files import WriteError, write_json
from metarl.runs.lock import locked
from metarl.runs.loggers import closing
from metarl.tasks import load_tasks

USAGE = """usage: metarl COMMAND ...

  metarl list [experiments | benchmarks | studies]
  metarl train EXPERIMENT [--out DIR] [--seed N] [any field of the configuration]
  metarl resume DIR
  metarl evaluate DIR [--tasks FILE.json | --num-tasks N] [--split test | train] [--seed N] [--json FILE]
  metarl evaluate DIR [--num-ways N] [--num-shots K] [--num-tasks N] ...             of a few-shot run
  metarl study STUDY [--out DIR] [--seed N] [--benchmark NAME | FILE.yaml] [--runs NAME=DIR ...]
  metarl bench NAME [--json FILE]

`metarl COMMAND --help` describes a command, `metarl train EXPERIMENT --help` its fields."""


@dataclass(frozen=True)
class ListArguments:
    """List what there is."""

    what: tyro.conf.Positional[Literal["experiments", "benchmarks", "studies"]] = "experiments"


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
class EvaluateArguments:
    """Measure a trained agent on held-out tasks.

    Attributes:
        folder: the run's.
        tasks: a JSON file with a list of {"family": ..., "params": {...}}.
        num_tasks: draw this many tasks instead of the run's own; fresh ones unless there are finitely many.
        split: draw them from the test tasks, or from those that the agent was trained on.
        num_steps: adaptation steps; the run's own number by default.
        num_episodes: per task and step; the run's own number by default.
        horizon: steps per episode; those of training by default.
        deterministic: Measure the mode of the policy instead of samples; the run's own choice by default.
        seed: of the fresh tasks and the episodes.
        json: write the result to this new file too.
        checkpoint: which of the run's checkpoints.
        device: evaluate here instead of where the configuration says.
    """

    folder: tyro.conf.Positional[Path]
    tasks: Path | None = None
    num_tasks: int | None = None
    split: Literal["test", "train"] = "test"
    num_steps: int | None = None
    num_episodes: int | None = None
    horizon: int | None = None
    deterministic: bool | None = None
    seed: int = 0
    json: Path | None = None
    checkpoint: str = CHECKPOINT
    device: Device | None = None


@dataclass(frozen=True)
class BenchArguments:
    """Measure this project beside its peers, in one run, and report ratios.

    Attributes:
        name: of the measurement.
        json: write the result to this new file too.
        repeats: measurements of each contender; medians are reported.
    """

    name: tyro.conf.Positional[
        Literal["rollout", "dynamics", "metaworld", "meta-gradient", "rl2", "pearl", "fewshot", "reward-scale"]
    ]
    json: Path | None = None
    repeats: int = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    keep_freed_memory()
    try:
        return _run(words)
    except (TrainingDiverged, FloatingPointError, WorkerError, WriteError) as error:
        return _fail(error, 1)
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MemoryError as error:
        return _fail(MemoryError(f"not enough memory for what was asked ({error}); ask for less"), 2)
    except (ValueError, OSError) as error:
        return _fail(error, 2)
    except KeyboardInterrupt:
        print("metarl: interrupted; a run's checkpoints are as they were", file=sys.stderr)
        return 130


def _run(words: list[str]) -> int:
    """Find the command and run it."""
    commands: dict[str, Callable[[list[str]], int]] = {
        "list": _list,
        "train": _train,
        "resume": _resume,
        "evaluate": _evaluate,
        "study": study_command,
        "bench": _bench,
    }
    if not words or words[0] in ("-h", "--help"):
        say(USAGE)
        return 0 if words else 2
    if words[0] not in commands:
        raise UsageError(f"unknown command {words[0]!r}; known: {', '.join(commands)}")
    return commands[words[0]](words[1:])


def _fail(error: Exception, status: int) -> int:
    print(f"metarl: error: {' '.join(str(error).split())}", file=sys.stderr)
    return status


def _list(words: list[str]) -> int:
    arguments = parse(ListArguments, words, "metarl list")
    if arguments.what == "benchmarks":
        benchmarks = [make_benchmark(name) for name in benchmark_names()]
        rows = [(b.name, "shared" if b.shared else "disjoint", b.description) for b in benchmarks]
        rows += [(name, "disjoint", description) for name, description in METAWORLD_DESCRIPTIONS.items()]
        show_table("Benchmarks", ("name", "train and test tasks", "description"), rows, text_columns=3)
    elif arguments.what == "studies":
        rows = [(name, study.benchmark, study.source) for name, study in STUDIES.items()]
        show_table("Studies", ("name", "benchmark", "what"), rows, text_columns=3)
    else:
        rows = [(name, p.experiment.benchmark, p.source) for name, p in PRESETS.items()]
        rows += [(name, data_name(p.experiment), p.source) for name, p in FEWSHOT_PRESETS.items()]
        show_table("Experiments", ("name", "benchmark", "source"), rows, text_columns=3)
    return 0


def _train(words: list[str]) -> int:
    known = ", ".join([*PRESETS, *FEWSHOT_PRESETS])
    if words[:1] in (["-h"], ["--help"]):
        say(f"usage: metarl train EXPERIMENT [--out DIR] [fields]\n\nexperiments: {known}\n")
        say("`metarl train EXPERIMENT --help` describes an experiment's fields.")
        return 0
    if not words or words[0].startswith("-"):
        raise UsageError(f"train needs an experiment's name; known: {known}")
    name = words[0]
    if name in FEWSHOT_PRESETS:
        return fewshot.train_command(name, words[1:])
    if name not in PRESETS:
        raise UsageError(f"unknown experiment {name!r}; known: {known}")
    default = TrainArguments(experiment=preset(name))
    arguments = parse(TrainArguments, words[1:], f"metarl train {name}", default)
    # Made once before the folder is, so that what cannot be made leaves nothing behind.
    agent = make_agent(arguments.experiment, experiment_benchmark(arguments.experiment))
    if isinstance(agent, KeepsData):
        say(agent.data_summary())
    run = create_run(name, arguments.experiment, arguments.out)
    say(f"{name}: {run.benchmark.description}")
    say(f"run folder {run.folder}")
    return _work(run)


def _resume(words: list[str]) -> int:
    if fewshot.names_run(words):
        return fewshot.resume_command(words)
    arguments = parse(ResumeArguments, words, "metarl resume")
    run = open_run(arguments.folder)
    with locked(run.folder):
        return _work(on_device(to_resume(run, arguments, extend_run), arguments.device))


def _work(run: Run) -> int:
    """Train until done or interrupted, then evaluate."""
    experiment = run.experiment
    opened = make_loggers(
        experiment.loggers, run.folder, name=run.name, axis="env_steps", config=encode(experiment)
    )
    with make_workers(experiment, run.benchmark) as workers, locked(run.folder), closing(opened) as loggers:
        progress, interrupted = train_run(run, workers, loggers)
        if interrupted:
            return stopped(run.folder, progress.iteration)

        def evaluate() -> dict[str, Any]:
            return measure(run, workers, CHECKPOINT, run.test_tasks, experiment.evaluation, seed=0)

        return finished(
            run.folder,
            progress,
            experience=f"{progress.env_steps:,} environment steps",
            evaluate=evaluate,
            otherwise="on other tasks",
            loggers=loggers,
        )


def _evaluate(words: list[str]) -> int:
    if fewshot.names_run(words):
        return fewshot.evaluate_command(words)
    arguments = parse(EvaluateArguments, words, "metarl evaluate")
    if arguments.tasks is not None and arguments.num_tasks is not None:
        raise UsageError("--tasks and --num-tasks exclude each other: give the tasks or their number")
    if arguments.split == "train" and arguments.tasks is not None:
        raise UsageError("--split train and --tasks exclude each other: draw training tasks or give tasks")
    if arguments.split == "train" and arguments.num_tasks is None:
        raise UsageError("--split train draws tasks and needs their number: give --num-tasks too")
    check_counts(arguments, "num_tasks")
    check_new(arguments.json)
    run = on_device(open_run(arguments.folder), arguments.device)
    if arguments.horizon is not None:
        run = replace(run, experiment=replace(run.experiment, horizon=arguments.horizon))
    checkpoint_path(run, arguments.checkpoint)
    tasks = run.test_tasks
    if arguments.tasks is not None:
        tasks = load_tasks(arguments.tasks, run.benchmark.family)
    elif arguments.num_tasks is not None:
        rng = seeding.streams(arguments.seed)["fresh_tasks"]
        drawn_from = run.benchmark.train if arguments.split == "train" else run.benchmark.test
        tasks = drawn_from.sample(arguments.num_tasks, rng)
    settings = overridden(run.experiment.evaluation, arguments, "num_steps", "num_episodes", "deterministic")
    with make_workers(run.experiment, run.benchmark) as workers:
        split = "file" if arguments.tasks is not None else arguments.split
        result = measure(run, workers, arguments.checkpoint, tasks, settings, seed=arguments.seed, split=split)
    if arguments.json is not None:
        write_json(arguments.json, result)
        say(f"written to {arguments.json}")
    return 0


def _bench(words: list[str]) -> int:
    arguments = parse(BenchArguments, words, "metarl bench")
    if arguments.repeats < 1:
        raise UsageError(f"--repeats must be at least 1, got {arguments.repeats}")
    check_new(arguments.json)
    # Imported when asked for: a bench imports its peers.
    bench = importlib.import_module(f"metarl.experiments.bench.{arguments.name.replace('-', '_')}")
    result: dict[str, Any] = bench.bench(arguments.repeats)
    if arguments.json is not None:
        write_json(arguments.json, result)
        say(f"written to {arguments.json}")
    return 0
