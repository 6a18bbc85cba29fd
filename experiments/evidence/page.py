"""The page of results in Markdown: a summary, a section for each family with tables, figure and commands."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import quote

from metarl.experiments.evidence.entries import Entry, best, curve, read_entries, reference, untrained
from metarl.experiments.evidence.figures import MOST_ERROR
from metarl.experiments.evidence.markdown import amount, duration, score, slug, table
from metarl.experiments.evidence.notes import Measure, Notes, RunNote, SectionNote, read_notes
from metarl.experiments.evidence.studies import study_lines
from metarl.experiments.report.page import number
from metarl.experiments.report.settings import algorithm, train_command

PAGE, FINDINGS, FIGURES = "README.md", "findings.md", "figures"
_OTHERS = "Other runs"
_TOP = """# Measured results

This page is made from the run folders beside it by `metarl results {folder}`; do not edit it. Every folder
holds the configuration, the versions, the metrics of every iteration as CSV, and the evaluations of a run.
Comparisons, what was tried, and what did not help are in the [notes]({findings}).

Scores are means over tasks that were not trained on, unless "trained on" stands beside their number, with 95%
intervals: of one seed over tasks, of several over seeds and tasks. "Before" is the policy before adaptation, or
the first episode of a trial; "after K" is after K adaptation steps, or K episodes later. "Untrained" and
"reference" are baselines on the same tasks, after K steps too. Time is that of training alone, on one or two cores
of a shared machine where other work went on: an upper bound. A commit that ends in "-dirty" had changes that were
not committed.
"""
_MADE = _TOP.partition("`metarl")[0]  # what every page of results begins with


@dataclass(frozen=True)
class Part:
    """One section of the page and its entries.

    Attributes:
        note: Title, measure and finding of the section.
        entries: Runs in the order of the notes' patterns.
    """

    note: SectionNote
    entries: tuple[Entry, ...]

    @property
    def figure(self) -> str:
        """File name of the section's figure."""
        return f"{slug(self.note.title)}.svg"


def parts_of(folder: Path) -> list[Part]:
    """The sections of the page of a folder of results, with what belongs to none at the end.

    Raises:
        ValueError: if the folder or its notes are malformed.
    """
    entries, notes = read_entries(folder), read_notes(folder)
    parts, taken = [], set()
    for note in notes.sections:
        order = {
            id(entry): place
            for place, pattern in reversed([*enumerate(note.runs)])
            for entry in entries
            if id(entry) not in taken and fnmatchcase(entry.name, pattern)
        }
        own = sorted((entry for entry in entries if id(entry) in order), key=lambda e: order[id(e)])
        taken |= set(order)
        if own:
            parts.append(Part(note, tuple(own)))
    left = [entry for entry in entries if id(entry) not in taken]
    for measure in dict.fromkeys(_measure(entry) for entry in left):
        own = [entry for entry in left if _measure(entry) == measure]
        title = _OTHERS if measure == "return" else f"{_OTHERS}: {measure}"
        parts.append(Part(SectionNote(title, measure, ()), tuple(own)))
    return parts


def _measure(entry: Entry) -> Measure:
    """The headline number of runs that no section names."""
    row = entry.main[0]["adaptation"][-1]
    for measure in ("accuracy", "mse"):
        if f"{measure}_mean" in row:
            return "accuracy" if measure == "accuracy" else "mse"
    return "return"


def page(folder: Path, parts: Sequence[Part]) -> str:
    """The text of the page in Markdown.

    Args:
        folder: Folder of results, as the page names it.
        parts: Sections from `parts_of`.
    """
    notes = read_notes(folder)
    findings = (folder / FINDINGS).read_text(encoding="utf-8") if (folder / FINDINGS).is_file() else ""
    lines = [_TOP.format(folder=_shown(folder), findings=FINDINGS), "## Summary", ""]
    rows = [_summary_row(part, entry, notes) for part in parts for entry in best(part.entries)]
    lines += [*table(rows), ""] if rows else ["No runs are recorded yet.", ""]
    for part in parts:
        lines += _section(folder, part, notes, findings)
    for study in sorted(folder.glob("*/study.json")):
        title, content = study_lines(study.parent)
        lines += [f"## {title}", "", *_more(title, findings), *content]
    if other := [title for title in _titles(findings) if f"## {title}" not in lines]:
        lines += ["## Also in the notes", ""]
        lines += [f"- [{title}]({FINDINGS}#{slug(title)})" for title in other]
    return "\n".join(lines).rstrip() + "\n"


def has_page(folder: Path) -> bool:
    """Whether a folder has a page of results already.

    Raises:
        ValueError: if the file of that name is something else, which is not to be replaced.
    """
    path = folder / PAGE
    if not path.exists():
        return False
    if not path.read_bytes().startswith(_MADE.encode()):
        raise ValueError(f"{path} is no page of results and is left as it is; give another folder")
    return True


def _titles(findings: str) -> list[str]:
    return [line.removeprefix("## ") for line in findings.splitlines() if line.startswith("## ")]


def _shown(folder: Path) -> str:
    return "/".join(folder.resolve().parts[-2:])


