"""Fine-tuning on new tasks: what it gains, what early stopping saves it from, and what it leaves as it was."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metarl.fewshot import ClassData, ClassEpisodes, Prototypical, PrototypicalConfig
from metarl.fewshot.episodes import Episodes, Examples
from metarl.fewshot.evaluation import adaptation_scores
from metarl.fewshot.learners.fine_tuning import FineTuning, FineTuningConfig


def _tasks(num_shots: int = 6) -> ClassEpisodes:
    """Classes that differ in two numbers of twelve, the others of which are noise."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.zeros(8, 12)
    centres[:, :2] = 2 * torch.randn(8, 2, generator=generator)
    spread = torch.cat([torch.full((2,), 0.3), torch.full((10,), 2.0)])
    examples = centres.repeat_interleave(30, 0) + spread * torch.randn(240, 12, generator=generator)
    data = ClassData.of(examples, torch.arange(240) // 30)
    return ClassEpisodes(data, num_ways=3, num_shots=num_shots, num_queries=10)


class _Weighted(nn.Module):
    """Features are inputs, each times a weight of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((12,), 0.5))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * self.weight


def _scores(config: FineTuningConfig, *, num_shots: int = 6) -> np.ndarray:
    learner = FineTuning(_Weighted(), config)
    rng = np.random.default_rng(0)
    return adaptation_scores(learner, _tasks(num_shots), rng, num_tasks=6, num_steps=config.num_rounds)[1]


@pytest.mark.thorough
def test_fine_tuning_learns_what_a_task_is_about() -> None:
    config = FineTuningConfig(num_rounds=2, steps_per_round=10, inner_lr=0.1)
    scores = _scores(config)
    assert scores.shape == (3, 6)
    assert scores[-1].mean() > scores[0].mean() + 0.1


@pytest.mark.thorough
def test_early_stopping_saves_the_weights_from_steps_that_are_too_large() -> None:
    wild = {"num_rounds": 1, "steps_per_round": 15, "inner_lr": 1.0, "inner_optimizer": "sgd"}
    stopped = _scores(FineTuningConfig(**wild))  # type: ignore[arg-type]
    driven = _scores(FineTuningConfig(**wild, early_stopping=False))  # type: ignore[arg-type]
    assert np.array_equal(stopped[0], driven[0])
    assert stopped[1].mean() > driven[1].mean() + 0.05


def test_weights_that_are_no_longer_finite_are_left_for_the_last_that_were() -> None:
    wild = FineTuningConfig(
        num_rounds=2, steps_per_round=8, inner_lr=1e25, inner_optimizer="sgd", early_stopping=False
    )
    learner = FineTuning(_Weighted(), wild)
    support, query = _tasks().sample(1, np.random.default_rng(0))
    steps = learner._steps({"weight": torch.full((12,), 0.5, requires_grad=True)}, support, 16)
    assert not all(bool(loss.isfinite()) for loss in steps)
    assert all(bool(predict(query.inputs).isfinite().all()) for predict in learner.adapt(support, 2))


def test_the_weights_are_those_of_least_loss_on_held_out_support() -> None:
    config = FineTuningConfig(num_rounds=3, steps_per_round=4, inner_lr=0.3)
    learner = FineTuning(_Weighted(), config)
    support, _ = _tasks(3).sample(1, np.random.default_rng(1))
    known, held_out = learner._divided(support)
    assert held_out is not None
    assert held_out.targets.tolist() == [[0, 1, 2]]
    assert known.targets.tolist() == [[0, 0, 1, 1, 2, 2]]
    assert torch.equal(held_out.inputs[0], support.inputs[0, [2, 5, 8]])
    losses = [float(learner._loss(params, known, held_out)) for params in learner.fine_tuned(support, 3)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


def test_one_example_of_a_class_holds_nothing_out() -> None:
    learner = FineTuning(_Weighted(), FineTuningConfig(num_rounds=1, steps_per_round=2, inner_lr=0.01))
    support, _ = _tasks(1).sample(1, np.random.default_rng(1))
    assert learner._divided(support)[1] is None
    start, after = learner.fine_tuned(support, 1)
    assert not torch.equal(start["weight"], after["weight"])


def test_training_is_that_of_prototypical_networks_and_a_task_leaves_no_trace() -> None:
    torch.manual_seed(0)  # of some initial weights early stopping takes no step
    module = nn.Sequential(nn.Linear(12, 5), nn.BatchNorm1d(5))
    plain = Prototypical(copy.deepcopy(module), PrototypicalConfig())
    learner = FineTuning(module, FineTuningConfig(num_rounds=1, steps_per_round=3, inner_lr=0.1))
    rng = np.random.default_rng(0)
    for _ in range(2):
        episodes = _tasks().sample(2, rng)
        assert learner.update(episodes, rng) == plain.update(episodes, rng)
    before = copy.deepcopy(module.state_dict())
    support, query = _tasks().sample(2, rng)
    unadapted, adapted = (predict(query.inputs) for predict in learner.adapt(support, 1))
    assert torch.allclose(unadapted, plain.adapt(support, 0)[0](query.inputs), atol=1e-5)
    assert not torch.allclose(unadapted, adapted, atol=1e-3)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    again = FineTuning(nn.Sequential(nn.Linear(12, 5), nn.BatchNorm1d(5)), learner.config)
    again.load_state_dict(learner.state_dict())
    assert torch.equal(again.adapt(support, 1)[1](query.inputs), adapted)


def test_images_are_distorted() -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(108, 4))
    images = torch.rand(1, 4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    support = Examples(images, torch.tensor([[0, 1, 0, 1]]))
    changes = []
    for distorted in (True, False):
        config = FineTuningConfig(num_rounds=1, steps_per_round=2, distorted=distorted, early_stopping=False)
        changes.append(FineTuning(network, config).fine_tuned(support, 1)[1])
    assert not torch.equal(changes[0]["0.weight"], changes[1]["0.weight"])


def test_what_cannot_be_fine_tuned_is_refused() -> None:
    with pytest.raises(ValueError, match="running or frozen"):
        FineTuning(
            nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)),
            FineTuningConfig(PrototypicalConfig(normalisation="transductive")),
        )
    learner = FineTuning(_Weighted(), FineTuningConfig())
    episodes: Episodes = _tasks().sample(1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="0 to N - 1"):
        learner.adapt(Examples(episodes.support.inputs, episodes.support.targets + 1), 1)
