"""Runs that nothing breaks: kills at random moments, damaged files, random command lines; `pytest -m chaos -n 0`.

Trainings are killed in forked children of this process, which has imported everything once. Seeds are fixed and
printed. Expected of a kill: the resumed run ends in the same bits. Expected of damage: one line, or no effect.
"""

import csv
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from metarl.experiments.cli import main
from metarl.experiments.presets.studies import STUDIES
from metarl.experiments.study.command import run_study
from metarl.runs.checkpoint import CHECKPOINT, PREVIOUS, load_checkpoint

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore")]

NUM_KILLS = 12
_TRAINING = ["--training.checkpoint-every", "2", "--training.meta-batch-size", "2"]
_RL = [
    *_TRAINING,
    "--training.evaluate-every",
    "3",
    "--evaluation.num-tasks",
    "2",
    "--evaluation.num-episodes",
    "1",
]
_RL += ["--evaluation.num-steps", "1", "--num-threads", "1", "--device", "cpu"]
_GRADIENT = ["--agent.adaptation.num-episodes", "2", "--agent.policy.hidden-sizes", "8"]
_PEARL = [
    "--agent.num-initial-episodes",
    "1",
    "--agent.num-prior-episodes",
    "1",
    "--agent.num-extra-episodes",
    "1",
]
_PEARL += ["--agent.num-updates", "5", "--agent.update-tasks", "2", "--agent.batch-size", "8"]
_PEARL += ["--agent.context-size", "8", "--agent.hidden-sizes", "8", "--num-train-tasks", "3"]
_FEWSHOT = [
    "--training.iterations",
    "16",
    "--training.updates-per-iteration",
    "2",
    "--training.evaluate-every",
    "3",
]
_FEWSHOT += ["--evaluation.num-tasks", "4", "--evaluation.num-steps", "1"]
FAMILIES = {
    "promp": ["point-promp", "--training.iterations", "20", *_RL, *_GRADIENT],
    "maml-trpo": ["point-maml-trpo", "--training.iterations", "16", *_RL, *_GRADIENT],
    "rl2": ["gridnavi-rl2", "--training.iterations", "16", *_RL, "--agent.policy.memory-size", "8"],
    "pearl": ["point-robot-pearl-cpu", "--training.iterations", "12", *_RL, *_PEARL],
    "meta-world": ["ml1-reach-promp", "--training.iterations", "6", *_RL, *_GRADIENT, "--horizon", "5"],
    "few-shot": ["sinusoid-maml", *_TRAINING, *_FEWSHOT],
}
TWICE = ("promp", "pearl", "few-shot")


def _fork(call: Callable[[], int], log: Path) -> int:
    """Call a function in a forked process that writes to the log; its process id."""
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        torch.set_num_threads(1)
        status = call()
    finally:
        os._exit(status)


def _wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _start(words: list[str], folder: Path) -> Callable[[], int]:
    """What goes on with a run, or begins it where it was killed before it could be opened."""
    if (folder / "config.json").exists():
        return lambda: main(["resume", str(folder)])
    shutil.rmtree(folder, ignore_errors=True)
    return lambda: main(["train", *words, "--out", str(folder)])


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in csv.DictReader(file)]


def _leaves(tree: Any) -> list[Any]:
    if isinstance(tree, dict):
        return [leaf for name, value in tree.items() if name != "elapsed_s" for leaf in _leaves(value)]
    if isinstance(tree, list | tuple):
        return [leaf for value in tree for leaf in _leaves(value)]
    return [tree]


