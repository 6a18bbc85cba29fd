"""Meta-reinforcement learning: agents that learn how to adapt."""

import importlib
from typing import TYPE_CHECKING, Any

from metarl.tasks import Benchmark, Task

if TYPE_CHECKING:
    from metarl.trajectories import Trajectories
    from metarl.workers import Workers

__all__ = ["Benchmark", "Task", "Trajectories", "Workers"]


_MODULES = {"Trajectories": "metarl.trajectories", "Workers": "metarl.workers"}


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first asked for: processes that only simulate do without."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
