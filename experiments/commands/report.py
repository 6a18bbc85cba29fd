"""metarl report DIR...: one HTML file on runs or a study, which needs neither a network nor scripts."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from metarl.experiments.agent_run import AgentRun
from metarl.experiments.arguments import UsageError, check_new, parse
from metarl.experiments.comparison import figures
from metarl.experiments.comparison.grouping import run_folders
from metarl.experiments.console import Waiting, say
from metarl.experiments.loading import open_run
from metarl.experiments.report.build import build
from metarl.experiments.report.studies import is_study
from metarl.experiments.runs import EVALUATION
from metarl.experiments.video import FOLDER, FilmSettings, check_film, film_tasks, free_film, write_film
from metarl.runs.files import atomic_write


@dataclass(frozen=True)
class ReportArguments:
    """Write one HTML file on runs, on groups of runs that differ by their seeds, or on a study.

    Attributes:
        folders: Run folders, folders of runs that differ by their seeds, or the folder of one study.
        out: New file to write, ending in .html; by default report.html in the folder, or here for several folders,
            with a number where that exists.
        title: Title of the page; by default the names of what it is on.
        video: Whether to film the first run of each group, beside the films that already lie in run folders.
        evaluation: File name of the evaluation in each run folder.
    """

    folders: tyro.conf.Positional[tuple[Path, ...]]
    out: Path | None = None
    title: str | None = None
    video: bool = False
    evaluation: str = EVALUATION

    def __post_init__(self) -> None:
        if self.out is not None and self.out.suffix != ".html":
            raise ValueError(f"--out must end in .html, got {self.out}")


def command(words: list[str]) -> int:
    """Run `metarl report`; returns the exit status."""
    arguments = parse(ReportArguments, words, "metarl report")
    if not arguments.folders:
        raise UsageError("report needs run folders, folders of runs, or a study's folder: metarl report DIR ...")
    check_new(arguments.out, "--out")
    if not figures.can_draw():
        raise UsageError('a report needs matplotlib: pip install "metarl-toolkit[report]"')
    again = " ".join(["metarl report", *map(shlex.quote, words)])
    if arguments.video:
        _film(arguments.folders)
    with Waiting("writing the report"):
        content = build(arguments.folders, command=again, title=arguments.title, evaluation=arguments.evaluation)
    out = arguments.out or _free(arguments.folders)
    atomic_write(out, content)
    say(f"written to {out}, {len(content) / 2**20:.1f} MiB; open it in a browser")
    return 0


def _film(folders: Sequence[Path]) -> None:
    """Film the first run of each folder on two distinct test tasks, as `metarl video` does."""
    if any(is_study(folder) for folder in folders):
        raise UsageError("a study has no run to film; film the runs in its folder with metarl video")
    for folder in folders:
        run = open_run(run_folders(folder)[0])
        if not isinstance(run, AgentRun):
            raise UsageError(f"{run.folder} is a few-shot run, which has no environment to film")
        out = free_film(run.folder / FOLDER)
        check_film(out)
        evaluation = run.experiment.evaluation
        settings = FilmSettings(min(2, evaluation.num_steps), evaluation.num_episodes, run.experiment.horizon)
        chosen = list(dict.fromkeys(run.test_tasks))[:2]
        with Waiting(f"filming {run.folder}"):
            _, pictures, fps = film_tasks(run.agent(), run.benchmark.test, chosen, settings, name=run.name)
        out.parent.mkdir(exist_ok=True)
        write_film(out, pictures, fps)


def _free(folders: tuple[Path, ...]) -> Path:
    """The first report.html, report-2.html, ... that is not there yet."""
    folder = folders[0] if len(folders) == 1 else Path()
    names = ("report.html" if count == 1 else f"report-{count}.html" for count in range(1, 10**6))
    return next(folder / name for name in names if not (folder / name).exists())
