"""Task distributions: point navigation, and locomotion on a batched MuJoCo engine."""

from metarl.envs.benchmarks import benchmark_names, make_benchmark
from metarl.envs.vector import TaskVectorEnv

__all__ = ["TaskVectorEnv", "benchmark_names", "make_benchmark"]
