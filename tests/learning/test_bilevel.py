"""The inner loop against closed forms, finite differences and a plain loop over tasks."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from metarl.learning.bilevel import (
    Params,
    adapt_params,
    expand,
    flatten,
    init_rates,
    learned_rates,
    per_task,
    sgd,
    unflatten,
)
from metarl.nets.networks import Mlp

Data = tuple[Tensor, Tensor]


def quadratic(params: Params, target: Tensor) -> Tensor:
    """0.5 |x - target|^2 for every task; the gradient is x - target, the Hessian the identity."""
    return 0.5 * (params["x"] - target).square().sum(1)


TARGETS = torch.tensor([[1.0, 2.0], [3.0, -4.0]], dtype=torch.float64)


def test_adaptation_on_a_quadratic_by_hand() -> None:
    x = torch.zeros(2, dtype=torch.float64)
    trace = adapt_params(quadratic, expand({"x": x}, 2), [TARGETS, TARGETS], sgd(0.5), order="none")
    assert torch.equal(trace[0]["x"], torch.zeros(2, 2, dtype=torch.float64))
    assert torch.equal(trace[1]["x"], 0.5 * TARGETS)
    assert torch.equal(trace[2]["x"], 0.75 * TARGETS)


@pytest.mark.parametrize(("order", "factor"), [("second", 0.25), ("first", 1.0)])
def test_meta_gradient_on_a_quadratic_in_closed_form(order: str, factor: float) -> None:
    # x_2 = (1 - lr)^2 x + const, so d L(x_2) / dx = (x_2 - target) (1 - lr)^2; first order leaves the factor out
    x = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    trace = adapt_params(quadratic, expand({"x": x}, 2), [TARGETS] * 2, sgd(0.5), order=order)  # type: ignore[arg-type]
    quadratic(trace[-1], TARGETS).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert torch.allclose(x.grad, factor * (-0.25 * TARGETS).sum(0), atol=1e-12)


def test_first_order_trains_the_learned_rates() -> None:
    # x' = x - r (x - target), so d L(x') / dr = -(x' - target) . (x - target)
    x = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    rates = init_rates({"x": x}, 0.5)
    trace = adapt_params(quadratic, expand({"x": x}, 2), [TARGETS], learned_rates(rates), order="first")
    quadratic(trace[-1], TARGETS).sum().backward()  # type: ignore[no-untyped-call]
    grad = rates["x"].grad
    assert grad is not None
    assert torch.allclose(grad[0], -(0.5 * TARGETS * TARGETS).sum(0), atol=1e-12)


def test_rates_per_step_are_used_in_their_step() -> None:
    rates = {"x": torch.tensor([0.5, 0.0], dtype=torch.float64)}
    start = expand({"x": torch.zeros(2, dtype=torch.float64)}, 2)
    trace = adapt_params(quadratic, start, [TARGETS] * 2, learned_rates(rates), order="none")
    assert torch.equal(trace[1]["x"], 0.5 * TARGETS)
    assert torch.equal(trace[2]["x"], trace[1]["x"])


def test_only_chosen_parameters_adapt() -> None:
    def loss(params: Params, target: Tensor) -> Tensor:
        return quadratic({"x": params["x"] + params["y"]}, target)

    theta = {"x": torch.zeros(2, dtype=torch.float64), "y": torch.ones(2, dtype=torch.float64)}
    after = adapt_params(loss, expand(theta, 2), [TARGETS], sgd(0.5), order="none", adapted=["x"])[-1]
    assert torch.equal(after["y"], torch.ones(2, 2, dtype=torch.float64))
    assert torch.equal(after["x"], 0.5 * (TARGETS - 1))


def test_unknown_parameter_to_adapt_is_named() -> None:
    start = expand({"x": torch.zeros(2)}, 2)
    with pytest.raises(ValueError, match=r"cannot adapt \['z'\]; the parameters are \['x'\]"):
        adapt_params(quadratic, start, [TARGETS], sgd(0.5), order="none", adapted=["z"])


def test_loss_must_be_one_per_task() -> None:
    start = expand({"x": torch.zeros(2, dtype=torch.float64)}, 2)
    with pytest.raises(ValueError, match=r"one per task, shape \(2,\), got \(\)"):
        adapt_params(lambda p, b: quadratic(p, b).mean(), start, [TARGETS], sgd(0.5), order="none")


def test_adaptation_leaves_the_start_as_it_was() -> None:
    x = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    start = {"x": torch.zeros(2, 2, dtype=torch.float64)}
    given = start["x"]
    adapt_params(quadratic, start, [TARGETS], sgd(0.5), order="second")
    assert start["x"] is given
    assert not given.requires_grad
    adapt_params(quadratic, expand({"x": x}, 2), [TARGETS], sgd(0.5), order="none")
    assert torch.equal(x, torch.zeros(2, dtype=torch.float64))
    assert x.grad is None


def test_no_graph_is_kept_without_order_or_under_no_grad() -> None:
    x = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    assert not adapt_params(quadratic, expand({"x": x}, 2), [TARGETS], sgd(0.5), order="none")[-1][
        "x"
    ].requires_grad
    with torch.no_grad():
        after = adapt_params(quadratic, expand({"x": x}, 2), [TARGETS], sgd(0.5), order="second")[-1]["x"]
    assert not after.requires_grad
    assert torch.equal(after, 0.5 * TARGETS)


def _network() -> Mlp:
    generator = torch.Generator().manual_seed(0)
    return Mlp(3, (5, 4), 2, activation="tanh", generator=generator).double()


def _batches(steps: int) -> list[Data]:
    generator = torch.Generator().manual_seed(1)

    def draw(size: int) -> Tensor:
        return torch.randn(4, 6, size, generator=generator, dtype=torch.float64)

    return [(draw(3), draw(2)) for _ in range(steps)]


def _batched_loss(network: Mlp, params: Params, batch: Data) -> Tensor:
    return (network.call(params, batch[0]) - batch[1]).square().mean((1, 2))


def _meta_loss(network: Mlp, theta: Params, steps: int) -> Tensor:
    *inner, outer = _batches(steps + 1)

    def loss(params: Params, batch: Data) -> Tensor:
        return _batched_loss(network, params, batch)

    adapted = adapt_params(loss, expand(theta, 4), inner, sgd(0.3), order="second")[-1]
    return loss(adapted, outer).mean()


def _looped_meta_loss(network: Mlp, theta: Params, steps: int, first_order: bool = False) -> Tensor:
    """The same with one task at a time, plain layers and plain autograd."""
    *inner, outer = _batches(steps + 1)
    total = torch.zeros((), dtype=torch.float64)
    for task in range(4):
        params = dict(theta)
        for inputs, targets in inner:
            loss = (network.call(params, inputs[task]) - targets[task]).square().mean()
            grads = torch.autograd.grad(loss, list(params.values()), create_graph=not first_order)
            params = {name: p - 0.3 * g for (name, p), g in zip(params.items(), grads, strict=True)}
        total = total + (network.call(params, outer[0][task]) - outer[1][task]).square().mean()
    return total / 4


@pytest.mark.parametrize("steps", [1, 3])
def test_batched_meta_gradient_equals_a_loop_over_tasks(steps: int) -> None:
    network = _network()
    theta = dict(network.named_parameters())
    batched = torch.autograd.grad(_meta_loss(network, theta, steps), list(theta.values()))
    looped = torch.autograd.grad(_looped_meta_loss(network, theta, steps), list(theta.values()))
    for a, b in zip(batched, looped, strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_meta_gradient_equals_finite_differences() -> None:
    network = _network()
    theta = {name: p.detach() for name, p in network.named_parameters()}
    vector = flatten(theta).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: _meta_loss(network, unflatten(v, theta), 2), (vector,))


def test_learned_rates_meta_gradient_equals_finite_differences() -> None:
    network = _network()
    theta = {name: p.detach() for name, p in network.named_parameters()}
    rates = init_rates(theta, 0.1, steps=2)
    inner = _batches(3)

    def meta_loss(vector: Tensor) -> Tensor:
        rule = learned_rates(unflatten(vector, rates))

        def loss(params: Params, batch: Data) -> Tensor:
            return _batched_loss(network, params, batch)

        adapted = adapt_params(loss, expand(theta, 4), inner[:2], rule, order="second")[-1]
        return loss(adapted, inner[2]).mean()

    assert torch.autograd.gradcheck(meta_loss, (flatten(rates).detach().requires_grad_(),))


def test_a_loss_of_one_task_lifted_equals_the_batched_one() -> None:
    network = _network()
    plain = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    theta = {name: p.detach() for name, p in network.named_parameters()}
    batch = _batches(1)[0]

    def single(params: Params, data: Data) -> Tensor:
        named = {}  # a plain layer's weight is [out, in]
        for layer in range(3):
            named[f"{2 * layer}.weight"] = params[f"weight_{layer}"].T
            named[f"{2 * layer}.bias"] = params[f"bias_{layer}"]
        return (functional_call(plain, named, (data[0],)) - data[1]).square().mean()

    params = {name: p + torch.arange(4.0).view(4, *[1] * (p.dim() - 1)) for name, p in expand(theta, 4).items()}
    assert torch.allclose(per_task(single)(params, batch), _batched_loss(network, params, batch), atol=1e-12)


def test_flatten_and_unflatten_are_inverse() -> None:
    params = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(7.0)}
    assert flatten(params).tolist() == [0, 1, 2, 3, 4, 5, 7]
    back = unflatten(flatten(params), params)
    assert all(torch.equal(back[name], params[name]) for name in params)
