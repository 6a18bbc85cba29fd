"""The commands for few-shot experiments: train, resume and evaluate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from metarl.experiments.arguments import check_new, interruptible, overridden, parse
from metarl.experiments.configuration import Device, make_device
from metarl.experiments.console import TrainingDisplay, say
from metarl.experiments.fewshot.configuration import FewshotExperiment, encode, make_learner
from metarl.experiments.fewshot.measure import measure
from metarl.experiments.fewshot.runs import FewshotRun, create_run, extend_run, is_fewshot, on_device, open_run
from metarl.experiments.finishing import finished, stopped
from metarl.experiments.loggers import make_loggers
from metarl.experiments.presets.fewshot import PRESETS
from metarl.experiments.resuming import ResumeArguments, to_resume
from metarl.experiments.runs import checkpoint_path
from metarl.fewshot.sources import Sources
from metarl.fewshot.training import train
from metarl.loop import Progress
from metarl.runs.checkpoint import FILE as CHECKPOINT
from metarl.runs.configs import check_counts
from metarl.runs.files import write_json
from metarl.runs.lock import locked
from metarl.runs.loggers import Logger, closing


@dataclass(frozen=True)
class FewshotTrainArguments:
    """Train an experiment in a new run folder.

    Attributes:
        experiment: the configuration; any field can be overridden.
        out: run folder to make; by default the next free runs/NAME-seedN.
    """

    experiment: Annotated[FewshotExperiment, tyro.conf.arg(name="")]
    out: Path | None = None


@dataclass(frozen=True)
class FewshotEvaluateArguments:
    """Measure a trained few-shot learner on training, validation and test classes.

    Attributes:
        folder: the run's.
        num_tasks: episodes of every split; the run's own number by default.
        num_steps: adaptation steps; the run's own number by default.
        num_ways: classes per task, of learners that compare features.
        num_shots: support examples per class, or points.
        num_queries: query examples per class.
        views: of every image, for learners that compare features; the run's own number by default.
        data_folder: where the images are now, if not where they were.
        seed: of the episodes.
        json: write the result to this new file too.
        checkpoint: which of the run's checkpoints.
        device: evaluate here instead of where the configuration says.
    """

    folder: tyro.conf.Positional[Path]
    num_tasks: int | None = None
    num_steps: int | None = None
    num_ways: int | None = None
    num_shots: int | None = None
    num_queries: int | None = None
    views: int | None = None
    data_folder: str | None = None
    seed: int = 0
    json: Path | None = None
    checkpoint: str = CHECKPOINT
    device: Device | None = None


def names_run(words: Sequence[str]) -> bool:
    """Whether the arguments of a command name the folder of a few-shot run."""
    return any(is_fewshot(Path(word)) for word in words if not word.startswith("-"))


def train_command(name: str, words: list[str]) -> int:
    """`metarl train` of a few-shot experiment."""
    default = FewshotTrainArguments(experiment=PRESETS[name].experiment)
    arguments = parse(FewshotTrainArguments, words, f"metarl train {name}", default)
    experiment = arguments.experiment
    # Made once before the folder is, so that what cannot be made leaves nothing behind.
    device = make_device(experiment.device)
    sources = experiment.data.make(device)
    learner = make_learner(experiment, device)
    run = create_run(name, experiment, arguments.out)
    norms = "no batch norm" if learner.normalisation is None else f"batch norm: {learner.normalisation}"
    say(f"{run.identity}; {norms}")
    say(f"run folder {run.folder}")
    return _work(run, sources)


def resume_command(words: list[str]) -> int:
    """`metarl resume` of a few-shot run."""
    arguments = parse(ResumeArguments, words, "metarl resume")
    run = open_run(arguments.folder)
    with locked(run.folder):
        run = on_device(to_resume(run, arguments, extend_run), arguments.device)
        return _work(run, run.experiment.data.make(make_device(run.experiment.device)))


def evaluate_command(words: list[str]) -> int:
    """`metarl evaluate` of a few-shot run."""
    arguments = parse(FewshotEvaluateArguments, words, "metarl evaluate")
    check_counts(arguments, "num_tasks", "num_ways", "num_shots", "num_queries", "views")
    check_new(arguments.json)
    run = on_device(open_run(arguments.folder), arguments.device)
    checkpoint_path(run, arguments.checkpoint)
    data = run.experiment.data.resized(
        num_ways=arguments.num_ways,
        num_shots=arguments.num_shots,
        num_queries=arguments.num_queries,
        folder=arguments.data_folder,
    )
    run = replace(run, experiment=replace(run.experiment, data=data))
    settings = overridden(run.experiment.evaluation, arguments, "num_tasks", "num_steps", "views")
    sources = run.experiment.data.make(make_device(run.experiment.device))
    result = measure(run, sources, arguments.checkpoint, settings, seed=arguments.seed)
    if arguments.json is not None:
        write_json(arguments.json, result)
        say(f"written to {arguments.json}")
    return 0


def _work(run: FewshotRun, sources: Sources) -> int:
    """Train until done or interrupted, then evaluate."""
    experiment = run.experiment
    opened = make_loggers(experiment.loggers, run.folder, name=run.name, axis="tasks", config=encode(experiment))
    with locked(run.folder), closing(opened) as loggers:
        progress, interrupted = _trained(run, sources, loggers)
        if interrupted:
            return stopped(run.folder, progress.iteration)

        def evaluate() -> dict[str, Any]:
            return measure(run, sources, CHECKPOINT, experiment.evaluation, seed=0)

        return finished(
            run.folder,
            progress,
            experience=f"{progress.tasks:,} tasks",
            evaluate=evaluate,
            otherwise="with other episodes",
            loggers=loggers,
        )


def _trained(run: FewshotRun, sources: Sources, loggers: Sequence[Logger]) -> tuple[Progress, bool]:
    """Train until done or interrupted; where the run is, and whether the user stopped it there."""
    experiment = run.experiment
    with (
        TrainingDisplay(experiment.training.iterations, _describe) as display,
        interruptible(run.folder) as interrupted,
    ):
        progress = train(
            make_learner(experiment, make_device(experiment.device)),
            sources,
            experiment.training,
            experiment.evaluation,
            folder=run.folder,
            seed=experiment.seed,
            identity=run.identity,
            loggers=loggers,
            report=display.report,
            stop=interrupted,
        )
    return progress, interrupted()


def _describe(progress: Progress, metrics: Mapping[str, float]) -> list[str]:
    """Tasks, loss and score."""
    scores = [f"{name.split('/')[1]} {value:.4f}" for name, value in metrics.items() if name.startswith("train/")]
    losses = [f"loss {value:.4f}" for name, value in metrics.items() if name in ("loss/outer", "loss/fitted")]
    return [f"{progress.tasks:>9,} tasks", *losses, *scores]
