"""Gradients of modules that checkpoint their activations, which are those of the same modules without."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from metarl.fewshot.episodes import Episodes, Examples
from metarl.fewshot.learners.maml import Maml, MamlConfig
from metarl.fewshot.learners.prototypical import Prototypical, PrototypicalConfig
from metarl.fewshot.learners.reptile import Reptile, ReptileConfig
from metarl.learning.bilevel import flatten


class _Checkpointed(nn.Module):
    """Two linear layers with a batch norm between, of which the first two may be checkpointed, once or twice."""

    def __init__(self, depth: int, *, norm: bool = False, drop: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.norm = nn.BatchNorm1d(6) if norm else nn.Identity()
        self.drop = nn.Dropout(drop)
        self.depth, self.calls = depth, 0

    def early(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        return torch.tanh(self.norm(self.first(inputs)))

    def late(self, inputs: Tensor) -> Tensor:
        twice = self.depth > 1
        early: Tensor = checkpoint(self.early, inputs, use_reentrant=False) if twice else self.early(inputs)
        hidden: Tensor = self.drop(self.second(early)).tanh()
        return hidden

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = checkpoint(self.late, inputs, use_reentrant=False) if self.depth else self.late(inputs)
        outputs: Tensor = self.head(hidden)
        return outputs


def _episodes() -> Episodes:
    generator = torch.Generator().manual_seed(0)

    def examples(num_rows: int) -> Examples:
        classes = torch.arange(3).repeat(num_rows).expand(2, -1)
        inputs = torch.randn(2, 3 * num_rows, 4, generator=generator) + classes.unsqueeze(-1)
        return Examples(inputs.double(), classes)

    return Episodes(examples(3), examples(4))


def _gradient(learner: Any) -> Tensor:
    torch.manual_seed(1)
    losses = learner.outer_losses(_episodes()).losses
    return flatten(torch.autograd.grad(losses.mean(), list(learner.network.params.values())))


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize(("first_order", "steps"), [(False, 2), (True, 2)])
@pytest.mark.parametrize("normalisation", [None, "transductive", "support", "per_step", "frozen"])
def test_a_checkpoint_leaves_the_meta_gradient_as_it_is(
    depth: int, first_order: bool, steps: int, normalisation: Any
) -> None:
    config = MamlConfig(
        inner_lr=0.5, inner_steps=steps, first_order=first_order, normalisation=normalisation or "transductive"
    )
    plain, checkpointed = (
        Maml(_Checkpointed(d, norm=normalisation is not None).double(), config) for d in (0, depth)
    )
    plain.network._in_turn_only = {True: True}
    grads = [_gradient(learner) for learner in (plain, checkpointed)]
    assert plain.network.module.calls == 2 * (steps + 1 + (normalisation == "support"))
    assert checkpointed.network.module.calls > plain.network.module.calls  # it was computed again
    assert grads[0].norm() > 1e-3
    assert torch.allclose(*grads, atol=1e-12, rtol=0)


def test_what_a_checkpoint_drops_is_dropped_again() -> None:
    config = MamlConfig(inner_lr=0.5, inner_steps=2)
    plain, checkpointed = (Maml(_Checkpointed(depth, drop=0.5).double(), config) for depth in (0, 1))
    plain.network._in_turn_only = {True: True}
    assert torch.allclose(_gradient(plain), _gradient(checkpointed), atol=1e-12, rtol=0)


def test_reptile_takes_the_steps_it_takes_without_a_checkpoint() -> None:
    weights = []
    for depth in (0, 1):
        learner = Reptile(_Checkpointed(depth).double(), ReptileConfig(inner_lr=0.1, inner_steps=3))
        before = flatten(learner.network.params).detach().clone()
        learner.update(_episodes(), np.random.default_rng(0))
        weights.append(flatten(learner.network.params).detach())
        assert (weights[-1] - before).norm() > 1e-2
    assert torch.allclose(*weights, atol=1e-10, rtol=0)


@pytest.mark.parametrize("normalisation", ["running", "transductive", "support"])
def test_a_learner_that_compares_has_the_same_gradient_and_averages(normalisation: Any) -> None:
    plain, checkpointed = (
        Prototypical(_Checkpointed(depth, norm=True).double(), PrototypicalConfig(normalisation=normalisation))
        for depth in (0, 1)
    )
    assert torch.allclose(_gradient(plain), _gradient(checkpointed), atol=1e-12, rtol=0)
    averages = [list(learner.network.module.buffers()) for learner in (plain, checkpointed)]
    assert bool(averages[0][0].any()) == (normalisation == "running")
    assert all(torch.allclose(*pair, atol=1e-12, rtol=0) for pair in zip(*averages, strict=True))


def test_gradients_in_query_inputs_drop_no_units_either() -> None:
    grads = []
    for depth in (0, 1):
        learner = Maml(_Checkpointed(depth, norm=True, drop=0.5).double(), MamlConfig(inner_steps=2))
        support, query = _episodes()
        inputs = query.inputs.requires_grad_()
        outputs = learner.adapt(support, 2)[-1](inputs)
        grads.append(torch.autograd.grad(outputs.square().sum(), inputs)[0])
    assert grads[0].norm() > 1e-3
    assert torch.allclose(*grads, atol=1e-12, rtol=0)
