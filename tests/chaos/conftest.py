"""Imports what commands import, once, so that no forked child has to."""

import contextlib
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from metarl.experiments.study.command import run_study
from tests.chaos.families import FAMILIES, tiny_study, train_words
from tests.chaos.forked import command, fork


@pytest.fixture(scope="session", autouse=True)
def warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Run a command of every kind in a child, and import here what it imported."""
    place = tmp_path_factory.mktemp("warm")

    def names_of(calls: list[Callable[[], int]]) -> Callable[[], int]:
        def called() -> int:
            statuses = [call() for call in calls]
            (place / "names.json").write_text(json.dumps(list(sys.modules)))
            return max(statuses)

        return called

    def family(name: str) -> list[Callable[[], int]]:
        folder = str(place / name)
        train = [*train_words(name, iterations=1), "--out", folder]
        return [lambda: command(train), lambda: command(["evaluate", folder])]

    calls = [call for name in FAMILIES for call in family(name)]
    calls += [lambda: run_study("tiny", tiny_study(), place / "study", {}), lambda: command(["list", "studies"])]
    log = Path(place / "log")
    assert fork(names_of(calls), log).wait(300) == 0, log.read_text()
    for name in json.loads((place / "names.json").read_text()):
        if name not in sys.modules and not name.startswith("__"):
            with contextlib.suppress(Exception):  # what only exists inside another module
                importlib.import_module(name)
