"""The tables of a comparison in a terminal, 80 columns wide."""

from collections.abc import Mapping, Sequence
from typing import Any

from metarl.experiments.console import say, show_table


def show(numbers: Mapping[str, Any]) -> None:
    """Print a comparison as tables of 80 columns."""
    groups = numbers["groups"]
    say(f"{numbers['benchmark']}, {numbers['num_tasks']} test tasks; intervals of 95% over seeds and tasks")
    with_success = any("success_mean" in group["adaptation"][-1] for group in groups.values())
    columns = ["group", "seeds", "step", "return", "interval", "IQM", *(["success"] if with_success else [])]
    lines = []
    for label, group in groups.items():
        rows = group["adaptation"]
        for row in rows if len(rows) <= 4 else [rows[0], rows[len(rows) // 2], rows[-1]]:
            line = [label, str(len(group["seeds"])), str(row["step"]), f"{row['return_mean']:.1f}"]
            line += [_interval(row["return_ci95"]), f"{row['return_iqm']:.1f}"]
            line += [f"{row['success_mean']:.2f}" if "success_mean" in row else "-"] if with_success else []
            lines.append(line)
    show_table("by adaptation step, or episode of a trial", columns, lines, keys=3)
    if numbers["pairs"]:
        lines = [
            [
                f"{pair['first']} - {pair['second']}",
                f"{pair['difference']:.1f}",
                _interval(pair["difference_ci95"]),
                f"{pair['probability_of_improvement']:.2f}",
                _interval(pair["probability_ci95"], 2),
            ]
            for pair in numbers["pairs"]
        ]
        columns = ["after the last step", "difference", "interval", "P(better)", "interval"]
        show_table("paired on the same tasks", columns, lines)
    if single := [label for label, group in groups.items() if len(group["seeds"]) == 1]:
        say(f"no interval for {', '.join(single)}: one seed says nothing about others")


def _interval(bounds: Sequence[float] | None, digits: int = 1) -> str:
    return "-" if bounds is None else f"[{bounds[0]:.{digits}f}, {bounds[1]:.{digits}f}]"
