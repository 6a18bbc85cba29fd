"""metarl resume DIR: continue a run that was stopped."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from metarl.experiments.arguments import UsageError, parse
from metarl.experiments.configuration import Device
from metarl.experiments.loading import open_run
from metarl.experiments.runs import go_back
from metarl.experiments.seeds import finish_group, is_group, members_of
from metarl.experiments.working import work
from metarl.runs.checkpoint import CHECKPOINT, PREVIOUS
from metarl.runs.lock import locked


@dataclass(frozen=True)
class ResumeArguments:
    """Continue a run that was stopped.

    Attributes:
        folder: Run folder, or a folder of runs that --seeds made.
        iterations: Number of iterations in all, instead of the configured number.
        checkpoint: File name of the checkpoint; checkpoint.previous.pt goes back to the one before the last, which
            is kept under another name.
        device: Device of the networks, instead of the configured one.
        experiment: FILE.py:NAME of the experiment that the run was made with, if it is not built in.
        benchmark: FILE.py:FAMILY of the benchmark that the run was made with, if it is not built in.
    """

    folder: tyro.conf.Positional[Path]
    iterations: int | None = None
    checkpoint: str = CHECKPOINT
    device: Device | None = None
    experiment: str | None = None
    benchmark: str | None = None


def command(words: list[str]) -> int:
    """Run `metarl resume`; returns the exit status."""
    arguments = parse(ResumeArguments, words, "metarl resume")
    if is_group(arguments.folder):
        members = members_of(
            arguments.folder,
            experiment=arguments.experiment,
            benchmark=arguments.benchmark,
            iterations=arguments.iterations,
        )
        return finish_group(arguments.folder, members)
    run = open_run(arguments.folder, experiment=arguments.experiment, benchmark=arguments.benchmark)
    if arguments.checkpoint not in (CHECKPOINT, PREVIOUS):
        raise UsageError(f"--checkpoint must be {CHECKPOINT} or {PREVIOUS}, got {arguments.checkpoint!r}")
    with locked(run.folder):
        if arguments.checkpoint == PREVIOUS:
            go_back(run)
        if arguments.iterations is not None:
            run = run.extended(arguments.iterations)
        run = run.on_device(arguments.device)
        return work(run, experiment=arguments.experiment, benchmark=arguments.benchmark)
