"""metarl resume DIR: continue a run that was stopped."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from metarl.experiments.arguments import UsageError, parse
from metarl.experiments.configuration import Device
from metarl.experiments.loading import open_again
from metarl.experiments.outside import OwnWords
from metarl.experiments.ray_runs import placed, take_placement
from metarl.experiments.runs import go_back
from metarl.experiments.seeds import finish_group, is_group, members_of
from metarl.experiments.working import work
from metarl.runs import parallel
from metarl.runs.checkpoint import CHECKPOINT, PREVIOUS
from metarl.runs.configs import MOST_UPDATES, check_counts
from metarl.runs.cores import check_alone
from metarl.runs.lock import locked


@dataclass(frozen=True)
class ResumeArguments:
    """Continue a run that was stopped.

    Attributes:
        folder: Run folder, or a folder of runs that --seeds made.
        iterations: Number of iterations in all, instead of the configured number.
        checkpoint: File name of the checkpoint; checkpoint.previous.pt goes back to the one before the last, which
            is kept under another name.
        device: Device of the networks, instead of the configured one: auto, cpu, cuda, cuda:N or mps.
        own: Words for what the run was made with and its folder does not hold.
    """

    folder: tyro.conf.Positional[Path]
    iterations: int | None = None
    checkpoint: str = CHECKPOINT
    device: Device | None = None
    own: Annotated[OwnWords, tyro.conf.arg(name="")] = field(default_factory=OwnWords)

    def __post_init__(self) -> None:
        check_counts(self, "iterations", most=MOST_UPDATES)


def command(words: list[str]) -> int:
    """Run `metarl resume`; returns the exit status."""
    placement, words = take_placement(words)
    arguments = parse(ResumeArguments, words, "metarl resume")
    if is_group(arguments.folder):
        check_alone("several runs are trained")
        members = members_of(arguments.folder, arguments.own, iterations=arguments.iterations)
        with placed(placement) as place:
            return finish_group(arguments.folder, members, place)
    if placement is not None:
        raise UsageError("resume takes --workers ray for a folder of several runs; a run keeps its own workers")
    run = open_again(arguments.folder, arguments.own)
    if arguments.checkpoint not in (CHECKPOINT, PREVIOUS):
        raise UsageError(f"--checkpoint must be {CHECKPOINT} or {PREVIOUS}, got {arguments.checkpoint!r}")
    with parallel.together(), locked(run.folder):
        if arguments.checkpoint == PREVIOUS:
            parallel.from_first(lambda: go_back(run))
        if arguments.iterations is not None:
            run = run.extended(arguments.iterations)
        run = run.on_device(arguments.device)
        return work(run, arguments.own)
