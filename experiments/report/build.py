"""A report of run folders, of groups of them, or of a study, as one HTML file."""

from collections.abc import Sequence
from pathlib import Path

from metarl.experiments.comparison.grouping import run_folders
from metarl.experiments.comparison.records import read_groups
from metarl.experiments.comparison.regions import training_regions
from metarl.experiments.comparison.summary import summarise
from metarl.experiments.evaluations import read_evaluation
from metarl.experiments.report import agents, learners
from metarl.experiments.report.films import films
from metarl.experiments.report.origin import Groups, footer, repeated, trained
from metarl.experiments.report.page import Section, page, paragraph
from metarl.experiments.report.settings import described
from metarl.experiments.report.studies import is_study, study_sections
from metarl.experiments.runs import EVALUATION, read_config


def build(
    folders: Sequence[Path], *, command: str, title: str | None = None, evaluation: str = EVALUATION
) -> bytes:
    """The HTML of a report.

    Args:
        folders: Folders of runs, or of runs that differ by their seeds; or the folder of one study.
        command: Command that wrote this report, for those who repeat it.
        title: Title of the page; by default the names of what it is on.
        evaluation: File name of the evaluation in each run folder.

    Raises:
        ValueError: if a folder holds no run, or the runs cannot be compared.
    """
    if any(is_study(folder) for folder in folders):
        if len(folders) > 1:
            raise ValueError(f"a report is of one study or of runs; got {len(folders)} folders, one of a study")
        name, summary, sections = study_sections(folders[0], command)
        return page(title or name, summary, sections, footer())
    kinds = {read_config(run)["kind"] for folder in folders for run in run_folders(folder)}
    if len(kinds) > 1:
        raise ValueError("a report is of runs of agents or of few-shot runs, got both; write one of each")
    if kinds == {"rl"}:
        return _of_agents(folders, command, title, evaluation)
    groups = learners.read_learners(folders, evaluation)
    origins: Groups = {group.label: [described(folder) for folder in group.folders] for group in groups}
    sections = [learners.results(groups), *learners.curves(groups), *_ending(origins, command)]
    return page(title or _title(origins), learners.headline(groups), sections, footer())


def _of_agents(folders: Sequence[Path], command: str, title: str | None, evaluation: str) -> bytes:
    groups = read_groups(folders, evaluation)
    evaluations = [[read_evaluation(run.folder / evaluation) for run in group.runs] for group in groups]
    numbers = agents.with_task_intervals(summarise(groups), evaluations)
    measured = agents.Measured(groups, numbers, evaluations, training_regions(folders))
    origins: Groups = {group.label: [described(run.folder) for run in group.runs] for group in groups}
    sections: list[Section] = [
        agents.results(measured),
        films([run.folder for group in groups for run in group.runs]),
        *agents.curves(measured),
        agents.worst_tasks(measured),
        *_ending(origins, command),
    ]
    sections[-1].content += agents.details(measured)
    summary = agents.headline(measured)
    if any(len(group.runs) == 1 for group in groups):
        summary.append(
            paragraph("One seed says nothing about others: intervals of one seed are over tasks alone.")
        )
    return page(title or _title(origins), summary, sections, footer())


def _ending(origins: Groups, command: str) -> list[Section]:
    return [trained(origins), repeated(origins, command)]


def _title(origins: Groups) -> str:
    """The names of groups; a group's folder may be called anything, so that its experiment is named too."""
    names = [label if label == runs[0].name else f"{label} ({runs[0].name})" for label, runs in origins.items()]
    return names[0] if len(names) == 1 else f"Comparison of {', '.join(names[:-1])} and {names[-1]}"
