"""Training the agent of a run folder, shown as it goes; what `metarl train`, `resume` and `study` share."""

from collections.abc import Sequence

from metarl.experiments.arguments import interruptible
from metarl.experiments.configuration import make_agent
from metarl.experiments.console import TrainingDisplay
from metarl.experiments.runs import Run
from metarl.loop import Progress
from metarl.runs.loggers import Logger
from metarl.training import train
from metarl.workers import Workers


def train_run(run: Run, workers: Workers, loggers: Sequence[Logger]) -> tuple[Progress, bool]:
    """Train until done or interrupted, from the run's checkpoint if there is one.

    Args:
        run: Opened run.
        workers: Collector of its experiment.
        loggers: Receivers of the metrics; left open.

    Returns:
        Where the run is, and whether the user stopped it there.
    """
    experiment = run.experiment
    with (
        TrainingDisplay(experiment.training.iterations) as display,
        interruptible(run.folder) as interrupted,
    ):
        progress = train(
            make_agent(experiment, run.benchmark),
            run.benchmark,
            workers,
            experiment.training,
            experiment.evaluation,
            folder=run.folder,
            seed=experiment.seed,
            test_tasks=run.test_tasks,
            loggers=loggers,
            report=display.report,
            stop=interrupted,
        )
    return progress, interrupted()
