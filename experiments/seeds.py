"""Runs that differ by their seeds, as one experiment: a folder of runs, side by side as cores allow.

Each run is trained in a process of its own, with an equal share of the cores, and writes what it prints to log.txt
in its folder. The processes are in sessions of their own, so that Ctrl-C reaches them through the parent alone.
One whose parent is gone stops after its iteration, with a checkpoint.
"""

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, get_args

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from metarl.experiments.comparison.records import read_groups
from metarl.experiments.comparison.summary import summarise
from metarl.experiments.comparison.tables import show
from metarl.experiments.console import fitted, say, shortened, terminal_width
from metarl.experiments.loading import open_again
from metarl.experiments.outside import OwnWords
from metarl.experiments.places import Job, LocalPlace, Place
from metarl.experiments.run_process import LOG, State
from metarl.experiments.runs import CONFIG, EVALUATION, checkpointed_iteration, read_config
from metarl.runs.cores import usable_cores

_PLAIN_INTERVAL_S = 20.0
_MOST_LINES = 12  # of a live display; of more runs only those are shown that are trained or have failed


class Watcher(Protocol):
    """Follows one run of a group in the process that trains the group."""

    def heard(self, iteration: int, metrics: Mapping[str, float]) -> bool:
        """Take the metrics of an iteration; true stops the run after the next one, with a checkpoint."""

    def ended(self, state: State) -> None:
        """Take the state that the run ended in; called once."""


@dataclass
class Member:
    """One run of a group while it is trained.

    Attributes:
        folder: Run folder.
        label: Name in the live line.
        own: Words for what it was made with and its folder does not hold.
        iterations: Number of iterations in all; None for the configured number.
        state: Whether it waits for a core, is trained, is done, was stopped, or failed.
        line: Last message about it.
        make: Function that makes the folder when the run's turn comes; None if it is there.
        watcher: Object that follows its metrics and its end.
        job: Process that trains it, here or elsewhere.
    """

    folder: Path
    label: str
    own: OwnWords = field(default_factory=OwnWords)
    iterations: int | None = None
    state: State = "waiting"
    line: str = "waiting for a core"
    make: Callable[[], object] | None = field(default=None, repr=False)
    watcher: Watcher | None = field(default=None, repr=False)
    job: Job | None = field(default=None, repr=False)


def parse_seeds(text: str) -> tuple[int, ...]:
    """The seeds that a text names: "3" is 0, 1, 2; "0,3,7" and "4," are those.

    Raises:
        ValueError: unless they are distinct whole numbers of 0 or more.
    """
    message = f"--seeds must be a number of seeds, or seeds with commas like 0,3,7; got {text!r}"
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isascii() and part.isdigit() and len(part) <= 18 for part in parts):
        raise ValueError(message)
    numbers = [int(part) for part in parts]
    if "," not in text:
        if not 1 <= numbers[0] <= 1000:
            raise ValueError(f"{message}; a number of seeds is between 1 and 1,000")
        return tuple(range(numbers[0]))
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"{message}; a seed stands there twice")
    return tuple(numbers)


def train_members(
    members: Sequence[Member], jobs: int | None = None, most_s: float | None = None, place: Place | None = None
) -> int:
    """Train runs side by side until all are done, or until an interruption; the exit status.

    Args:
        members: Runs in the order in which they begin.
        jobs: Number of runs at a time; None for one per core, or for as many as the place has room for.
        most_s: Seconds after which all are stopped as by an interruption; None for as long as it takes.
        place: Place of the processes; None for this machine.
    """
    begun = time.monotonic()
    place = place or LocalPlace(min(len(members), jobs or usable_cores()))
    with _Forwarding(members) as forwarding, _Lines(members) as lines:
        while True:
            running = [member for member in members if member.state == "training"]
            waiting = [member for member in members if member.state == "waiting"]
            if not running and (not waiting or forwarding.requested):
                break
            if most_s is not None and time.monotonic() - begun > most_s:
                forwarding.stop(f"{most_s / 3600:g} hours are over: ")
            slots = jobs or place.slots
            for member in waiting[: 0 if forwarding.requested else max(0, slots - len(running))]:
                if not _is_made(member) or _is_done(member):
                    continue
                words = (str(member.folder), member.own, member.iterations)
                member.job = place.start(members.index(member), words)
                member.state, member.line = "training", "starting"
            for number, state, line, *heard in place.messages():
                members[number].state, members[number].line = state, line
                if heard:
                    _tell(members[number], *heard[0])
                lines.show()
            _notice_deaths(members, forwarding.requested)
            _notice_ends(members)
            lines.show()
    _notice_ends(members)
    if any(member.state == "failed" for member in members):
        return 1
    return 0 if all(member.state == "done" for member in members) else 130


def _is_made(member: Member) -> bool:
    """Make the folder of a run whose turn has come; false, with the reason in its line, if it cannot be made."""
    try:
        if member.make is not None:
            member.make()
    except (ValueError, OSError) as error:
        member.state, member.line = "failed", " ".join(str(error).split())
        return False
    return True


def _tell(member: Member, iteration: int, metrics: Mapping[str, float]) -> None:
    """Tell a run's watcher of an iteration, and stop the run if it says so."""
    if member.watcher is not None and member.watcher.heard(iteration, metrics) and member.job is not None:
        member.job.terminate()  # stops after its iteration


def _notice_ends(members: Sequence[Member]) -> None:
    """Tell the watchers of runs that have ended, each once."""
    for member in members:
        if member.watcher is not None and member.state in ("done", "stopped", "failed"):
            watcher, member.watcher = member.watcher, None
            watcher.ended(member.state)


