"""Meta-reinforcement learning: agents that learn how to adapt."""

from metarl.tasks import Benchmark, Task
from metarl.trajectories import Trajectories
from metarl.workers import Workers

__all__ = ["Benchmark", "Task", "Trajectories", "Workers"]
