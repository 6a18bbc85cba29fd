"""Pre-training on all training classes, then episodes: Baseline, Baseline++, SimpleShot and Meta-Baseline."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metarl.experiments.cli import main
from metarl.fewshot.data.augmentation import AUGMENTATIONS
from metarl.fewshot.data.classes import ClassData, ClassEpisodes
from metarl.fewshot.evaluation import adaptation_scores
from metarl.fewshot.learners.baseline import Baseline, BaselineConfig
from metarl.fewshot.outer import OuterConfig

NUM_CLASSES = 12


def _data(seed: int) -> ClassData:
    """Two numbers tell classes apart, four are noise that is three times as large."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.cat(
        [2 * torch.randn(NUM_CLASSES, 1, 2, generator=generator), torch.zeros(NUM_CLASSES, 1, 4)], 2
    )
    noise = torch.randn(NUM_CLASSES, 10, 6, generator=generator) * torch.tensor([0.3, 0.3, 3, 3, 3, 3])
    return ClassData.of((centres + noise).flatten(0, 1), torch.arange(NUM_CLASSES).repeat_interleave(10))


def _episodes(data: ClassData, labels: Any, ways: int = 4) -> ClassEpisodes:
    return ClassEpisodes(data, num_ways=ways, num_shots=2, num_queries=3, labels=labels)


def _learner(**fields: Any) -> Baseline:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8))
    config = BaselineConfig(num_classes=NUM_CLASSES, outer=OuterConfig(outer_lr=1e-2), **fields)
    return Baseline(network, config, num_features=8, generator=torch.Generator().manual_seed(0))


def test_labels_by_class_are_the_classes_of_what_is_drawn() -> None:
    data = _data(0)
    by_class, by_task = (
        _episodes(data, labels).sample(5, np.random.default_rng(0)) for labels in ("class", "task")
    )
    assert torch.equal(by_class.query.inputs, by_task.query.inputs)  # the same draws
    assert not torch.equal(by_class.query.targets, by_task.query.targets)
    for part in by_class:
        for inputs, target in zip(part.inputs.flatten(0, 1), part.targets.flatten(), strict=True):
            start = int(data.starts[target])
            own = data.examples[start : start + int(data.counts[target])]
            assert (own == inputs).all(1).any()


def test_classes_that_are_distorted_have_no_labels() -> None:
    images = ClassData.of(torch.zeros(4, 1, 8, 8), torch.tensor([0, 0, 1, 1]))
    with pytest.raises(ValueError, match="labels by class need classes as they are"):
        ClassEpisodes(
            images, num_ways=2, num_shots=1, num_queries=1, labels="class", augmentation=AUGMENTATIONS["classes"]
        )


@pytest.mark.parametrize("classifier", ["linear", "cosine"])
def test_the_first_stage_is_cross_entropy_over_all_classes_by_hand(classifier: Any) -> None:
    learner = _learner(classifier=classifier)
    episodes = _episodes(_data(0), "class").sample(2, np.random.default_rng(0))
    losses, outputs = learner.outer_losses(episodes)
    assert outputs.shape == (2, 12, NUM_CLASSES)
    weight, bias = learner.head.weight.detach(), learner.head.bias.detach()
    for task in range(2):
        total = []
        for part in episodes:
            for x, y in zip(part.inputs[task], part.targets[task], strict=True):
                z = learner.network.module(x).detach()
                logits = weight @ z + bias
                if classifier == "cosine":
                    logits = 10 * (weight @ z) / (weight.norm(dim=1) * z.norm())
                total.append(float(torch.logsumexp(logits, 0) - logits[y]))
        assert float(losses.detach()[task]) == pytest.approx(sum(total) / len(total), rel=1e-4)


def test_the_stages_follow_each_other_and_episodes_are_labelled_anew() -> None:
    learner, rng = _learner(pretraining_updates=2), np.random.default_rng(0)
    source, sizes = _episodes(_data(0), "class"), []
    inside = learner.outer_losses

    def noted(episodes: Any) -> Any:
        outcome = inside(episodes)
        sizes.append((outcome.outputs.shape[-1], int(episodes.query.targets.max())))
        return outcome

    learner.outer_losses = noted  # type: ignore[method-assign]
    for _ in range(4):
        metrics = learner.update(source.sample(1, rng), rng)
        assert math.isfinite(metrics["loss/outer"])
    assert [size for size, _ in sizes] == [NUM_CLASSES, NUM_CLASSES, 4, 4]
    assert max(most for _, most in sizes[:2]) > 3
    assert all(most == 3 for _, most in sizes[2:])
    again = _learner(pretraining_updates=2)
    again.load_state_dict(learner.state_dict())
    assert not again.is_pretraining


