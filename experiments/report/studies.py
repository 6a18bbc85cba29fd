"""The report of a study: every learner on the same held-out tasks."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metarl.experiments import configuration
from metarl.experiments.presets.studies import STUDIES
from metarl.experiments.report.agents import task_name
from metarl.experiments.report.drawings import figure
from metarl.experiments.report.origin import configuration as configured
from metarl.experiments.report.origin import versions
from metarl.experiments.report.page import (
    Node,
    Row,
    Section,
    code,
    definitions,
    folded,
    heading,
    interval,
    node,
    number,
    paragraph,
    table,
)
from metarl.experiments.report.settings import Described, as_text
from metarl.experiments.study.figure import draw_set
from metarl.runs.reading import read_json

STUDY, RESULTS = "study.json", "results.json"
_NUM_WORST = 3  # tasks of each learner


def is_study(folder: Path) -> bool:
    """Whether a folder is a study's."""
    return (folder / STUDY).is_file()


def study_sections(folder: Path, command: str) -> tuple[str, list[Node], list[Section]]:
    """The title, the summary and the sections of a study's report.

    Args:
        folder: Folder of the study.
        command: Command that wrote this report.

    Raises:
        ValueError: if the study is not finished, or a file is malformed.
    """
    if not (folder / RESULTS).is_file():
        raise ValueError(f"{folder} has no {RESULTS}; finish the study with the command that began it, and --out")
    study, results = read_json(folder / STUDY, "study"), read_json(folder / RESULTS, "results")
    try:
        sections = [_learners(results)]
        sections += [_set(key, held_out, results) for key, held_out in results["sets"].items()]
        sections += [_worst(results), _how(study), _again(folder, study, results, command)]
        summary = [
            paragraph(f"{len(results['learners'])} learners on {results['benchmark']}, seed {results['seed']}; "
                      f"{results['disjoint']}."),
            *[_headline(key, held_out) for key, held_out in results["sets"].items()],
        ]  # fmt: skip
        return f"Study {results['study']}", summary, sections
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"{folder} is no finished study ({type(error).__name__} {error})") from error


def _headline(key: str, held_out: Mapping[str, Any]) -> Node:
    last = {name: measured["adaptation"][-1]["return_mean"] for name, measured in held_out["learners"].items()}
    best = sorted(last, key=lambda name: -last[name])[:3]
    named = ", ".join(f"{name} {number(last[name])}" for name in best)
    return paragraph(node("strong", None, key), f": after adaptation the greatest returns are {named}.")


def _learners(results: Mapping[str, Any]) -> Section:
    rows = [
        [
            f"{name} (observes the task)" if name == results["oracle"] else name,
            f"{each['train_env_steps']:,}",
            f"{each['adaptation_env_steps']:,}",
            f"{each['train_wall_s'] / 60:.1f}",
        ]
        for name, each in results["learners"].items()
    ]
    columns = ["learner", "environment steps", "at most, per task", "minutes"]
    caption = "Learners: environment steps of training, of adaptation to a task, and minutes of training"
    return Section("Learners", [table(caption, columns, rows)])


def _set(key: str, held_out: Mapping[str, Any], results: Mapping[str, Any]) -> Section:
    rows: list[Row] = []
    for name, measured in held_out["learners"].items():
        points = measured["adaptation"]
        for row in [points[0], points[-1]][: len(points)]:
            rows.append(
                [
                    name,
                    str(row["episodes"]),
                    _seconds(row.get("robot_time_s_at_most")),
                    number(row["return_mean"]),
                    interval(row["return_ci95"]),
                    number(row["return_worst_decile"]),
                    number(row["regret_mean"]),
                    interval(row["regret_ci95"]),
                ]
            )
    columns = ["learner", "episodes", "robot time", "return", "95% interval", "CVaR, worst 10%", "regret"]
    columns.append("95% interval")
    caption = f"{key}: return and regret before adaptation and after all of it, intervals over tasks"
    last = {name: measured["adaptation"][-1] for name, measured in held_out["learners"].items()}
    texts = [
        f"{name} reaches {number(row['return_mean'])} after {row['episodes']} episodes"
        for name, row in last.items()
    ]
    drawn = figure(
        f"set-{list(results['sets']).index(key)}",
        lambda axis: draw_set(axis, held_out, results["oracle"]),
        alternative=f"Return against adaptation episodes on the tasks of {key}. {'; '.join(texts)}.",
        caption=["Return against adaptation episodes", ", 95% intervals over tasks, one seed."],
        num_labels=len(last),
    )
    meaning = paragraph(f"{held_out['num_tasks']} tasks: {held_out['meaning']}.")
    section = Section(f"Held-out tasks: {key}")
    section.content = [meaning, node("div", {"class": "figures"}, drawn), table(caption, columns, rows)]
    return section


def _seconds(time_s: float | None) -> str:
    """Robot time; a dash in older studies, which did not write it."""
    return "-" if time_s is None else f"{time_s:.0f} s"


def _worst(results: Mapping[str, Any]) -> Section:
    section = Section("Worst tasks")
    for key, held_out in results["sets"].items():
        rows: list[Row] = []
        for name, measured in held_out["learners"].items():
            worst = sorted(measured["tasks"], key=lambda task: -task["regret"][-1])[:_NUM_WORST]
            for task in worst:
                wide = node("span", {"class": "text"}, task_name(task))
                rows.append([name, wide, number(task["return_mean"][-1]), number(task["regret"][-1])])
        caption = f"{key}: the {_NUM_WORST} tasks of greatest regret after adaptation, of each learner"
        section.content.append(table(caption, ["learner", "task", "return", "regret"], rows, text_columns=2))
    return section


def _how(study: Mapping[str, Any]) -> Section:
    section = Section("What was trained, and how")
    sizes = [("Benchmark", str(study["benchmark"])), ("Seed", str(study["seed"]))]
    numbers = {"Tasks of every set": "num_tasks", "Episodes at most": "num_episodes", "Trials": "num_trials"}
    sizes += [(name, str(study[key])) for name, key in numbers.items()]
    section.content.append(definitions(sizes))
    for name, data in study["learners"].items():
        try:
            experiment = configuration.decode(data)
        except (ValueError, TypeError, KeyError):
            experiment = None
        section.content.append(heading(name))
        section.content += configured(name, Described(Path(), name, "rl", data, experiment, {}, {}))
    if study["stable"] is not None:
        section.content.append(folded("Stable-Baselines3's PPO", code(as_text(study["stable"]))))
    return section


def _again(folder: Path, study: Mapping[str, Any], results: Mapping[str, Any], command: str) -> Section:
    words = ["metarl study", shlex.quote(str(study["name"])), f"--seed {study['seed']}"]
    known = STUDIES.get(str(study["name"]))
    if known is not None:
        for name in ("benchmark", "num_tasks", "num_episodes", "num_trials"):
            if getattr(known.configuration, name) != study[name]:
                words.append(f"--{name.replace('_', '-')} {shlex.quote(str(study[name]))}")
    words += [f"--runs {shlex.quote(f'{name}={path}')}" for name, path in study["runs"].items()]
    section = Section("Commands and versions that repeat it")
    numbers = results["versions"]
    section.content = [code("\n".join([" ".join(words), command])), versions({str(folder): numbers})]
    return section
