"""Multi-task replay: the transitions of every training task in one store, and the recent ones as its context.

A task has a ring of `capacity` rows; a row is one transition. The context is no store of its own: it is the part
of the ring that the task's last collection wrote first, so that it can hold neither old data nor another task's.
All tasks of a batch are drawn in one gather, on the device that holds the store. Rows are 32-bit words;
observations that are no 32-bit floats, such as images of bytes, lie in them bit by bit.

On disk the rows are a file beside the checkpoint that only grows: each checkpoint appends what is new, the
checkpoint itself says how much of the file belongs to it. An earlier checkpoint owns a shorter part of the file.

A row may be any named tuple of numbers: `metarl.learning.trial_replay` keeps whole trials, each in its own ring.
"""

import os
import struct
import zlib
from collections.abc import Callable, Sequence
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from metarl.learning.device_memory import available_memory, check_memory, gigabytes, total_memory
from metarl.nets.devices import widest_float
from metarl.observations import map_parts, space_parts
from metarl.runs.checkpoint import CheckpointError
from metarl.runs.files import open_in_place, write_error
from metarl.trajectories import Observations, as_tensors, map_observations

REPLAY = "replay.bin"
_BLOCK_ROWS = 65_536
_WORD = torch.float32.itemsize
_HEADER = struct.Struct("<4q")  # task, number of the first row, number of rows, checksum
_PLACE = struct.Struct("<3q")  # the header but for its checksum
_WHOLE = 1 << 32  # marks a checksum of header and rows; in the files of earlier versions it is of the rows alone


class Transitions(NamedTuple):
    """Steps of the environment, of any leading shape.

    Attributes:
        observations: Observations before the step, each part [..., *shape].
        actions: Actions as the policy put them out, [..., act].
        rewards: Rewards that critics learn from, [...].
        context_rewards: Rewards that the task is inferred from, [...]; the sparse ones where the two differ.
        terminated: Flag that is 1 where the MDP ended, else 0; a time limit is not an end, [...].
        next_observations: Observations after the step, each part [..., *shape].
    """

    observations: Observations
    actions: Tensor
    rewards: Tensor
    context_rewards: Tensor
    terminated: Tensor
    next_observations: Observations

    def map(self, change: Callable[[Tensor], Tensor]) -> "Transitions":
        """The same change made to every array."""
        return Transitions(*(map_observations(change, part) for part in self))


def example_transition(observation_space: spaces.Space[Any], act_size: int) -> Transitions:
    """One transition of zeros, without leading axes, as it is stored for these spaces."""
    observation, number = example_observation(observation_space), torch.zeros(())
    return Transitions(observation, torch.zeros(act_size), number, number, number, observation)


def example_observation(space: spaces.Space[Any]) -> Observations:
    """One observation of zeros."""
    parts = {name: np.zeros(part.shape or (), part.dtype) for name, part in space_parts(space).items()}
    return as_tensors(parts.get("", parts))


def concatenate_transitions(parts: Sequence[Transitions]) -> Transitions:
    """Join transitions along their first axis."""

    def join(*tensors: Tensor) -> Tensor:
        return torch.cat(tensors)

    return Transitions(*(map_observations(join, *fields) for fields in zip(*parts, strict=True)))


Row = TypeVar("Row", bound=tuple[Any, ...])
"""A named tuple of numbers and observations."""


