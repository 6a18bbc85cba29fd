"""Files that are written whole or not at all: links, leftovers, full disks; a run's lock and its loggers."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from metarl.experiments.runs import make_folder
from metarl.runs import files
from metarl.runs.checkpoint import CHECKPOINT, PREVIOUS, CheckpointError, load_checkpoint, save_checkpoint
from metarl.runs.files import (
    WriteError,
    atomic_file,
    atomic_write,
    open_in_place,
    remove_leftovers,
    unfinished_folder,
    write_json,
)
from metarl.runs.lock import LOCK, LockedError, locked
from metarl.runs.loggers import TensorBoardLogger, WandbLogger, flatten
from metarl.runs.metrics import CsvLogger

_HOLD = """
import sys, time
from pathlib import Path
from metarl.runs.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file of this process may grow beyond 10,000 bytes, as on a disk that is full."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


def test_links_at_temporary_names_are_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    for name in (f"{CHECKPOINT}.tmp", f"{PREVIOUS}.tmp", "metrics.tmp", "config.json.tmp"):
        (tmp_path / name).symlink_to(precious)
    for number in (1, 2):
        save_checkpoint(tmp_path, {"x": torch.tensor(number)})
        logger = CsvLogger(tmp_path)
        logger.begin(number - 1, number - 1)
        logger.log(number, number, {f"m{number}": 1.0})
        write_json(tmp_path / "config.json", number)
    assert precious.read_text() == "mine"
    assert load_checkpoint(tmp_path / CHECKPOINT)["x"] == 2
    with pytest.raises(OSError, match="symbolic links"):
        open_in_place(tmp_path / "config.json.tmp")


def test_a_json_file_leaves_its_neighbour_alone(tmp_path: Path) -> None:
    (tmp_path / "x.json.tmp").write_text("mine")
    write_json(tmp_path / "x.json", [1])
    assert (tmp_path / "x.json.tmp").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.json", "x.json.tmp"]


def test_leftovers_of_dead_processes_are_removed_and_those_of_the_living_are_not(tmp_path: Path) -> None:
    path, dead = tmp_path / "x.json", tmp_path / f".x.json.{'0' * 16}.tmp"
    dead.write_text("half")
    with atomic_file(path) as first:
        assert not dead.exists()
        atomic_write(path, b"second")  # a file that is being written is locked
        first.write(b"first")
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


