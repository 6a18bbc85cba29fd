"""A queue of trainings: a list of what `metarl train` would be given, worked through in the background.

A list is a text file. Every line is the words of one `metarl train`; what follows a # is not read:

    point-promp --seeds 3
    rl2 --benchmark ml1-door-close+fresh-goals --seeds 0,3 --training.iterations 100
    short: rl2 --benchmark point --training.iterations 20     # a name of its own, in front

Each line becomes a folder of that name with a run per seed, made when its turn comes. What is done is left as it
is and what was interrupted goes on, so that the same command is given again until all is done.
"""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from metarl.experiments.loading import open_again
from metarl.experiments.outside import OwnWords
from metarl.experiments.runs import CONFIG, Run, make_run
from metarl.experiments.seeds import Member
from metarl.runs.loggers import flatten
from metarl.runs.reading import read_text

_MOST_BYTES = 2**20


@dataclass(frozen=True)
class Entry:
    """One line of a list.

    Attributes:
        number: Number of the line, from 1.
        name: Name of its folder; None for the experiment's.
        words: Words of `metarl train`.
    """

    number: int
    name: str | None
    words: tuple[str, ...]


class Planned(NamedTuple):
    """A run before there is a folder.

    Attributes:
        name: Name of its experiment.
        seed: Seed of the run.
        own: Words for what is a user's own.
        prepare: Function that prepares it.
    """

    name: str
    seed: int
    own: OwnWords
    prepare: Callable[[], Run]


def read_list(path: Path) -> list[Entry]:
    """The lines of a list.

    Raises:
        ValueError: if the file cannot be read, has a line that cannot be split into words, or no line at all.
    """
    entries = []
    for number, line in enumerate(read_text(path, "list of trainings", _MOST_BYTES).splitlines(), 1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        name = None
        if words and words[0].endswith(":"):
            name, words = words[0][:-1], words[1:]
            if not name or Path(name).name != name or name.startswith("."):
                raise ValueError(
                    f"{path}, line {number}: expected the name of a folder before the colon, got {name!r}"
                )
        if words:
            entries.append(Entry(number, name, tuple(words)))
        elif name is not None:
            raise ValueError(f"{path}, line {number}: expected an experiment after {name + ':'!r}")
    if not entries:
        raise ValueError(f"{path} lists no trainings; expected lines such as: point-promp --seeds 3")
    return entries


def members_of_list(
    path: Path, folder: Path, prepare: Callable[[Sequence[str]], Sequence[Planned]]
) -> list[Member]:
    """The runs of a list as members of a group, in the order of the list.

    Args:
        path: The list.
        folder: Folder of all groups.
        prepare: Function that reads the words of one line.

    Raises:
        ValueError: if a line cannot be run, two lines have one name, or a run was made with other settings.
    """
    lines: dict[str, int] = {}
    members = []
    for entry in read_list(path):
        where = f"{path}, line {entry.number}"
        try:
            planned = prepare(entry.words)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        name = entry.name or planned[0].name
        if name in lines:
            raise ValueError(
                f"{where}: line {lines[name]} is called {name} too; "
                f"give one of them a name in front, as in `NAME: {entry.words[0]}`"
            )
        lines[name] = entry.number
        for run in planned:
            target = folder / name / f"seed{run.seed}"
            if (target / CONFIG).exists():
                _check_same(target, run, where)
            members.append(Member(target, f"{name} {run.seed}", run.own, make=_maker(run, target)))
    return members


def _maker(planned: Planned, target: Path) -> Callable[[], object]:
    """A function that makes a run's folder if it is not there."""

    def make() -> None:
        if not target.exists():
            run = planned.prepare()
            run.introduction()  # what cannot be made leaves no folder behind
            target.parent.mkdir(parents=True, exist_ok=True)
            make_run(run, target)

    return make


def _check_same(folder: Path, planned: Planned, where: str) -> None:
    """Refuse a run that was made with other settings."""
    made = open_again(folder, planned.own)
    before, now = flatten(made.encode()), flatten(planned.prepare().encode())
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            raise ValueError(
                f"{where}: {folder} was made with {name} {before.get(name)!r}, the list says {now.get(name)!r}; "
                "give the line another name, or move the folder away"
            )