def _is_done(member: Member) -> bool:
    """Whether a run is trained and evaluated already, so that it needs no process, which its line then says."""
    if not (member.folder / EVALUATION).is_file():
        return False
    try:
        run = open_again(member.folder, member.own)
        total = run.experiment.training.iterations
        done = member.iterations in (None, total) and checkpointed_iteration(run) >= total
    except (ValueError, OSError):  # which its process meets too, and writes into its log
        return False
    if done:
        member.state, member.line = "done", "done before"
    return done


def _notice_deaths(members: Sequence[Member], stopping: bool) -> None:
    for member in members:
        job = member.job
        if member.state == "training" and job is not None and job.exitcode is not None:
            job.join()
            time.sleep(0.1)  # its last message may be on the way
            if member.state == "training" and stopping and job.exitcode == -signal.SIGTERM:
                member.state, member.line = "stopped", "stopped before it began"
            elif member.state == "training" and job.exitcode != 0:
                member.state = "failed"
                member.line = f"its process ended with status {job.exitcode}; see {member.folder / LOG}"


class _Forwarding:
    """Signals to the parent are passed on to the runs: the first stops them after their iteration.

    Args:
        members: Runs whose processes get the signals.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_Forwarding":
        if threading.current_thread() is threading.main_thread():
            numbers = [signal.SIGINT, signal.SIGTERM]
            if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
                numbers.append(signal.SIGHUP)
            self._before = {number: signal.signal(number, self._forward) for number in numbers}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        for member in self._members:
            if member.job is not None and member.job.is_alive():
                if error[0] is not None:
                    member.job.terminate()  # stops after its iteration
                member.job.join()

    def _forward(self, number: int, frame: object) -> None:
        if not self.requested:
            print("\nstopping all runs after their iterations; again to stop at once", file=sys.stderr)
        self._send()

    def stop(self, reason: str) -> None:
        """Stop all runs after their iterations, once."""
        if not self.requested:
            print(f"\n{reason}stopping all runs after their iterations", file=sys.stderr)
            self._send()

    def _send(self) -> None:
        self.requested = True
        for member in self._members:
            if member.job is not None and member.job.is_alive():
                with contextlib.suppress(ProcessLookupError):
                    member.job.terminate()


class _Lines:
    """A live line for each run, or lines now and then if not a terminal.

    Args:
        members: Runs to show.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self._console = Console(highlight=False, soft_wrap=True)
        self._live = Live(console=self._console, refresh_per_second=4)
        self._printed: dict[int, tuple[str, float]] = {}

    def __enter__(self) -> "_Lines":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.show()
        if self._console.is_terminal:
            self._live.stop()

    def show(self) -> None:
        """Show what was last heard of every run."""
        columns = terminal_width()
        width = min(max(len(member.label) for member in self._members), columns // 3)
        texts = [
            f"{shortened(member.label, width):<{width}}  {fitted(member.line, columns - width - 2)}"
            for member in self._members
        ]
        if self._console.is_terminal:
            shown = texts
            if len(texts) > _MOST_LINES:
                states = [member.state for member in self._members]
                counts = [f"{states.count(state)} {state}" for state in get_args(State) if state in states]
                shown = [
                    text for text, state in zip(texts, states, strict=True) if state in ("training", "failed")
                ]
                shown = [*shown[-_MOST_LINES:], ", ".join(counts)]
            self._live.update(Group(*(Text(text, no_wrap=True, overflow="ellipsis") for text in shown)))
            return
        now = time.monotonic()
        for number, (member, text) in enumerate(zip(self._members, texts, strict=True)):
            state, printed_at = self._printed.get(number, ("waiting", now - _PLAIN_INTERVAL_S / 2))
            if member.state != state or (member.state == "training" and now - printed_at > _PLAIN_INTERVAL_S):
                self._printed[number] = (member.state, now)
                self._console.print(text, markup=False)
                sys.stdout.flush()


def finish_group(folder: Path, members: Sequence[Member], place: Place | None = None) -> int:
    """Train the runs of a folder to their end, and show what they reach together; the exit status."""
    status = train_members(members, place=place)
    if status:
        for member in members:
            if member.state == "failed":
                say(f"{member.folder}: {member.line}")
        say(f"not all runs are done; continue with: metarl resume {folder}")
        return status
    groups = list(dict.fromkeys(member.folder.parent for member in members))
    if read_config(members[0].folder)["kind"] == "rl":
        show(summarise(read_groups(groups)))
    say(f"figures and numbers: metarl compare {' '.join(map(str, groups))}")
    return 0


def is_group(folder: Path) -> bool:
    """Whether a folder is no run, but holds runs, or groups of runs."""
    return not (folder / CONFIG).exists() and bool(_run_folders(folder))


def members_of(folder: Path, own: OwnWords, *, iterations: int | None = None) -> list[Member]:
    """The runs of a folder that `metarl train --seeds` made.

    Args:
        folder: Folder of the runs, or of groups of them.
        own: Words for what they were made with and their folders do not hold.
        iterations: Number of iterations in all; None for the configured number.
    """
    folders = _run_folders(folder)
    return [Member(run, str(run.relative_to(folder)), own, iterations) for run in folders]


def _run_folders(folder: Path) -> list[Path]:
    """The run folders in a folder of runs, or of groups of them, by name."""
    return [path.parent for depth in ("*", "*/*") for path in sorted(folder.glob(f"{depth}/{CONFIG}"))]
