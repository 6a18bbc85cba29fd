"""Task distributions: toy families, batched MuJoCo, Meta-World, and any Gymnasium environments.

Names are imported when they are first used, so that a family of one's own needs no simulator.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metarl.envs.benchmarks import benchmark_names, make_benchmark
    from metarl.envs.gymnasium.family import CustomFamily, GymnasiumFamily
    from metarl.envs.single import single_env
    from metarl.envs.uniform import UniformTasks
    from metarl.envs.vector import TaskVectorEnv

__all__ = [
    "CustomFamily",
    "GymnasiumFamily",
    "TaskVectorEnv",
    "UniformTasks",
    "benchmark_names",
    "make_benchmark",
    "single_env",
]
_FILES = {
    "CustomFamily": "gymnasium.family",
    "GymnasiumFamily": "gymnasium.family",
    "TaskVectorEnv": "vector",
    "UniformTasks": "uniform",
    "benchmark_names": "benchmarks",
    "make_benchmark": "benchmarks",
    "single_env": "single",
}


def __getattr__(name: str) -> Any:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_FILES[name]}"), name)
