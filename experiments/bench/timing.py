"""Measuring contenders side by side: interleaved rounds, medians, and ratios taken within a round.

The speed of a shared machine drifts by tens of per cent in seconds. Contenders therefore take turns, the first
one changing from round to round, and a ratio is the median over the rounds of the ratio within one round.
"""

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import gymnasium
import mujoco
import torch
from torch import Tensor

from metarl.runs.cores import usable_cores

Measurements = dict[str, list[float]]
"""Measures of every round, by contender."""


def interleave(
    contenders: Mapping[str, Callable[[], float]],
    rounds: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Measurements:
    """Let every contender measure itself once per round.

    Args:
        contenders: Functions by name that do their work once and return a measure: seconds, or steps per second.
        rounds: Number of measurements of each contender.
        progress: Function that is called with the numbers of finished and of all measurements.

    Returns:
        Measures of every round, by contender.
    """
    names = list(contenders)
    measured: Measurements = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for place, name in enumerate(names[first:] + names[:first]):
            measured[name].append(contenders[name]())
            progress(turn * len(names) + place + 1, rounds * len(names))
    return measured


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> dict[str, float]:
    """The ratio of two contenders' measures, round by round: median, lowest and highest."""
    ratios = [a / b for a, b in zip(numerators, denominators, strict=True)]
    return {"median": median(ratios), "low": min(ratios), "high": max(ratios)}


def ratio_cells(summary: dict[str, float] | None) -> list[str]:
    """A ratio as two cells of a table: the median, and the lowest and highest; blank if there is none."""
    if summary is None:
        return ["", ""]
    return [f"{summary['median']:.2f}", f"[{summary['low']:.2f}, {summary['high']:.2f}]"]


def seconds_per_call(work: Callable[[], object], *, at_least_s: float = 0.0) -> float:
    """Mean duration of a call, over as many calls as fill `at_least_s` seconds, and at least one."""
    calls = 0
    began = time.perf_counter()
    while True:
        work()
        calls += 1
        elapsed = time.perf_counter() - began
        if elapsed >= at_least_s:
            return elapsed / calls


def relative_difference(vector: Tensor, reference: Tensor) -> float:
    """The distance of two vectors over the length of the second."""
    return float((vector - reference).norm() / reference.norm())


def machine() -> dict[str, Any]:
    """Processor, number of cores, versions and load of the machine that measures."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": usable_cores(),
        "torch_threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "mujoco": mujoco.__version__,
        "gymnasium": gymnasium.__version__,
        "load_average": os.getloadavg()[0],
    }
