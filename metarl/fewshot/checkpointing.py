"""Activation checkpoints inside modules whose weights differ from task to task.

What a module passes to `torch.utils.checkpoint.checkpoint` is called a second time in the backward pass. By then
the module has its own weights again instead of the task's, and its batch norms have the settings of a later call.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch.utils.checkpoint

Function = Callable[..., Any]
"""What is checkpointed: any arguments, any results."""

_GENERATOR = "_checkpoint_without_reentrant_generator"
"""What torch hands a checkpointed function to for its second call, and for nothing else. It has no public hook for
this: `context_fn` is an argument of the call, which is the user's."""


@contextlib.contextmanager
def second_calls(replayed: Callable[[Function], Function]) -> Iterator[None]:
    """Replace the second call of every function that is checkpointed meanwhile by one of `replayed(function)`.

    Checkpoints that are reentrant are left alone: torch refuses to differentiate them by `torch.autograd.grad`.

    Args:
        replayed: Function from what is checkpointed to what is called for the second time.
    """
    original = getattr(torch.utils.checkpoint, _GENERATOR, None)
    if original is None:  # another version of torch, whose checkpoints are left alone; a test says so
        yield
        return

    def generator(function: Function, *args: Any, **kwargs: Any) -> Any:
        return original(replayed(function), *args, **kwargs)

    setattr(torch.utils.checkpoint, _GENERATOR, generator)
    try:
        yield
    finally:
        setattr(torch.utils.checkpoint, _GENERATOR, original)


def refused(function: Function) -> Function:
    """No second call, for `vmap`, whose tensors are gone by then.

    Raises:
        RuntimeError: Always.
    """
    raise RuntimeError("a checkpoint is computed again after vmap, which has to be done task by task")
