"""Groups of classes, such as alphabets or parent folders: a task draws a group, and then classes of it."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from metarl.runs.configs import Configuration
from metarl.runs.reading import shorten

GroupKind = Literal["parents", "ancestors"]
GroupDraws = Literal["by_size", "alike"]
_ROTATION = re.compile(r"rot\d{3}")


@dataclass(frozen=True)
class Groups(Configuration):
    """Groups that classes belong to, each class to one or to several.

    Attributes:
        names: Names of the groups.
        members: Classes that belong to each group, bool [group, class].
        draws: Frequency of the groups: as often as each has classes, or all alike.
    """

    names: tuple[str, ...]
    members: Tensor
    draws: GroupDraws = "by_size"

    def __post_init__(self) -> None:
        shape = tuple(self.members.shape)
        if self.members.dtype != torch.bool or len(shape) != 2 or shape[0] != len(self.names):
            raise ValueError(
                f"members must be bool [group, class] of {len(self.names)} groups, got {self.members.dtype} of "
                f"shape {shape}; Groups.of makes them of names"
            )

    @staticmethod
    def of(
        groups: Sequence[str | int | Sequence[str | int]] | np.ndarray | Tensor, draws: GroupDraws = "by_size"
    ) -> "Groups":
        """The groups of classes, from the name or number of the group of each class, or of several.

        Raises:
            TypeError: If they are no sequence of such; names what came.
        """
        if isinstance(groups, str):
            raise TypeError(f"expected the group of every class, in a sequence, got the text {shorten(groups)}")
        each = [_names(of_class) for of_class in (groups.tolist() if isinstance(groups, Tensor) else groups)]
        names = tuple(dict.fromkeys(name for of_class in each for name in of_class))
        members = torch.tensor([[name in of_class for of_class in each] for name in names], dtype=torch.bool)
        return Groups(names, members.view(len(names), len(each)), draws)

    @staticmethod
    def by_name(classes: Sequence[str], kind: GroupKind = "parents", draws: GroupDraws = "by_size") -> "Groups":
        """The groups of classes that are named like folders: the folder each lies in, or every one above it."""
        return Groups.of([group_of(name) if kind == "parents" else groups_above(name) for name in classes], draws)

    @property
    def weights(self) -> Tensor:
        """The weight of each group when one is drawn, float64 [group]."""
        sizes = self.members.sum(1).double()
        return sizes if self.draws == "by_size" else torch.ones_like(sizes)

    def with_at_least(self, num_classes: int, among: Tensor | None = None) -> "Groups":
        """The groups that have so many classes or more, of those that a mask [class] allows.

        Raises:
            ValueError: If there is none; says which group is the largest.
        """
        members = self.members if among is None else self.members & among
        sizes = members.sum(1)
        enough = sizes >= num_classes
        if not enough.any():
            largest = int(sizes.argmax())
            raise ValueError(
                f"{num_classes}-way episodes within a group need a group of at least {num_classes} classes, the "
                f"largest is {self.names[largest]!r} with {int(sizes[largest])}"
            )
        names = tuple(name for name, is_one in zip(self.names, enough.tolist(), strict=True) if is_one)
        return Groups(names, members[enough], self.draws)


def of_classes(groups: object, classes: Sequence[str]) -> Groups:
    """The groups of a source, which must be of its classes.

    Raises:
        TypeError: If they are no groups.
        ValueError: If they are of another number of classes.
    """
    if not isinstance(groups, Groups):
        raise TypeError(f"groups must be Groups, got {type(groups).__name__}; Groups.of(names) makes them")
    if groups.members.shape[1] != len(classes):
        raise ValueError(
            f"groups must be of {len(classes)} classes, as there are in the data, got those of "
            f"{groups.members.shape[1]}"
        )
    return groups


def _names(of_class: object) -> tuple[str, ...]:
    """The names of the groups that a class is of."""
    several = isinstance(of_class, Iterable) and not isinstance(of_class, str | Integral)
    names: tuple[object, ...] = tuple(of_class) if several else (of_class,)  # type: ignore[arg-type]
    if not all(isinstance(name, str | Integral) for name in names):
        raise TypeError(f"the group of a class must be a name, a number, or several, got {shorten(of_class)}")
    return tuple(map(str, names))


def group_of(name: str) -> str:
    """The folder that a class lies in: "Greek" of "Greek/character01", "birds/small" of "birds/small/wren".

    Rotated classes are a group of their own: "Greek/rot090" of "Greek/character01/rot090". A class in no folder is
    alone in its group.
    """
    *above, last = name.split("/")
    if len(above) > 1 and _ROTATION.fullmatch(last):
        return "/".join([*above[:-1], last])
    return "/".join(above) or name


def groups_above(name: str) -> tuple[str, ...]:
    """Every folder above a class, "birds/small" and "birds" of "birds/small/wren"; rotations as in `group_of`."""
    group = group_of(name)
    *above, last = group.split("/")
    turned = name.endswith(f"/{last}") and bool(above) and _ROTATION.fullmatch(last) is not None
    folders = above if turned else [*above, last]
    ends = [last] if turned else []
    return tuple("/".join([*folders[:size], *ends]) for size in range(len(folders), 0, -1))
