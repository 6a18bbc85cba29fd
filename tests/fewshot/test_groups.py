"""Hierarchies of classes: a task draws a group, such as an alphabet or a folder, and then its classes."""

from collections import Counter
from dataclasses import dataclass
from math import sqrt

import numpy as np
import pytest
import torch

from metarl.fewshot.data.class_tasks import EpisodesConfig, ImageClasses, Splits
from metarl.fewshot.data.classes import ClassData, ClassEpisodes
from metarl.fewshot.data.groups import Groups, group_of, groups_above
from metarl.fewshot.data.unequal import UnequalEpisodes, UnequalSizes
from metarl.fewshot.diagnosis import accuracy_by_shots
from metarl.fewshot.learners.prototypical import Prototypical, PrototypicalConfig

NAMES = (
    *("birds/small/wren", "birds/small/robin", "birds/small/finch", "birds/large/crow", "birds/large/gull"),
    *("fish/carp", "fish/pike", "fish/eel", "stone"),
)
DATA = ClassData(NAMES, torch.zeros(9 * 6, 2), torch.full((9,), 6))


def _drawn(groups: Groups, num_ways: int, num_tasks: int = 2000) -> list[tuple[str, ...]]:
    """The names of the classes of tasks."""
    source = ClassEpisodes(DATA, num_ways=num_ways, num_shots=1, num_queries=1, groups=groups)
    return [
        tuple(NAMES[place] for place in task.classes) for task in source.draw(num_tasks, np.random.default_rng(0))
    ]


def test_the_group_of_a_class_is_the_folder_it_lies_in_and_rotations_are_apart() -> None:
    groups = {
        "Greek/character01": ("Greek", ("Greek",)),
        "Greek/character01/rot090": ("Greek/rot090", ("Greek/rot090",)),
        "birds/small/wren": ("birds/small", ("birds/small", "birds")),
        "birds/small/wren/rot180": ("birds/small/rot180", ("birds/small/rot180", "birds/rot180")),
        "crow": ("crow", ("crow",)),
    }
    assert {name: (group_of(name), groups_above(name)) for name in groups} == groups


def test_classes_of_a_task_lie_in_one_folder() -> None:
    tasks = _drawn(Groups.by_name(NAMES), 2)
    assert {group_of(name) for task in tasks for name in task} == {"birds/small", "birds/large", "fish"}
    assert all(len({group_of(name) for name in task}) == 1 for task in tasks)


def test_groups_are_drawn_by_their_size_or_alike() -> None:
    sizes = {"birds/small": 3, "birds/large": 2, "fish": 3}
    for groups, shares in (
        (Groups.by_name(NAMES), {name: size / 8 for name, size in sizes.items()}),
        (Groups.by_name(NAMES, draws="alike"), dict.fromkeys(sizes, 1 / 3)),
    ):
        counts = Counter(group_of(task[0]) for task in _drawn(groups, 2))
        assert set(counts) == set(sizes)
        for name, share in shares.items():
            assert counts[name] / 2000 == pytest.approx(share, abs=4 * sqrt(share * (1 - share) / 2000))


def test_every_folder_above_a_class_is_a_group() -> None:
    tasks = _drawn(Groups.by_name(NAMES, "ancestors"), 3)
    folders = Counter(tuple(sorted({group_of(name) for name in task})) for task in tasks)
    assert ("birds/large", "birds/small") in folders  # of all birds
    assert all({name.split("/")[0] for name in task} in ({"birds"}, {"fish"}) for task in tasks)
    # three groups have three classes: small birds 3, all birds 5, fish 3; of the birds one task in ten is of small
    # ones alone
    assert folders["fish",] / 2000 == pytest.approx(3 / 11, abs=0.04)
    assert folders["birds/small",] / 2000 == pytest.approx(3 / 11 + 5 / 11 / 10, abs=0.04)


