"""Whole runs on Ray: what asks for it, copies of run folders, and runs that are those of this machine."""

import sys
from pathlib import Path
from typing import Any

import pytest

from metarl.experiments.arguments import UsageError
from metarl.experiments.cli import main
from metarl.experiments.ray_runs import Placement, RayJob, RayPlace, take_placement
from metarl.experiments.run_host import MARK, pack, unpack
from metarl.runs.cores import CORES, usable_cores
from metarl.runs.lock import LOCK
from tests.executors.test_ray import _metrics
from tests.experiments.tiny import TINY

WORDS = ["train", "point-promp", *TINY, "--training.iterations", "100", "--seeds", "2", "--loggers", "csv"]


def test_a_placement_is_taken_out_of_the_words() -> None:
    words = [
        "point",
        "--workers",
        "ray",
        "--run-cores=3",
        "--seed",
        "1",
        "--run-gpus",
        "0.5",
        "--ray-address",
        "auto",
    ]
    assert take_placement(words) == (Placement("auto", 3, 0.5), ["point", "--seed", "1"])
    assert take_placement(["point", "--workers", "ray"]) == (Placement(None, 1, 0.0), ["point"])
    assert take_placement(["point", "--workers", "local"]) == (None, ["point", "--workers", "local"])
    assert take_placement(["point"]) == (None, ["point"])


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--run-cores", "2"], "--run-cores and --run-gpus are of whole runs on Ray; add --workers ray"),
        (["--workers", "ray", "--run-cores", "0"], "--run-cores must be a whole number between 1 and"),
        (["--workers", "ray", "--run-cores", "1.5"], "--run-cores must be a whole number between 1 and"),
        (["--workers", "ray", "--run-gpus", "some"], "--run-gpus must be a number of GPUs of a run, such as 0.5"),
        (["--workers", "ray", "--run-gpus", "nan"], "--run-gpus must be a number of GPUs of a run, such as 0.5"),
    ],
)
def test_a_placement_that_cannot_be_is_one_line(words: list[str], text: str) -> None:
    with pytest.raises(UsageError) as error:
        take_placement(words)
    assert str(error.value).startswith(text)


@pytest.mark.parametrize(
    "words",
    [
        ["train", "point-promp", "--seeds", "2", "--out"],
        ["sweep", "point-promp", "--over", "agent.outer_lr=log:1e-4:1e-2", "--out"],
        ["study", "quick", "--out"],
    ],
)
def test_without_ray_no_folder_is_made(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    out = tmp_path / "out"
    assert main([*words, str(out), "--workers", "ray"]) == 2
    assert "need the package ray; run pip install 'metarl-toolkit[ray]'" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.thorough
def test_a_single_run_on_resumption_keeps_its_workers(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["train", "point-promp", *TINY, "--out", str(tmp_path / "run")]) == 0
    assert main(["resume", str(tmp_path / "run"), "--workers", "ray"]) == 2
    assert "resume takes --workers ray for a folder of several runs" in capsys.readouterr().err


def test_files_of_a_run_come_back_whole_but_for_locks_and_marks(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    (first / "tensorboard").mkdir(parents=True)
    for name, content in (("a.pt", b"\x00\x01"), ("tensorboard/events", b"2"), (LOCK, b"3"), (f"{MARK}4", b"4")):
        (first / name).write_bytes(content)
    second.mkdir()
    (second / "a.pt").write_bytes(b"older")
    unpack(pack(first), second)
    there = {str(path.relative_to(second)): path.read_bytes() for path in second.rglob("*") if path.is_file()}
    assert there == {"a.pt": b"\x00\x01", "tensorboard/events": b"2"}


def test_a_run_uses_no_more_cores_than_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    before = usable_cores()
    monkeypatch.setenv(CORES, "1")
    assert usable_cores() == 1
    monkeypatch.setenv(CORES, "100000")
    assert usable_cores() == before


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs that were trained on this machine."""
    folder = tmp_path_factory.mktemp("runs") / "here"
    assert main([*WORDS, "--out", str(folder)]) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False], ids=["shared storage", "fetched back"])
def test_runs_on_nodes_are_those_of_this_machine(
    shared: bool, cluster: Any, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, copies = RayPlace.send, []

    def send(self: RayPlace, *arguments: Any, **named: Any) -> tuple[Any, Any]:
        mark, self.mark = self.mark, self.mark if shared else "no such file"
        copies.append(self.mark)
        try:
            return original(self, *arguments, **named)
        finally:
            self.mark = mark

    monkeypatch.setattr(RayPlace, "send", send)
    there = tmp_path / "there"
    assert main([*WORDS, "--out", str(there), "--workers", "ray", "--ray-address", cluster.address]) == 0
    assert len(copies) == 2
    for seed in ("seed0", "seed1"):
        assert _metrics(there / seed) == _metrics(here / seed)
        assert (there / seed / "config.json").read_bytes() == (here / seed / "config.json").read_bytes()
        assert (there / seed / "checkpoint.pt").is_file()
        assert not list((there / seed).glob(f"{MARK}*"))


@pytest.mark.slow
def test_a_run_that_no_node_has_room_for_is_refused(
    cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*WORDS, "--out", str(tmp_path / "runs"), "--workers", "ray", "--ray-address", cluster.address]
    assert main([*words, "--run-cores", "64"]) == 2
    assert "a run needs 64 CPUs, and no node of the Ray cluster has so many" in capsys.readouterr().err
    assert main([*words, "--run-gpus", "0.5"]) == 2
    assert "a run needs 1 CPUs and 0.5 GPUs, and no node of the Ray cluster" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_run_whose_node_is_lost_goes_on_elsewhere(cluster: Any, here: Path, tmp_path: Path) -> None:
    there = tmp_path / "runs"
    words = [*WORDS, "--out", str(there), "--workers", "ray", "--ray-address", cluster.address]
    lost: list[Any] = []
    original = RayJob._heard

    def heard(self: RayJob, news: Any) -> list[Any]:
        if not lost and self._number == 0 and (there / "seed0" / "checkpoint.pt").exists():
            assert news.exitcode is None  # the premise: the run is under way
            assert self.home is not None
            (node,) = [node for node in cluster.worker_nodes if node.node_id == self.home.ray_node]
            lost.append(node)
            cluster.remove_node(node, allow_graceful=False)
        return original(self, news)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RayJob, "_heard", heard)
        assert main(words) == 0
    assert lost
    for seed in ("seed0", "seed1"):
        assert _metrics(there / seed) == _metrics(here / seed)
