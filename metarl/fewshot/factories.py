"""Functions and classes that make networks: with what a learner asks for, or without arguments."""

import inspect
from collections.abc import Callable


def made_by(function: Callable[..., object], *arguments: object) -> object:
    """The network that a function makes, called without arguments where it needs none, and with these otherwise.

    Raises:
        ValueError: if it can be called in neither way.
    """
    signature = inspect.signature(function)
    takes_any = any(each.kind is each.VAR_POSITIONAL for each in signature.parameters.values())
    for words in (arguments, ()) if takes_any else ((), arguments):
        try:
            signature.bind(*words)
        except TypeError:
            continue
        return function(*words)
    raise ValueError(
        f"{name_of(function)} of the backbone must take a NetworkSpec and a random stream, or no arguments, got "
        f"{name_of(function)}{signature}"
    )


def name_of(function: object) -> str:
    """The name of a function or a class, or that of an object's class."""
    return getattr(function, "__name__", type(function).__name__)
