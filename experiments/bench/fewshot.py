"""Few-shot learning: ours beside `higher`, `torchopt`, a loop over tasks and `easyfsl`, the same numbers from all.

Three measurements. A second-order MAML gradient of the sinusoid regression, by the MAML learner. One of Conv4 on
5-way 1-shot images, with strides and with pooling, beside the same in a loop over tasks with
torch.func.functional_call. And prototypical networks, training and evaluation, data included, beside easyfsl's
task sampler and method. Agreement of gradients is checked before anything is timed.
"""

import importlib.util
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.func import functional_call

from metarl.experiments.bench import easyfsl_peer
from metarl.experiments.bench.meta_gradient import SinusoidSizes, sinusoid_gradients, sinusoid_points
from metarl.experiments.bench.timing import (
    interleave,
    machine,
    ratio,
    ratio_cells,
    relative_difference,
    seconds_per_call,
)
from metarl.experiments.console import Waiting, say, show_table
from metarl.fewshot.backbones import Autocast, Downsampling, conv4
from metarl.fewshot.data.classes import ClassData, ClassEpisodes
from metarl.fewshot.episodes import Episodes, Examples
from metarl.fewshot.evaluation import adaptation_scores
from metarl.fewshot.learners.maml import Maml, MamlConfig
from metarl.fewshot.learners.prototypical import Prototypical, PrototypicalConfig
from metarl.fewshot.normalisation import BATCH_NORMS
from metarl.fewshot.outer import in_pieces
from metarl.learning.bilevel import Params, flatten
from metarl.nets.networks import Mlp
from metarl.runs.seeding import torch_generator

Progress = Callable[[int, int], None]
Gradient = Callable[[], Tensor]


@dataclass(frozen=True)
class ConvSizes:
    """5-way 1-shot MAML with the network of Finn et al. 2017 for Omniglot."""

    num_tasks: int = 32
    num_ways: int = 5
    num_queries: int = 1
    downsampling: Downsampling = "stride"
    num_filters: int = 64
    inner_lr: float = 0.4
    at_least_s: float = 0.0


POOLED = ConvSizes(num_tasks=8, num_queries=5, downsampling="pool")
"""The same with the network of Vinyals et al. 2016, as an update of `omniglot-maml` has it."""


@dataclass(frozen=True)
class PrototypicalSizes:
    """Prototypical networks with Conv4, on images of the size and number of Omniglot's test alphabets."""

    num_classes: int = 59
    num_examples: int = 20
    num_ways: int = 5
    num_shots: int = 1
    num_queries: int = 15
    num_filters: int = 64
    train_episodes: int = 10
    evaluation_episodes: int = 600
    peer_episodes: int = 20


def bench(
    repeats: int,
    sinusoid: SinusoidSizes | None = None,
    convs: Sequence[ConvSizes] = (ConvSizes(), POOLED),
    prototypical: PrototypicalSizes | None = None,
) -> dict[str, Any]:
    """Measure all contenders, show a table per measurement and return the same as JSON types."""
    sinusoid = sinusoid or SinusoidSizes()
    prototypical = prototypical or PrototypicalSizes()
    missing = [name for name in ("higher", "torchopt", "easyfsl") if not importlib.util.find_spec(name)]
    for package in missing:
        remedy = "--no-deps easyfsl==1.5.0" if package == "easyfsl" else '"metarl-toolkit[bench]"'
        say(f"{package} is not installed and is left out; pip install {remedy}")
    result: dict[str, Any] = {"bench": "fewshot", "repeats": repeats, "machine": machine(), "sinusoid": {}}
    for steps in sinusoid.inner_steps:
        with Waiting(f"sinusoid, {steps} inner steps: measurement") as waiting:
            measured = _measure_gradients(maml_gradients(sinusoid, steps), repeats, sinusoid.at_least_s, waiting)
        result["sinusoid"][str(steps)] = measured
        _show_gradients(f"MAML, {sinusoid.num_tasks} sinusoids, inner steps: {steps}", measured)
    for conv in convs:
        place, exact = "conv4", None
        if conv.downsampling == "pool":
            # Float32 decides some maxima otherwise when it adds up in another order.
            place, exact = "conv4_pooled", conv_gradients(replace(conv, num_tasks=2), torch.float64)
        with Waiting("Conv4: measurement") as waiting:
            result[place] = _measure_gradients(conv_gradients(conv), repeats, conv.at_least_s, waiting, exact)
        queries = f"{conv.num_queries} queries per class"
        title = f"MAML, Conv4-{conv.num_filters} ({conv.downsampling}), {conv.num_tasks} tasks, {queries}"
        _show_gradients(title, result[place])
    with Waiting("prototypical networks: measurement") as waiting:
        result["prototypical"] = measure_prototypical(prototypical, repeats, waiting.progress)
    _show_prototypical(result["prototypical"])
    return result


