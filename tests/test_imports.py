"""What an import brings with it, and what is said where another project took the import name."""

import contextlib
import importlib
import io
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.forkserver import ForkServer
from pathlib import Path
from typing import Any

import pytest

from tests.test_layout import MODULES

ROOT = Path(__file__).resolve().parent.parent
LOADED_WHEN_USED = [
    "mujoco",
    "metaworld",
    "gymnasium.envs.mujoco",
    "tensorboard",
    "torch.utils.tensorboard",
    "stable_baselines3",
    "matplotlib",
    "PIL",
    "wandb",
    "rich",
    "tyro",
]
"""Packages that take seconds to import or that most programs have no use for."""


def _python(*words: str, path: tuple[Path, ...] = (ROOT,)) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.run(
        [sys.executable, *words], env=environment, cwd=path[0], capture_output=True, text=True, check=False
    )


@pytest.fixture
def other_project(tmp_path: Path) -> Path:
    """A folder in which a distribution metarl lies as pip installs PyPI's: its metadata, and a package metarl."""
    metadata = tmp_path / "metarl-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: metarl\nVersion: 0.1.0\n")
    (tmp_path / "metarl").mkdir()
    (tmp_path / "metarl" / "__init__.py").write_text("from maml import MAMLRL\n")
    return tmp_path


def test_beside_the_other_project_an_import_says_what_to_do(other_project: Path) -> None:
    done = _python("-c", "import metarl", path=(ROOT, other_project))
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: the distribution metarl 0.1.0 is another project")
    assert "pip uninstall metarl" in last


@pytest.mark.parametrize("hidden", [False, True], ids=["beside", "in front"])
def test_the_command_says_in_one_line_that_the_other_project_is_installed(
    other_project: Path, hidden: bool
) -> None:
    """In front: the other package is what Python imports, as over an editable installation of ours."""
    # The last folder of the path has our entry alone.
    entry = other_project / "entry"
    entry.mkdir()
    (entry / "metarl_toolkit.py").symlink_to(ROOT / "metarl_toolkit.py")
    path = (other_project, entry) if hidden else (ROOT, other_project)
    done = _python("-c", "import sys, metarl_toolkit; sys.exit(metarl_toolkit.main())", path=path)
    assert done.returncode == 1
    assert done.stderr.startswith("metarl: error: ")
    assert done.stderr.count("\n") == 1
    assert "pip install --force-reinstall --no-deps metarl-toolkit" in done.stderr


def test_an_earlier_name_of_this_package_is_not_the_other_project(tmp_path: Path) -> None:
    metadata = tmp_path / "metarl-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: metarl\nVersion: 0.1.0\n")
    (metadata / "entry_points.txt").write_text("[console_scripts]\nmetarl = metarl.experiments.cli:main\n")
    assert _python("-c", "import metarl", path=(ROOT, tmp_path)).returncode == 0


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    """A server whose processes have imported three libraries that nearly everything needs, and nothing of ours."""
    server = ForkServer()
    server.set_forkserver_preload(["numpy", "torch", "gymnasium"])
    yield server
    server._stop()  # type: ignore[attr-defined]


@pytest.fixture
def processes(server: ForkServer, monkeypatch: pytest.MonkeyPatch) -> BaseContext:
    """Context of multiprocessing whose processes come from that server."""
    monkeypatch.setattr(forkserver, "connect_to_new_process", server.connect_to_new_process)
    return multiprocessing.get_context("forkserver")


def _answer(processes: BaseContext, target: Callable[..., None], *words: Any) -> Any:
    here, there = processes.Pipe()
    process = processes.Process(target=target, args=(there, *words))  # type: ignore[attr-defined]
    process.start()
    there.close()
    answer = here.recv()
    process.join()
    return answer


def _import(connection: Connection, names: list[str]) -> None:
    before = set(sys.modules)
    for name in names:
        importlib.import_module(name)
    connection.send((before, set(sys.modules)))


def test_an_import_of_the_package_brings_nothing_else() -> None:
    done = _python("-c", "import metarl, sys; print(*sys.modules)")
    assert done.returncode == 0, done.stderr
    assert not set(done.stdout.split()) & {*LOADED_WHEN_USED, "torch", "numpy", "gymnasium", "yaml"}


@pytest.mark.thorough
def test_core_and_agents_bring_no_simulator_and_no_console(processes: BaseContext) -> None:
    core = [name for name in MODULES if name.split(".")[1:2] not in (["experiments"], ["envs"], ["fewshot"])]
    assert {"metarl.workers", "metarl.training", "metarl.agents.rl2.rl2"} <= set(core)
    before, loaded = _answer(processes, _import, core)
    assert not {name for name in before if name.startswith("metarl")}
    assert {"torch", "gymnasium", *core} <= loaded
    assert not loaded & set(LOADED_WHEN_USED)


def _import_training(connection: Connection) -> None:
    import metarl

    assert callable(metarl.train)
    assert callable(metarl.open_run)
    connection.send(set(sys.modules))


@pytest.mark.thorough
def test_training_brings_only_what_every_experiment_needs(processes: BaseContext) -> None:
    loaded = _answer(processes, _import_training)
    assert "metarl.experiments.working" in loaded
    unused = {"metaworld", "tensorboard", "torch.utils.tensorboard", "stable_baselines3", "matplotlib", "wandb"}
    assert not loaded & unused


def test_an_interrupt_while_the_package_is_imported_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "metarl").mkdir()
    (tmp_path / "metarl" / "__init__.py").write_text("raise KeyboardInterrupt\n")
    (tmp_path / "metarl_toolkit.py").symlink_to(ROOT / "metarl_toolkit.py")
    done = _python("-c", "import sys, metarl_toolkit; sys.exit(metarl_toolkit.main())", path=(tmp_path,))
    assert (done.returncode, done.stderr) == (130, "metarl: interrupted\n")


def _command_without_metaworld(connection: Connection, words: list[str], folder: str) -> None:
    """Run a command where an import of metaworld fails as if it were not installed."""
    Path(folder, "metaworld.py").write_text(
        'raise ModuleNotFoundError("No module named metaworld", name="metaworld")'
    )
    sys.path.insert(0, folder)
    os.chdir(folder)
    from metarl.experiments.cli import main

    with contextlib.redirect_stderr(io.StringIO()) as errors:
        status = main(words)
    connection.send((status, errors.getvalue()))


@pytest.mark.thorough
@pytest.mark.parametrize("words", [["train", "ml1-reach-promp"], ["bench", "metaworld"]])
def test_without_metaworld_its_benchmarks_say_what_to_install(
    processes: BaseContext, words: list[str], tmp_path: Path
) -> None:
    status, errors = _answer(processes, _command_without_metaworld, words, str(tmp_path))
    assert status == 2
    assert errors.count("\n") == 1, errors
    assert 'metaworld]"' in errors
    assert not (tmp_path / "runs").exists()
