"""Commands that are interrupted, run in a thread, or meet a run that another one trains."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from metarl.envs.mujoco.families import HalfCheetahVel
from metarl.experiments.cli import main
from metarl.experiments.loading import open_run, prepare_run
from metarl.experiments.runs import make_run
from metarl.experiments.study import command, running
from metarl.experiments.study.configuration import StablePpo
from metarl.experiments.study.stable_baselines import StableLearner
from metarl.runs.checkpoint import BEST, CHECKPOINT, PREVIOUS, load_checkpoint
from metarl.runs.lock import locked
from metarl.tasks import Task
from tests.experiments.test_cli import TINY
from tests.experiments.test_study import _study

ROOT = Path(__file__).resolve().parents[2]


def _iteration(path: Path) -> int:
    return int(load_checkpoint(path)["progress"]["iteration"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "point"
    assert main(["train", "point-promp", "--out", str(folder), *TINY, "--training.evaluate-every", "1"]) == 0
    return folder


@pytest.fixture
def attended() -> Iterator[None]:
    """Hangups as in a terminal, also where the tests themselves run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.thorough
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_writes_a_checkpoint(number: signal.Signals, tmp_path: Path, attended: None) -> None:
    folder, metrics = tmp_path / "run", tmp_path / "run" / "metrics.csv"

    def interrupt() -> None:
        deadline = time.monotonic() + 60
        while not (metrics.exists() and len(metrics.read_text().splitlines()) > 2):
            if time.monotonic() > deadline:
                return
            time.sleep(0.005)
        os.kill(os.getpid(), number)

    words = ["train", "point-promp", "--out", str(folder), *TINY, "--training.iterations", "100000"]
    words += ["--training.checkpoint-every", "100000"]
    before = signal.getsignal(number)
    threading.Thread(target=interrupt).start()
    assert main(words) == 130
    assert signal.getsignal(number) is before
    last = int(metrics.read_text().strip().splitlines()[-1].split(",")[0])
    assert last >= 2
    assert _iteration(folder / CHECKPOINT) == last
    assert main(["resume", str(folder), "--iterations", str(last + 1)]) == 0


def test_a_hangup_that_nohup_ignores_is_ignored(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGHUP)).start()
        assert main(["train", "point-promp", "--out", str(tmp_path / "run"), *TINY]) == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.thorough
def test_commands_work_in_a_thread(tmp_path: Path) -> None:
    folder, statuses = str(tmp_path / "run"), []

    def work() -> None:
        statuses.append(main(["train", "point-promp", "--out", folder, *TINY]))
        statuses.append(main(["resume", folder, "--iterations", "4"]))
        statuses.append(main(["evaluate", folder]))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert statuses == [0, 0, 0]
    assert _iteration(tmp_path / "run" / CHECKPOINT) == 4


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """A run folder that another thread works in."""
    holds, over = threading.Event(), threading.Event()

    def hold() -> None:
        with locked(folder):
            holds.set()
            over.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    assert holds.wait(10)
    try:
        yield
    finally:
        over.set()
        thread.join()