def _check_same(one: Path, two: Path) -> None:
    assert _rows(one) == _rows(two)
    first, second = (_leaves(load_checkpoint(folder / CHECKPOINT)) for folder in (one, two))
    assert len(first) == len(second) > 5
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.parametrize("family", FAMILIES)
def test_kills_at_random_moments_resume_to_the_same_bits(family: str, tmp_path: Path) -> None:
    words, rng, log = FAMILIES[family], random.Random(family), tmp_path / "log"
    began = time.monotonic()
    assert _wait(_fork(_start(words, tmp_path / "whole"), log)) == 0, log.read_text()
    took, done = time.monotonic() - began, {"killed": 0, "ended": 0}
    for number in range(NUM_KILLS):
        folder = tmp_path / f"killed-{number}"
        times = 2 if family in TWICE and number < 3 else 1
        for _ in range(times):
            child = _fork(_start(words, folder), log)
            time.sleep(rng.uniform(0.0, 0.9 * took))
            os.kill(child, signal.SIGKILL)
            done["killed" if _wait(child) == -signal.SIGKILL else "ended"] += 1
        assert _wait(_fork(_start(words, folder), log)) == 0, log.read_text()[-2000:]
        _check_same(tmp_path / "whole", folder)
        assert not list(folder.rglob("*.tmp"))
        assert "Traceback" not in log.read_text()
        shutil.rmtree(folder)
    print(f"\n{family}: seed {family!r}, a run of {took:.1f} s, {done}")
    assert done["killed"] >= NUM_KILLS // 2


