"""Data-parallel training: two processes reach what one does, and end together when one of them ends."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import metarl
from metarl.agents.es_maml import EsMaml
from metarl.agents.maml import GradientAgent
from metarl.agents.teacher_student.teacher_student import TeacherStudent
from metarl.agents.trials.ppo import TrialPpo
from metarl.experiments.cli import main
from metarl.fewshot.learners.prototypical import Prototypical, PrototypicalConfig
from metarl.nets.devices import make_device
from metarl.runs import parallel
from metarl.runs.checkpoint import load_checkpoint
from metarl.runs.cores import usable_cores, whole_machine
from tests.experiments.tiny import TINY
from tests.runs.ranks import ROOT, WORDS, experiment, start


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of every kind of agent, each trained by two processes."""
    folder = tmp_path_factory.mktemp("ranks")
    processes = start(2, "-m", "tests.runs.ranks", str(folder), *WORDS, folder=ROOT)
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    return folder


def numbers(path: Path) -> dict[str, torch.Tensor]:
    """Everything in a checkpoint, by place."""

    def leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
        if isinstance(value, dict | list | tuple):
            pairs = value.items() if isinstance(value, dict) else enumerate(value)
            for key, part in pairs:
                yield from leaves(part, f"{place}/{key}")
        else:
            yield place, value

    state = load_checkpoint(path)
    del state["progress"]["elapsed_s"]
    return {
        place: torch.as_tensor(value)
        for place, value in leaves(state, "")
        if isinstance(value, torch.Tensor | int | float)
    }


def metrics(folder: Path) -> list[dict[str, float]]:
    """The rows of a run's metrics.csv without times."""
    with (folder / "metrics.csv").open() as file:
        return [
            {name: float(value) for name, value in row.items() if value and not name.startswith("time/")}
            for row in csv.DictReader(file)
        ]


@pytest.mark.slow
@pytest.mark.parametrize("name", WORDS)
def test_two_processes_reach_what_one_does(name: str, folder: Path, tmp_path: Path) -> None:
    alone = metarl.train(experiment(name, 2), out=tmp_path / "run").folder
    ours, theirs = numbers(alone / "checkpoint.pt"), numbers(folder / name / "checkpoint.pt")
    assert ours.keys() == theirs.keys()
    assert len(ours) > 5
    for place, value in ours.items():
        torch.testing.assert_close(
            theirs[place], value, rtol=1e-6, atol=1e-6, msg=lambda text, at=place: f"{at}: {text}"
        )
    rows = metrics(folder / name)
    assert len(rows) == 2
    for row, expected in zip(rows, metrics(alone), strict=True):
        assert row == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert any("test/" in key or "validation/" in key for key in rows[-1])


@pytest.mark.slow
@pytest.mark.parametrize("name", WORDS)
def test_the_first_process_alone_writes_the_run(name: str, folder: Path) -> None:
    assert (folder / name / "evaluation.json").is_file()
    assert len(metrics(folder / name)) == 2
    assert not (folder / f"{name}-2").exists()


def test_alone_nothing_is_changed() -> None:
    values = torch.arange(4.0, requires_grad=True)
    values.square().sum().backward()
    gradient = values.grad
    parallel.sum_gradients([values])
    parallel.average_gradients([values])
    assert values.grad is gradient
    assert parallel.total(values) is parallel.mean(values) is parallel.gathered(values) is values
    assert parallel.share(5) == slice(0, 5)
    assert parallel.gathered_objects("x") == ["x"]
    assert parallel.any_of(True)
    assert not parallel.any_of(False)


_PRIMITIVES = """
import sys, torch
from metarl.runs import parallel
with parallel.together():
    rank = parallel.share(2).start
    own, other = torch.full((2,), rank + 1.0, requires_grad=True), torch.zeros(1, requires_grad=True)
    unused = torch.zeros(1, requires_grad=True)
    (own.sum() * (rank + 1) + (other.sum() if rank else 0.0)).backward()
    parallel.average_gradients([own, other, unused])
    assert own.grad.tolist() == [1.5, 1.5] and other.grad.tolist() == [0.5] and unused.grad is None
    assert parallel.count() == 2 and parallel.share(5) == (slice(2, 5) if rank else slice(0, 2))
    assert parallel.total(own).tolist() == [3, 3] and parallel.mean(own).tolist() == [1.5, 1.5]
    assert parallel.gathered(own).tolist() == [1, 1, 2, 2] and parallel.total_count(rank + 2) == 5
    assert parallel.gathered_objects("ab"[rank]) == ["a", "b"]
    assert parallel.any_of(bool(rank)) and not parallel.any_of(False)
    assert parallel.from_first(lambda: f"made by {rank}") == "made by 0"
    if rank:
        sys.exit(7)
    try:
        parallel.total(own)
    except parallel.WorkerError as error:
        print(error)
"""


