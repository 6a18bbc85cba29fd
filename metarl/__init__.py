"""Meta-reinforcement learning: agents that learn how to adapt."""

import importlib
from typing import TYPE_CHECKING, Any

from metarl.tasks import Benchmark, Task

if TYPE_CHECKING:
    from metarl.deploy.adapting import adapt, adapt_to_recording
    from metarl.deploy.recordings import load_recording, save_recording
    from metarl.trajectories import Trajectories
    from metarl.workers import Workers

__all__ = [
    "Benchmark",
    "Task",
    "Trajectories",
    "Workers",
    "adapt",
    "adapt_to_recording",
    "load_recording",
    "open_run",
    "save_recording",
    "train",
]

_MODULES = {
    "Trajectories": "metarl.trajectories",
    "Workers": "metarl.workers",
    "open_run": "metarl.experiments.loading",
    "train": "metarl.experiments.working",
    "adapt": "metarl.deploy.adapting",
    "adapt_to_recording": "metarl.deploy.adapting",
    "load_recording": "metarl.deploy.recordings",
    "save_recording": "metarl.deploy.recordings",
}


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first asked for: processes that only simulate do without."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
