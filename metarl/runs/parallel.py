"""Data-parallel training: the processes that `torchrun` starts, each with its share of the tasks of a batch.

Every process draws the same tasks from the same random streams, differentiates the losses of its own share, and
takes the step of the joined gradient, so that all hold the same weights. Process 0 alone writes the run folder.
Without torchrun there is one process, and every function gives back what it was given.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from metarl.runs.cores import WorkerError, is_first, launched_together

Result = TypeVar("Result")

_PATIENCE = timedelta(hours=6)
"""Longest time that a process waits for the others, as for files; one that ends is noticed at once."""


def count() -> int:
    """Number of processes that train together; 1 unless `together` is entered under torchrun."""
    return dist.get_world_size() if _joined() else 1


def local_rank() -> int:
    """Number of this process among those of its machine, 0 where it is alone."""
    return int(os.environ["LOCAL_RANK"]) if _joined() else 0


@contextmanager
def together() -> Iterator[None]:
    """Join the processes that torchrun started, if it did, until the block ends.

    Raises:
        WorkerError: if they do not all join.
    """
    if launched_together() == 1 or _joined():
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        dist.init_process_group(backend, timeout=_PATIENCE)
    except RuntimeError as error:
        raise WorkerError(f"the processes of torchrun do not find each other: {error}") from error
    try:
        yield
    finally:
        dist.destroy_process_group()


def check_divisible(trained: object, num_tasks: int) -> None:
    """Raise a ValueError unless the processes can train this agent or learner together on so many tasks."""
    if count() == 1:
        return
    if not getattr(trained, "data_parallel", False):
        raise ValueError(
            f"{type(trained).__name__} with these settings is trained by one process, got {count()}; "
            "start it without torchrun"
        )
    if num_tasks % count():
        raise ValueError(
            f"the number of tasks of an update must be a multiple of the {count()} processes of torchrun, "
            f"got {num_tasks}"
        )


def share(size: int) -> slice:
    """This process's part of so many things in a row, of equal size up to one."""
    if count() == 1:
        return slice(0, size)
    rank = dist.get_rank()
    return slice(rank * size // count(), (rank + 1) * size // count())


def total(values: Tensor) -> Tensor:
    """The sum of a tensor over all processes."""
    if count() == 1:
        return values
    joined = values.detach().clone()
    _agreed(lambda: dist.all_reduce(joined))
    return joined


def mean(values: Tensor) -> Tensor:
    """The mean of a tensor over all processes."""
    return values if count() == 1 else total(values) / count()


def total_count(number: int) -> int:
    """The sum of a whole number over all processes."""
    return number if count() == 1 else int(total(torch.tensor(number)))


def gathered(values: Tensor) -> Tensor:
    """Tensors [task, ...] of all processes, of as many tasks each, one after the other; without a graph."""
    if count() == 1:
        return values
    own = values.detach().contiguous()
    parts = [torch.empty_like(own) for _ in range(count())]
    _agreed(lambda: dist.all_gather(parts, own))
    return torch.cat(parts)


def gathered_objects(value: Result) -> list[Result]:
    """The values of all processes, in order."""
    if count() == 1:
        return [value]
    values: list[Any] = [None] * count()
    _agreed(lambda: dist.all_gather_object(values, value))
    return values


def sum_gradients(parameters: Iterable[Tensor]) -> None:
    """Give every leaf the sum of its gradients over all processes, and none where no process has one."""
    if count() == 1:
        return
    leaves = list(parameters)
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in leaves]
    there = grads[0].new_tensor([p.grad is not None for p in leaves])
    joined = total(torch.cat([there, *(grad.reshape(-1) for grad in grads)]))
    pieces = torch.split(joined, [len(leaves), *(p.numel() for p in leaves)])
    for leaf, is_there, piece in zip(leaves, pieces[0].tolist(), pieces[1:], strict=True):
        leaf.grad = piece.view_as(leaf).clone() if is_there else None


def average_gradients(parameters: Sequence[Tensor]) -> None:
    """Give every leaf the mean of its gradients over all processes."""
    sum_gradients(parameters)
    if count() > 1:
        for leaf in parameters:
            if leaf.grad is not None:
                leaf.grad /= count()


def any_of(flag: bool) -> bool:
    """Whether the flag is true in any process."""
    return total_count(int(flag)) > 0


def from_first(make: Callable[[], Result]) -> Result:
    """Give all processes the result of a function that process 0 alone calls.

    Raises:
        WorkerError: in the others, if it fails in process 0.
    """
    if count() == 1:
        return make()
    values: list[Any] = [make() if is_first() else None]
    _agreed(lambda: dist.broadcast_object_list(values))
    result: Result = values[0]
    return result


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()


def _agreed(communicate: Callable[[], Any]) -> None:
    """Talk to the other processes; that one is gone is one line."""
    try:
        communicate()
    except RuntimeError as error:
        raise WorkerError(
            "another process of this training has ended, and it ends with it; its checkpoints are as they were: "
            "continue with torchrun and metarl resume"
        ) from error
