"""The outer optimiser by name, clipping by norm, rates of their own, and what `learn_task` takes."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from metarl.fewshot import learn_task
from metarl.fewshot.episodes import Episodes, Examples
from metarl.fewshot.learners.prototypical import Prototypical, PrototypicalConfig
from metarl.fewshot.learners.ridge import Ridge, RidgeConfig
from metarl.fewshot.outer import OuterConfig, OuterOptimizer


def _stepped(config: OuterConfig, *, steps: int = 2) -> tuple[torch.Tensor, dict[str, float]]:
    weights = torch.tensor([1.0, -2.0], requires_grad=True)
    outer, metrics = OuterOptimizer([weights], config), {}
    for _ in range(steps):
        weights.grad = torch.tensor([3.0, 4.0])
        metrics = outer.step()
    return weights.detach(), metrics


def test_each_optimiser_takes_its_steps_by_hand() -> None:
    start, grad = torch.tensor([1.0, -2.0]), torch.tensor([3.0, 4.0])
    plain, _ = _stepped(OuterConfig(outer_lr=0.1, optimizer="sgd"))
    assert torch.allclose(plain, start - 2 * 0.1 * grad)
    fast, _ = _stepped(OuterConfig(outer_lr=0.1, optimizer="sgd", momentum=0.5))
    assert torch.allclose(fast, start - 0.1 * grad - 0.1 * 1.5 * grad)
    decayed, _ = _stepped(OuterConfig(outer_lr=0.1, optimizer="sgd", weight_decay=0.2), steps=1)
    assert torch.allclose(decayed, start - 0.1 * (grad + 0.2 * start))
    # Adam's first step is of its step size, whatever the gradient's size; adamw shrinks the weights before it.
    adam, _ = _stepped(OuterConfig(outer_lr=0.1), steps=1)
    adamw, _ = _stepped(OuterConfig(outer_lr=0.1, optimizer="adamw", weight_decay=0.2), steps=1)
    assert torch.allclose(adam, start - 0.1, atol=1e-6)
    assert torch.allclose(adamw, start * (1 - 0.1 * 0.2) - 0.1, atol=1e-6)


def test_a_norm_is_scaled_down_and_the_one_before_is_reported() -> None:
    weights, metrics = _stepped(OuterConfig(outer_lr=1.0, optimizer="sgd", max_grad_norm=1.0), steps=1)
    assert metrics["loss/grad_norm"] == pytest.approx(5.0)
    assert torch.allclose(weights, torch.tensor([1 - 0.6, -2 - 0.8]), atol=1e-5)


@pytest.mark.parametrize("factor", [1.0, 10.0])
def test_what_is_beside_the_network_has_a_step_size_of_its_own(factor: float) -> None:
    torch.manual_seed(0)
    outer = OuterConfig(outer_lr=1e-3, head_lr_factor=factor)
    learner = Ridge(nn.Linear(4, 3), RidgeConfig(outer=outer))
    params = dict((*learner.network.weights.items(), *learner.head.named_parameters()))
    before = {name: p.detach().clone() for name, p in params.items()}
    targets = torch.tensor([[0, 1, 2, 0, 1, 2]])
    episodes = Episodes(*(Examples(torch.randn(1, 6, 4), targets) for _ in range(2)))
    learner.update(episodes, np.random.default_rng(0))
    moved = {name: float((p.detach() - before[name]).abs().max()) for name, p in params.items()}
    assert moved["weight"] == pytest.approx(1e-3, rel=1e-2)
    assert moved["scale.log"] == pytest.approx(factor * 1e-3, rel=1e-2)
    again = Ridge(nn.Linear(4, 3), RidgeConfig(outer=outer))
    again.load_state_dict(learner.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(again.head.parameters(), learner.head.parameters(), strict=True))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"momentum": 0.9}, "momentum is of sgd, got 0.9 for adam"),
        ({"momentum": 1.5, "optimizer": "sgd"}, r"momentum must be in \[0, 1\]"),
        ({"weight_decay": -1.0}, "weight_decay must be zero or more"),
        ({"max_grad_norm": 0.0}, "max_grad_norm must be positive"),
        ({"head_lr_factor": 0.0}, "head_lr_factor must be positive"),
    ],
)
def test_settings_that_make_no_sense_are_refused(fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        OuterConfig(**fields)


KINDS = {
    "int32": lambda x: x.astype(np.int32),
    "uint8": lambda x: x.astype(np.uint8),
    "bool": lambda x: x.astype(bool),
    "tensor of int16": lambda x: torch.from_numpy(x).to(torch.int16),
}


@pytest.mark.parametrize("kind", KINDS)
def test_labels_of_any_kind_and_arrays_are_learned_from(kind: str) -> None:
    torch.manual_seed(0)
    learner = Prototypical(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), PrototypicalConfig())
    images = np.random.default_rng(0).integers(0, 256, (6, 1, 4, 4), dtype=np.uint8)
    labels, new = np.array([0, 0, 0, 1, 1, 1]), images[::-1]
    expected = learn_task(learner, torch.from_numpy(images) / 255, torch.from_numpy(labels))(
        torch.from_numpy(new.copy()) / 255
    )
    assert torch.allclose(learn_task(learner, images, KINDS[kind](labels))(new), expected, atol=1e-6)
    assert torch.allclose(learn_task(learner, images / 255, KINDS[kind](labels))(new / 255), expected, atol=1e-5)
