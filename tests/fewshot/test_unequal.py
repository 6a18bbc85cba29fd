"""Tasks of unequal ways and shots, drawn as Meta-Dataset draws them."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from metarl.experiments.fewshot.configuration import FewshotExperiment, make_learner
from metarl.fewshot import ClassData, MamlConfig, Prototypical, PrototypicalConfig
from metarl.fewshot.data.augmentation import AUGMENTATIONS
from metarl.fewshot.data.class_tasks import EpisodesConfig
from metarl.fewshot.data.omniglot import OmniglotData
from metarl.fewshot.data.unequal import UnequalEpisodes, UnequalSizes
from metarl.fewshot.evaluation import adaptation_scores
from metarl.fewshot.learner import Learner
from metarl.fewshot.learners.baseline import Baseline, BaselineConfig
from metarl.fewshot.learners.mahalanobis import Mahalanobis, MahalanobisConfig
from metarl.fewshot.learners.ridge import Ridge, RidgeConfig
from metarl.fewshot.learners.support_vectors import SupportVector, SupportVectorConfig
from metarl.fewshot.sources import OtherSizes

COUNTS = torch.tensor([3, 40, 7, 12, 25, 1, 9, 60, 5])
DATA = ClassData(
    tuple("abcdefghi"), torch.randn(int(COUNTS.sum()), 3, generator=torch.Generator().manual_seed(0)), COUNTS
)
SIZES = UnequalSizes(min_ways=2, max_ways=6, max_queries=4, max_support=30, max_class_support=10)


@pytest.fixture(scope="module")
def tasks() -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Counts, shots and queries of the classes of many tasks."""
    drawn = UnequalEpisodes(DATA, SIZES).draw(2000, np.random.default_rng(0))
    return [
        (
            COUNTS.numpy()[list(task.classes)],
            np.array([len(few) for few in task.support]),
            np.array([len(few) for few in task.query]),
        )
        for task in drawn
    ]


def test_sizes_are_within_their_limits(tasks: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> None:
    for counts, shots, queries in tasks:
        assert 2 <= len(counts) <= 6
        assert counts.min() >= 2  # the class of one example is left out
        assert set(queries) == {min(4, counts.min() // 2)}
        assert shots.min() >= 1
        assert (shots + queries <= counts).all()
        assert shots.sum() <= 30
    assert {len(shots) for _, shots, _ in tasks} == {2, 3, 4, 5, 6}


def test_a_task_has_no_more_ways_than_there_are_classes() -> None:
    sizes = UnequalSizes(max_queries=4, max_support=60)
    assert sizes.max_ways > len(COUNTS)
    ways = {len(task.classes) for task in UnequalEpisodes(DATA, sizes).draw(50, np.random.default_rng(0))}
    assert ways == {5, 6, 7, 8}  # of nine classes the one of one example is left out


def test_shots_follow_the_formula_of_the_paper(tasks: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> None:
    """Support sets reach their largest size, and shots lean to large classes by a factor of four at most."""
    largest = 0
    for counts, shots, queries in tasks:
        left = counts - queries
        most = min(30, int(np.minimum(10, left).sum()))
        assert shots.sum() <= most
        largest += int(shots.sum() >= most - len(counts))
        free = (shots > 1) & (shots < left)  # neither the least nor the most
        for one in np.flatnonzero(free):
            for other in np.flatnonzero(free):
                ratio = (shots[one] - 1) / shots[other] / (counts[one] / counts[other])
                assert ratio < 4
    assert largest > 50  # sets of nearly the largest size come up


def test_queries_and_support_share_no_example_and_draws_are_repeated() -> None:
    source = UnequalEpisodes(DATA, SIZES)
    first, again = (source.draw(50, np.random.default_rng(3)) for _ in range(2))
    assert first == again
    for task in first:
        for support, query in zip(task.support, task.query, strict=True):
            assert not set(support) & set(query)
            assert len(set(support)) == len(support)
    assert source.sample(4, np.random.default_rng(1)).is_ragged


LEARNERS: list[Callable[[nn.Module], Learner]] = [
    lambda module: Prototypical(module, PrototypicalConfig()),
    lambda module: Ridge(module, RidgeConfig()),
    lambda module: Mahalanobis(module, MahalanobisConfig()),
    lambda module: SupportVector(module, SupportVectorConfig()),
    lambda module: Baseline(
        module, BaselineConfig(pretraining_updates=1), num_features=3, generator=torch.Generator()
    ),
]


@pytest.mark.parametrize("make", LEARNERS)
def test_learners_are_trained_and_evaluated_on_unequal_tasks(make: Callable[[nn.Module], Learner]) -> None:
    torch.manual_seed(0)
    learner, rng = make(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))), np.random.default_rng(0)
    source = UnequalEpisodes(DATA, SIZES)
    training = source.with_labels("class") if isinstance(learner, Baseline) else source
    for _ in range(2):  # the baseline's first update is of all classes
        metrics = learner.update(training.sample(3, rng), rng)
        assert math.isfinite(metrics["loss/outer"])
    name, scores = adaptation_scores(learner, source, rng, num_tasks=5, num_steps=1, tasks_at_once=3)
    assert name == "accuracy"
    assert scores.shape == (1, 5)
    assert ((scores >= 0) & (scores <= 1)).all()


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="min_ways <= max_ways"):
        UnequalSizes(min_ways=6, max_ways=5)
    with pytest.raises(ValueError, match="got 8"):
        UnequalEpisodes(DATA, UnequalSizes(min_ways=9))
    with pytest.raises(ValueError, match="distorted"):
        UnequalEpisodes(DATA, SIZES, augmentation=AUGMENTATIONS["classes"])


def test_an_experiment_draws_unequal_tasks(omniglot_archive: Path) -> None:
    episodes = EpisodesConfig(
        num_ways=3, num_queries=2, unequal="held_out", min_ways=2, train_ways=2, train_queries=1
    )
    data = OmniglotData(str(omniglot_archive), episodes)
    sources = data.make(torch.device("cpu"))
    assert isinstance(sources.held_out["test"], UnequalEpisodes)
    assert not sources.train.sample(2, np.random.default_rng(0)).is_ragged
    assert data.describe() == "2 to 3 ways, unequal shots, up to 2 queries"
    assert data.resized(OtherSizes(num_ways=2)).episodes.unequal == "held_out"
    with pytest.raises(ValueError, match="leave it out"):
        data.resized(OtherSizes(num_shots=2))
    with pytest.raises(ValueError, match="ways differ"):
        make_learner(FewshotExperiment(data, MamlConfig()), torch.device("cpu"))
