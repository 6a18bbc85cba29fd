"""Number of processor cores to use, and the error of the processes that use them."""

import os


def usable_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class WorkerError(RuntimeError):
    """A worker process failed, died or hung."""
