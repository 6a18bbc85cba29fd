"""Number of processor cores to use, the processes that share them, and the error of those that are lost."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

LOCAL_COUNT = "LOCAL_WORLD_SIZE"
"""Variable by which torchrun says how many processes it started on this machine, which share its cores."""


CORES = "METARL_CORES"
"""Variable that limits the cores that are used, of a run for which a cluster sets so many aside."""


def usable_cores() -> int:
    """Number of cores that this process may use: those of the machine, or its share of them.

    A run on a cluster has as many as were set aside for it, and the processes of torchrun on a machine share its.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit, number = os.environ.get(CORES, ""), os.environ.get(LOCAL_COUNT, "")
    cores = min(cores, int(limit)) if limit.isdigit() and int(limit) else cores
    return max(1, cores // int(number)) if number.isdigit() and int(number) else cores


@contextmanager
def whole_machine() -> Iterator[None]:
    """Use all cores of the machine while the other processes of torchrun only wait."""
    number = os.environ.pop(LOCAL_COUNT, None)
    try:
        yield
    finally:
        if number is not None:
            os.environ[LOCAL_COUNT] = number


def launched_together() -> int:
    """Number of processes that torchrun started with this one, 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def is_first() -> bool:
    """Whether this process is alone, or number 0 of those of torchrun: the one that writes and speaks."""
    return launched_together() == 1 or os.environ.get("RANK", "0") == "0"


def check_alone(what: str) -> None:
    """Raise a ValueError if torchrun started several processes, for what one process does."""
    if launched_together() > 1:
        raise ValueError(
            f"{what} by one process, got {launched_together()} of torchrun; start it without torchrun"
        )


class WorkerError(RuntimeError):
    """A worker process failed, died or hung."""
