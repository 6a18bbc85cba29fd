"""Processes begin as copies of a server that only imports, and have the settings of the one that starts them."""

import importlib
import os
import pkgutil
import signal
import sys
import time
from collections.abc import Iterator
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

import metarl
from metarl.runs import starting
from metarl.runs.starting import process_context, start_process

linux = pytest.mark.skipif(sys.platform != "linux", reason="a server is used on Linux")


def _tell_libraries(connection: Connection) -> None:
    begun = time.process_time()
    import torch

    import metarl.workers

    seconds = time.process_time() - begun
    total = float((torch.ones(300, 300) @ torch.ones(300, 300)).sum())
    threads = len(list(Path(f"/proc/{os.getppid()}/task").iterdir()))
    connection.send((seconds, total, threads, set(sys.modules), metarl.workers.__file__))


def _tell_settings(connection: Connection) -> None:
    path = os.environ.get("PYTHONPATH"), sys.path
    connection.send((os.environ.get("METARL_TEST"), path, signal.getsignal(signal.SIGINT)))


def _tell_server(connection: Connection) -> None:
    connection.send(os.getppid())


def _told(tell: Any) -> Any:
    here, there = process_context().Pipe()
    process = start_process(tell, (there,), daemon=True)
    there.close()
    answer = here.recv()
    process.join()
    assert process.exitcode == 0
    return answer


@pytest.fixture
def own_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server of this test alone."""
    server = forkserver.ForkServer()
    monkeypatch.setattr(forkserver, "connect_to_new_process", server.connect_to_new_process)
    monkeypatch.setattr(forkserver, "set_forkserver_preload", server.set_forkserver_preload)
    yield
    server._stop()  # type: ignore[attr-defined]


@pytest.fixture
def small_server(own_server: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of this test alone, which imports nothing."""
    monkeypatch.setattr(starting, "_imported", list)


@pytest.mark.thorough
@linux
@pytest.mark.usefixtures("own_server")
def test_the_server_has_imported_what_this_process_has_and_has_one_thread() -> None:
    import metaworld

    import metarl.deploy.classifier
    import metarl.deploy.runner  # whose library starts a thread when it is imported
    import metarl.experiments.working
    import metarl.workers

    expected = {module.__name__ for module in (metaworld, metarl.experiments.working, metarl.workers)}
    seconds, total, threads, modules, file = _told(_tell_libraries)
    assert threads == 1, "a copy of a process with threads may hang"
    assert {"torch", "mujoco", *expected} <= modules
    assert "metarl.deploy.runner" not in modules
    assert seconds < 0.5
    assert total == 300.0**3
    assert file == metarl.workers.__file__


@pytest.mark.parametrize("method", ["server", "spawn"])
def test_a_process_has_the_variables_and_the_path_of_now(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    if method == "spawn":
        monkeypatch.setattr(starting, "_LONGEST_ADDRESS", 0)
        assert process_context().get_start_method() == "spawn"
    monkeypatch.setenv("METARL_TEST", "later than the server")
    monkeypatch.syspath_prepend("/a folder")
    before = dict(os.environ)
    variable, path, interrupts = _told(_tell_settings)
    assert variable == "later than the server"
    assert path == (os.environ.get("PYTHONPATH"), sys.path)
    assert interrupts is signal.SIG_IGN
    assert dict(os.environ) == before


@pytest.mark.thorough
@linux
@pytest.mark.usefixtures("small_server")
def test_a_server_that_was_killed_is_started_again() -> None:
    killed = _told(_tell_server)
    assert killed != os.getpid()
    os.kill(killed, signal.SIGKILL)
    again = _told(_tell_server)
    assert again not in (killed, os.getpid())
    assert _told(_tell_server) == again


@linux
@pytest.mark.slow
@pytest.mark.usefixtures("own_server")
def test_no_other_module_of_ours_starts_a_thread_in_the_server() -> None:
    names = [each.name for each in pkgutil.walk_packages(metarl.__path__, "metarl.")]
    for name in names:
        if not name.endswith("__main__"):
            importlib.import_module(name)
    _, _, threads, modules, _ = _told(_tell_libraries)
    assert threads == 1
    assert {"metarl.experiments.cli", "metarl.deploy.exporting", "stable_baselines3"} <= modules