def test_groups_may_be_given_and_may_overlap() -> None:
    groups = Groups.of([("a", "b"), "a", "b", "c", "c", "c", "c", "c", "c"], draws="alike")
    assert groups.names == ("a", "b", "c")
    assert groups.members[:2].int().tolist() == [[1, 1, *[0] * 7], [1, 0, 1, *[0] * 6]]
    tasks = _drawn(groups, 2)
    assert {frozenset(task) for task in tasks} >= {frozenset(NAMES[:2]), frozenset({NAMES[0], NAMES[2]})}
    assert not any(set(task) == set(NAMES[1:3]) for task in tasks)


def test_unequal_tasks_are_within_a_group_and_have_at_most_its_classes() -> None:
    counts = torch.tensor([6, 6, 6, 6, 6, 6, 6, 1, 6])
    data = ClassData(NAMES, torch.zeros(int(counts.sum()), 2), counts)
    groups = Groups.by_name(NAMES, "ancestors", "alike")
    source = UnequalEpisodes(data, UnequalSizes(min_ways=2, max_ways=5, max_queries=2), groups=groups)
    tasks = source.draw(2000, np.random.default_rng(0))
    names = [tuple(NAMES[place] for place in task.classes) for task in tasks]
    tops = [{name.split("/")[0] for name in task} for task in names]
    assert all(top in ({"birds"}, {"fish"}) for top in tops)
    fish = [len(task) for task, top in zip(names, tops, strict=True) if top == {"fish"}]
    assert set(fish) == {2}  # the eel has one example
    assert len(fish) / 2000 == pytest.approx(1 / 4, abs=0.04)  # of four groups of two classes and more
    assert {len(task) for task in names} == {2, 3, 4, 5}
    with pytest.raises(ValueError, match=r"6-way episodes within a group .* the largest is 'birds' with 5"):
        UnequalEpisodes(data, UnequalSizes(min_ways=6, max_ways=6), groups=groups)


def test_accuracy_by_shots_keeps_to_the_groups() -> None:
    """Examples of one folder are alike, so that tasks within one are guessed, and others are not."""
    places = torch.tensor([float(len(group_of(name))) for name in NAMES]).repeat_interleave(6)
    data = ClassData(NAMES, places.unsqueeze(1), DATA.counts)
    learner, accuracies = Prototypical(torch.nn.Linear(1, 1), PrototypicalConfig()), []
    for groups in (None, Groups.by_name(NAMES)):
        source = ClassEpisodes(data, num_ways=2, num_shots=1, num_queries=2, groups=groups)
        rng = np.random.default_rng(0)
        shots = accuracy_by_shots(learner, source, rng, shots=(1,), num_tasks=40, num_steps=0)
        accuracies.append(shots[1].mean())
    assert accuracies[0] > 0.8
    assert accuracies[1] == 0.5


@dataclass(frozen=True)
class _Tree(ImageClasses):
    """The classes above, for every split."""

    size: int = 4

    def read(self, device: torch.device) -> tuple[ClassData, Splits]:
        data = ClassData(NAMES, torch.zeros(54, 1, 4, 4, dtype=torch.uint8), torch.full((9,), 6))
        return data, Splits(data, data.select([]), data)


def test_an_experiment_chooses_groups() -> None:
    episodes = EpisodesConfig(3, 1, 2, within_groups="held_out", groups="ancestors", group_draws="alike")
    sources = _Tree("nowhere", episodes).make(torch.device("cpu"))
    assert isinstance(sources.train, ClassEpisodes)
    assert sources.train.groups is None
    test = sources.held_out["test"]
    assert isinstance(test, ClassEpisodes)
    assert test.groups is not None
    assert (test.groups.names, test.groups.draws) == (
        ("birds/small", "birds", "birds/large", "fish", "stone"),
        "alike",
    )
    unequal = EpisodesConfig(3, 1, 2, within_groups="all", unequal="all", min_ways=2)
    data = _Tree("nowhere", unequal)
    assert data.describe() == "2 to 3 ways, unequal shots, up to 2 queries, within a group"
    source = data.make(torch.device("cpu")).train
    assert isinstance(source, UnequalEpisodes)
    drawn = [
        {group_of(NAMES[place]) for place in task.classes} for task in source.draw(50, np.random.default_rng(0))
    ]
    assert all(len(groups) == 1 for groups in drawn)