def _content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("options", [[], ["--iterations", "9"], ["--checkpoint", PREVIOUS], ["--device", "cpu"]])
def test_a_run_that_is_trained_is_left_as_it_is(
    options: list[str], trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    with _held(folder):
        before = _content(folder)
        assert main(["resume", str(folder), *options]) == 2
        assert f"{folder} is in use by process {os.getpid()}" in capsys.readouterr().err
        assert _content(folder) == before
        assert main(["evaluate", str(folder)]) == 0  # it writes nothing there
        assert _content(folder) == before


def test_a_study_and_its_runs_are_left_as_they_are_while_they_are_worked_on(tmp_path: Path) -> None:
    study, folder = _study(stable=None, gap=None), tmp_path / "study"
    oracle = study.learners[0]
    command._open("tiny", study, folder, {})
    with _held(folder), pytest.raises(ValueError, match=f"{folder} is in use by process {os.getpid()}"):
        command.run_study("tiny", study, folder, {})
    assert {path.name for path in folder.iterdir()} == {"study.json"}
    run = make_run(prepare_run(oracle.name, running._experiment(study, oracle)), folder / "runs" / oracle.name)
    with _held(run.folder), pytest.raises(ValueError, match=f"{run.folder} is in use by process {os.getpid()}"):
        command.run_study("tiny", study, folder, {})
    assert not list(run.folder.glob("*.csv"))


def test_the_best_checkpoint_is_evaluated_and_not_resumed(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    (folder / BEST).write_bytes((folder / PREVIOUS).read_bytes())  # another one than the last
    assert _iteration(folder / BEST) != _iteration(folder / CHECKPOINT)
    results = []
    for number, name in enumerate((BEST, PREVIOUS, CHECKPOINT)):
        out = tmp_path / f"{number}.json"
        assert main(["evaluate", str(folder), "--checkpoint", name, "--json", str(out)]) == 0
        results.append(out.read_text().replace(" ", "").partition('"evaluation_seed"')[2])
    assert results[0] == results[1] != results[2]
    assert open_run(folder).evaluate(checkpoint=BEST)["train_env_steps"] > 0
    capsys.readouterr()
    assert main(["resume", str(folder), "--checkpoint", BEST]) == 2
    assert f"--checkpoint must be {CHECKPOINT} or {PREVIOUS}" in capsys.readouterr().err
    (folder / BEST).unlink()
    assert main(["evaluate", str(folder), "--checkpoint", BEST]) == 2
    assert f"no checkpoint at {folder / BEST}" in capsys.readouterr().err


def test_stable_baselines_leaves_nothing_in_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    env, task = HalfCheetahVel().make_env(1, horizon=5, num_threads=1), Task.of("half-cheetah-vel", velocity=1.0)
    config = StablePpo(num_envs=1, minibatches=1, epochs=1)
    learner = StableLearner(env, lambda: [task], config, learning_rate=1e-3, seed=1)
    learner.learn(1)
    learner.close()
    assert not list(tmp_path.iterdir())


_WORKERS = """
from metarl.envs import make_benchmark
from metarl.workers import EnvMaker, Workers
from metarl.agents.strategies.point import GoToGoal
import numpy as np
benchmark = make_benchmark("point")
tasks = benchmark.train.sample(2, np.random.default_rng(0))
with Workers(EnvMaker(benchmark.family, 3), num_workers=2) as workers:
    workers.collect(GoToGoal(np.array([task["goal"] for task in tasks]), 0.1), tasks, 1, seed=0)
"""
_HOSTS = """
from tests.environments import WALKS, walk
env = WALKS.make_env(2, num_threads=2)
env.set_tasks([walk(0.0)] * 2)
env.reset(seed=0)
"""
_METAWORLD = """
import numpy as np
from metarl.envs import make_benchmark
benchmark = make_benchmark("ml1-reach+package-step")
env = benchmark.family.make_env(2, horizon=3, num_threads=2)
env.set_tasks(benchmark.train.sample(2, np.random.default_rng(0)))
env.reset(seed=0)
"""
_STUDY = """
import tempfile
from dataclasses import replace
from pathlib import Path
from metarl.experiments.study.command import run_study
from tests.experiments.test_study import _study
study = _study(stable=None)
learners = [replace(x, experiment=replace(x.experiment, num_workers=2)) for x in study.learners]
run_study("tiny", replace(study, learners=tuple(learners)), Path(tempfile.mkdtemp()) / "study", {})
"""
_TRAIN = """
import tempfile
from pathlib import Path
import metarl
from metarl.experiments.settings import settings_for
metarl.train(settings_for("promp", "ml1-reach+package-step"), out=Path(tempfile.mkdtemp()) / "run")
"""


@pytest.mark.slow
@pytest.mark.parametrize("script", [_WORKERS, _HOSTS, _METAWORLD, _STUDY, _TRAIN])
def test_a_script_without_a_guard_gets_the_hint(script: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")],
        env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert 'a script that starts processes needs `if __name__ == "__main__":`' in last, done.stderr[-3000:]
