"""Distributions against torch.distributions and closed forms; networks with a task axis."""

import math

import torch
from torch.distributions import Independent, Normal, kl_divergence

from metarl.learning.bilevel import expand
from metarl.learning.losses import clipped_ratio_loss, masked_mean, policy_gradient_loss, ratio_loss
from metarl.nets.distributions import DiagonalGaussian
from metarl.nets.networks import Mlp
from metarl.nets.policies import GaussianPolicy


def _gaussians() -> tuple[DiagonalGaussian, DiagonalGaussian]:
    generator = torch.Generator().manual_seed(0)
    numbers = [torch.randn(5, 3, generator=generator, dtype=torch.float64) for _ in range(4)]
    return DiagonalGaussian(*numbers[:2]), DiagonalGaussian(*numbers[2:])


def _torch(gaussian: DiagonalGaussian) -> Independent:
    return Independent(Normal(gaussian.mean, gaussian.log_std.exp()), 1)


def test_log_probability_is_summed_over_action_dimensions() -> None:
    gaussian, other = _gaussians()
    assert torch.allclose(gaussian.log_prob(other.mean), _torch(gaussian).log_prob(other.mean), atol=1e-12)


def test_kl_has_the_direction_self_to_other() -> None:
    p, q = _gaussians()
    assert torch.allclose(p.kl(q), kl_divergence(_torch(p), _torch(q)), atol=1e-12)
    assert not torch.allclose(p.kl(q), q.kl(p))


def test_fisher_is_the_hessian_of_the_kl() -> None:
    p, _ = _gaussians()
    tangent = DiagonalGaussian(torch.ones(5, 3, dtype=torch.float64), torch.full((5, 3), 2.0, dtype=torch.float64))

    def kl(mean: torch.Tensor, log_std: torch.Tensor) -> torch.Tensor:
        return p.kl(DiagonalGaussian(mean, log_std)).sum()

    _, expected = torch.autograd.functional.hvp(kl, tuple(p), tuple(tangent))
    found = p.fisher(tangent)
    assert torch.allclose(found.mean, expected[0], atol=1e-9)
    assert torch.allclose(found.log_std, expected[1], atol=1e-9)


def _policy() -> GaussianPolicy:
    return GaussianPolicy(
        4,
        2,
        hidden_sizes=(8, 8),
        activation="tanh",
        init_std=0.5,
        min_std=0.1,
        generator=torch.Generator().manual_seed(0),
    )


def test_every_task_uses_its_own_parameters() -> None:
    policy = _policy()
    shared = policy.parameter_dict()
    offsets = torch.tensor([0.0, 0.5, -0.5])
    params = {name: p + offsets.view(3, *[1] * (p.dim() - 1)) for name, p in expand(shared, 3).items()}
    observations = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(1))
    batched = policy.distribution(params, observations)
    for task in range(3):
        own = policy.distribution({name: p[task] for name, p in params.items()}, observations[task])
        assert torch.allclose(batched.mean[task], own.mean, atol=1e-6)
        assert torch.equal(batched.log_std[task, 0], own.log_std)


def test_standard_deviation_has_a_floor() -> None:
    policy = _policy()
    params = policy.parameter_dict() | {"log_std": torch.tensor([-10.0, 0.0])}
    log_std = policy.distribution(params, torch.zeros(1, 4)).log_std
    assert torch.allclose(log_std.exp(), torch.tensor([0.1, 1.0]))


def test_initial_weights_follow_from_the_generator() -> None:
    first, second = _policy(), _policy()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_network_is_affine_maps_and_activations() -> None:
    network = Mlp(2, (3,), 1, activation="relu", generator=torch.Generator().manual_seed(0))
    inputs = torch.tensor([[1.0, -2.0]])
    weights = [p for name, p in network.named_parameters() if "weight" in name]
    hidden = (inputs @ weights[0]).clamp(min=0)
    assert [tuple(w.shape) for w in weights] == [(2, 3), (3, 1)]
    assert torch.allclose(network(inputs), hidden @ weights[1], atol=1e-6)


MASK = torch.tensor([[True, True, False]])
ADVANTAGES = torch.tensor([[1.0, -1.0, 50.0]])


def test_masked_mean_is_over_real_steps() -> None:
    assert masked_mean(torch.tensor([[1.0, 3.0, 99.0]]), MASK).tolist() == [2.0]


def test_ratio_loss_has_the_value_and_gradient_of_likelihood_ratios() -> None:
    old = torch.tensor([[-1.0, -2.0, 0.0]])
    new = (old + torch.tensor([[math.log(2.0), 0.0, 9.0]])).requires_grad_()
    loss = ratio_loss(new, old, ADVANTAGES, MASK)
    assert math.isclose(loss.item(), -(2.0 * 1 + 1.0 * -1) / 2, rel_tol=1e-6)


def test_ratio_and_log_likelihood_losses_share_their_gradient_where_the_data_came_from() -> None:
    log_probs = torch.tensor([[-1.0, -2.0, -3.0]], requires_grad=True)
    of_ratio = torch.autograd.grad(ratio_loss(log_probs, log_probs.detach(), ADVANTAGES, MASK).sum(), log_probs)
    of_log = torch.autograd.grad(policy_gradient_loss(log_probs, ADVANTAGES, MASK).sum(), log_probs)
    assert torch.equal(of_ratio[0], of_log[0])


def test_clipping_stops_the_gradient_only_on_the_improving_side() -> None:
    old = torch.zeros(1, 4)
    new = torch.log(torch.tensor([[1.5, 1.5, 0.5, 0.5]])).requires_grad_()
    advantages = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    loss = clipped_ratio_loss(new, old, advantages, torch.ones(1, 4).bool(), clip_ratio=0.2)
    # min(1.5, 1.2), min(-1.5, -1.2), min(0.5, 0.8), min(-0.5, -0.8)
    assert math.isclose(loss.item(), -(1.2 - 1.5 + 0.5 - 0.8) / 4, rel_tol=1e-6)
    (gradient,) = torch.autograd.grad(loss.sum(), new)
    assert (gradient != 0).tolist() == [[False, True, True, False]]
