"""Episodes: few-shot tasks as tensors, a whole meta-batch at a time."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from metarl.fewshot.objectives import IGNORED, is_classification


def as_tensor(values: Tensor | np.ndarray) -> Tensor:
    """A tensor of numbers: itself, or of NumPy's, whose floats become float32.

    Raises:
        TypeError: If they are not numbers.
    """
    if isinstance(values, Tensor):
        return values
    array = np.asarray(values)
    if array.dtype.kind in "SU":
        raise TypeError(
            "expected a tensor or an array of numbers, got strings; numpy.unique(labels, return_inverse=True) "
            "numbers them"
        )
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"expected a tensor or an array of numbers, got {type(values).__name__}; InputParts of "
            "metarl.fewshot.parts packs several arrays in one"
        )
    return torch.from_numpy(np.array(array, dtype=np.float32 if array.dtype.kind == "f" else array.dtype))


def as_inputs(examples: Tensor | np.ndarray) -> Tensor:
    """Examples as networks take them, with bytes as fractions of 255; see `as_tensor`."""
    examples = as_tensor(examples)
    return examples.float() / 255 if examples.dtype == torch.uint8 else examples


class _Examples(NamedTuple):
    inputs: Tensor
    targets: Tensor


class Examples(_Examples):
    """Labelled examples of several tasks.

    Tensors and NumPy's arrays will do: inputs become those of `as_inputs`, classes of any integer type int64.

    Attributes:
        inputs: Inputs [task, row, *input].
        targets: Class indices int64 [task, row], or numbers to predict [task, row, out].
    """

    def __new__(cls, inputs: Tensor | np.ndarray, targets: Tensor | np.ndarray) -> Self:
        """The examples, whose inputs and targets are tensors as learners take them."""
        targets = as_tensor(targets)
        return super().__new__(cls, as_inputs(inputs), targets if targets.is_floating_point() else targets.long())

    @staticmethod
    def of_one_task(inputs: Tensor | np.ndarray, targets: Tensor | np.ndarray) -> "Examples":
        """The examples of a single task, inputs [row, *input] and targets [row] or [row, out].

        Raises:
            ValueError: If there are none, or not as many targets as inputs.
        """
        inputs, targets = as_tensor(inputs), as_tensor(targets)
        if not inputs.dim() or not targets.dim() or not len(inputs) or len(inputs) != len(targets):
            raise ValueError(
                "expected a target for every example, and one example or more, got inputs of shape "
                f"{tuple(inputs.shape)} and targets of shape {tuple(targets.shape)}"
            )
        return Examples(inputs.unsqueeze(0), targets.unsqueeze(0))

    def kept(self) -> "Examples":
        """The same examples, also for gradients if they were made in torch's inference mode."""
        return Examples(*(part.clone() if part.is_inference() else part for part in self))

    def rows(self, indices: Tensor) -> "Examples":
        """Chosen rows of every task, by indices [task, chosen]."""
        tasks = torch.arange(len(indices), device=indices.device).unsqueeze(1)
        return Examples(self.inputs[tasks, indices], self.targets[tasks, indices])

    def real(self) -> "Examples":
        """The rows of a single task that are not padding."""
        if self.targets.is_floating_point():
            return self
        rows = self.targets[0] != IGNORED
        return Examples(self.inputs[:, rows], self.targets[:, rows])

    def join(self, other: "Examples") -> "Examples":
        """The examples of both, row after row."""
        return Examples(torch.cat([self.inputs, other.inputs], 1), torch.cat([self.targets, other.targets], 1))


class Episodes(NamedTuple):
    """Support sets to adapt to and query sets to be judged on, of the same tasks."""

    support: Examples
    query: Examples

    @property
    def num_tasks(self) -> int:
        """Tasks in the batch."""
        return len(self.support.inputs)

    @property
    def is_ragged(self) -> bool:
        """Whether rows are padding, because tasks differ in their ways or shots."""
        return any(bool((part.targets == IGNORED).any()) for part in self if is_classification(part.targets))

    def alone(self) -> "list[Episodes]":
        """Every task by itself, without its padding."""
        return [Episodes(*(part.real() for part in task)) for task in self.split(1)]

    def select(self, tasks: slice) -> "Episodes":
        """Some of the tasks."""
        return Episodes(*(Examples(part.inputs[tasks], part.targets[tasks]) for part in self))

    def split(self, num_tasks: int) -> "list[Episodes]":
        """The same tasks in batches of at most this many."""
        pieces = [torch.split(tensor, num_tasks) for examples in self for tensor in examples]
        return [Episodes(Examples(a, b), Examples(c, d)) for a, b, c, d in zip(*pieces, strict=True)]


def by_task(episodes: Episodes) -> Episodes:
    """The same tasks with places among their own classes for targets, whatever numbers the classes have."""
    support: list[Tensor] = []
    query: list[Tensor] = []
    for known, new in zip(episodes.support.targets, episodes.query.targets, strict=True):
        classes = known[known != IGNORED].unique()
        for places, numbers in ((support, known), (query, new)):
            places.append(torch.searchsorted(classes, numbers).masked_fill(numbers == IGNORED, IGNORED))
    return Episodes(
        Examples(episodes.support.inputs, torch.stack(support)),
        Examples(episodes.query.inputs, torch.stack(query)),
    )


def together(tasks: Sequence[Episodes]) -> Episodes:
    """Batches of one task each as a single batch.

    Where the tasks' ways or shots differ, rows whose class is `IGNORED` fill all up to one more than the most;
    their inputs are those of a task's first row.

    Raises:
        ValueError: If inputs differ in their shapes, or tasks of numbers in their rows.
    """
    shapes = list(dict.fromkeys(tuple(part.inputs.shape[2:]) for task in tasks for part in task))
    if len(shapes) > 1:
        raise ValueError(f"tasks of a batch must have inputs of one shape, got {shapes[0]} and {shapes[1]}")
    sizes = {tuple(_sizes(part) for part in task) for task in tasks}
    if len(sizes) > 1 and not all(is_classification(part.targets) for task in tasks for part in task):
        raise ValueError(f"tasks of numbers must have as many rows in a batch, got {sorted(sizes)}")

    def joined(parts: Sequence[Examples]) -> Examples:
        most = max(part.targets.shape[1] for part in parts) + 1
        filled = parts if len(sizes) == 1 else [_filled(part, most) for part in parts]
        return Examples(torch.cat([part.inputs for part in filled]), torch.cat([part.targets for part in filled]))

    return Episodes(joined([task.support for task in tasks]), joined([task.query for task in tasks]))


def _sizes(part: Examples) -> tuple[int, ...]:
    """The number of rows of every class of one task, or of all."""
    if not is_classification(part.targets):
        return (part.targets.shape[1],)
    return tuple(Counter(part.targets[0].tolist()).values())


def _filled(part: Examples, num_rows: int) -> Examples:
    """The examples of one task, and rows that are padding up to a number."""
    lacking = num_rows - part.targets.shape[1]
    first = part.inputs[:, :1].expand(-1, lacking, *part.inputs.shape[2:])
    return part.join(Examples(first, part.targets.new_full((1, lacking), IGNORED)))


class EpisodeSource(Protocol):
    """A distribution over few-shot tasks."""

    def sample(self, num_tasks: int, rng: np.random.Generator) -> Episodes:
        """Independent tasks; the same ones whenever the generator is in the same state."""
