"""Notes for a page of results that no run folder holds: sections, published figures, findings in a sentence."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from metarl.runs.reading import read_yaml, shorten

NOTES = "notes.yaml"
Measure = Literal["return", "trial", "success", "accuracy", "mse"]
"""The headline number of a section: return, success in percent, accuracy in percent or mean squared error after
the last adaptation step, or the return of a whole trial."""


@dataclass(frozen=True)
class SectionNote:
    """One part of the page.

    Attributes:
        title: Heading, which findings.md may have too.
        measure: Headline number of its runs.
        runs: Patterns of the names of its runs, such as "point-*".
        finding: Result in one or two plain sentences.
    """

    title: str
    measure: Measure
    runs: tuple[str, ...]
    finding: str = ""


@dataclass(frozen=True)
class RunNote:
    """Figures and findings to be shown beside the runs of one name.

    Attributes:
        published: Figure that the literature has for the headline number; empty for none.
        source: Paper that has it, with the table.
        finding: Result in one plain sentence.
    """

    published: str = ""
    source: str = ""
    finding: str = ""


@dataclass(frozen=True)
class Notes:
    """Everything that the file of notes says.

    Attributes:
        sections: Parts of the page in their order.
        runs: Notes by the name of runs.
    """

    sections: tuple[SectionNote, ...] = ()
    runs: Mapping[str, RunNote] = field(default_factory=dict)


def read_notes(folder: Path) -> Notes:
    """The notes beside the results, or none where there is no such file.

    Args:
        folder: Folder of results.

    Raises:
        ValueError: if the file is malformed; says the place.
    """
    path = folder / NOTES
    if not path.is_file():
        return Notes()
    data = read_yaml(path, "notes")
    if not isinstance(data, dict) or not set(data) <= {"sections", "runs"}:
        raise ValueError(f"{path}: expected sections and runs, got {shorten(data)}")
    sections, runs = data.get("sections") or [], data.get("runs") or {}
    if not isinstance(sections, list):
        raise ValueError(f"{path}: expected a list of sections, got {shorten(sections)}")
    if not isinstance(runs, dict):
        raise ValueError(f"{path}: expected names of runs with their notes, got {shorten(runs)}")
    return Notes(
        tuple(_section(part, path) for part in sections),
        {name: RunNote(**_texts(part, RunNote, path)) for name, part in runs.items()},
    )


def _section(data: Any, path: Path) -> SectionNote:
    texts = _texts(data, SectionNote, path, lists=("runs",))
    missing = {"title", "measure", "runs"} - set(texts)
    if missing:
        raise ValueError(f"{path}: a section needs {' and '.join(sorted(missing))}, got {shorten(data)}")
    if texts["measure"] not in get_args(Measure):
        raise ValueError(
            f"{path}: measure must be one of {', '.join(get_args(Measure))}, got {texts['measure']!r}"
        )
    return SectionNote(**{**texts, "runs": tuple(texts["runs"])})


def _texts(data: Any, kind: type[Any], path: Path, lists: tuple[str, ...] = ()) -> dict[str, Any]:
    """The fields of a note: texts, numbers as texts, and lists of texts."""
    names = [one.name for one in fields(kind)]
    if not isinstance(data, dict) or not set(data) <= set(names):
        raise ValueError(f"{path}: expected some of {', '.join(names)}, got {shorten(data)}")
    for name, value in data.items():
        right = isinstance(value, list) and all(isinstance(word, str) for word in value)
        if right if name in lists else isinstance(value, str | int | float) and not isinstance(value, bool):
            continue
        raise ValueError(f"{path}: {name} must be {'a list of texts' if name in lists else 'a text'}, "
                         f"got {shorten(value)}")  # fmt: skip
    return {name: value if name in lists else " ".join(str(value).split()) for name, value in data.items()}
