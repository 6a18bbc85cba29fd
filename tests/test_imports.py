"""What an import brings with it, and what is said where another project took the import name."""

import os
import subprocess
import sys
from pathlib import Path

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


def _loaded(code: str) -> set[str]:
    """The modules that are loaded after some code in a process of its own."""
    done = _python("-c", f"{code}\nimport sys; print(*sys.modules)")
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_an_import_of_the_package_brings_nothing_else() -> None:
    assert not _loaded("import metarl") & {*LOADED_WHEN_USED, "torch", "numpy", "gymnasium", "yaml"}


def test_core_and_agents_bring_no_simulator_and_no_console() -> None:
    core = [name for name in MODULES if name.split(".")[1:2] not in (["experiments"], ["envs"], ["fewshot"])]
    assert {"metarl.workers", "metarl.training", "metarl.agents.rl2.rl2"} <= set(core)
    loaded = _loaded(f"import {', '.join(core)}")
    assert {"torch", "gymnasium", *core} <= loaded
    assert not loaded & set(LOADED_WHEN_USED)


def test_training_brings_only_what_every_experiment_needs() -> None:
    loaded = _loaded("import metarl; metarl.train, metarl.open_run")
    assert "metarl.experiments.working" in loaded
    unused = {"metaworld", "tensorboard", "torch.utils.tensorboard", "stable_baselines3", "matplotlib", "wandb"}
    assert not loaded & unused


def test_an_interrupt_while_the_package_is_imported_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "metarl").mkdir()
    (tmp_path / "metarl" / "__init__.py").write_text("raise KeyboardInterrupt\n")
    (tmp_path / "metarl_toolkit.py").symlink_to(ROOT / "metarl_toolkit.py")
    done = _python("-c", "import sys, metarl_toolkit; sys.exit(metarl_toolkit.main())", path=(tmp_path,))
    assert (done.returncode, done.stderr) == (130, "metarl: interrupted\n")


@pytest.fixture
def without_metaworld(tmp_path: Path) -> tuple[Path, ...]:
    """A path of imports on which metaworld fails as if it were not installed."""
    (tmp_path / "metaworld.py").write_text(
        'raise ModuleNotFoundError("No module named metaworld", name="metaworld")'
    )
    return (tmp_path, ROOT)


@pytest.mark.parametrize("words", [["train", "ml1-reach-promp"], ["bench", "metaworld"]])
def test_without_metaworld_its_benchmarks_say_what_to_install(
    without_metaworld: tuple[Path, ...], words: list[str]
) -> None:
    done = _python("-m", "metarl.experiments.cli", *words, path=without_metaworld)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert 'metaworld]"' in done.stderr
    assert not (without_metaworld[0] / "runs").exists()
