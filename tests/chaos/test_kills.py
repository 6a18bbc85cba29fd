"""SIGKILL at random moments: a run that was killed ends in the same bits; `pytest -m chaos -n 0 -s tests/chaos`.

A kill counts if it hit a process that was running. Every run is killed once, every fourth one twice in a row.
Seeds are fixed and printed.
"""

import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from metarl.experiments.study.command import run_study
from tests.chaos.families import FAMILIES, check_same_checkpoint, check_same_run, result, tiny_study, train_words
from tests.chaos.forked import command, fork, run_all, wait_for_session

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore")]

NUM_RUNS = 12
_LIMIT_S = 120.0
_MOST_TRIES = 40

Start = Callable[[Path], Callable[[], int]]
"""What begins a run in a folder, or goes on with it."""


def _train(family: str) -> Start:
    def start(folder: Path) -> Callable[[], int]:
        if (folder / "config.json").exists():
            return lambda: command(["resume", str(folder)])
        assert not folder.exists(), "a folder appears with all that belongs in it"
        return lambda: command([*train_words(family), "--out", str(folder)])

    return start


def _study(folder: Path) -> Callable[[], int]:
    return lambda: run_study("tiny", tiny_study(), folder, {})


def _whole(start: Start, folder: Path, log: Path) -> None:
    """Run to the end, without a traceback."""
    child = fork(start(folder), log)
    assert child.wait(_LIMIT_S) == 0, log.read_text()[-3000:]
    wait_for_session(child.pid)
    assert "Traceback" not in log.read_text(), log.read_text()[-3000:]


def _killed(start: Start, folder: Path, seed: str, took_s: float, num_kills: int) -> dict[str, int]:
    """Kill a run, go on with it, and so on until enough kills have hit, then run it to its end."""
    rng, log = random.Random(seed), folder.with_suffix(".log")
    hits = late = 0
    while hits < num_kills:
        assert late < _MOST_TRIES, f"kills of a run of {took_s:.1f} s came too late {late} times"
        child = fork(start(folder), log)
        if child.kill_after(rng.uniform(0.0, took_s)):
            hits += 1
        else:  # the run is at its end: another one
            shutil.rmtree(folder)
            hits, late = 0, late + 1
        wait_for_session(child.pid)
    _whole(start, folder, log)
    return {"hits": hits, "late": late}


def _kill_runs(
    name: str, start: Start, place: Path, check: Callable[[Path, Path], None], *, limit_s: float
) -> None:
    whole = place / "whole"
    _whole(start, whole, place / "whole.log")  # the first one imports what is imported late
    shutil.rmtree(whole)
    began = time.monotonic()
    _whole(start, whole, place / "whole.log")
    took_s = time.monotonic() - began

    def run(number: int) -> dict[str, int]:
        folder = place / f"killed-{number}"
        done = _killed(start, folder, f"{name} {number}", took_s, 2 if number % 4 == 0 else 1)
        check(whole, folder)
        shutil.rmtree(folder)
        return done

    done = run_all([lambda number=number: run(number) for number in range(NUM_RUNS)], limit_s=limit_s)
    hits, late = (sum(one[key] for one in done) for key in ("hits", "late"))
    assert hits >= NUM_RUNS + 3
    assert not [path.name for path in place.iterdir() if path.name.startswith(".")], "unfinished folders stay"
    print(
        f"\n{name}: {len(done)} runs of {took_s:.1f} s, {hits} SIGKILLs that hit, {late} that came too late; "
        f"the same bits {len(done)} times; {time.monotonic() - began:.0f} s"
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_killed_run_ends_in_the_same_bits(family: str, tmp_path: Path) -> None:
    _kill_runs(family, _train(family), tmp_path, check_same_run, limit_s=300)


def _check_same_study(one: Path, two: Path) -> None:
    assert {p.name for p in one.iterdir()} == {p.name for p in two.iterdir()} - {"run.lock"}
    for name in ("results.json", "study.json"):
        assert result(one / name) == result(two / name)
    for path in one.rglob("*.pt"):
        if "previous" not in path.name:
            check_same_checkpoint(path, two / path.relative_to(one))
    assert not list(two.rglob("*.tmp"))


def test_a_killed_study_ends_in_the_same_results(tmp_path: Path) -> None:
    _kill_runs("study", _study, tmp_path, _check_same_study, limit_s=300)
