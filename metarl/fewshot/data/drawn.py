"""Tasks that were drawn before: which examples of which classes they are made of, as data, in a file or in memory.

A file is JSON, {"version": 1, "episodes": [[["Greek/character01", [3], [0, 7]], ...], ...]}: for every task the
names of its classes, each with the numbers of its support and query examples among those of the class.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarl.fewshot.data.augmentation import Augmentation
from metarl.fewshot.data.classes import ClassData, DrawnTask, check_class_data
from metarl.fewshot.episodes import Episodes, Examples
from metarl.fewshot.objectives import IGNORED
from metarl.fewshot.sources import TrainLabels
from metarl.runs.reading import read_json, shorten

_VERSION = 1


class FixedEpisodes:
    """A list of tasks, given in its order and again from its beginning.

    Args:
        data: Classes and their examples.
        tasks: Tasks; their ways and shots may differ, see `episodes_of`.
        labels: Targets of the tasks: places among their own classes, or indices of all classes.
    """

    def __init__(self, data: ClassData, tasks: Sequence[DrawnTask], *, labels: TrainLabels = "task") -> None:
        if not tasks:
            raise ValueError("expected at least one task")
        check_class_data(data)
        check_tasks(data, tasks)
        self.data, self.tasks, self.labels = data, tuple(tasks), labels
        self.augmentation: Augmentation | None = None
        self._next = 0

    def from_start(self) -> "FixedEpisodes":
        """The same list, to be given from its beginning."""
        return FixedEpisodes(self.data, self.tasks, labels=self.labels)

    def with_data(self, data: ClassData) -> "FixedEpisodes":
        """The same tasks of other examples of the same classes, such as their features."""
        return FixedEpisodes(data, self.tasks, labels=self.labels)

    def with_labels(self, labels: TrainLabels) -> "FixedEpisodes":
        """The same tasks with targets of another kind."""
        return FixedEpisodes(self.data, self.tasks, labels=labels)

    def sample(self, num_tasks: int, rng: np.random.Generator) -> Episodes:
        """The next tasks of the list, whatever the generator."""
        places = [(self._next + place) % len(self.tasks) for place in range(num_tasks)]
        self._next = (self._next + num_tasks) % len(self.tasks)
        return episodes_of(self.data, [self.tasks[place] for place in places], self.labels)


def episodes_of(data: ClassData, tasks: Sequence[DrawnTask], labels: TrainLabels = "task") -> Episodes:
    """The examples of tasks, class by class.

    Where tasks differ in their ways or shots, rows whose class is `IGNORED` fill all up to one more than the most;
    their inputs are those of a task's first row.
    """
    starts = data.starts.tolist()
    sizes = {tuple(len(rows) for rows in (*task.support, *task.query)) for task in tasks}
    padding = 0 if len(sizes) == 1 else 1

    def examples(numbers: Sequence[Sequence[Sequence[int]]]) -> Examples:
        rows, targets = [], []
        for task, of_classes in zip(tasks, numbers, strict=True):
            pairs = [(place, number) for place, few in enumerate(of_classes) for number in few]
            rows.append([starts[task.classes[place]] + number for place, number in pairs])
            targets.append([task.classes[place] if labels == "class" else place for place, _ in pairs])
        most = max(map(len, rows)) + padding
        filled = [row + row[:1] * (most - len(row)) for row in rows]
        classes = [row + [IGNORED] * (most - len(row)) for row in targets]
        device = data.examples.device
        picked: Tensor = data.examples[torch.tensor(filled, device=device).flatten()]
        inputs = picked.view(len(tasks), most, *picked.shape[1:])
        return Examples(inputs, torch.tensor(classes, device=device))

    return Episodes(examples([task.support for task in tasks]), examples([task.query for task in tasks]))


def check_tasks(data: ClassData, tasks: Sequence[DrawnTask]) -> None:
    """Raise a ValueError that names a task with a class of no support example or query, or examples not there."""
    counts = data.counts.tolist()
    for number, task in enumerate(tasks):
        for what, numbers in (("support example", task.support), ("query", task.query)):
            if len(numbers) != len(task.classes) or not all(numbers):
                raise ValueError(
                    f"task {number} must have a {what} of every class or more, {len(task.classes)} classes, got "
                    f"{[len(few) for few in numbers]}"
                )
        for place, *parts in zip(task.classes, task.support, task.query, strict=True):
            if not 0 <= place < len(counts):
                raise ValueError(f"task {number} must be of classes below {len(counts)}, got {place}")
            wrong = [n for few in parts for n in few if not 0 <= n < counts[place]]
            if wrong:
                raise ValueError(
                    f"task {number} must name examples of {data.names[place]!r} by numbers below {counts[place]}, "
                    f"got {wrong[0]}"
                )


def as_json(data: ClassData, tasks: Sequence[DrawnTask]) -> dict[str, Any]:
    """Tasks as the content of a file that `read_tasks` reads."""
    listed = [
        [
            [data.names[place], list(support), list(query)]
            for place, support, query in zip(task.classes, task.support, task.query, strict=True)
        ]
        for task in tasks
    ]
    return {"version": _VERSION, "episodes": listed}


def read_tasks(path: Path, data: ClassData) -> list[DrawnTask]:
    """The tasks of a file.

    Raises:
        ValueError: If it is no such file, or names a class or an example that the data lack; one line.
    """
    content = read_json(path, "list of episodes")
    if not isinstance(content, dict) or content.get("version") != _VERSION or not content.get("episodes"):
        raise ValueError(f"{path} is no list of episodes; make one with `metarl episodes`")
    places = {name: place for place, name in enumerate(data.names)}
    counts = data.counts.tolist()
    return [
        _task(entry, f"episode {number} of {path}", places, counts)
        for number, entry in enumerate(content["episodes"])
    ]


def _task(entry: Any, where: str, places: dict[str, int], counts: Sequence[int]) -> DrawnTask:
    """The task of an entry of a file, checked."""
    if not isinstance(entry, list) or len(entry) < 2:
        raise ValueError(f"{where} must be a list of two classes or more, got {shorten(entry)}")
    classes, support, query = [], [], []
    for part in entry:
        if not (isinstance(part, list) and len(part) == 3 and isinstance(part[0], str)):
            raise ValueError(f"{where} must hold a name, support and query examples, got {shorten(part)}")
        name, *numbers = part
        if name not in places:
            raise ValueError(f"{where} has the class {shorten(name)}, which is not among those of the split")
        most = counts[places[name]]
        for few in numbers:
            if not isinstance(few, list) or not few or not all(type(n) is int and 0 <= n < most for n in few):
                raise ValueError(
                    f"{where} must name examples of {name!r} by numbers below {most}, got {shorten(few)}"
                )
        if len({*numbers[0], *numbers[1]}) < len(numbers[0]) + len(numbers[1]):
            raise ValueError(f"{where} has an example of {name!r} twice")
        classes.append(places[name])
        support.append(tuple(numbers[0]))
        query.append(tuple(numbers[1]))
    if len(set(classes)) < len(classes):
        raise ValueError(f"{where} has a class twice")
    return DrawnTask(tuple(classes), tuple(support), tuple(query))