def _summary_row(part: Part, entry: Entry, notes: Notes) -> dict[str, str]:
    scores = curve(entry.main, part.note.measure)
    last = scores[-1] if scores else None
    note = notes.runs.get(entry.name, RunNote())
    return {
        "run": _link(entry.name, f"#{slug(part.note.title)}"),
        "agent": algorithm(entry.runs[0]),
        "seeds": str(len(entry.runs)),
        "steps or tasks": amount(max(entry.sizes())),
        "time": _times(entry),
        "measure": _NAMES[part.note.measure],
        "before": score(scores[0]) if len(scores) > 1 else "",
        "result": score(last),
        "reference": _reference(entry, part.note.measure),
        "published": _published(note),
        "commit": ", ".join(entry.commits()),
    }


_NAMES: dict[Measure, str] = {
    "return": "return",
    "trial": "return of a trial",
    "success": "success (%)",
    "accuracy": "accuracy (%)",
    "mse": "squared error",
}


def _section(folder: Path, part: Part, notes: Notes, findings: str) -> list[str]:
    title = part.note.title
    lines = [f"## {title}", ""]
    if part.note.finding:
        lines += [*textwrap.wrap(part.note.finding, 118), ""]
    lines += _more(title, findings)
    rows = [_row(part, entry, stem, notes) for entry in part.entries for stem in entry.evaluations]
    lines += [f"{_NAMES[part.note.measure].capitalize()}:", "", *table(rows), ""]
    for entry in best(part.entries):
        if finding := notes.runs.get(entry.name, RunNote()).finding:
            lines += [*textwrap.wrap(f"- **{entry.name}**: {finding}", 118, subsequent_indent="  ")]
    if lines[-1]:
        lines.append("")
    if (folder / FIGURES / part.figure).is_file():
        what = (
            "mean over seeds, and their range" if any(len(e.runs) > 1 for e in part.entries) else "one seed each"
        )
        what += f"; cut off above {MOST_ERROR}" if part.note.measure == "mse" else ""
        lines += [f"![Learning curves: {title}]({FIGURES}/{part.figure})", "", f"Learning curves, {what}.", ""]
    commands = dict.fromkeys(train_command(entry.runs)[0] for entry in part.entries)
    return [*lines, "```bash", *commands, "```", ""]


def _link(name: str, target: str) -> str:
    return f"[{name.translate(_BRACKETS)}]({target})"


_BRACKETS = str.maketrans({"[": "\\[", "]": "\\]"})


def _more(title: str, findings: str) -> list[str]:
    """A link to the notes of a section, if there are some."""
    if title not in _titles(findings):
        return []
    return [f"More in the [notes]({FINDINGS}#{slug(title)}).", ""]


def _row(part: Part, entry: Entry, stem: str, notes: Notes) -> dict[str, str]:
    """One evaluation of one entry; the budget stands with the main one."""
    measure, evaluations = part.note.measure, entry.evaluations[stem]
    main = evaluations is entry.main
    scores = curve(evaluations, measure)
    steps = [0] if measure == "trial" else [int(row["step"]) for row in evaluations[0]["adaptation"]]
    note = notes.runs.get(entry.name, RunNote())
    folder, variant = entry.folders[0], stem.partition("-")[2]
    link = entry.name if entry.grouped else folder.name
    splits = {part_: curve(evaluations, measure, part_) for part_ in ("train", "validation")}
    memory = entry.memory_gb()
    return {
        "run": _link(entry.name, quote(link)) if main else f"{entry.name}: {variant}",
        "seeds": ", ".join(map(str, entry.seeds)) if main else "",
        "steps" if entry.runs[0].kind == "rl" else "tasks": _sizes(entry) if main else "",
        "time": _times(entry) if main else "",
        "memory": f"{memory:.1f} GB" if memory and main else "",
        "evaluated on": _evaluated(evaluations[0]),
        "before": score(scores[0]) if len(scores) > 1 else "",
        "after 1": score(scores[1]) if len(scores) > 2 and steps[1] == 1 else "",
        "of a trial" if measure == "trial" else "after K": score(scores[-1]) if scores else "",
        "K": str(steps[len(scores) - 1]) if len(scores) > 1 else "",
        **{f"{name} tasks": score(of_split[-1]) if of_split else "" for name, of_split in splits.items()},
        "untrained": score(untrained(evaluations, measure)),
        "reference": _reference(entry, measure, stem),
        "published": _published(note) if main else "",
        "commit": ", ".join(entry.commits()) if main else "",
    }


def _evaluated(data: Mapping[str, Any]) -> str:
    sizes = data.get("episodes") or f"{data.get('num_episodes', 1)} each"
    trained_on = data.get("split") == "train" or data.get("tasks_shared_with_training")
    return f"{data.get('num_tasks'):,} tasks{' trained on' if trained_on else ''}, {sizes}"


def _reference(entry: Entry, measure: Measure, stem: str | None = None) -> str:
    other = reference(entry.main if stem is None else entry.evaluations[stem], measure)
    return "" if other is None else f"{other[0]} {number(other[1].mean)}"


def _published(note: RunNote) -> str:
    return f"{note.published} ({note.source})" if note.published and note.source else note.published


def _sizes(entry: Entry) -> str:
    return amount(max(entry.sizes()))


def _times(entry: Entry) -> str:
    times = list(dict.fromkeys(duration(seconds) for seconds in sorted(entry.wall_s())))
    return "" if not times else times[0] if len(times) == 1 else f"{times[0]} to {times[-1]}"
