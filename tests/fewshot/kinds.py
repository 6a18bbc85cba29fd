"""Twenty-nine kinds of modules, each small, and fifteen learners that take them."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from metarl.fewshot.episodes import Episodes, Examples
from metarl.fewshot.learner import Learner
from metarl.fewshot.learners.adml import Adml, AdmlConfig
from metarl.fewshot.learners.cavia import Cavia, CaviaConfig
from metarl.fewshot.learners.implicit_maml import ImplicitMaml, ImplicitMamlConfig
from metarl.fewshot.learners.kernel_regression import KernelRegression, KernelRegressionConfig
from metarl.fewshot.learners.maml import Maml, MamlConfig
from metarl.fewshot.learners.matching import Matching, MatchingConfig
from metarl.fewshot.learners.proto_maml import ProtoMaml, ProtoMamlConfig
from metarl.fewshot.learners.prototypical import Prototypical, PrototypicalConfig
from metarl.fewshot.learners.relation import Relation, RelationConfig
from metarl.fewshot.learners.reptile import Reptile, ReptileConfig
from metarl.fewshot.learners.siamese import Siamese, SiameseConfig

NUM_WAYS = 3
NUM_TASKS = 3


class Convolutions(nn.Sequential):
    """The literature's form of network."""


class Residual(nn.Module):
    """A residual block and a linear layer, with a forward of its own that views its maps."""

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.head = nn.Linear(4 * 36, num_outputs)  # registered first and called last
        self.first = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.skip = nn.Conv2d(2, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.second(self.norm(self.first(images)).relu()) + self.skip(images)
        outputs: Tensor = self.head(maps.relu().view(len(images), -1))
        return outputs


class Recurrent(nn.Module):
    """The last state of a recurrent layer, and a linear layer."""

    def __init__(self, layer: nn.Module, num_outputs: int) -> None:
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(6, num_outputs)

    def forward(self, sequences: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.layer(sequences)[0][:, -1])
        return outputs


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence on itself."""

    def __init__(self, num_outputs: int, *, weights: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, num_outputs)
        self.weights = weights

    def forward(self, sequences: Tensor) -> Tensor:
        mixed, _ = self.attention(sequences, sequences, sequences, need_weights=self.weights)
        outputs: Tensor = self.head(mixed.mean(1))
        return outputs


class KernelAttention(nn.Module):
    """Attention by the function that takes the fastest kernel."""

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.keys = nn.Linear(4, 12)
        self.head = nn.Linear(4, num_outputs)

    def forward(self, sequences: Tensor) -> Tensor:
        queries, keys, values = (part.unsqueeze(1) for part in self.keys(sequences).chunk(3, -1))
        mixed = nn.functional.scaled_dot_product_attention(queries, keys, values)
        outputs: Tensor = self.head(mixed.squeeze(1).mean(1))
        return outputs


class Writing(nn.Module):
    """Counts its calls and keeps an average of what it reads, in buffers."""

    calls: Tensor
    average: Tensor

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(4, 6), nn.Linear(6, num_outputs)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("average", torch.zeros(6))

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.first(inputs)
        if self.training:
            self.calls += 1
            self.average = 0.9 * self.average + 0.1 * hidden.detach().mean(0)
        outputs: Tensor = self.head((hidden - self.average).tanh())
        return outputs


class Branching(nn.Module):
    """Takes one of two layers by what it reads."""

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.first, self.other = nn.Linear(4, 6), nn.Linear(4, 6)
        self.head = nn.Linear(6, num_outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        layer = self.first if inputs.sum() > 0 else self.other
        outputs: Tensor = self.head(layer(inputs).tanh())
        return outputs


class Itemising(nn.Module):
    """Divides by a number that it takes out of a tensor."""

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(4, 6), nn.Linear(6, num_outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.first(inputs)
        outputs: Tensor = self.head((hidden / (1 + hidden.abs().max().item())).tanh())
        return outputs


class _Cube(torch.autograd.Function):
    """x to the third, with a derivative that can itself be differentiated, and no rule for `vmap`."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        ctx.save_for_backward(inputs)
        return inputs**3

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (inputs,) = ctx.saved_tensors
        return 3 * inputs**2 * grads[0]


class Cubing(nn.Module):
    """Applies an autograd function of one's own."""

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(4, 6), nn.Linear(6, num_outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.head(_Cube.apply(self.first(inputs)).tanh())  # type: ignore[no-untyped-call]
        return outputs


class Tokens(nn.Module):
    """Embeds integers."""

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 6)
        self.head = nn.Linear(6, num_outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.embedding(tokens).mean(1).tanh())
        return outputs


class Unused(nn.Module):
    """Has a layer that it never calls, registered last."""

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(4, 6), nn.Linear(6, num_outputs)
        self.never = nn.Linear(6, 6)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.first(inputs).tanh())
        return outputs


