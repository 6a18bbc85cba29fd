"""RayCollector: the actor on a node of a Ray cluster, which collects the shares that it is asked for."""

import importlib.metadata
import os
import pickle
import platform
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from metarl.executors.shares import Share
from metarl.executors.simulator import Simulator
from metarl.trajectories import TrajectoryArrays, to_arrays

_PACKAGES = ("metarl-toolkit", "torch", "numpy", "gymnasium", "mujoco", "metaworld")


class Readiness(NamedTuple):
    """The answer of an actor that is ready.

    Attributes:
        node: Name of its node.
        pid: Number of its process there.
        ray_node: Ray's number of the node.
        versions: Versions of Python and of packages there.
    """

    node: str
    pid: int
    ray_node: str
    versions: dict[str, str]


class RayCollector:
    """Collects shares on a node; it keeps nothing from one to the next but its environment.

    Ray calls its methods on two threads, so that it gives signs of life while it works.
    """

    def __init__(self) -> None:
        self._beats = 0
        self._simulator: Simulator | None = None

    def prepare(self, path: Sequence[str], make_env: bytes, num_threads: int) -> Readiness:
        """Get ready to collect, and say where it runs.

        Args:
            path: Folders that modules of a user's own are imported from.
            make_env: Maker of the vector environments, pickled.
            num_threads: Number of threads that simulate.
        """
        import ray  # noqa: PLC0415  # Ray is an extra; where this runs it is there

        ray_node = ray.get_runtime_context().get_node_id()
        torch.set_num_threads(num_threads)
        sys.path.extend(folder for folder in path if folder not in sys.path)
        self._simulator = Simulator(pickle.loads(make_env), num_threads, self._beat)
        return Readiness(socket.gethostname(), os.getpid(), ray_node, versions())

    def collect(self, actor: np.ndarray, rest: bytes) -> TrajectoryArrays:
        """The episodes of a share.

        Args:
            actor: Bytes of the pickled actor, uint8.
            rest: Tasks and seeds of the share, pickled.
        """
        assert self._simulator is not None
        tasks, env_seeds, noise_seeds = pickle.loads(rest)
        share = Share(pickle.loads(actor.data), tasks, env_seeds, noise_seeds)
        return to_arrays(self._simulator.collect(share))

    def count_beats(self) -> int:
        """Number of steps of the environments so far."""
        return self._beats

    def _beat(self) -> None:
        self._beats += 1


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that results depend on."""
    installed = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            installed[name] = "none"
    return installed


def end_process(pid: int) -> None:
    """Kill the process of an actor that does not hear Ray, if it is still there; runs on its node."""
    command = Path(f"/proc/{pid}/cmdline")
    if command.is_file() and b"RayCollector" in command.read_bytes():
        os.kill(pid, signal.SIGKILL)
