"""Agents that learn from a replay: its file, and a state that leaves the file's rows out."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch

from metarl.learning.replay import REPLAY


class Replay(Protocol):
    """A store of transitions or trials, whose rows are kept in a file of their own."""

    def check_room(self) -> None:
        """Raise a MemoryError if the device's total memory is too small for the store."""

    def summary(self) -> str:
        """One line with the store's sizes and memory; nothing is allocated."""

    def save(self, path: Path) -> None:
        """Append what is new to the file."""

    def load(self, path: Path) -> None:
        """Read the rows of the state that `load_state_dict` restored."""

    def state_dict(self) -> dict[str, Any]:
        """The state of the store without its rows."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state from `state_dict`."""


Store = TypeVar("Store", bound=Replay)


class ReplayAgent(ABC, Generic[Store]):
    """An agent with a replay; see `metarl.agent.KeepsData`.

    Attributes:
        replay: Store of what was collected.
        device: Device of the store and the networks.
    """

    replay: Store
    device: torch.device

    @abstractmethod
    def learned_state(self) -> dict[str, Any]:
        """The state without the replay's."""

    @abstractmethod
    def load_learned_state(self, state: dict[str, Any]) -> None:
        """Restore the state from `learned_state`."""

    def data_summary(self) -> str:
        """The replay's sizes and memory.

        Raises:
            MemoryError: if the device is too small for it.
        """
        self.replay.check_room()
        return f"{self.replay.summary()} on {self.device}"

    def save_data(self, folder: Path) -> None:
        """Append what is new in the replay to its file."""
        self.replay.save(folder / REPLAY)

    def load_data(self, folder: Path) -> None:
        """Read the replay's rows from its file."""
        self.replay.load(folder / REPLAY)

    def state_dict(self) -> dict[str, Any]:
        """Networks, Adam's moments, what is drawn next, and how much of the replay's file is this state's."""
        return self.learned_state() | {"replay": self.replay.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state from `state_dict`; `load_data` reads the replay's rows."""
        self.load_learned_state(state)
        self.replay.load_state_dict(state["replay"])