class NormAndActivation(nn.BatchNorm1d):
    """A batch norm with an activation of its own."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs).tanh()


class Listed(nn.Module):
    """Calls modules from a list and a dictionary."""

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 6), nn.Linear(6, 6)])
        self.parts = nn.ModuleDict({"head": nn.Linear(6, num_outputs), "norm": nn.BatchNorm1d(6)})

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = inputs
        for layer in self.layers:
            hidden = layer(hidden).tanh()
        outputs: Tensor = self.parts["head"](self.parts["norm"](hidden))
        return outputs


def _dense(*layers: nn.Module, num_outputs: int, first: nn.Module | None = None) -> nn.Module:
    return nn.Sequential(first or nn.Linear(4, 6), *layers, nn.Tanh(), nn.Linear(6, num_outputs))


def _convolutional(norm: nn.Module, num_outputs: int) -> nn.Module:
    layers = (nn.Conv2d(2, 4, 3, padding=1), norm, nn.ReLU(), nn.AvgPool2d(3), nn.Flatten())
    return Convolutions(*layers, nn.Linear(16, num_outputs))


def _transformer(num_outputs: int) -> nn.Module:
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    return nn.Sequential(encoder, nn.Flatten(), nn.Linear(20, num_outputs))


def _bag(num_outputs: int) -> nn.Module:
    return nn.Sequential(nn.EmbeddingBag(10, 6), nn.Tanh(), nn.Linear(6, num_outputs))


def _frozen(num_outputs: int) -> nn.Module:
    network = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, num_outputs))
    network[0].requires_grad_(False)
    return network


def _pretrained(num_outputs: int) -> nn.Module:
    norm = nn.BatchNorm1d(6)
    with torch.no_grad():
        norm.running_mean.fill_(0.3)  # type: ignore[union-attr]
    network = nn.Sequential(nn.Linear(4, 6), norm, nn.Dropout(0.5), nn.Tanh(), nn.Linear(6, num_outputs))
    network[:3].eval()
    return network


def _tied(num_outputs: int) -> nn.Module:
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    return nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), nn.Linear(4, num_outputs))


class Kind(NamedTuple):
    """A kind of module.

    Attributes:
        make: Function that makes one, for a number of outputs.
        inputs: Shape of one example; empty at the front for integers below 10.
        integers: Whether inputs are integers.
    """

    make: Callable[[int], nn.Module]
    inputs: tuple[int, ...] = (4,)
    integers: bool = False


_SEQUENCE, _IMAGE = (5, 4), (2, 6, 6)

KINDS: dict[str, Kind] = {
    "convolutions": Kind(lambda out: _convolutional(nn.BatchNorm2d(4), out), _IMAGE),
    "residual": Kind(Residual, _IMAGE),
    "lstm": Kind(lambda out: Recurrent(nn.LSTM(4, 6, batch_first=True), out), _SEQUENCE),
    "gru": Kind(lambda out: Recurrent(nn.GRU(4, 6, batch_first=True), out), _SEQUENCE),
    "rnn": Kind(lambda out: Recurrent(nn.RNN(4, 6, batch_first=True), out), _SEQUENCE),
    "transformer": Kind(_transformer, _SEQUENCE),
    "multi-head attention": Kind(lambda out: SelfAttention(out, weights=False), _SEQUENCE),
    "attention kernel": Kind(KernelAttention, _SEQUENCE),
    "batch norm": Kind(lambda out: _dense(nn.BatchNorm1d(6), num_outputs=out)),
    "layer norm": Kind(lambda out: _dense(nn.LayerNorm(6), num_outputs=out)),
    "group norm": Kind(lambda out: _convolutional(nn.GroupNorm(2, 4), out), _IMAGE),
    "instance norm": Kind(
        lambda out: _convolutional(nn.InstanceNorm2d(4, affine=True, track_running_stats=True), out), _IMAGE
    ),
    "spectral norm": Kind(
        lambda out: _dense(num_outputs=out, first=parametrizations.spectral_norm(nn.Linear(4, 6)))
    ),
    "spectral norm by hooks": Kind(
        lambda out: _dense(num_outputs=out, first=nn.utils.spectral_norm(nn.Linear(4, 6)))
    ),
    "weight norm": Kind(lambda out: _dense(num_outputs=out, first=parametrizations.weight_norm(nn.Linear(4, 6)))),
    "synchronised batch norm": Kind(lambda out: _dense(nn.SyncBatchNorm(6), num_outputs=out)),
    "buffers": Kind(Writing),
    "branches": Kind(Branching),
    "items": Kind(Itemising),
    "dropout": Kind(lambda out: _dense(nn.Dropout(0.2), num_outputs=out)),
    "autograd function": Kind(Cubing),
    "embedding": Kind(Tokens, (5,), integers=True),
    "embedding bag": Kind(_bag, (5,), integers=True),
    "frozen": Kind(_frozen),
    "evaluating": Kind(_pretrained),
    "unused": Kind(Unused),
    "tied": Kind(_tied),
    "norm and activation": Kind(lambda out: _dense(NormAndActivation(6), num_outputs=out)),
    "lists": Kind(Listed),
}


class WithContext(nn.Module):
    """A module whose features a context moves, before a last layer."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.body, self.context, self.head = kind.make(6), nn.Linear(5, 6), nn.Linear(6, NUM_WAYS)

    def forward(self, inputs: Tensor, context: Tensor) -> Tensor:
        outputs: Tensor = self.head((self.body(inputs) + self.context(context)).tanh())
        return outputs


