"""Recorded runs of one name, and what their evaluations say about them, over seeds and tasks."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metarl.experiments.evaluations import read_evaluation
from metarl.experiments.evidence.notes import Measure
from metarl.experiments.report.settings import Described, described
from metarl.experiments.runs import CONFIG, EVALUATION
from metarl.intervals import student_quantile

_OWN = "meta-trained"  # the name of the run's own agent among the trials of an evaluation
_UNTRAINED = "untrained"


class Score(NamedTuple):
    """One number over seeds and tasks.

    Attributes:
        mean: Mean over seeds of the means over tasks.
        low: Lower bound of the 95% interval; not a number where there is none.
        high: Upper bound of the 95% interval.
    """

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Entry:
    """Runs of one name that differ by their seeds.

    Attributes:
        name: Name of the runs, from that of their folder.
        runs: Configurations by seed.
        evaluations: Contents of the files of one name, of every run, by that name without its ending; the
            first one is the main one.
    """

    name: str
    runs: tuple[Described, ...]
    evaluations: Mapping[str, Sequence[Mapping[str, Any]]]

    @property
    def folders(self) -> list[Path]:
        """Folders of the runs."""
        return [run.folder for run in self.runs]

    @property
    def seeds(self) -> list[int]:
        """Seeds of the runs."""
        return [int(run.data.get("seed", 0)) for run in self.runs]

    @property
    def grouped(self) -> bool:
        """Whether the runs lie in one folder, NAME/seedN, as they do since seeds are trained together."""
        return self.folders[0].parent.name == self.name

    @property
    def main(self) -> Sequence[Mapping[str, Any]]:
        """The main evaluation of every run."""
        return next(iter(self.evaluations.values()))

    def sizes(self) -> list[int]:
        """Environment steps of training, or tasks of few-shot learning, of every run."""
        return [int(data.get("train_env_steps", data.get("train_tasks", 0))) for data in self.main]

    def wall_s(self) -> list[float]:
        """Seconds of training of every run."""
        return [float(data["train_wall_s"]) for data in self.main if "train_wall_s" in data]

    def memory_gb(self) -> float | None:
        """The greatest peak of memory of a run, in gigabytes; None where none was measured."""
        peaks = [data["train_peak_memory_gb"] for data in self.main if data.get("train_peak_memory_gb")]
        return max(peaks) if peaks else None

    def commits(self) -> list[str]:
        """Commits that the runs were made at."""
        commits = [str(run.versions.get("git_commit") or "").partition("-") for run in self.runs]
        return list(dict.fromkeys(commit[:8] + dash + dirty for commit, dash, dirty in commits if commit))


def read_entries(folder: Path) -> list[Entry]:
    """The entries of a folder of results, by name: NAME/seedN are one entry, and so are NAME-seedN.

    Args:
        folder: Folder of results.

    Raises:
        ValueError: if it is no folder, or a file is malformed.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder of results; `metarl results FOLDER --add RUN ...` begins one")
    members: dict[tuple[str, bool], list[Path]] = {}
    for path in sorted([*folder.glob(f"*/{CONFIG}"), *folder.glob(f"*/*/{CONFIG}")]):
        run = path.parent
        grouped = run.parent != folder
        name = run.parent.name if grouped else re.sub(r"-seed\d+$", "", run.name)
        members.setdefault((name, not grouped), []).append(run)
    entries = [_entry(name, runs) for (name, _), runs in sorted(members.items())]
    return [entry for entry in entries if entry.evaluations]


def _entry(name: str, folders: Sequence[Path]) -> Entry:
    runs = sorted((described(folder) for folder in folders), key=lambda run: int(run.data.get("seed", 0)))
    files = [{path.stem: path for path in run.folder.glob("evaluation*.json")} for run in runs]
    common = set.intersection(*map(set, files))
    main = EVALUATION.removesuffix(".json")
    order = sorted(common, key=lambda stem: (stem != main, stem))
    return Entry(name, tuple(runs), {stem: [read_evaluation(own[stem]) for own in files] for stem in order})


