"""The process of one run of a group: it trains and evaluates the run, and says how far it is."""

import multiprocessing
import os
from pathlib import Path
from typing import Any, Literal, Protocol

from metarl.experiments.loading import open_again
from metarl.experiments.outside import OwnWords
from metarl.experiments.runs import EVALUATION, checkpointed_iteration

LOG = "log.txt"
State = Literal["waiting", "training", "done", "stopped", "failed"]
RunWords = tuple[str, OwnWords, int | None]
"""Folder of a run, words for what it was made with, and number of iterations in all; None for the configured."""
Message = tuple[Any, ...]
"""Number of a run, its state, and a line on it; then perhaps the iteration and the metrics."""


class Messages(Protocol):
    """Takes what the process of a run says."""

    def put(self, message: Message) -> None:
        """Take in a message of a run."""


def train_one(number: int, words: RunWords, threads: int, messages: Messages) -> None:
    """Train and evaluate one run, in a process of its own."""
    os.setsid()
    parent = multiprocessing.parent_process()
    folder, own, iterations = words
    log = os.open(Path(folder) / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
    for stream in (1, 2):
        os.dup2(log, stream)
    # Imported here, behind the log: the parent may be a test or a script that has imported little.
    import torch  # noqa: PLC0415

    from metarl.experiments.arguments import interruptible  # noqa: PLC0415
    from metarl.experiments.console import TrainingDisplay  # noqa: PLC0415
    from metarl.experiments.working import keep_evaluation, own_loggers  # noqa: PLC0415
    from metarl.runs.lock import locked  # noqa: PLC0415
    from metarl.runs.loggers import closing  # noqa: PLC0415

    torch.set_num_threads(threads)
    try:
        run = open_again(folder, own)
        with locked(run.folder), interruptible(run.folder) as interrupted:
            if iterations is not None:
                run = run.extended(iterations)
            finished = checkpointed_iteration(run) >= run.experiment.training.iterations
            if finished and (run.folder / EVALUATION).is_file():
                messages.put((number, "done", "done before"))
                return
            display = TrainingDisplay(run.experiment.training.iterations, run.describe)
            with closing(own_loggers(run)) as loggers:
                progress = run.train(
                    loggers=loggers,
                    report=lambda progress, metrics: messages.put(
                        (number, "training", display.line(progress, metrics), (progress.iteration, dict(metrics)))
                    ),
                    stop=lambda: interrupted() or parent is None or not parent.is_alive(),
                )
                if progress.iteration < run.experiment.training.iterations:
                    messages.put((number, "stopped", f"stopped at iteration {progress.iteration}"))
                    return
                messages.put((number, "training", "evaluating"))
                result = keep_evaluation(run, progress, loggers)
        messages.put((number, "done", _result_line(result)))
    except KeyboardInterrupt:
        messages.put((number, "stopped", "stopped at once; its checkpoint is as it was"))
    except Exception as error:
        import traceback  # noqa: PLC0415

        traceback.print_exc()
        text = " ".join(str(error).split()) or type(error).__name__
        messages.put((number, "failed", text))


def _result_line(result: dict[str, Any]) -> str:
    last = result.get("adaptation", [{}])[-1]
    if "return_mean" in last:
        return f"done: return {result['adaptation'][0]['return_mean']:.2f} -> {last['return_mean']:.2f} adapted"
    return "done"