def maml_gradients(sizes: SinusoidSizes, inner_steps: int) -> dict[str, Gradient]:
    """A second-order MAML gradient of the sinusoid by every contender; ours is that of the learner."""
    network = Mlp(1, sizes.hidden_sizes, 1, activation="relu", generator=torch_generator(0))
    gradients = sinusoid_gradients(network, sizes, inner_steps)
    support, query = sinusoid_points(sizes, torch.float32)
    learner = Maml(network, MamlConfig(inner_lr=sizes.inner_lr, inner_steps=inner_steps))
    episodes = Episodes(Examples(*support), Examples(*query))
    return gradients | {"metarl": lambda: _learners_gradient(learner, episodes)}


def _learners_gradient(learner: Maml, episodes: Episodes) -> Tensor:
    """The gradient that an update would follow, in the pieces that it would take."""
    params = list(learner.network.params.values())
    parts = []
    for _, part in in_pieces(episodes, learner.config.outer.tasks_at_once):
        loss = learner.outer_losses(part).losses.sum() / episodes.num_tasks
        parts.append(flatten(torch.autograd.grad(loss, params)))
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)


def conv_gradients(sizes: ConvSizes, dtype: torch.dtype = torch.float32) -> dict[str, Gradient]:
    """A second-order MAML gradient of Conv4 by our learner, and by a loop over tasks."""
    network = conv4(
        sizes.num_ways,
        num_filters=sizes.num_filters,
        downsampling=sizes.downsampling,
        generator=torch_generator(0),
    ).to(dtype)
    generator = torch_generator(1)

    def draw(num_examples: int) -> Examples:
        targets = torch.arange(sizes.num_ways).repeat(num_examples).expand(sizes.num_tasks, -1)
        return Examples(torch.rand(*targets.shape, 1, 28, 28, generator=generator, dtype=dtype), targets)

    episodes = Episodes(draw(1), draw(sizes.num_queries))
    for layer in network.modules():
        if isinstance(layer, BATCH_NORMS):
            layer.track_running_stats = False
            layer.running_mean = layer.running_var = None
    learner = Maml(network, MamlConfig(inner_lr=sizes.inner_lr))
    return {
        "metarl": lambda: _learners_gradient(learner, episodes),
        "loop": lambda: _looped_gradient(network, episodes, learner.inner.adapted, sizes.inner_lr),
    }


def _looped_gradient(network: nn.Module, episodes: Episodes, adapted: list[str], inner_lr: float) -> Tensor:
    """One task at a time, with torch.func.functional_call and torch.autograd."""
    theta: Params = dict(network.named_parameters())
    total = [torch.zeros_like(p) for p in theta.values()]
    for x, y, query_x, query_y in zip(*episodes.support, *episodes.query, strict=True):
        loss = nn.functional.cross_entropy(functional_call(network, theta, (x,)), y)
        grads = torch.autograd.grad(loss, [theta[name] for name in adapted], create_graph=True)
        params = theta | {name: theta[name] - inner_lr * g for name, g in zip(adapted, grads, strict=True)}
        loss = nn.functional.cross_entropy(functional_call(network, params, (query_x,)), query_y)
        outer = torch.autograd.grad(loss / episodes.num_tasks, list(theta.values()))
        for place, grad in enumerate(outer):
            total[place] += grad
    return flatten(total)


