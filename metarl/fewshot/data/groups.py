"""Groups of classes, such as alphabets or parent folders: a task draws a group, and then classes of it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from metarl.runs.configs import Configuration

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

    @staticmethod
    def of(groups: Sequence[str | Sequence[str]], draws: GroupDraws = "by_size") -> "Groups":
        """The groups of classes, from the name of the group of each class, or the names of several."""
        each = [(of_class,) if isinstance(of_class, str) else tuple(of_class) for of_class in groups]
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
