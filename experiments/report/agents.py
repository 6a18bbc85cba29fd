"""The parts of a report on runs of agents: what they reach, on which tasks, and how they learned it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metarl.experiments.comparison.figures import Regions, drawings
from metarl.experiments.comparison.records import Group
from metarl.experiments.report.drawings import figure
from metarl.experiments.report.page import (
    NONE,
    Content,
    Node,
    Row,
    Section,
    heading,
    interval,
    node,
    number,
    paragraph,
    table,
    thinned,
)

Numbers = Mapping[str, Any]
_MOST_DISTINCT = 12  # tasks that each get a row of their own
_NUM_WORST = 10
_NUM_POINTS = 10  # of a learning curve, in its table
_MOST_STEPS = 6  # of an adaptation curve, in its table


@dataclass(frozen=True)
class Measured:
    """Measurements of the runs of agents that a report is on.

    Attributes:
        groups: Groups of runs.
        numbers: Numbers of `metarl.experiments.comparison.summary.summarise`.
        evaluations: Contents of evaluation.json, of every run of every group.
        training: Region of the training tasks; None if it is not known.
    """

    groups: Sequence[Group]
    numbers: Numbers
    evaluations: Sequence[Sequence[Mapping[str, Any]]]
    training: Regions | None

    @property
    def sequential(self) -> bool:
        """Whether a step is an episode of a trial for all of them."""
        return all(run.sequential for group in self.groups for run in group.runs)


def with_task_intervals(numbers: Numbers, evaluations: Sequence[Sequence[Mapping[str, Any]]]) -> Numbers:
    """The numbers, in which a group of one seed has the intervals over tasks that its evaluation has."""
    groups = dict(numbers["groups"])
    for (label, group), of_group in zip(numbers["groups"].items(), evaluations, strict=True):
        if len(of_group) == 1:
            rows = of_group[0].get("adaptation", [])
            names = ("return_ci95", "success_ci95")
            groups[label] = group | {
                "adaptation": [
                    own | {name: measured[name] for name in names if name in measured and name in own}
                    for own, measured in zip(group["adaptation"], rows, strict=True)
                ]
            }
    return {**numbers, "groups": groups}


def headline(measured: Measured) -> list[Node]:
    """One sentence for each group: what it reaches, after how much."""
    lines = []
    for label, group in measured.numbers["groups"].items():
        first, last = group["adaptation"][0], group["adaptation"][-1]
        seeds, steps = len(group["seeds"]), max(group["env_steps"])
        lines.append(
            paragraph(
                node("strong", None, label),
                f", {seeds} seed{'s' * (seeds > 1)} of {steps:,} environment steps: return ",
                node("strong", None, f"{number(first['return_mean'])} \N{RIGHTWARDS ARROW} "
                     f"{number(last['return_mean'])}"),
                f" {_moment(last['step'], sequential=group['sequential'])}, on {measured.numbers['num_tasks']} "
                "test tasks.",
            )
        )  # fmt: skip
    return lines


def results(measured: Measured) -> Section:
    """Returns by adaptation step, beside the baselines, and between groups."""
    numbers = measured.numbers
    section = Section("Results")
    section.content.append(_adaptation_table(numbers, measured))
    if baselines := _baselines(measured):
        section.content.append(baselines)
    if numbers["pairs"]:
        rows = [
            [
                f"{pair['first']} against {pair['second']}",
                number(pair["difference"]),
                interval(pair["difference_ci95"]),
                f"{pair['probability_of_improvement']:.2f}",
                interval(pair["probability_ci95"]),
            ]
            for pair in numbers["pairs"]
        ]
        columns = ["after the last step", "difference", "95% interval", "P(better)", "95% interval"]
        section.content.append(table("Paired differences on the same tasks", columns, rows))
    return section


def curves(measured: Measured) -> list[Section]:
    """The sections with the figures: adaptation, learning, and tasks."""
    draws = drawings(measured.numbers, measured.groups, measured.training)
    adaptation = [_figure("adaptation", draws, measured), _figure("profile", draws, measured)]
    learning = [_figure("learning_steps", draws, measured), _figure("learning_time", draws, measured)]
    by_parameter = [_figure(name, draws, measured) for name in draws if name.startswith("return_by_")]
    sections = [Section("Adaptation"), Section("Learning"), Section("Tasks")]
    for section, figures in zip(sections, (adaptation, learning, by_parameter), strict=True):
        if figures:
            section.content.append(node("div", {"class": "figures"}, *figures))
    sections[2].content[:0] = [_kinds_of_tasks(group) for group in measured.groups]
    return sections


def worst_tasks(measured: Measured) -> Section:
    """The tasks on which the groups are worst after adaptation."""
    section = Section("Worst tasks")
    for group in measured.groups:
        returns, successes, tasks = group.returns.mean(0), group.successes, group.runs[0].tasks
        places: dict[str, list[int]] = {}
        for place, task in enumerate(tasks):
            places.setdefault(str(task), []).append(place)
        one_family = len({task["family"] for task in tasks}) == 1
        if len(places) <= _MOST_DISTINCT and one_family:  # each has a row among the tasks above
            continue
        order = sorted(places.values(), key=lambda own: float(returns[-1, own].mean()))[:_NUM_WORST]
        rows: list[Row] = []
        for own in order:
            row: list[Content] = [_wide(task_name(tasks[own[0]]))]
            row += [number(float(returns[step, own].mean())) for step in (0, -1)]
            rows.append(row + ([] if successes is None else [f"{successes[:, -1, own].mean():.2f}"]))
        columns = ["task", "return before", "after", *([] if successes is None else ["success after"])]
        which = f"the {len(rows)} of {len(places)} tasks with the lowest return after adaptation"
        section.content.append(table(f"{group.label}: {which}", columns, rows))
    if section.content:
        note = "These tasks were chosen by the episodes that measured them: their returns are a little too low."
        section.content.append(node("p", {"class": "soft"}, note))
    return section


def task_name(task: Mapping[str, Any]) -> str:
    """A task in words: its family where that says more than its numbers, and its numbers."""
    numbers = [
        f"{name} = {', '.join(map(number, value)) if isinstance(value, list) else number(value)}"
        for name, value in task["params"].items()
    ]
    family = task["family"].rpartition("/")
    return "; ".join([family[2]] * bool(family[0] or not numbers) + numbers)


def _wide(text: str) -> Node:
    return node("span", {"class": "text"}, text)


def _moment(step: int, *, sequential: bool) -> str:
    if sequential:
        return f"in episode {step + 1} of a trial"
    return "after 1 adaptation step" if step == 1 else f"after {step} adaptation steps"


def _over(measured: Measured) -> str:
    """What the intervals are over, in words."""
    counts = {len(group.runs) for group in measured.groups}
    if counts == {1}:
        return "95% intervals over tasks, of one seed"
    return "95% intervals over seeds and tasks" + ("; over tasks where there is one seed" if 1 in counts else "")


def _adaptation_table(numbers: Numbers, measured: Measured) -> Node:
    with_success = any("success_mean" in group["adaptation"][-1] for group in numbers["groups"].values())
    alone = len(numbers["groups"]) == 1
    columns = [] if alone else ["agent"]
    columns += ["episode" if measured.sequential else "step", "return", "95% interval", "IQM"]
    columns += ["success", "95% interval"] if with_success else []
    rows: list[Row] = []
    for label, group in numbers["groups"].items():
        for row in thinned(group["adaptation"], _MOST_STEPS):
            step = row["step"] + 1 if measured.sequential else row["step"]
            line: list[Content] = [*([] if alone else [label]), str(step), number(row["return_mean"])]
            line += [interval(row["return_ci95"]), number(row["return_iqm"])]
            if with_success:
                has = "success_mean" in row
                line += [
                    f"{row['success_mean']:.2f}" if has else NONE,
                    interval(row["success_ci95"] if has else None),
                ]
            rows.append(line)
    what = "episode of a trial" if measured.sequential else "adaptation step"
    caption = f"Return by {what} on {numbers['num_tasks']} test tasks; {_over(measured)}; IQM: interquartile mean"
    return table(caption, columns, rows)


def _baselines(measured: Measured) -> Node | None:
    """Means over seeds of the baselines, before and after."""
    rows: list[Row] = []
    for group, of_group in zip(measured.groups, measured.evaluations, strict=True):
        for name in of_group[0].get("baselines", {}):
            curves_ = [each["baselines"][name] for each in of_group if name in each.get("baselines", {})]
            means = [float(np.mean([rows_[step]["return_mean"] for rows_ in curves_])) for step in (0, -1)]
            own = name if len(measured.groups) == 1 else f"{name} ({group.label})"
            rows.append([own, *map(number, means)])
    if not rows:
        return None
    return table("Baselines on the same tasks, means over seeds", ["policy", "return before", "after"], rows)


def _kinds_of_tasks(group: Group) -> Node:
    """Returns by family of tasks, or by task where there are few."""
    tasks, returns, successes = group.runs[0].tasks, group.returns.mean(0), group.successes
    families = list(dict.fromkeys(task["family"] for task in tasks))
    names = [task_name(task) for task in tasks]
    by_task = len(families) == 1 and len(set(names)) <= _MOST_DISTINCT
    kinds = names if by_task else [task["family"] for task in tasks]
    columns = ["task" if by_task else "family", "tasks", "return before", "after", "worst", "median", "best"]
    columns += [] if successes is None else ["success before", "after"]
    rows: list[Row] = []
    for kind in dict.fromkeys(kinds):
        own = [place for place, name in enumerate(kinds) if name == kind]
        after = returns[-1, own]
        line: list[Content] = [_wide(kind), str(len(own)), number(float(returns[0, own].mean()))]
        line += [number(float(x)) for x in (after.mean(), after.min(), np.median(after), after.max())]
        if successes is not None:
            line += [f"{successes[:, step, own].mean():.2f}" for step in (0, -1)]
        rows.append(line)
    by = "task" if by_task else "task family"
    return table(f"{group.label}: return by {by}, before adaptation and after", columns, rows)


def _figure(name: str, draws: Mapping[str, Any], measured: Measured) -> Node:
    groups = measured.numbers["groups"]
    texts = _texts(name, measured)
    return figure(
        name.replace("_", "-"),
        draws[name],
        alternative=f"{texts[0]}. {texts[1]}",
        caption=[texts[0], f". {_band(name, measured)}"],
        num_labels=len(groups),
        numbers=_curve_numbers(name, measured),
    )


def _band(name: str, measured: Measured) -> str:
    """What the band around a curve, or a point, is."""
    count = sorted({len(group.runs) for group in measured.groups})
    n = "1 seed" if count == [1] else f"n = {' to '.join(str(c) for c in sorted({count[0], count[-1]}))} seeds"
    tasks = f"{measured.numbers['num_tasks']} test tasks"
    if name.startswith("learning"):
        return f"{n}, no band." if count == [1] else f"Mean and 95% interval over seeds, {n}."
    if name == "adaptation":
        return f"Mean, {_over(measured)}; {n}, {tasks}."
    if name == "profile":
        return f"{n}, {tasks}." if count == [1] else f"Mean, and range over seeds; {n}, {tasks}."
    shaded = "; the training range is shaded" if measured.training else ""
    return f"A point per task, mean over seeds{shaded}; {n}."


def _texts(name: str, measured: Measured) -> tuple[str, str]:
    """The title of a figure, and what it shows, in words."""
    groups = measured.numbers["groups"]
    if name.startswith("learning"):
        over = "env_steps" if name == "learning_steps" else "wall_s"
        unit = "environment steps" if over == "env_steps" else "seconds"
        parts = []
        for label, group in groups.items():
            curve = group["learning"][over]
            begin, end = (f"{number(curve['mean'][i])} at {curve['x'][i]:,.0f} {unit}" for i in (0, -1))
            parts.append(f"{label} goes from {begin} to {end}")
        title = f"Learning curve over {'environment steps' if over == 'env_steps' else 'wall time'}"
        return title, f"{'; '.join(parts)}."
    if name == "adaptation":
        parts = [
            f"{label} goes from {number(rows[0]['return_mean'])} to {number(rows[-1]['return_mean'])} "
            f"{_moment(rows[-1]['step'], sequential=group['sequential'])}"
            for label, group in groups.items()
            for rows in [group["adaptation"]]
        ]
        return "Adaptation curve", f"{'; '.join(parts)}."
    last = {group.label: group.returns[:, -1] for group in measured.groups}
    if name == "profile":
        parts = [
            f"half of {label}'s are above {number(float(np.median(values)))}" for label, values in last.items()
        ]
        return "Share of tasks above a return", f"Of the returns after adaptation, {'; '.join(parts)}."
    parts = [
        f"{label}'s lie between {number(float(values.mean(0).min()))} and {number(float(values.mean(0).max()))}"
        for label, values in last.items()
    ]
    return f"Return after adaptation by {name.removeprefix('return_by_')}", f"Returns of {'; '.join(parts)}."


def _curve_numbers(name: str, measured: Measured) -> tuple[Sequence[str], Sequence[Row]] | None:
    """The table of a learning curve; the other figures' numbers stand in tables of their own."""
    if not name.startswith("learning"):
        return None
    over, unit = ("env_steps", "environment steps") if name == "learning_steps" else ("wall_s", "seconds")
    rows: list[Row] = []
    for label, group in measured.numbers["groups"].items():
        curve = group["learning"][over]
        for place in thinned(range(len(curve["x"])), _NUM_POINTS):
            bounds = None if curve["low"] is None else [curve["low"][place], curve["high"][place]]
            rows.append([label, f"{curve['x'][place]:,.0f}", number(curve["mean"][place]), interval(bounds)])
    return ["agent", unit, "return", "95% interval over seeds"], rows


def details(measured: Measured) -> list[Node]:
    """The amount of training of each run."""
    rows = [
        [f"{label}, seed {seed}", folder, f"{steps:,}", _time(seconds)]
        for label, group in measured.numbers["groups"].items()
        for seed, steps, seconds, folder in zip(
            group["seeds"], group["env_steps"], group["wall_s"], group["folders"], strict=True
        )
    ]
    return [
        heading("Runs"),
        table("Runs of this report", ["run", "folder", "environment steps", "time"], rows, text_columns=2),
    ]


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 7200 else f"{seconds / 60:.1f} min"