def test_a_killed_study_ends_in_the_same_results(tmp_path: Path) -> None:
    quick = STUDIES["quick"].configuration
    learners = tuple(
        replace(
            x, experiment=replace(x.experiment, training=replace(x.experiment.training, iterations=2), horizon=5)
        )
        for x in quick.learners
    )
    assert quick.stable is not None
    stable = replace(quick.stable, total_steps=40, num_envs=2, minibatches=1, epochs=1)
    study = replace(quick, learners=learners, horizon=5, num_tasks=2, stable=stable, num_threads=1)
    rng, log, whole = random.Random(7), tmp_path / "log", tmp_path / "whole"
    began = time.monotonic()
    assert _wait(_fork(lambda: run_study("tiny", study, whole, {}), log)) == 0, log.read_text()
    took = time.monotonic() - began
    for number in range(NUM_KILLS):
        folder = tmp_path / f"killed-{number}"
        child = _fork(lambda folder=folder: run_study("tiny", study, folder, {}), log)
        time.sleep(rng.uniform(0.1, 0.9) * took)
        os.kill(child, signal.SIGKILL)
        _wait(child)
        if not (folder / "study.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
        status = _wait(_fork(lambda folder=folder: run_study("tiny", study, folder, {}), log))
        assert status == 0, log.read_text()[-2000:]
        here, there = (json.loads((f / "results.json").read_text())["sets"] for f in (folder, whole))
        assert here == there
        shutil.rmtree(folder)
    print(f"\nstudy: seed 7, {took:.1f} s")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of PEARL, which has every kind of file."""
    folder = tmp_path_factory.mktemp("chaos") / "pearl"
    assert main(["train", *FAMILIES["pearl"], "--training.iterations", "4", "--out", str(folder)]) == 0
    return folder


def _one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> int:
    """Run a command: it ends well, or with one line; returns the status."""
    capsys.readouterr()
    try:
        status = main(words)
    except SystemExit as stop:
        status = int(stop.code or 0)
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("metarl: error")]
    assert status in (0, 1, 2), words
    assert len(errors) == (status != 0), (words, errors)
    return status


@pytest.mark.parametrize("name", [CHECKPOINT, "config.json", "metrics.csv", "test_tasks.json", "replay.bin"])
def test_damaged_files_are_one_line_or_have_no_effect(
    name: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng, statuses = random.Random(f"damage {name}"), []
    whole = (trained / name).read_bytes()
    for number in range(60):
        folder = tmp_path / str(number)
        shutil.copytree(trained, folder)
        content = bytearray(whole)
        kind, place = number % 4, rng.randrange(len(whole))
        if kind == 0:
            content[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del content[place:]
        elif kind == 2:
            content[place : place + 20] = rng.randbytes(20)
        else:
            content[place:place] = rng.choice([b"[" * 5000, b"9" * 400, b"\x00", b"null", b"-", b"\xff\xfe"])
        (folder / name).write_bytes(content)
        statuses.append(_one_line(["resume", str(folder), "--iterations", "4"], capsys))
        if name == CHECKPOINT and statuses[-1] == 0:  # a flip in what no checksum covers must change nothing
            first, second = (_leaves(load_checkpoint(f / CHECKPOINT)) for f in (folder, trained))
            assert all(
                torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
                for a, b in zip(first, second, strict=True)
            )
        shutil.rmtree(folder)
    print(f"\n{name}: {statuses.count(0)} without effect, {60 - statuses.count(0)} refused in one line")


def test_random_command_lines_are_one_line_or_work(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rng, statuses = random.Random(500), []
    values = [
        "",
        "0",
        "-1",
        "1e400",
        "nan",
        "9" * 400,
        "x" * 3000,
        "../..",
        "é\u202e",
        "[",
        "None",
        "true",
        "1.5",
        "-",
    ]
    options = ["--seed", "--horizon", "--json", "--tasks", "--num-tasks", "--split", "--checkpoint", "--device"]
    options += [
        "--iterations",
        "--agent.outer-lr",
        "--benchmark",
        "--training.iterations",
        "--loggers",
        "--help",
        "-h",
    ]
    firsts = ["list", "train", "resume", "evaluate", "study", "bench", "trian", "--help", ""]
    seconds = ["quickstart", "point-promp", "sinusoid-maml", "nowhere", "quick", "rollouts", *values[1:6]]
    for _ in range(500):
        words = [rng.choice(firsts), rng.choice([*seconds, str(trained) + "x"])]
        for _ in range(rng.randrange(1, 4)):
            words += [rng.choice(options), rng.choice(values)]
        words += ["--no-such-option", "1"]  # so that nothing is trained
        statuses.append(_one_line(words, capsys))
    print(f"\ncommand lines, seed 500: {statuses.count(0)} well, {500 - statuses.count(0)} refused in one line")


def test_hostile_task_and_family_files_are_one_line(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(150)
    good = (trained / "test_tasks.json").read_text()
    yaml = "name: mine\nrobot: half-cheetah\nranges: {body_mass: [0.5, 2.0]}\nhorizon: 5\n"
    hostile = [
        "9" * 400,
        "!!bool x",
        "!!int ''",
        "!!timestamp x",
        "&a [*a]",
        "[" * 100_000,
        "null",
        "\x00",
        "1e400",
    ]
    hostile += ["!!python/object/apply:os.system [ls]", "{a: &x {b: *x}}", '"\\ud800"', "-" * 50, "{}", "~"]
    for number in range(150):
        text, file = (good, tmp_path / "tasks.json") if number % 2 else (yaml, tmp_path / "family.yaml")
        place = rng.randrange(len(text))
        text = rng.choice(hostile) if number < 30 else text[:place] + rng.choice(hostile) + text[place + 3 :]
        file.write_text(text, errors="surrogatepass")
        words = ["evaluate", str(trained), "--tasks", str(file), "--num-episodes", "1"]
        if not number % 2:
            words = ["train", "half-cheetah-dir-rl2", "--benchmark", str(file), "--out", str(tmp_path / "run")]
            words += [
                "--training.iterations",
                "1",
                "--training.meta-batch-size",
                "1",
                "--evaluation.num-tasks",
                "1",
            ]
            words += ["--evaluation.num-episodes", "1", "--horizon", "2"]
        _one_line(words, capsys)
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
    print("\n150 files, seed 150")


def test_a_deleted_pair_of_checkpoints_is_refused(trained: Path, tmp_path: Path, capsys: Any) -> None:
    shutil.copytree(trained, tmp_path / "run")
    for name in (CHECKPOINT, PREVIOUS):
        (tmp_path / "run" / name).unlink()
    assert _one_line(["resume", str(tmp_path / "run")], capsys) == 2
