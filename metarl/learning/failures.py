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


class KeepsMore(Protocol):
    """An object whose state is what it learned, and data that an update leaves alone or takes back itself."""

    def learned_state(self) -> dict[str, Any]:
        """The state without the data."""

    def load_learned_state(self, state: dict[str, Any]) -> None:
        """Put back what `learned_state` gave."""


class LearnedState:
    """The state of an object without its data, as `unchanged_on_failure` copies it and puts it back."""

    def __init__(self, learner: KeepsMore) -> None:
        self.state_dict, self.load_state_dict = learner.learned_state, learner.load_learned_state


@contextmanager
def unchanged_on_failure(learner: HasState) -> Iterator[None]:
    """Put the learner's state back if the block raises a FloatingPointError, which goes on to the caller."""
    before = copy.deepcopy(learner.state_dict())
    try:
        yield
    except FloatingPointError:
        learner.load_state_dict(before)
        raise
