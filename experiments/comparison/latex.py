"""The table of a comparison in LaTeX, with booktabs."""

from collections.abc import Mapping, Sequence
from typing import Any

_SPECIAL = str.maketrans({c: f"\\{c}" for c in "&%$#_{}"})


def table(numbers: Mapping[str, Any]) -> str:
    """First and last adaptation step of every group, with intervals; the best last return is bold."""
    groups = numbers["groups"]
    best = max(groups, key=lambda label: float(groups[label]["adaptation"][-1]["return_mean"]))
    with_success = any("success_mean" in group["adaptation"][-1] for group in groups.values())
    heads = ["", "seeds", "before", "after", "IQM after", *(["success"] if with_success else [])]
    lines = [
        "% \\usepackage{booktabs}",
        f"\\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
        "\\toprule",
        f"{' & '.join(heads)} \\\\",
        "\\midrule",
    ]
    for label, group in groups.items():
        first, last = group["adaptation"][0], group["adaptation"][-1]
        cells = [label.translate(_SPECIAL), str(len(group["seeds"])), _cell(first, "return")]
        cells += [_cell(last, "return", bold=label == best), _cell(last, "return_iqm")]
        cells += [_cell(last, "success", digits=2)] if with_success else []
        lines.append(f"{' & '.join(cells)} \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def _cell(row: Mapping[str, Any], name: str, *, digits: int = 1, bold: bool = False) -> str:
    key = name if name.endswith("iqm") else f"{name}_mean"
    if key not in row:
        return "--"
    value = f"{row[key]:.{digits}f}"
    value = f"\\mathbf{{{value}}}" if bold else value
    bounds: Sequence[float] | None = row[f"{name}_ci95"]
    return f"${value}$" if bounds is None else f"${value}$ [${bounds[0]:.{digits}f}$, ${bounds[1]:.{digits}f}$]"
