"""Tables and numbers of a page in Markdown."""

import math
from collections.abc import Mapping, Sequence

from metarl.experiments.evidence.entries import Score
from metarl.experiments.report.page import number


def table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """The lines of a table; a column that is empty in all rows is left out.

    Args:
        rows: Cells by the name of their column; all rows have all columns, in one order.
    """
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    lines = [_line(columns), "|---" * len(columns) + "|"]
    return [*lines, *(_line([row[name] for name in columns]) for row in rows)]


def _line(cells: Sequence[str]) -> str:
    texts = [" ".join(cell.split()).replace("|", r"\|") for cell in cells]
    return f"| {' | '.join(texts)} |"


def score(value: Score | None) -> str:
    """A score with its interval; empty for none."""
    if value is None:
        return ""
    bounds = "" if math.isnan(value.low) else f" [{number(value.low)}, {number(value.high)}]"
    return f"{number(value.mean)}{bounds}"


def duration(seconds: float) -> str:
    """Minutes and seconds, or hours and minutes from an hour on."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d}"
    return f"{whole // 60}:{whole % 60:02d}"


def amount(count: int) -> str:
    """A count in millions or thousands, with three digits at most."""
    for unit, letter in ((10**6, " M"), (10**3, " k")):
        if count >= unit:
            return f"{count / unit:.3g}{letter}"
    return str(count) if count else ""


def slug(title: str) -> str:
    """The anchor that a heading has in rendered Markdown."""
    return "".join(c for c in title.lower().replace(" ", "-") if c.isalnum() or c in "-_")