def best(entries: Sequence[Entry]) -> list[Entry]:
    """The entry of each name that has the most seeds, and of equal ones that which lies in one folder."""
    names = dict.fromkeys(entry.name for entry in entries)
    return [max((e for e in entries if e.name == name), key=lambda e: (len(e.runs), e.grouped)) for name in names]


def curve(evaluations: Sequence[Mapping[str, Any]], measure: Measure, part: str | None = None) -> list[Score]:
    """Scores by adaptation step, over the runs that were evaluated; one alone for whole trials.

    Args:
        evaluations: Evaluation of each run.
        measure: Number to take.
        part: Name of a baseline, or of a split of few-shot tasks; None for the trained agent on test tasks.

    Returns:
        The scores; none where the evaluations do not have them.
    """
    rows = [_rows(data, measure, part) for data in evaluations]
    name = "return" if measure == "trial" else measure
    num_steps = min(map(len, rows))
    scores = []
    for step in range(num_steps):
        if not all(f"{name}_mean" in of_run[step] for of_run in rows):
            return []
        scale = 100 if measure in ("success", "accuracy") else 1
        means = np.array([scale * of_run[step][f"{name}_mean"] for of_run in rows])
        bounds = [of_run[step].get(f"{name}_ci95") for of_run in rows]
        score = _over_seeds(means, [None if b is None else (scale * b[0], scale * b[1]) for b in bounds])
        scores.append(score if scale == 1 else Score(score.mean, *np.clip(score[1:], 0, 100).tolist()))
    return scores


def _rows(data: Mapping[str, Any], measure: Measure, part: str | None) -> Sequence[Mapping[str, Any]]:
    if measure == "trial":
        trials = data.get("trials", {})
        return [trials[part or _OWN]] if (part or _OWN) in trials else []
    if part is None:
        rows: Sequence[Mapping[str, Any]] = data.get("adaptation", [])
        return rows
    of_part: Sequence[Mapping[str, Any]] = {**data.get("splits", {}), **data.get("baselines", {})}.get(part, [])
    return of_part


def _over_seeds(means: np.ndarray, bounds: Sequence[tuple[float, float] | None]) -> Score:
    """Mean over seeds, and an interval over seeds and tasks.

    All seeds are measured on the same tasks, so that what tasks contribute does not shrink with seeds: the width
    over tasks is the seeds' own on average. What seeds contribute is Student's interval of their mean. The two are
    added as variances are.
    """
    mean = float(means.mean())
    known = [bound for bound in bounds if bound is not None]
    if len(known) < len(means):
        return Score(mean, math.nan, math.nan)
    if len(means) == 1:
        return Score(mean, *known[0])
    over_seeds = student_quantile(len(means) - 1) * means.std(ddof=1) / math.sqrt(len(means))
    below = math.hypot(over_seeds, float(np.mean(means - [low for low, _ in known])))
    above = math.hypot(over_seeds, float(np.mean([high for _, high in known] - means)))
    return Score(mean, mean - below, mean + above)


def untrained(evaluations: Sequence[Mapping[str, Any]], measure: Measure) -> Score | None:
    """The score of the untrained agent after the last step."""
    scores = curve(evaluations, measure, _UNTRAINED)
    return scores[-1] if scores else None


def reference(evaluations: Sequence[Mapping[str, Any]], measure: Measure) -> tuple[str, Score] | None:
    """The best of the other baselines after the last step, with its name; None where there is none."""
    names = evaluations[0].get("trials" if measure == "trial" else "baselines", {})
    scores = {name: curve(evaluations, measure, name) for name in names if name not in (_OWN, _UNTRAINED)}
    last = {name: of_name[-1] for name, of_name in scores.items() if of_name}
    if not last:
        return None
    best = (min if measure == "mse" else max)(last, key=lambda name: last[name].mean)
    return best, last[best]
