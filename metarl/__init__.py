"""Meta-reinforcement learning: agents that learn how to adapt."""

from metarl.adapting import adapt, adapt_to_recording
from metarl.recordings import load_recording, save_recording
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
    "load_recording",
    "save_recording",
]
