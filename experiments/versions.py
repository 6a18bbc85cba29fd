"""Versions that results depend on, as run folders hold them."""

import contextlib
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch


def versions() -> dict[str, Any]:
    """Versions that results depend on: packages, interpreter, platform, and the commit of a checkout."""
    packages = ("metarl-toolkit", "torch", "numpy", "gymnasium", "mujoco", "metaworld")
    numbers: dict[str, Any] = {name: _version(name) for name in packages}
    numbers["python"] = sys.version.split()[0]
    numbers["platform"] = f"{platform.system()} {platform.machine()}"
    numbers["torch_threads"] = torch.get_num_threads()
    numbers["git_commit"] = _git_commit()
    return numbers


def _version(distribution: str) -> str | None:
    """The version of a distribution; None if it is not installed, as in a checkout that is only on the path."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The commit of the checkout that this file belongs to; None if it is installed from elsewhere."""
    here = Path(__file__).resolve()

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=here.parent, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        git("ls-files", "--error-unmatch", here.name)
        return git("describe", "--always", "--dirty", "--abbrev=12")
    return None