def test_episodes_keep_their_classes_apart() -> None:
    learner = _learner(pretraining_updates=0)
    episodes = _episodes(_data(0), "class").sample(1, np.random.default_rng(3))
    seen: list[Any] = []
    inside = learner.outer_losses
    learner.outer_losses = lambda episodes: seen.append(episodes) or inside(episodes)  # type: ignore[method-assign, func-returns-value]
    learner.update(episodes, np.random.default_rng(0))
    for before, after in zip(episodes, seen[0], strict=True):
        same = before.targets[0].unsqueeze(0) == before.targets[0].unsqueeze(1)
        assert torch.equal(after.targets[0].unsqueeze(0) == after.targets[0].unsqueeze(1), same)
    both = [torch.cat([part.targets[0] for part in each]) for each in (episodes, seen[0])]
    assert (
        len({tuple(pair) for pair in torch.stack(both, 1).tolist()}) == 4
    )  # one place for each class, in both sets


FEATURES = {
    "baseline": {"judge": "probe"},
    "baseline-plus-plus": {"classifier": "cosine"},
    "simple-shot": {"judge": "euclidean", "centred": True},
    "meta-baseline": {"pretraining_updates": 60},
}


@pytest.mark.parametrize("name", FEATURES)
def test_features_that_classify_tell_new_classes_apart(name: str) -> None:
    learner, rng = _learner(**FEATURES[name]), np.random.default_rng(0)
    source, test = _episodes(_data(0), "class", ways=8), _episodes(_data(1), "task")

    def accuracy() -> float:
        scores = adaptation_scores(learner, test, np.random.default_rng(1), num_tasks=50, num_steps=0)[1]
        return float(scores.mean())

    before = accuracy()
    for _ in range(120):
        learner.update(source.sample(2, rng), rng)
    assert accuracy() > before + 0.1
    centre = learner.head.centre
    assert bool((centre != 0).any()) == (name == "simple-shot")


def test_centred_features_by_hand() -> None:
    learner = _learner(judge="euclidean", centred=True)
    learner.head.centre.copy_(torch.arange(8.0))
    generator = torch.Generator().manual_seed(0)
    support, query = (torch.randn(1, rows, 8, generator=generator) for rows in (4, 3))
    targets = torch.tensor([[0, 1, 0, 1]])

    def unit(x: Tensor) -> Tensor:
        return (x - torch.arange(8.0)) / (x - torch.arange(8.0)).norm(dim=-1, keepdim=True)

    means = [unit(support[0][targets[0] == c]).mean(0) for c in (0, 1)]
    expected = torch.stack([-(unit(query[0]) - mean).square().sum(1) for mean in means], 1)
    assert torch.allclose(learner.outputs(support, targets, query)[0], expected, atol=1e-5)


_SMALL = [
    *("--training.iterations", "1", "--training.updates-per-iteration", "2", "--training.evaluate-every", "0"),
    *("--training.meta-batch-size", "1", "--evaluation.num-tasks", "2", "--backbone.num-filters", "4"),
    *("--data.episodes.num-ways", "3", "--data.episodes.num-queries", "2", "--data.episodes.train-ways", "3"),
    *("--data.episodes.train-queries", "2"),
]


@pytest.mark.thorough
def test_both_stages_are_one_run(omniglot_archive: Path, tmp_path: Path) -> None:
    words = ["--data.folder", str(omniglot_archive), *_SMALL, "--learner.pretraining-updates", "1"]
    assert main(["train", "omniglot-meta-baseline", *words, "--out", str(tmp_path / "run")]) == 0
    assert main(["resume", str(tmp_path / "run"), "--iterations", "2"]) == 0


@pytest.mark.parametrize(
    ("preset", "words", "expected"),
    [
        (
            "omniglot-baseline",
            ["--data.episodes.train-labels", "task"],
            "needs training tasks with labels by class, got task",
        ),
        (
            "omniglot-protonet",
            ["--data.episodes.train-labels", "class"],
            "needs training tasks with labels by task, got class",
        ),
        (
            "omniglot-baseline",
            ["--learner.num-classes", "2"],
            "num_classes must be at least the number of training",
        ),
    ],
)
def test_labels_that_a_learner_does_not_take_are_one_line(
    *,
    omniglot_archive: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    preset: str,
    words: list[str],
    expected: str,
) -> None:
    data = ["--data.folder", str(omniglot_archive), *_SMALL]
    assert main(["train", preset, *data, *words, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1