_KILLED = """
import os, signal, sys
from pathlib import Path
from metarl.runs.files import atomic_file, unfinished_folder
folder = Path(sys.argv[1])
with unfinished_folder(folder / "run") as unfinished, atomic_file(folder / "evaluations" / "old.json") as file:
    (unfinished / "config.json").write_text("{}")
    file.write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_left_is_removed_by_the_next_run_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "evaluations").mkdir()
    assert (
        subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path)], check=False).returncode == -signal.SIGKILL
    )
    left = [path for path in tmp_path.rglob(".*") if path.name.endswith(".tmp")]
    assert sorted(path.name.partition(".json")[0] for path in left if path.is_file()) == [".old"]
    assert [path.name.startswith(".run.") for path in left if path.is_dir()] == [True]
    others = [tmp_path / ".old.json.tmp", tmp_path / f"old.json.{'0' * 16}.tmp"]
    for other in others:
        other.write_text("a user's")
    os.mkfifo(pipe := tmp_path / f".pipe.{'0' * 16}.tmp")
    with atomic_file(tmp_path / "living.json") as living, locked(tmp_path):
        assert not [path for path in left if path.is_file()]
        living.write(b"whole")
    with unfinished_folder(tmp_path / "run") as unfinished:
        assert not [path for path in left if path.exists()]
        remove_leftovers(tmp_path / "run")
        assert unfinished.is_dir()  # of a living process
    assert set(tmp_path.iterdir()) == {tmp_path / "evaluations", tmp_path / "living.json", pipe, *others}


def test_a_folder_is_whole_or_not_at_all(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        assert not (tmp_path / "new" / "run").exists()

    def fail(folder: Path) -> None:
        write(folder)
        raise ValueError("no")

    out = tmp_path / "new" / "run"
    with pytest.raises(ValueError, match=r"^no$"):
        make_folder(out, "run", fail)
    assert not list(out.parent.iterdir())
    assert make_folder(out, "run", write) == out
    assert list(out.parent.rglob("*")) == [out, out / "config.json"]


def test_an_error_in_the_middle_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "x"
    atomic_write(path, b"old")
    with pytest.raises(ZeroDivisionError), atomic_file(path) as file:
        file.write(b"new" * (1 // 0))
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


@pytest.mark.usefixtures("small_files")
def test_a_full_disk_is_one_line_with_the_file_and_the_bytes_and_keeps_the_checkpoints(tmp_path: Path) -> None:
    for number in (1, 2):
        save_checkpoint(tmp_path, {"x": torch.tensor(number)})
    with pytest.raises(
        WriteError, match=rf"cannot write {tmp_path / CHECKPOINT}: File too large; (8\d,\d{{3}}) bytes"
    ):
        save_checkpoint(tmp_path, {"x": torch.zeros(20_000)})
    assert load_checkpoint(tmp_path / CHECKPOINT)["x"] == 2
    assert load_checkpoint(tmp_path / PREVIOUS)["x"] == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([CHECKPOINT, PREVIOUS])


@pytest.mark.parametrize("fails", [PREVIOUS, CHECKPOINT])
def test_a_rename_that_fails_leaves_no_second_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """Where the checkpoint got its second name, and the new one not its first, both are one file to the next."""
    save_checkpoint(tmp_path, {"step": 1})
    replace = os.replace

    def failing(source: Path, target: Path) -> None:
        if Path(target).name == fails:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(WriteError, match="No space left on device"):
        save_checkpoint(tmp_path, {"step": 2})
    monkeypatch.undo()
    assert (tmp_path / PREVIOUS).exists() == (fails == CHECKPOINT)
    save_checkpoint(tmp_path, {"step": 2})
    assert [load_checkpoint(tmp_path / name)["step"] for name in (PREVIOUS, CHECKPOINT)] == [1, 2]
    assert {path.name for path in tmp_path.iterdir()} == {PREVIOUS, CHECKPOINT}


@pytest.mark.usefixtures("small_files")
@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_loggers_on_a_full_disk_name_their_file(tmp_path: Path) -> None:
    board, rows = TensorBoardLogger(tmp_path), CsvLogger(tmp_path)
    for logger, name in ((board, "tfevents"), (rows, "metrics.csv")):
        with pytest.raises(WriteError, match=name):
            logger.log(1, 1, {f"metric {k}": 0.1 + k for k in range(1000)})
        logger.close()


def test_a_flipped_byte_in_a_tensor_is_an_error_that_names_the_command_that_goes_back(tmp_path: Path) -> None:
    for number in (1, 2):
        save_checkpoint(tmp_path, {"x": torch.full((1000,), float(number))})
    path = tmp_path / CHECKPOINT
    content = bytearray(path.read_bytes())
    place = content.find(torch.full((1000,), 2.0).numpy().tobytes())
    assert place > 0
    content[place + 2000] ^= 1
    path.write_bytes(content)
    command = f"`metarl resume {tmp_path} --checkpoint {PREVIOUS}`"
    with pytest.raises(CheckpointError, match=f"{path} is damaged.*checksum.*{command}"):
        load_checkpoint(path)
    (tmp_path / PREVIOUS).write_bytes(b"x")
    with pytest.raises(CheckpointError) as raised:
        load_checkpoint(path)
    assert "resume" not in str(raised.value)


def test_a_lock_says_who_holds_it_and_dies_with_its_process(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(LockedError, match=rf"in use by process {holder.pid} on .* since \d{{4}}-"),
            locked(tmp_path),
        ):
            pass
    finally:
        holder.kill()
        holder.communicate()
    assert (tmp_path / LOCK).exists()
    with locked(tmp_path), locked(tmp_path):  # again, by the same thread
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert not (tmp_path / LOCK).exists()


def test_another_thread_is_refused(tmp_path: Path) -> None:
    raised: list[BaseException] = []

    def second() -> None:
        try:
            with locked(tmp_path):
                pass
        except LockedError as error:
            raised.append(error)

    with locked(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert len(raised) == 1


def test_a_file_system_without_locks_is_said_and_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(files.errno.ENOTSUP, "not supported")

    monkeypatch.setattr(files.fcntl, "flock", flock)
    with locked(tmp_path):
        write_json(tmp_path / "x.json", 1)
    assert "has no locks" in caplog.text
    assert (tmp_path / "x.json").exists()


def test_a_configuration_is_flattened_for_hyperparameters() -> None:
    assert flatten({"a": {"b": 1, "c": None}, "d": [1, 2]}) == {"a.b": 1, "d": "[1, 2]"}


def test_tensorboard_gets_hyperparameters_and_the_final_evaluation(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    logger = TensorBoardLogger(tmp_path)
    logger.hyperparameters({"agent": {"outer_lr": 0.5}, "seed": 3})
    logger.begin(0, 0)
    logger.log(1, 10, {"a": 0.25})
    logger.evaluation(10, {"evaluation/return_after_1": 7.0})
    logger.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("a")] == [(10, 0.25)]
    assert events.Scalars("evaluation/return_after_1")[0].value == 7.0
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    start = HParamsPluginData.FromString(content).session_start_info
    assert start.hparams["agent.outer_lr"].number_value == 0.5


def test_tensorboard_disregards_what_a_killed_process_logged_later(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for values in ((1.0, 2.0), (5.0,)):
        logger = TensorBoardLogger(tmp_path)
        first = 3 - len(values)
        logger.begin(first - 1, 10 * (first - 1))
        for iteration, value in enumerate(values, first):
            logger.log(iteration, 10 * iteration, {"a": value})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("a")] == [(10, 1.0), (20, 5.0)]


def test_wandb_logs_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = WandbLogger(tmp_path, name="run")
    logger.hyperparameters({"seed": 3})
    logger.begin(0, 0)
    logger.log(1, 10, {"a": 0.25})
    logger.evaluation(10, {"evaluation/return_after_1": 7.0})
    logger.close()
    wandb.teardown()  # its process has written everything
    (file,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    content = file.read_bytes()
    for part in (b"seed", b"iteration", b"0.25", b"evaluation/return_after_1", b"7.0"):
        assert part in content


def test_wandb_that_is_not_installed_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=r'pip install "metarl-toolkit\[wandb\]"'):
        WandbLogger(tmp_path, name="run")