def _maps(kind: Kind) -> nn.Module:
    return nn.Sequential(kind.make(8), nn.Unflatten(1, (2, 2, 2)))


def _relation(kind: Kind) -> Relation:
    head = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 1))
    return Relation(_maps(kind), RelationConfig(), relation=head)


def _matching(kind: Kind) -> Matching:
    return Matching(kind.make(6), MatchingConfig(), generator=torch.Generator().manual_seed(0))


def _maml(kind: Kind, **options: Any) -> Maml:
    return Maml(kind.make(NUM_WAYS), MamlConfig(inner_lr=0.1, inner_steps=2, **options))


LEARNERS: dict[str, Callable[[Kind], Learner]] = {
    "maml": _maml,
    "anil": lambda kind: _maml(kind, adapted="head", head="head" if kind.make in (Residual, Unused) else None),
    "meta-sgd": lambda kind: _maml(kind, rates="per_entry"),
    "maml++": lambda kind: _maml(
        kind, rates="per_tensor_and_step", multi_step_updates=9, first_order_updates=1, normalisation="per_step"
    ),
    "meta-curvature": lambda kind: _maml(kind, curvature=True),
    "reptile": lambda kind: Reptile(kind.make(NUM_WAYS), ReptileConfig(inner_steps=2, test_steps=2)),
    "implicit-maml": lambda kind: ImplicitMaml(kind.make(NUM_WAYS), ImplicitMamlConfig(inner_steps=2, cg_iters=2)),
    "cavia": lambda kind: Cavia(WithContext(kind), CaviaConfig()),
    "adml": lambda kind: Adml(kind.make(NUM_WAYS), AdmlConfig(MamlConfig(inner_lr=0.1))),
    "proto-maml": lambda kind: ProtoMaml(kind.make(6), ProtoMamlConfig(inner_steps=2)),
    "prototypical": lambda kind: Prototypical(kind.make(6), PrototypicalConfig()),
    "matching": _matching,
    "relation": _relation,
    "siamese": lambda kind: Siamese(kind.make(6), SiameseConfig()),
    "kernel-regression": lambda kind: KernelRegression(kind.make(6), KernelRegressionConfig()),
}


def episodes_of(kind: Kind, learner: str, seed: int = 0) -> Episodes:
    """Random tasks of 3 ways, 2 shots and 3 queries, or of as many numbers for regression."""
    generator = torch.Generator().manual_seed(seed)

    def examples(num_rows: int) -> Examples:
        shape: Sequence[int] = (NUM_TASKS, NUM_WAYS * num_rows, *kind.inputs)
        classes = torch.arange(NUM_WAYS).repeat(num_rows).expand(NUM_TASKS, -1)
        if kind.integers:
            inputs = torch.randint(10, shape, generator=generator)
        else:
            offsets = classes.view(*shape[:2], *[1] * len(kind.inputs)).float()
            inputs = torch.randn(shape, generator=generator) + offsets - 1
        targets = classes.unsqueeze(-1).float() if learner == "kernel-regression" else classes
        return Examples(inputs, targets)

    return Episodes(examples(2), examples(3))
