"""metarl queue LIST: work through a list of trainings in the background, and go on where it stopped."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from metarl.experiments.arguments import UsageError, parse
from metarl.experiments.console import say, show_table
from metarl.experiments.prepared import planned
from metarl.experiments.queue import members_of_list
from metarl.experiments.ray_runs import placed, take_placement
from metarl.experiments.seeds import train_members


@dataclass(frozen=True)
class QueueArguments:
    """Train a list of experiments and seeds, some at a time; given again, go on where it stopped.

    With --workers ray [--ray-address HOST:PORT or auto] [--run-cores N] [--run-gpus F] each run is on a node of a
    Ray cluster.

    Attributes:
        file: Text file with the words of one `metarl train` per line, such as: point-promp --seeds 3.
            A name of your own with a colon may stand in front. What follows a # is not read.
        out: Folder of the runs, which may hold some of them already: OUT/NAME/seedN.
        jobs: Number of runs at a time, by default one per core.
        hours: Hours after which all runs are stopped, with checkpoints; by default never.
    """

    file: tyro.conf.Positional[Path]
    out: Path = Path("runs")
    jobs: int | None = None
    hours: float | None = None


def command(words: list[str]) -> int:
    """Run `metarl queue`; returns the exit status."""
    placement, words = take_placement(words)
    arguments = parse(QueueArguments, words, "metarl queue")
    if arguments.jobs is not None and not 1 <= arguments.jobs <= 1000:
        raise UsageError(f"--jobs must be between 1 and 1,000, got {arguments.jobs}")
    if arguments.hours is not None and not 0 < arguments.hours < 1e6:
        raise UsageError(f"--hours must be a positive number, got {arguments.hours}")
    members = members_of_list(arguments.file, arguments.out, planned)
    say(f"{len(members)} runs in {arguments.out}")
    most_s = None if arguments.hours is None else arguments.hours * 3600
    with placed(placement) as place:
        status = train_members(members, arguments.jobs, most_s, place)
    rows = [(member.label, member.state, member.line) for member in members]
    show_table("runs of the list", ("run", "state", "last heard"), rows, text_columns=3)
    if status:
        say("not all runs are done; the same command goes on with them")
    return status
