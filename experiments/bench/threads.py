"""Threads: what an update costs alone, and beside one busy process per core, by how torch's threads wait.

Torch computes on OpenMP threads, which wait for each other at the end of every parallel loop. By default they spin
for some milliseconds before they sleep. That is fast on an idle machine; beside other work a thread spins while
the one that it waits for has no core. Every setting is measured in processes of its own, because libgomp reads its
settings when it is loaded; settings take turns. No setting but the number of threads changes a result.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from metarl.experiments.bench.timing import machine
from metarl.experiments.bench.updates import UpdateSizes
from metarl.experiments.console import Waiting, say, show_table
from metarl.runs.cores import WorkerError, usable_cores

SETTINGS: dict[str, dict[str, str]] = {
    "libgomp's own": {},
    "spins 0": {"GOMP_SPINCOUNT": "0"},
    "spins 100": {"GOMP_SPINCOUNT": "100"},
    "spins 1,000": {"GOMP_SPINCOUNT": "1000"},
    "spins 10,000": {"GOMP_SPINCOUNT": "10000"},
    "spins 30,000": {"GOMP_SPINCOUNT": "30000"},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
"""Environment variables by setting; the first is what others are compared with."""

_PREFIXES = ("OMP_", "GOMP_", "MKL_NUM", "MKL_DYN", "KMP_")
_BUSY = "while True: pass"

Seconds = dict[str, float]
"""Seconds per update by the kind of the update."""


def bench(
    repeats: int, sizes: UpdateSizes | None = None, settings: Mapping[str, Mapping[str, str]] = SETTINGS
) -> dict[str, Any]:
    """Measure all settings, show a table of ratios and return the same, and the seconds, as JSON types."""
    sizes = sizes or UpdateSizes()
    names = list(settings)
    rounds: dict[str, dict[str, list[Seconds]]] = {name: {"alone": [], "beside": []} for name in names}
    with Waiting("threads, measurement") as waiting:
        for turn in range(repeats):
            first = turn % len(names)
            for place, name in enumerate(names[first:] + names[:first]):
                alone, beside = _measure(settings[name], sizes)
                rounds[name]["alone"].append(alone)
                rounds[name]["beside"].append(beside)
                waiting.progress(turn * len(names) + place + 1, repeats * len(names))
    seconds = {
        name: {place: _medians(measured) for place, measured in places.items()} for name, places in rounds.items()
    }
    reference = seconds[names[0]]["alone"]
    ratios = {
        name: {place: {kind: s[kind] / reference[kind] for kind in s} for place, s in places.items()}
        for name, places in seconds.items()
    }
    _show(ratios, reference)
    return {
        "bench": "threads",
        "repeats": repeats,
        "machine": machine(),
        "settings": {name: dict(variables) for name, variables in settings.items()},
        "seconds": seconds,
        "ratios": ratios,
        "rounds": rounds,
    }


def _measure(setting: Mapping[str, str], sizes: UpdateSizes) -> tuple[Seconds, Seconds]:
    """Seconds per update in a fresh process, alone and beside one busy process per core."""
    # Nothing that the command line or the user has set: each setting is measured as it stands in the table.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_PREFIXES)}
    command = [sys.executable, "-m", "metarl.experiments.bench.updates", json.dumps(vars(sizes))]
    process = subprocess.Popen(
        command, env=inherited | dict(setting), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        _answer(process)  # it is ready
        alone = _ask(process)
        with busy_processes(usable_cores()):
            beside = _ask(process)
    return alone, beside


def _ask(process: "subprocess.Popen[str]") -> Seconds:
    assert process.stdin is not None
    print(file=process.stdin, flush=True)
    return _answer(process)


def _answer(process: "subprocess.Popen[str]") -> Seconds:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise WorkerError("the process that measures has ended before its answer; its message stands above")
    answer: Seconds = json.loads(line)
    return answer


@contextlib.contextmanager
def busy_processes(number: int) -> Iterator[None]:
    """Processes that each keep a core busy."""
    processes = [subprocess.Popen([sys.executable, "-S", "-E", "-c", _BUSY]) for _ in range(number)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _medians(rounds: Sequence[Seconds]) -> Seconds:
    return {kind: median(seconds[kind] for seconds in rounds) for kind in rounds[0]}


def _show(ratios: Mapping[str, Mapping[str, Seconds]], reference: Seconds) -> None:
    """A table with two ratios in a cell: alone, and beside busy processes."""
    rows = [
        [name, *(f"{places['alone'][kind]:.2f} {places['beside'][kind]:6.2f}" for kind in reference)]
        for name, places in ratios.items()
    ]
    say("time of an update, alone and beside one busy process per core, over the first")
    title = "setting's alone: " + ", ".join(f"{kind} {own:.2f} s" for kind, own in reference.items())
    show_table(title, ["setting", *reference], rows)
