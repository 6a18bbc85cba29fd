"""Meta-gradients: ours beside `higher`, `torchopt` and plain loops over tasks, the same numbers from all.

Two measurements. The first is a second-order MAML gradient of the sinusoid regression (Finn et al. 2017, section
5.1), where the loops are written as their libraries' own examples write them. The second is the whole trust-region
step of MAML-TRPO, beside the way its public codes compute it: a loop over tasks, and Fisher-vector products by
differentiating the KL's gradient once more. Agreement is checked before anything is timed.
"""

import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, cast

import torch
from torch import Tensor, nn

from metarl.experiments.bench.timing import (
    interleave,
    machine,
    ratio,
    ratio_cells,
    relative_difference,
    seconds_per_call,
)
from metarl.experiments.bench.trust_region import TrustRegionSizes, measure_trust_region, show_trust_region
from metarl.experiments.console import Waiting, say, show_table
from metarl.learning.bilevel import Params, adapt_params, expand, flatten, sgd
from metarl.nets.networks import Mlp
from metarl.runs.seeding import torch_generator

Gradient = Callable[[], Tensor]
"""Computes a meta-gradient, all parameters flattened into one vector."""

Points = tuple[Tensor, Tensor]
"""Inputs and targets, each [task, row, 1]."""

MakeGradient = Callable[[Mlp, Points, Points, int, float], Gradient]
"""From a network, support and query points, the number of inner steps and their step size."""


@dataclass(frozen=True)
class SinusoidSizes:
    """The regression problem, with the sizes of Finn et al. 2017 and their tasks per batch."""

    num_tasks: int = 25
    num_points: int = 10
    hidden_sizes: tuple[int, ...] = (40, 40)
    inner_lr: float = 0.01
    inner_steps: tuple[int, ...] = (1, 5)
    at_least_s: float = 0.25


def bench(
    repeats: int,
    sinusoid: SinusoidSizes | None = None,
    trust_region: TrustRegionSizes | None = None,
) -> dict[str, Any]:
    """Measure all contenders, show a table per measurement and return the same as JSON types."""
    sinusoid, trust_region = sinusoid or SinusoidSizes(), trust_region or TrustRegionSizes()
    for package in ("higher", "torchopt"):
        if not importlib.util.find_spec(package):
            say(f'{package} is not installed and is left out; pip install "metarl-toolkit[bench]"')
    result: dict[str, Any] = {"bench": "meta-gradient", "repeats": repeats, "machine": machine(), "sinusoid": {}}
    for steps in sinusoid.inner_steps:
        with Waiting(f"sinusoid, {steps} inner steps: measurement") as waiting:
            result["sinusoid"][str(steps)] = measure_sinusoid(sinusoid, steps, repeats, waiting.progress)
        _show_sinusoid(sinusoid, steps, result["sinusoid"][str(steps)])
    with Waiting("trust-region step: measurement") as waiting:
        result["trust_region"] = measure_trust_region(trust_region, repeats, waiting.progress)
    show_trust_region(trust_region, result["trust_region"])
    return result