@pytest.mark.thorough
def test_two_processes_join_what_they_have_and_notice_an_end(tmp_path: Path) -> None:
    first, second = start(2, "-c", _PRIMITIVES, folder=tmp_path)
    (out, error), (_, other_error) = first.communicate(timeout=120), second.communicate(timeout=120)
    assert (first.returncode, second.returncode) == (0, 7), error + other_error
    assert out.startswith("another process of this training has ended, and it ends with it; its checkpoints are")
    assert out.count("\n") == 1


class Loner:
    """Stands for an agent that one process trains."""


class Sociable:
    """Stands for an agent that several processes train."""

    data_parallel = True


def test_what_several_processes_cannot_train_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    parallel.check_divisible(Loner(), 3)  # alone
    monkeypatch.setattr(parallel, "count", lambda: 2)
    parallel.check_divisible(Sociable(), 4)
    with pytest.raises(ValueError, match=r"^Loner with these settings is trained by one process, got 2; start it"):
        parallel.check_divisible(Loner(), 4)
    with pytest.raises(ValueError, match=r"a multiple of the 2 processes of torchrun, got 3$"):
        parallel.check_divisible(Sociable(), 3)


def test_agents_that_learn_otherwise_and_pooled_batch_norm_are_refused() -> None:
    assert not any(hasattr(agent, "data_parallel") for agent in (EsMaml, TeacherStudent, TrialPpo, GradientAgent))
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    for statistics, allowed in (("running", False), ("support", True)):
        learner = Prototypical(network, PrototypicalConfig(normalisation=statistics))
        assert learner.data_parallel is allowed


@pytest.mark.parametrize("words", [["list"], ["train", "point-promp", "--seeds", "2"], ["sweep", "point-promp"]])
def test_under_torchrun_one_run_is_trained(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("WORLD_SIZE", "2"), ("RANK", "0")):
        monkeypatch.setenv(name, value)
    assert main(words) == 2
    assert "by one process, got 2 of torchrun; start it without torchrun\n" in capsys.readouterr().err


def test_processes_of_torchrun_share_cores_and_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = usable_cores()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert usable_cores() == max(1, cores // 2)
    with whole_machine():
        assert usable_cores() == cores
    assert usable_cores() == max(1, cores // 2)
    monkeypatch.setattr(parallel, "count", lambda: 2)
    monkeypatch.setattr(parallel, "local_rank", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    assert make_device("auto") == make_device("cuda") == torch.device("cuda:1")
    with pytest.raises(ValueError, match="one on each GPU, got device cuda:0"):
        make_device("cuda:0")


def torchrun(*words: str, folder: Path) -> subprocess.Popen[str]:
    """Two processes of a training, by torchrun itself."""
    command = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "metarl", *words)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, cwd=folder, text=True, stdout=-1, stderr=-1)


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_others_and_the_run_goes_on(tmp_path: Path) -> None:
    words = list(TINY)
    words[words.index("--training.iterations") + 1] = "100000"
    long = torchrun(
        "train", "point-promp", "--out", "run", *words, "--training.checkpoint-every", "1", folder=tmp_path
    )
    checkpoint = tmp_path / "run" / "checkpoint.pt"
    while not checkpoint.exists():
        assert long.poll() is None, long.communicate()
        time.sleep(0.1)
    children = Path(f"/proc/{long.pid}/task/{long.pid}/children").read_text().split()
    assert len(children) == 2
    os.kill(int(children[1]), signal.SIGKILL)
    _, error = long.communicate(timeout=120)
    assert long.returncode == 1
    assert error.count("metarl: error: another process of this training has ended") == 1
    done = load_checkpoint(checkpoint)["progress"]["iteration"]
    assert done >= 1
    more = torchrun("resume", "run", "--iterations", str(done + 2), folder=tmp_path)
    out, error = more.communicate(timeout=300)
    assert more.returncode == 0, error
    assert out.count("written to run/evaluation.json") == 1
    assert load_checkpoint(checkpoint)["progress"]["iteration"] == done + 2
    assert [row["iteration"] for row in metrics(tmp_path / "run")] == list(range(1, done + 3))
    assert not (tmp_path / "run" / "run.lock").exists()