class _Column:
    """Where one part of the transitions lies in a row.

    Args:
        values: An example, without leading axes.
        start: First word.
    """

    def __init__(self, values: Tensor, start: int) -> None:
        self._shape, self._dtype, self._plain = values.shape, values.dtype, values.dtype == torch.float32
        self._num_bytes = values.numel() * values.itemsize
        self._words = slice(start, start + -(-self._num_bytes // _WORD))
        self.stop = self._words.stop

    def words(self, values: Tensor) -> Tensor:
        """Values [row, *shape] as words, [row, word]."""
        if self._plain:
            return values.reshape(len(values), -1)
        # A copy: one row of a larger array counts as contiguous, whatever its strides are.
        listed = values.reshape(len(values), -1).clone(memory_format=torch.contiguous_format)
        octets = listed.view(torch.uint8)
        return nn.functional.pad(octets, (0, -self._num_bytes % _WORD)).view(torch.float32)

    def values(self, rows: Tensor) -> Tensor:
        """Values [..., *shape] of rows [..., word]."""
        words = rows[..., self._words]
        if self._plain:
            return words if len(self._shape) == 1 else words.reshape(*rows.shape[:-1], *self._shape)
        octets = words.contiguous().view(torch.uint8)[..., : self._num_bytes]
        return octets.contiguous().view(self._dtype).view(*rows.shape[:-1], *self._shape)


class MultiTaskReplay(Generic[Row]):
    """One store [task, capacity, feature] with a ring per task; allocated when the first rows come.

    Args:
        num_tasks: Number of training tasks.
        capacity: Transitions that each task keeps; the oldest are overwritten.
        example: A row without leading axes, such as `example_transition` makes; its shapes and kinds of numbers
            are those of all rows.
        device: Device that holds the store and on which batches are drawn.
        unit: Word for what has a ring of its own, for messages.
    """

    def __init__(
        self,
        num_tasks: int,
        capacity: int,
        *,
        example: Row,
        device: torch.device,
        unit: str = "tasks",
    ) -> None:
        self.num_tasks, self.capacity, self.device = num_tasks, capacity, device
        self._kind, self._unit = type(example), unit
        self.width = 0  # of a row, in words

        def column(example: Tensor) -> _Column:
            made = _Column(example, self.width)
            self.width = made.stop
            return made

        self._columns = [map_parts(column, part) for part in example]
        self._store: Tensor | None = None
        self._added = [0] * num_tasks  # rows ever added to each task
        self._context = [(0, 0)] * num_tasks  # where in the ring the context starts, and its length
        self._bounds = torch.zeros(3, num_tasks, dtype=torch.int64, device=device)
        self._saved = [0] * num_tasks  # of them, those that are on the disk
        self._saved_file = (Path(), 0)  # where they are, and how much of that file is ours, in bytes

    def check_room(self) -> None:
        """Raise a MemoryError if the device's total memory is too small for the store."""
        check_memory(self.summary(), self.num_bytes, total_memory(self.device), self.device)

    @property
    def num_bytes(self) -> int:
        """Memory of the full store in bytes."""
        return self.num_tasks * self.capacity * self.width * torch.float32.itemsize

    @property
    def num_transitions(self) -> int:
        """Number of transitions in the store, of all tasks."""
        return sum(min(added, self.capacity) for added in self._added)

    def summary(self) -> str:
        """One line with the store's sizes and memory; nothing is allocated."""
        sizes = f"{self.num_tasks} {self._unit} x {self.capacity:,} transitions of {self.width} numbers"
        return f"a replay of {sizes} ({gigabytes(self.num_bytes)})"

    def add(self, task: int, transitions: Row, *, num_context: int) -> None:
        """Store new transitions of a task; the first of them become its context.

        Args:
            task: Index of the task.
            transitions: Rows in the order in which they happened, on any device, each part [row, ...].
            num_context: Number of transitions in the new context, counted from the first.

        Raises:
            ValueError: If there are more than the task can hold, or fewer than the context needs.
        """
        words: list[Tensor] = []
        for column, part in zip(self._columns, transitions, strict=True):
            map_parts(lambda one, values: words.append(one.words(values)), column, part)
        num_rows = len(words[0])
        if not 1 <= num_context <= num_rows:
            raise ValueError(f"the context must be 1 to {num_rows} of the {num_rows} new rows, got {num_context}")
        if num_rows > self.capacity:
            raise ValueError(
                f"one collection brought {num_rows} transitions of a task and its replay holds {self.capacity}; "
                "raise replay_capacity or collect fewer episodes"
            )
        rows = torch.cat(words, 1).to(self.device)
        start = self._added[task]
        self._rows()[task, self._ring(start, num_rows)] = rows
        self._added[task] += num_rows
        self._context[task] = (start % self.capacity, num_context)
        filled = min(self._added[task], self.capacity)
        self._bounds[:, task] = torch.tensor([filled, *self._context[task]], device=self.device)

    def draw(self, tasks: Tensor, num_rows: int, generator: torch.Generator) -> Tensor:
        """Places of transitions, uniform over all that a task holds, with replacement, int64 [task, row].

        Args:
            tasks: Indices of tasks, int64 [task], on the device.
            num_rows: Number of transitions per task.
            generator: Random generator of the device.
        """
        filled = self._bounds[0, tasks].unsqueeze(1)
        return tasks.unsqueeze(1) * self.capacity + self._below(filled, num_rows, generator)

    def draw_context(
        self,
        tasks: Tensor,
        num_rows: int,
        generator: torch.Generator,
        *,
        ordered: bool = False,
        shortest: int | None = None,
    ) -> Tensor:
        """Places of transitions of the tasks' contexts, int64 [task, row].

        Args:
            tasks: Indices of tasks, int64 [task], on the device.
            num_rows: Number of transitions per task.
            generator: Random generator of the device.
            ordered: Whether to draw consecutive steps from a random first one (a context that is shorter starts
                over), instead of uniformly with replacement.
            shortest: Least length in steps of the random window of each context that transitions are drawn from;
                None draws from the whole context. Has no effect with `ordered`.
        """
        if ordered:
            return self.draw_sequences(tasks, num_rows, generator)[0]
        _, start, length = self._bounds[:, tasks].unsqueeze(2)
        window = length
        if shortest is not None:
            least = length.clamp(max=shortest)
            window = least + self._below(length - least + 1, 1, generator)
            start = start + self._below(length - window + 1, 1, generator)
        offset = self._below(window, num_rows, generator)
        places: Tensor = tasks.unsqueeze(1) * self.capacity + (start + offset) % self.capacity
        return places

    def draw_sequences(
        self, tasks: Tensor, num_rows: int, generator: torch.Generator, *, early: int = 0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Places of consecutive steps of the tasks' contexts, from a random first one on.

        Args:
            tasks: Indices of tasks, int64 [task], on the device.
            num_rows: Number of steps per task.
            generator: Random generator of the device.
            early: Number of first steps before a context's first one; sequences from there on start with it.

        Returns:
            Places, the number of steps of the context before each, and the number that follow each; it is negative
            behind the end of a context that is shorter, where places start over. All int64 [task, row].
        """
        _, start, length = self._bounds[:, tasks].unsqueeze(2)
        latest = (length - num_rows).clamp(min=0) + 1
        first = (self._below(latest + early, 1, generator) - early).clamp(min=0)
        step = first + torch.arange(num_rows, device=self.device)
        offset = step % length.clamp(min=1)
        places: Tensor = tasks.unsqueeze(1) * self.capacity + (start + offset) % self.capacity
        return places, step, length - 1 - step

    def gather(self, places: Tensor) -> Row:
        """Read the transitions at drawn places [task, row] in one gather, each [task, row, ...]."""
        rows = self._rows().view(-1, self.width).index_select(0, places.flatten()).view(*places.shape, self.width)
        # A named tuple makes itself of its parts; that Row is one, no type can say.
        return self._kind(*(map_parts(lambda one: one.values(rows), column) for column in self._columns))

    def _below(self, bounds: Tensor, num_rows: int, generator: torch.Generator) -> Tensor:
        """Uniform integers in [0, bound) for bounds [task, 1], int64 [task, num_rows]."""
        uniform = torch.rand(
            len(bounds), num_rows, generator=generator, device=self.device, dtype=widest_float(self.device)
        )  # float32 would skip places of a large ring
        below: Tensor = (uniform * bounds).long()
        return below

    def _ring(self, start: int, num_rows: int) -> Tensor:
        """Places in a ring of consecutive rows, the first being the start-th row ever added."""
        places: Tensor = torch.arange(start, start + num_rows, device=self.device) % self.capacity
        return places

    def _rows(self) -> Tensor:
        """The store; the system backs only the part that is written with memory."""
        if self._store is None:
            if any(self._added):
                raise RuntimeError("the replay's rows were not loaded; call load first")
            self._store = self._allocate()
        return self._store

    def _allocate(self) -> Tensor:
        check_memory(self.summary(), self.num_bytes, available_memory(self.device), self.device)
        return torch.empty(self.num_tasks, self.capacity, self.width, device=self.device)

    def _update_bounds(self) -> None:
        filled = [min(added, self.capacity) for added in self._added]
        starts, lengths = zip(*self._context, strict=True)
        self._bounds.copy_(torch.tensor([filled, starts, lengths]))

    def state_dict(self) -> dict[str, Any]:
        """Number of rows of every task and the place of its context; `save` writes the rows to a file."""
        return {"added": torch.tensor(self._added), "context": torch.tensor(self._context)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state from `state_dict`; `load` reads the rows."""
        if state["added"].shape != (self.num_tasks,):
            raise ValueError(f"the replay must have {self.num_tasks} {self._unit}, got {len(state['added'])}")
        self._store = None
        self._added = state["added"].tolist()
        self._context = [(start, length) for start, length in state["context"].tolist()]
        self._update_bounds()

    def save(self, path: Path) -> None:
        """Append the rows that are new since the last call to the file, and wait until they are on the disk.

        Rows behind those that this replay wrote or read are cut off: they belong to a later checkpoint, from which
        the run has gone back.
        """
        saved_path, end = self._saved_file
        if saved_path != path or not path.exists() or path.stat().st_size < end:
            self._saved, end = [0] * self.num_tasks, 0
        first = [max(saved, added - self.capacity) for saved, added in zip(self._saved, self._added, strict=True)]
        try:
            with open_in_place(path) as file:
                file.seek(end)
                file.truncate()
                for task, added in enumerate(self._added):
                    for start in range(first[task], added, _BLOCK_ROWS):
                        self._write_block(file, task, start, min(_BLOCK_ROWS, added - start))
                file.flush()
                os.fsync(file.fileno())
                self._saved, self._saved_file = list(self._added), (path, file.tell())
        except OSError as error:
            num_rows = sum(self._added) - sum(first)
            raise write_error(path, error, num_rows * self.width * torch.float32.itemsize) from error

    def _write_block(self, file: IO[bytes], task: int, start: int, count: int) -> None:
        """Write a header, and rows of a task from the start-th ever added on."""
        content = self._rows()[task].index_select(0, self._ring(start, count)).cpu().numpy().tobytes()
        file.write(_HEADER.pack(task, start, count, _WHOLE | _checksum(task, start, count, content)))
        file.write(content)

    def load(self, path: Path) -> None:
        """Read the rows of the state that `load_state_dict` restored.

        Raises:
            CheckpointError: If the file is missing, cut short, damaged or of another run.
        """
        if not path.exists():
            raise CheckpointError(f"no replay at {path}; expected the file that was written beside the checkpoint")
        store = self._allocate()
        loaded = [0] * self.num_tasks
        with path.open("rb") as file:
            while loaded != self._added:
                task, start, rows = self._read_block(file, path)
                stop = start + len(rows)
                if start < loaded[task] or stop > self._added[task]:
                    raise CheckpointError(f"{path} is not the replay of this checkpoint: task {task}, row {start}")
                store[task, self._ring(start, len(rows))] = torch.from_numpy(rows).to(self.device)
                loaded[task] = stop
            self._saved, self._saved_file = list(loaded), (path, file.tell())
        self._store = store

    def _read_block(self, file: BufferedReader, path: Path) -> tuple[int, int, np.ndarray]:
        """Task, number of the first row, and the rows [row, feature] of the next block."""
        header = file.read(_HEADER.size)
        if len(header) == _HEADER.size:
            task, start, count, checksum = _HEADER.unpack(header)
            if 0 <= task < self.num_tasks and 1 <= count <= _BLOCK_ROWS:
                content = bytearray(count * self.width * torch.float32.itemsize)
                expected = zlib.crc32(content) if file.readinto(content) == len(content) else None
                if expected is not None and checksum & _WHOLE:
                    expected = _WHOLE | _checksum(task, start, count, content)
                if expected == checksum:
                    return task, start, np.frombuffer(content, np.float32).reshape(count, self.width)
        raise CheckpointError(f"{path} is cut short or damaged; go back to the checkpoint before, or train anew")


def _checksum(task: int, start: int, count: int, content: bytes | bytearray) -> int:
    """Checksum of a block: of where it belongs, and of its rows."""
    return zlib.crc32(content, zlib.crc32(_PLACE.pack(task, start, count)))
