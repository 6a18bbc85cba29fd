"""The tasks of an experiment: which classes, ways and distortions go to training and which are held out."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from metarl.fewshot.data.class_tasks import EpisodesConfig, ImageClasses, Splits
from metarl.fewshot.data.classes import ClassData, ClassEpisodes
from metarl.fewshot.data.omniglot import OmniglotData
from metarl.fewshot.data.sinusoids import HarmonicData
from metarl.fewshot.sources import OtherSizes, Sources

EPISODES = EpisodesConfig(num_ways=3, num_shots=1, num_queries=2, train_ways=6, train_shots=2, train_queries=1)
NUM_TRAIN, NUM_VALIDATION, NUM_TEST = 13, 5, 7


@pytest.fixture
def data(omniglot_folder: Path) -> OmniglotData:
    return OmniglotData(str(omniglot_folder), episodes=EPISODES)


def _sources(data: OmniglotData | HarmonicData, name: str = "omniglot-protonet") -> Sources:
    return data.make(torch.device("cpu"))


def _classes(source: object) -> tuple[str, ...]:
    assert isinstance(source, ClassEpisodes)
    return source.data.names


def test_rotations_are_classes_of_training_alone_unless_asked_for(data: OmniglotData) -> None:
    for rotations, factors in (("none", (1, 1, 1)), ("train", (4, 1, 1)), ("all", (4, 4, 4))):
        sources = _sources(replace(data, rotations=rotations))
        held_out = [len(_classes(sources.held_out[split])) for split in ("validation", "test")]
        expected = [f * n for f, n in zip(factors, (NUM_TRAIN, NUM_VALIDATION, NUM_TEST), strict=True)]
        assert [len(_classes(sources.train)), *held_out] == expected


def test_validation_classes_are_no_longer_held_out_once_trained_on(data: OmniglotData) -> None:
    data = replace(data, rotations="none")
    plain, both = _sources(data), _sources(replace(data, train_on_validation=True))
    assert sorted(plain.held_out) == ["test", "train", "validation"]
    assert sorted(both.held_out) == ["test", "train"]
    validation = set(_classes(plain.held_out["validation"]))
    assert not validation & set(_classes(plain.train))
    assert validation < set(_classes(both.train))
    assert _classes(both.held_out["test"]) == _classes(plain.held_out["test"])
    assert not set(_classes(both.train)) & set(_classes(both.held_out["test"]))


def test_training_has_its_own_ways_shots_and_queries(data: OmniglotData) -> None:
    sources = _sources(data)
    train = sources.train.sample(2, np.random.default_rng(0))
    test = sources.held_out["test"].sample(2, np.random.default_rng(0))
    assert (train.support.targets.shape, train.query.targets.shape) == ((2, 12), (2, 6))
    assert (test.support.targets.shape, test.query.targets.shape) == ((2, 3), (2, 6))


@pytest.mark.parametrize("augmentation", ["images", "classes"])
def test_only_what_is_trained_on_is_distorted(data: OmniglotData, augmentation: str) -> None:
    sources, plain = _sources(replace(data, augmentation=augmentation)), _sources(data)
    drawn = [s.train.sample(1, np.random.default_rng(0)).support.inputs for s in (sources, plain)]
    assert not torch.equal(*drawn)
    for split in ("train", "validation", "test"):
        drawn = [s.held_out[split].sample(1, np.random.default_rng(0)).support.inputs for s in (sources, plain)]
        assert torch.equal(*drawn)


def test_evaluation_may_take_other_sizes_and_another_folder_and_training_keeps_its_own(data: OmniglotData) -> None:
    other = data.resized(OtherSizes(num_ways=4, folder="elsewhere"))
    assert (other.episodes, other.folder) == (replace(EPISODES, num_ways=4), "elsewhere")
    assert data.resized(OtherSizes()) == data
    plain = replace(data, episodes=EpisodesConfig(3, 1, 2)).resized(
        OtherSizes(num_ways=5, num_shots=2, num_queries=1)
    )
    assert plain.episodes == EpisodesConfig(5, 2, 1, train_ways=3, train_shots=1, train_queries=2)
    assert plain.describe() == "5 ways, 2 shots, 1 queries"
    curves = HarmonicData(num_shots=16).resized(OtherSizes(num_shots=4))
    assert (curves, curves.describe()) == (HarmonicData(num_shots=4), "4 points")
    for sizes in ({"num_ways": 2}, {"num_queries": 2}, {"folder": "x"}):
        with pytest.raises(ValueError, match="a regression task has no ways, queries or folder to choose"):
            HarmonicData().resized(OtherSizes(**sizes))  # type: ignore[arg-type]


def test_images_of_absurd_sizes_are_refused(data: OmniglotData) -> None:
    with pytest.raises(ValueError, match="size must be at most 2,048, got 1000000"):
        replace(data, size=10**6)


def test_harmonics_are_noisy_in_training_only() -> None:
    sources = _sources(HarmonicData(num_shots=16), "harmonic-maml")
    drawn = [s.sample(50, np.random.default_rng(0)).support for s in (sources.train, sources.held_out["test"])]
    assert torch.equal(drawn[0].inputs, drawn[1].inputs)
    noise = drawn[0].targets - drawn[1].targets
    assert 0.09 < float(noise.std()) < 0.11


@dataclass(frozen=True)
class _Few(ImageClasses):
    """Five classes for every split, of which the fourth has but one image."""

    size: int = 4

    def read(self, device: torch.device) -> tuple[ClassData, Splits]:
        counts = torch.tensor([3, 4, 3, 1, 5])
        data = ClassData(tuple("abcde"), torch.zeros(16, 1, 4, 4, dtype=torch.uint8), counts)
        return data, Splits(data, data.select([]), data)


def test_classes_of_too_few_images_are_refused_or_left_out() -> None:
    data = _Few("nowhere", EpisodesConfig(3, 1, 2))
    with pytest.raises(ValueError, match="class 'd' has 1 examples"):
        data.make(torch.device("cpu"))
    sources = replace(data, episodes=replace(data.episodes, leave_out_small=True)).make(torch.device("cpu"))
    assert _classes(sources.train) == _classes(sources.held_out["test"]) == ("a", "b", "c", "e")
    more = EpisodesConfig(3, 1, 2, train_shots=2, train_queries=1, leave_out_small=True)
    sources = replace(data, episodes=more).make(torch.device("cpu"))
    assert len(_classes(sources.held_out["test"])) == 4
    with pytest.raises(ValueError, match="train classes: 3-way episodes need at least 3 classes, got 2"):
        replace(data, episodes=replace(more, train_queries=2)).make(torch.device("cpu"))
