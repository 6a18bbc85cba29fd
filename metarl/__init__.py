"""Meta-reinforcement learning: agents that learn how to adapt."""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metarl.deploy.adapting import adapt, adapt_to_recording
    from metarl.deploy.recordings import load_recording, save_recording
    from metarl.tasks import Benchmark, Task
    from metarl.trajectories import Trajectories
    from metarl.workers import Workers

__all__ = [
    "Benchmark",
    "Task",
    "Trajectories",
    "Workers",
    "adapt",
    "adapt_to_recording",
    "experiment",
    "load_policy",
    "load_recording",
    "open_run",
    "save_recording",
    "score",
    "train",
]

_MODULES = {
    "Benchmark": "metarl.tasks",
    "Task": "metarl.tasks",
    "Trajectories": "metarl.trajectories",
    "Workers": "metarl.workers",
    "experiment": "metarl.experiments.prepared",
    "open_run": "metarl.experiments.loading",
    "score": "metarl.experiments.sweep.scores",
    "train": "metarl.experiments.working",
    "adapt": "metarl.deploy.adapting",
    "adapt_to_recording": "metarl.deploy.adapting",
    "load_policy": "metarl.agents.loading",
    "load_recording": "metarl.deploy.recordings",
    "save_recording": "metarl.deploy.recordings",
}


def _refuse_the_other_metarl() -> None:
    """Raise an ImportError if PyPI's metarl, which overwrites files of this package, is installed too."""
    for other in importlib.metadata.distributions(name="metarl"):
        # This package was distributed under the same name before; only this one has a command.
        if not other.entry_points:
            raise ImportError(
                f"the distribution metarl {other.version} is another project with the same import name; run: "
                "pip uninstall metarl, then: pip install --force-reinstall --no-deps metarl-toolkit",
                name=__name__,
            )


_refuse_the_other_metarl()


def __getattr__(name: str) -> Any:
    """Import a name's module when the name is first used, so that an import of the package brings nothing else."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