def _measure_gradients(
    gradients: dict[str, Gradient],
    repeats: int,
    at_least_s: float,
    waiting: Waiting,
    exact: dict[str, Gradient] | None = None,
) -> dict[str, Any]:
    """Milliseconds per gradient of all contenders, and how often ours is as fast as each.

    Args:
        gradients: Functions that compute the gradient, by contender.
        repeats: Number of measurements of each contender.
        at_least_s: Least duration of a measurement in seconds.
        waiting: Progress display.
        exact: Functions whose gradients are compared instead of those of `gradients`, in float64.

    Raises:
        RuntimeError: If a contender's gradient is more than 1e-4 away, 1e-9 in float64, relative to its length.
    """
    compared, allowed = (exact, 1e-9) if exact else (gradients, 1e-4)
    ours = compared["metarl"]()
    differences = {name: relative_difference(gradient(), ours) for name, gradient in compared.items()}
    for name, difference in differences.items():
        if not difference < allowed:
            raise RuntimeError(f"the meta-gradient of {name} differs from ours by {difference:.2g}")

    def timed(gradient: Gradient) -> Callable[[], float]:
        return lambda: seconds_per_call(gradient, at_least_s=at_least_s)

    times = interleave({name: timed(g) for name, g in gradients.items()}, repeats, waiting.progress)
    return {
        "milliseconds": {name: 1e3 * median(values) for name, values in times.items()},
        "relative_difference": differences,
        "metarl_times_as_fast": {name: ratio(values, times["metarl"]) for name, values in times.items()},
    }


def measure_prototypical(sizes: PrototypicalSizes, repeats: int, progress: Progress) -> dict[str, Any]:
    """Episodes per second of training and of evaluation, data included, and ours over easyfsl's."""
    data, files = drawn_classes(sizes)
    ways, shots, queries = sizes.num_ways, sizes.num_shots, sizes.num_queries
    source = ClassEpisodes(data, num_ways=ways, num_shots=shots, num_queries=queries)
    rng = np.random.default_rng(0)
    learner = Prototypical(_backbone(sizes), PrototypicalConfig())
    quick = Prototypical(Autocast(_backbone(sizes)), PrototypicalConfig())

    def train(trained: Prototypical) -> None:
        for _ in range(sizes.train_episodes):
            trained.update(source.sample(1, rng), rng)

    def evaluate() -> None:
        adaptation_scores(learner, source, rng, num_tasks=sizes.evaluation_episodes, num_steps=0)

    def evaluate_each() -> None:
        for _ in range(sizes.peer_episodes):
            episodes = source.sample(1, rng)
            learner.adapt(episodes.support, 0)[0](episodes.query.inputs)

    contenders = {
        "train: metarl": _per_second(lambda: train(learner), sizes.train_episodes),
        "train: metarl, in bfloat16": _per_second(lambda: train(quick), sizes.train_episodes),
        "evaluate: metarl": _per_second(evaluate, sizes.evaluation_episodes),
        "evaluate: metarl, images embedded each time": _per_second(evaluate_each, sizes.peer_episodes),
        "sample: metarl": _per_second(lambda: source.sample(100, rng), 100),
    }
    if easyfsl_peer.is_installed():
        for place, contents in (("memory", None), ("files", files)):
            images = easyfsl_peer.Images(data, contents)
            tasks = easyfsl_peer.tasks(images, num_ways=ways, num_shots=shots, num_queries=queries)
            contenders |= _peers(place, sizes, tasks)
    speeds = interleave(contenders, repeats, progress)
    ratios, in_bfloat16 = {}, {}
    for name, values in speeds.items():
        kind, who = name.split(": ", 1)
        if who.startswith("easyfsl"):
            ratios[name] = ratio(speeds[f"{kind}: metarl"], values)
            if kind == "train":
                in_bfloat16[name] = ratio(speeds["train: metarl, in bfloat16"], values)
    return {
        "episodes_per_s": {name: median(values) for name, values in speeds.items()},
        "metarl_over": ratios,
        "metarl_in_bfloat16_over": in_bfloat16,
    }


