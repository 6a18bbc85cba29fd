"""Training a run to its end: shown as it goes in a terminal, or from Python."""

import resource
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from metarl.experiments.arguments import interruptible
from metarl.experiments.catalogue import experiment_of_word, title
from metarl.experiments.configuration import Experiment
from metarl.experiments.console import TrainingDisplay, duration, say
from metarl.experiments.fewshot.configuration import FewshotExperiment, data_name
from metarl.experiments.loading import AnyExperiment, prepare_run
from metarl.experiments.loggers import log_evaluation, make_loggers
from metarl.experiments.options import EvaluationOptions
from metarl.experiments.outside import OwnWords, sources_of
from metarl.experiments.runs import EVALUATION, Run, make_run
from metarl.loop import Progress, Report
from metarl.runs import parallel
from metarl.runs.cores import is_first, whole_machine
from metarl.runs.files import write_json
from metarl.runs.lock import locked
from metarl.runs.loggers import Logger, closing


def train(
    experiment: AnyExperiment | str,
    *,
    out: Path | str | None = None,
    name: str | None = None,
    loggers: Sequence[Logger] = (),
    report: Report | None = None,
    stop: Callable[[], bool] | None = None,
) -> Run:
    """Train an experiment in a new run folder, evaluate it there, and give the run; it prints nothing.

        run = metarl.train(Experiment(benchmark, PrompConfig()))
        run.evaluate(num_tasks=20)

    Args:
        experiment: An `Experiment` or a `FewshotExperiment`, or the name of a preset.
        out: Run folder to make; by default the next free runs/NAME-seedN.
        name: Name of the run; by default what is trained on what.
        loggers: Loggers of your own, besides those that the experiment names.
        report: Called after every iteration with the progress and the metrics, as the console is.
        stop: Asked after every iteration; true ends the training with a checkpoint, without an evaluation.

    Raises:
        ValueError: if the experiment cannot be run.
        TrainingDiverged: if a loss is not finite; says the iteration and the task.
    """
    if isinstance(experiment, str):
        word = experiment_of_word(experiment)
        experiment, name = word.experiment, name or word.name
        sources = {} if word.source is None else {"experiment": word.source}
    else:
        sources = sources_of(experiment)
    origins = {part: source.to_json() for part, source in sources.items()}
    run = prepare_run(name or name_of(experiment), experiment, origins)
    with parallel.together():
        run.introduction()  # what cannot be made leaves no folder behind
        run = make_run(run, None if out is None else Path(out))
        with locked(run.folder), closing([*own_loggers(run), *loggers]) as receivers:
            for logger in loggers if is_first() else ():
                logger.hyperparameters(run.encode())
            progress = run.train(loggers=receivers, report=report, stop=stop)
            if progress.iteration >= run.experiment.training.iterations and is_first():
                keep_evaluation(run, progress, receivers)
    return run


def train_shown(run: Run, loggers: Sequence[Logger]) -> tuple[Progress, bool]:
    """Train until done or interrupted, with a live line; where the run is, and whether it was interrupted."""
    display = TrainingDisplay(run.experiment.training.iterations, run.describe)
    with display if is_first() else nullcontext(), interruptible(run.folder) as interrupted:
        progress = run.train(loggers=loggers, report=display.report, stop=interrupted)
    return progress, progress.iteration < run.experiment.training.iterations or interrupted()


def work(run: Run, own: OwnWords) -> int:
    """Train until done or interrupted, then evaluate; the exit status.

    Args:
        run: Run with its folder.
        own: Words for what is a user's own, for the commands that are suggested.
    """
    again = f"{run.folder}{own.options}"
    with locked(run.folder), closing(own_loggers(run)) as loggers:
        progress, interrupted = train_shown(run, loggers)
        if interrupted:
            say(f"stopped at iteration {progress.iteration}; continue with: metarl resume {again}")
            return 130
        if not is_first():
            return 0
        say(f"trained on {run.experience(progress)} in {duration(progress.elapsed_s)}")
        run.show(keep_evaluation(run, progress, loggers))
    say(f"written to {run.folder / EVALUATION}; again, or on other tasks: metarl evaluate {again}")
    return 0


def own_loggers(run: Run) -> list[Logger]:
    """The loggers that a run's experiment names, which know its configuration; in the process that writes."""
    if not is_first():
        return []
    config = run.encode()
    return make_loggers(run.experiment.loggers, run.folder, name=run.name, axis=run.axis, config=config)


def keep_evaluation(run: Run, progress: Progress, loggers: Sequence[Logger]) -> dict[str, Any]:
    """Evaluate a trained run as its experiment says; evaluation.json and the loggers get the result."""
    memory_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    with whole_machine():
        result = run.evaluated(EvaluationOptions())
    result |= {"train_peak_memory_gb": round(memory_gb, 3)}
    write_json(run.folder / EVALUATION, result)
    log_evaluation(loggers, progress.tasks or progress.env_steps, result)
    return result


def name_of(experiment: AnyExperiment) -> str:
    """The name of an experiment's runs: its benchmark or data, and its algorithm."""
    if isinstance(experiment, Experiment):
        return title(experiment)
    assert isinstance(experiment, FewshotExperiment)
    learner = type(experiment.learner).__name__.removesuffix("Config").lower()
    return f"{data_name(experiment)}-{learner}"
