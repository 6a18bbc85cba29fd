"""Distributions over discrete actions against torch.distributions, and the Fisher information against the KL."""

from typing import Any

import pytest
import torch
from torch import Tensor, distributions

from metarl.learning.trust_region import gauss_newton
from metarl.nets.distributions import (
    NO_CHOICE,
    AnyDistribution,
    Bernoulli,
    Categorical,
    DiagonalGaussian,
    MultiCategorical,
)


def _logits(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _padded(logits: Tensor) -> MultiCategorical:
    """Two choices among three and two."""
    short = torch.nn.functional.pad(logits[..., 3:].log_softmax(-1), (0, 1), value=NO_CHOICE)
    return MultiCategorical(torch.stack((logits[..., :3].log_softmax(-1), short), -2))


def _references(logits: Tensor, kind: str) -> list[Any]:
    """Independent distributions of torch whose sum is ours."""
    if kind == "choice":
        return [distributions.Categorical(logits=logits)]
    if kind == "choices":
        return [distributions.Categorical(logits=part) for part in (logits[..., :3], logits[..., 3:])]
    return [distributions.Bernoulli(logits=logits[..., bit]) for bit in range(logits.shape[-1])]


MAKE: dict[str, Any] = {"choice": Categorical.of, "choices": _padded, "bits": Bernoulli}
KINDS = list(MAKE)


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_are_those_of_independent_distributions(kind: str) -> None:
    logits, others = _logits(7, 5), _logits(7, 5, seed=1)
    ours: AnyDistribution = MAKE[kind](logits)
    references, other_references = _references(logits, kind), _references(others, kind)
    noise = torch.rand((7,) if kind == "choice" else (7, 2 if kind == "choices" else 5), dtype=torch.float64)
    actions = ours.sample(noise)
    columns = actions.unsqueeze(-1).unbind(-1) if kind == "choice" else actions.unbind(-1)
    log_probs = [r.log_prob(column.double()) for r, column in zip(references, columns, strict=True)]
    assert torch.allclose(ours.log_prob(actions), torch.stack(log_probs).sum(0), atol=1e-12)
    assert torch.allclose(ours.entropy(), torch.stack([r.entropy() for r in references]).sum(0), atol=1e-12)
    kls = [distributions.kl_divergence(p, q) for p, q in zip(references, other_references, strict=True)]
    assert torch.allclose(ours.kl(MAKE[kind](others)), torch.stack(kls).sum(0), atol=1e-12)
    best = torch.stack([r.probs.argmax(-1) if kind != "bits" else (r.probs > 0.5).long() for r in references], -1)
    assert torch.equal(ours.mode(), best.squeeze(-1) if kind == "choice" else best)


@pytest.mark.parametrize("kind", KINDS)
def test_samples_are_as_frequent_as_their_probability(kind: str) -> None:
    logits = _logits(5).expand(50_000, 5)
    ours: AnyDistribution = MAKE[kind](logits)
    shape = {"choice": (), "choices": (2,), "bits": (5,)}[kind]
    actions = ours.sample(torch.rand(50_000, *shape, generator=torch.Generator().manual_seed(2)))
    probabilities = ours.log_prob(actions).exp()
    for action in actions[:20]:
        equal = (actions == action).view(len(actions), -1).all(1)
        assert abs(float(equal.double().mean()) - float(probabilities[equal.nonzero()[0, 0]])) < 0.01


def test_a_choice_that_does_not_exist_is_never_drawn() -> None:
    ours = _padded(torch.zeros(1, 5, dtype=torch.float64))
    almost_one = torch.full((1, 2), 1.0 - 1e-16, dtype=torch.float64)
    assert ours.sample(torch.ones(1, 2, dtype=torch.float64)).tolist() == [[2, 1]]
    assert ours.sample(almost_one).tolist() == [[2, 1]]


@pytest.mark.parametrize("kind", [*KINDS, "normal"])
def test_the_gauss_newton_product_is_the_hessian_of_the_kl(kind: str) -> None:
    """Through a network, in double precision: J^T M J v against differentiating the KL's gradient once more."""
    inputs, weight = _logits(6, 4, seed=3), _logits(4, 5, seed=4).requires_grad_()
    bias = _logits(5, seed=5).requires_grad_()

    def distribution() -> AnyDistribution:
        outputs = torch.tanh(inputs @ weight)
        if kind == "normal":
            return DiagonalGaussian(outputs, bias.expand_as(outputs))
        made: AnyDistribution = MAKE[kind](outputs + bias)
        return made

    now = distribution()
    old: Any = type(now)(*(part.detach() for part in now))
    gradient = torch.autograd.grad(old.kl(now).mean(), [weight, bias], create_graph=True)
    flat = torch.cat([part.flatten() for part in gradient])
    assert flat.abs().max() < 1e-12
    vector = _logits(25, seed=6)
    expected = torch.cat([p.flatten() for p in torch.autograd.grad(flat @ vector, [weight, bias])])
    product = gauss_newton(
        list(distribution()),
        [weight, bias],
        lambda tangents: [part / 6 for part in old.fisher(type(old)(*tangents))],
    )
    assert expected.abs().max() > 1e-3
    assert torch.allclose(product(vector), expected, rtol=1e-9, atol=1e-12)