def _peers(
    place: str, sizes: PrototypicalSizes, tasks: Iterator[easyfsl_peer.Task]
) -> dict[str, Callable[[], float]]:
    """easyfsl's training, evaluation and sampling, with images from memory or from their files' bytes."""
    method = easyfsl_peer.prototypical(_backbone(sizes))
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-3)

    def train() -> None:
        method.train()
        for _ in range(sizes.train_episodes):
            support, labels, query, query_labels = next(tasks)
            optimizer.zero_grad()
            method.process_support_set(support, labels)
            nn.functional.cross_entropy(method(query), query_labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    def evaluate() -> None:
        method.eval()
        with torch.no_grad():
            for _ in range(sizes.peer_episodes):
                support, labels, query, _ = next(tasks)
                method.process_support_set(support, labels)
                method(query)

    def sample() -> None:
        for _ in range(sizes.peer_episodes):
            next(tasks)

    return {
        f"train: easyfsl, images from {place}": _per_second(train, sizes.train_episodes),
        f"evaluate: easyfsl, images from {place}": _per_second(evaluate, sizes.peer_episodes),
        f"sample: easyfsl, images from {place}": _per_second(sample, sizes.peer_episodes),
    }


def _per_second(work: Callable[[], object], episodes: int) -> Callable[[], float]:
    return lambda: episodes / seconds_per_call(work)


def _backbone(sizes: PrototypicalSizes) -> nn.Module:
    return conv4(None, num_filters=sizes.num_filters, generator=torch_generator(0))


def drawn_classes(sizes: PrototypicalSizes) -> tuple[ClassData, list[bytes]]:
    """Classes of random 105 x 105 one-bit images, and the contents of their files, as Omniglot has them."""
    rng = np.random.default_rng(0)
    files = []
    for _ in range(sizes.num_classes * sizes.num_examples):
        pixels = rng.random((15, 15)).repeat(7, 0).repeat(7, 1) > 0.08
        files.append(_png(pixels))
    examples = torch.stack([easyfsl_peer.decode(content) for content in files])
    labels = torch.arange(sizes.num_classes).repeat_interleave(sizes.num_examples)
    return ClassData.of(examples, labels), files


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def _show_gradients(title: str, measured: dict[str, Any]) -> None:
    labels = {"metarl": "metarl", "loop": "torch.autograd, loop over tasks"}
    lines = []
    for name, milliseconds in measured["milliseconds"].items():
        faster = ratio_cells(None if name == "metarl" else measured["metarl_times_as_fast"][name])
        difference = f"{measured['relative_difference'][name]:.0e}"
        lines.append([labels.get(name, f"{name}, loop over tasks"), f"{milliseconds:.2f}", *faster, difference])
    columns = ["contender", "ms", "metarl is times as fast", "lowest, highest", "relative difference"]
    show_table(f"second-order gradient, {title}", columns, lines)


def _show_prototypical(measured: dict[str, Any]) -> None:
    lines = []
    for name, speed in sorted(measured["episodes_per_s"].items()):
        plain, quick = (ratio_cells(measured[key].get(name)) for key in ("metarl_over", "metarl_in_bfloat16_over"))
        lines.append([name, f"{speed:,.1f}", *plain, *quick])
    columns = [
        "contender",
        "episodes/s",
        "metarl is times as fast",
        "lowest, highest",
        "in bfloat16",
        "lowest, highest",
    ]
    show_table("prototypical networks, Conv4, 5 ways, data included", columns, lines)
