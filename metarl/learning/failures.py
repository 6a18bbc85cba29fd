"""The remedy for an update that fails: the agent's state before it is restored."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol


class HasState(Protocol):
    """An object whose state can be copied and put back."""

    def state_dict(self) -> dict[str, Any]:
        """The whole state of the object."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""


@contextmanager
def unchanged_on_failure(learner: HasState) -> Iterator[None]:
    """Put the learner's state back if the block raises a FloatingPointError, which goes on to the caller."""
    before = copy.deepcopy(learner.state_dict())
    try:
        yield
    except FloatingPointError:
        learner.load_state_dict(before)
        raise