def measure_sinusoid(
    sizes: SinusoidSizes,
    inner_steps: int,
    repeats: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Milliseconds per meta-gradient of all contenders, and how often ours is as fast as each.

    Raises:
        RuntimeError: if a contender's gradient is more than 1e-5 away, relative to its length.
    """
    network = Mlp(1, sizes.hidden_sizes, 1, activation="relu", generator=torch_generator(0))
    gradients = sinusoid_gradients(network, sizes, inner_steps)
    ours = gradients["metarl"]()
    differences = {name: relative_difference(gradient(), ours) for name, gradient in gradients.items()}
    for name, difference in differences.items():
        if not difference < 1e-5:
            raise RuntimeError(f"the meta-gradient of {name} differs from ours by {difference:.2g}")

    def timed(gradient: Gradient) -> Callable[[], float]:
        return lambda: seconds_per_call(gradient, at_least_s=sizes.at_least_s)

    times = interleave({name: timed(gradient) for name, gradient in gradients.items()}, repeats, progress)
    return {
        "milliseconds": {name: 1e3 * median(values) for name, values in times.items()},
        "relative_difference": differences,
        "metarl_times_as_fast": {name: ratio(values, times["metarl"]) for name, values in times.items()},
    }


def sinusoid_gradients(network: Mlp, sizes: SinusoidSizes, inner_steps: int) -> dict[str, Gradient]:
    """A second-order MAML gradient by every contender that is installed, by name; ours is "metarl"."""
    support, query = sinusoid_points(sizes, next(network.parameters()).dtype)
    makers: dict[str, MakeGradient] = {"metarl": _batched_gradient, "loop": _loop_gradient}
    peers: dict[str, MakeGradient] = {"higher": _higher_gradient, "torchopt": _torchopt_gradient}
    makers |= {name: maker for name, maker in peers.items() if importlib.util.find_spec(name)}
    return {name: make(network, support, query, inner_steps, sizes.inner_lr) for name, make in makers.items()}


def sinusoid_points(sizes: SinusoidSizes, dtype: torch.dtype) -> tuple[Points, Points]:
    """Support and query points of tasks that are the same at every call."""
    generator = torch_generator(1)
    shape = (sizes.num_tasks, 1, 1)
    amplitude = 0.1 + 4.9 * torch.rand(shape, generator=generator)
    phase = math.pi * torch.rand(shape, generator=generator)

    def draw() -> Points:
        inputs = 10 * torch.rand((sizes.num_tasks, sizes.num_points, 1), generator=generator) - 5
        return inputs.to(dtype), (amplitude * torch.sin(inputs - phase)).to(dtype)

    return draw(), draw()


def _batched_gradient(network: Mlp, support: Points, query: Points, inner_steps: int, inner_lr: float) -> Gradient:
    """Ours: all tasks in one batched computation."""
    params = dict(network.named_parameters())

    def loss(params: Params, points: Points) -> Tensor:
        return (network.call(params, points[0]) - points[1]).square().mean((1, 2))

    def gradient() -> Tensor:
        start = expand(params, len(support[0]))
        adapted = adapt_params(loss, start, [support] * inner_steps, sgd(inner_lr), order="second")[-1]
        return flatten(torch.autograd.grad(loss(adapted, query).mean(), list(params.values())))

    return gradient


def _loop_gradient(network: Mlp, support: Points, query: Points, inner_steps: int, inner_lr: float) -> Gradient:
    """A loop over tasks with torch.autograd and no library."""
    params: list[Tensor] = list(network.parameters())

    def forward(weights: Sequence[Tensor], inputs: Tensor) -> Tensor:
        hidden = inputs
        for layer in range(0, len(weights) - 2, 2):
            hidden = nn.functional.relu(torch.addmm(weights[layer + 1], hidden, weights[layer]))
        return torch.addmm(weights[-1], hidden, weights[-2])

    def gradient() -> Tensor:
        total = flatten([torch.zeros_like(p) for p in params])
        for x, y, query_x, query_y in zip(*support, *query, strict=True):
            weights = params
            for _ in range(inner_steps):
                loss = nn.functional.mse_loss(forward(weights, x), y)
                grads = torch.autograd.grad(loss, weights, create_graph=True)
                weights = [w - inner_lr * g for w, g in zip(weights, grads, strict=True)]
            loss = nn.functional.mse_loss(forward(weights, query_x), query_y)
            total += flatten(torch.autograd.grad(loss / len(support[0]), params))
        return total

    return gradient


def _plain(network: Mlp) -> nn.Sequential:
    """The same network of PyTorch's own layers, whose weights are [out, in]."""
    layers: list[nn.Module] = []
    params = dict(network.named_parameters())
    for index in range(network.num_layers):
        weight, bias = params[f"weight_{index}"].detach(), params[f"bias_{index}"].detach()
        inputs, outputs = weight.shape
        layer = nn.Linear(inputs, outputs, dtype=weight.dtype)
        layer.load_state_dict({"weight": weight.T, "bias": bias})
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _gradient_of(plain: nn.Sequential) -> Tensor:
    """The gradient of a network of PyTorch's own layers, in the order and layout of ours."""
    return flatten([cast(Tensor, p.grad).T if p.dim() == 2 else cast(Tensor, p.grad) for p in plain.parameters()])


def _higher_gradient(network: Mlp, support: Points, query: Points, inner_steps: int, inner_lr: float) -> Gradient:
    """As in higher's examples/maml-omniglot.py."""
    import higher  # noqa: PLC0415 - optional

    model = _plain(network)
    optimizer = torch.optim.SGD(model.parameters(), lr=inner_lr)

    def gradient() -> Tensor:
        model.zero_grad()
        for x, y, query_x, query_y in zip(*support, *query, strict=True):
            with higher.innerloop_ctx(model, optimizer, copy_initial_weights=False) as (inner, steps):
                for _ in range(inner_steps):
                    steps.step(nn.functional.mse_loss(inner(x), y))
                loss = nn.functional.mse_loss(inner(query_x), query_y) / len(support[0])
                loss.backward()  # type: ignore[no-untyped-call]
        return _gradient_of(model)

    return gradient


def _torchopt_gradient(
    network: Mlp, support: Points, query: Points, inner_steps: int, inner_lr: float
) -> Gradient:
    """As in torchopt's examples/few-shot/maml_omniglot.py."""
    import torchopt  # noqa: PLC0415 - optional

    model = _plain(network)
    params = list(model.parameters())
    optimizer = torchopt.MetaSGD(model, lr=inner_lr)

    def gradient() -> Tensor:
        for p in params:
            p.grad = None
        model_state = torchopt.extract_state_dict(model, by="reference")
        optimizer_state = torchopt.extract_state_dict(optimizer, by="reference")
        losses = []
        for x, y, query_x, query_y in zip(*support, *query, strict=True):
            for _ in range(inner_steps):
                optimizer.step(nn.functional.mse_loss(model(x), y))
            losses.append(nn.functional.mse_loss(model(query_x), query_y))
            torchopt.recover_state_dict(model, model_state)
            torchopt.recover_state_dict(optimizer, optimizer_state)
        torch.stack(losses).mean().backward()  # type: ignore[no-untyped-call]
        return _gradient_of(model)

    return gradient


def _show_sinusoid(sizes: SinusoidSizes, inner_steps: int, measured: dict[str, Any]) -> None:
    labels = {"metarl": "metarl, all tasks at once", "loop": "torch.autograd, loop over tasks"}
    lines = []
    for name, milliseconds in measured["milliseconds"].items():
        faster = ratio_cells(None if name == "metarl" else measured["metarl_times_as_fast"][name])
        difference = f"{measured['relative_difference'][name]:.0e}"
        lines.append([labels.get(name, f"{name}, loop over tasks"), f"{milliseconds:.2f}", *faster, difference])
    title = f"second-order MAML gradient, {sizes.num_tasks} sinusoids, inner steps: {inner_steps}"
    columns = ["contender", "ms", "metarl is times as fast", "lowest, highest", "relative difference"]
    show_table(title, columns, lines)
