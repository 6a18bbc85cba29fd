"""Both engines for weights that differ from task to task: batched by `vmap`, and one task after the other."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from metarl.fewshot.backbones import OwnBackbone
from metarl.fewshot.call_order import called_last
from metarl.fewshot.episodes import Episodes, Examples
from metarl.fewshot.learner import LearnerSetup
from metarl.fewshot.learners.adml import Adml, AdmlConfig
from metarl.fewshot.learners.cavia import Cavia, CaviaConfig
from metarl.fewshot.learners.implicit_maml import ImplicitMaml, ImplicitMamlConfig
from metarl.fewshot.learners.maml import Maml, MamlConfig
from metarl.fewshot.learners.prototypical import Prototypical, PrototypicalConfig
from metarl.fewshot.sources import TaskSpec
from metarl.learning.bilevel import flatten
from metarl.nets.networks import Mlp
from tests.fewshot.kinds import KINDS, LEARNERS, Kind, WithContext, episodes_of

NOT_BATCHED = ("lstm", "gru", "rnn", "spectral norm", "spectral norm by hooks", "weight norm", "instance norm")
WRITTEN_BY_HAND = ("branches", "items", "autograd function", "buffers")
BATCHED = ("residual", "transformer", "multi-head attention", "attention kernel", "layer norm", "lists", "unused")


def _double(episodes: Episodes) -> Episodes:
    def cast(examples: Examples) -> Examples:
        return examples._replace(inputs=examples.inputs.double())

    return Episodes(*(cast(examples) for examples in episodes))


def _module(kind: Kind) -> nn.Module:
    torch.manual_seed(0)
    return kind.make(3).double()


def _meta_gradient(learner: Any, episodes: Episodes) -> Tensor:
    losses = learner.outer_losses(episodes).losses
    params = list(learner.network.params.values())
    return flatten(torch.autograd.grad(losses.mean(), params, allow_unused=True, materialize_grads=True))


def _in_turn(learner: Any) -> Any:
    learner.network._in_turn_only = {True: True, False: True}
    return learner


@pytest.mark.parametrize("name", BATCHED)
@pytest.mark.parametrize("first_order", [False, True])
def test_both_engines_have_the_same_gradient(name: str, first_order: bool) -> None:
    kind = KINDS[name]
    episodes = _double(episodes_of(kind, "maml"))
    config = MamlConfig(inner_lr=0.1, inner_steps=2, first_order=first_order)
    batched, looped = Maml(_module(kind), config), _in_turn(Maml(_module(kind), config))
    batched.network._twice = True  # attention's fast kernel, which first order takes, is not batched on a CPU
    grads = [_meta_gradient(learner, episodes) for learner in (batched, looped)]
    assert batched.network._in_turn_only == {True: False}
    assert grads[0].norm() > 1e-3
    assert torch.allclose(*grads, atol=1e-10, rtol=0)


@pytest.mark.parametrize("make", [ImplicitMaml, Cavia])
def test_both_engines_have_the_same_implicit_gradients_and_contexts(make: type) -> None:
    kind = KINDS["residual"]
    episodes = _double(episodes_of(kind, "maml"))
    grads = []
    for engine in (lambda learner: learner, _in_turn):
        torch.manual_seed(0)
        learner: Any
        if make is Cavia:
            learner = engine(Cavia(WithContext(kind).double(), CaviaConfig(inner_steps=2)))
            grads.append(_meta_gradient(learner, episodes))
        else:
            learner = engine(ImplicitMaml(_module(kind), ImplicitMamlConfig(inner_steps=3)))
            grads.append(flatten([g.sum(0) for g in learner.meta_gradients(episodes)[0].values()]))
    assert grads[0].norm() > 1e-3
    assert torch.allclose(*grads, atol=1e-10, rtol=0)


def _by_hand(network: nn.Module, episodes: Episodes, steps: int) -> Tensor:
    """Second-order MAML, task by task, on PyTorch's own layers."""
    theta = {name: p for name, p in network.named_parameters() if p.requires_grad}
    total = torch.zeros((), dtype=torch.float64)
    for task in range(episodes.num_tasks):
        params: Mapping[str, Tensor] = theta
        for _ in range(steps):
            outputs = functional_call(network, dict(params), (episodes.support.inputs[task],))
            loss = nn.functional.cross_entropy(outputs, episodes.support.targets[task])
            grads = torch.autograd.grad(
                loss, list(params.values()), create_graph=True, allow_unused=True, materialize_grads=True
            )
            params = {name: p - 0.1 * g for (name, p), g in zip(params.items(), grads, strict=True)}
        outputs = functional_call(network, dict(params), (episodes.query.inputs[task],))
        total = total + nn.functional.cross_entropy(outputs, episodes.query.targets[task])
    leaves = list(theta.values())
    grads = torch.autograd.grad(total / episodes.num_tasks, leaves, allow_unused=True, materialize_grads=True)
    return flatten(grads)


@pytest.mark.parametrize("name", ["lstm", "gru", "weight norm", "branches", "items", "autograd function", "tied"])
def test_what_cannot_be_batched_has_the_gradient_of_a_loop_written_by_hand(name: str) -> None:
    kind = KINDS[name]
    episodes = _double(episodes_of(kind, "maml"))
    learner = Maml(_module(kind), MamlConfig(inner_lr=0.1, inner_steps=2))
    expected = _by_hand(_module(kind), episodes, 2)
    assert torch.allclose(_meta_gradient(learner, episodes), expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", [*NOT_BATCHED, *WRITTEN_BY_HAND])
def test_the_first_call_learns_what_cannot_be_batched_and_leaves_no_trace(name: str) -> None:
    kind = KINDS[name]
    episodes = _double(episodes_of(kind, "maml"))
    predicted, buffers = [], []
    for engine in (lambda learner: learner, _in_turn):
        learner = engine(Maml(_module(kind), MamlConfig(inner_steps=2)))
        learner.update(episodes, np.random.default_rng(0))
        assert learner.network._in_turn_only[True]
        predicted.append(learner.adapt(episodes.support, 2)[-1](episodes.query.inputs))
        buffers.append([b.double() for b in learner.network.module.buffers()])
    assert torch.allclose(*predicted, atol=1e-12, rtol=0)  # evaluating, some write nothing and are batched
    assert all(torch.equal(*pair) for pair in zip(*buffers, strict=True))


def test_every_task_writes_buffers_by_itself() -> None:
    kind = KINDS["buffers"]
    module, episodes = kind.make(3), episodes_of(kind, "maml")
    Maml(module, MamlConfig(inner_steps=2)).update(episodes, np.random.default_rng(0))
    assert isinstance(module.calls, Tensor)
    assert int(module.calls) == 3 * (2 + 1)  # tasks, and for each two inner steps and the query set


class _Dropping(nn.Module):
    """Drops units before it does what cannot be batched."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.drop, self.head = nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.drop(self.first(inputs))
        outputs: Tensor = self.head(hidden / (1 + hidden.abs().max().item()))
        return outputs


def test_finding_the_engine_draws_no_random_numbers() -> None:
    episodes = episodes_of(KINDS["items"], "maml")
    losses = []
    for engine in (lambda learner: learner, _in_turn):
        torch.manual_seed(0)
        learner = engine(Maml(_Dropping(), MamlConfig()))
        torch.manual_seed(1)
        losses.append(learner.outer_losses(episodes).losses.detach())
    assert torch.equal(*losses)


def test_an_error_of_the_module_itself_is_raised_as_it_is() -> None:
    episodes = episodes_of(KINDS["items"], "maml")
    broken = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(5, 3))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        Maml(broken, MamlConfig()).update(episodes, np.random.default_rng(0))


def test_layers_without_second_derivatives_are_refused_by_name_unless_none_are_needed() -> None:
    bag = KINDS["embedding bag"]
    for make in (
        lambda: Maml(bag.make(3), MamlConfig()),
        lambda: ImplicitMaml(bag.make(3), ImplicitMamlConfig()),
    ):
        with pytest.raises(ValueError, match=r"the layer '0' \(EmbeddingBag\) has no second derivatives"):
            make()
    episodes = episodes_of(bag, "maml")
    for config in (MamlConfig(first_order=True), MamlConfig(adapted="head")):
        Maml(bag.make(3), config).update(episodes, np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"the layer 'embedding' \(Embedding\) reads integers"):
        Adml(KINDS["embedding"].make(3), AdmlConfig())


def test_modules_whose_weights_cannot_be_put_in_are_refused_by_name() -> None:
    lazy = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(ValueError, match=r"the layer '0' \(LazyLinear\) has no weights yet"):
        Maml(lazy, MamlConfig())
    lazy(torch.zeros(1, 4))
    Maml(lazy, MamlConfig()).update(episodes_of(KINDS["items"], "maml"), np.random.default_rng(0))

    class Locked(nn.Linear):
        def __deepcopy__(self, memo: object) -> nn.Module:
            raise TypeError("cannot pickle '_thread.lock' object")

    with pytest.raises(ValueError, match=r"Locked must be a module that copy.deepcopy copies"):
        Prototypical(Locked(4, 3), PrototypicalConfig())


def _outcome(kind: Kind, name: str) -> str:
    """Train twice, adapt and predict; the refusal's text, or nothing if all of it worked."""
    torch.manual_seed(0)
    try:
        learner: Any = LEARNERS[name](kind)
    except ValueError as error:
        return str(error)
    rng = np.random.default_rng(0)
    before = [p.clone() for p in learner.network.module.parameters()]
    for seed in range(2):
        learner.update(episodes_of(kind, name, seed), rng)
    assert any(not torch.equal(*pair) for pair in zip(before, learner.network.module.parameters(), strict=True))
    episodes = episodes_of(kind, name, 7)
    predictors = learner.adapt(episodes.support, 2)
    outputs = [predict(episodes.query.inputs) for predict in predictors]
    assert all(torch.isfinite(output).all() for output in outputs)
    assert outputs[0].shape == (3, 9, 1 if name == "kernel-regression" else 3)
    assert len(outputs) == 1 or not torch.equal(outputs[0], outputs[-1])
    return ""


REFUSED = {
    ("embedding bag", "maml"): "EmbeddingBag",
    ("embedding bag", "meta-sgd"): "EmbeddingBag",
    ("embedding bag", "maml++"): "EmbeddingBag",
    ("embedding bag", "meta-curvature"): "EmbeddingBag",
    ("embedding bag", "implicit-maml"): "EmbeddingBag",
    ("embedding bag", "adml"): "EmbeddingBag",
    ("embedding", "adml"): "Embedding",
}
"""Cells of the table of kinds and learners that are refused when the learner is made, and the layer named."""

_THIN = [(kind, list(LEARNERS)[place % len(LEARNERS)]) for place, kind in enumerate(KINDS)]
_CELLS = [
    pytest.param(kind, learner, marks=[] if (kind, learner) in _THIN else pytest.mark.slow)
    for kind in KINDS
    for learner in LEARNERS
]


def test_at_least_420_of_435_cells_of_kinds_and_learners_are_to_work() -> None:
    assert len(_CELLS) == 29 * 15
    assert len(_CELLS) - len(REFUSED) >= 420


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("kind", "learner"), _CELLS)
def test_a_learner_trains_and_adapts_any_module_or_names_the_layer_it_refuses(kind: str, learner: str) -> None:
    layer = REFUSED.get((kind, learner))
    refusal = _outcome(KINDS[kind], learner)
    assert refusal == "" if layer is None else f"({layer})" in refusal


def test_the_head_is_the_layer_called_last_or_the_one_named() -> None:
    first = KINDS["residual"].make(3)  # whose head is registered first
    assert called_last(first, (2, 6, 6), torch.device("cpu")) == "head"
    assert called_last(KINDS["unused"].make(3), (4,), torch.device("cpu")) == "head"
    assert first.training
    learner = Maml(first, MamlConfig(adapted="head", head="head"))
    assert learner.inner.adapted == ["head.weight", "head.bias"]
    normed = KINDS["weight norm"].make(3)[0]
    whole = Maml(nn.Sequential(nn.Linear(4, 4), normed), MamlConfig(adapted="head"))
    assert set(whole.inner.adapted) == {name for name in whole.network.weights if name.startswith("1.")}
    with pytest.raises(ValueError, match=r"head must be the name of a layer .* got 'fc'; such are head, first"):
        Maml(first, MamlConfig(adapted="head", head="fc"))


def test_a_head_that_only_a_batch_can_show_is_asked_for_by_name() -> None:
    kind = KINDS["residual"]  # whose head is registered first
    episodes = episodes_of(kind, "maml")
    for call in (
        lambda learner: learner.update(episodes, np.random.default_rng(0)),
        lambda learner: learner.outer_losses(episodes),  # a loop of one's own
        lambda learner: learner.adapt(episodes.support, 1),
    ):
        learner = Maml(kind.make(3), MamlConfig(adapted="head"))
        with pytest.raises(ValueError, match=r"called last, 'head', and 'skip' was taken.* head='head'\)"):
            call(learner)
    Maml(kind.make(3), MamlConfig(adapted="head", head="first")).update(episodes, np.random.default_rng(0))
    listed = KINDS["lists"]  # whose head is registered before batch norm, and called last
    learner = Maml(listed.make(3), MamlConfig(adapted="head"))
    learner.update(episodes_of(listed, "maml"), np.random.default_rng(0))
    assert learner.inner.adapted == ["parts.head.weight", "parts.head.bias"]


def test_the_order_of_calls_is_learned_from_examples_of_another_number_format_too() -> None:
    items = KINDS["items"]
    episodes = episodes_of(items, "maml")
    wide = Episodes(
        Examples(episodes.support.inputs.double(), episodes.support.targets),
        Examples(episodes.query.inputs.double(), episodes.query.targets),
    )
    learner = Maml(items.make(3), MamlConfig(adapted="head"))
    assert learner.network.needs_check
    learner.update(wide, np.random.default_rng(0))
    assert not learner.network.needs_check


def test_a_frozen_head_and_names_of_no_parameter_are_refused() -> None:
    module = KINDS["items"].make(3)
    module.get_submodule("head").requires_grad_(False)
    assert called_last(module, (4,), torch.device("cpu")) == "first"
    with pytest.raises(ValueError, match="head must be a layer that is trained, got 'head', which is frozen"):
        Maml(module, MamlConfig(adapted="head", head="head"))
    with pytest.raises(ValueError, match=r"adapted must name parameters of the module, got \['nope'\]; such are"):
        Maml(module, MamlConfig(), adapted=["nope"])


class _WithToken(nn.Module):
    """A weight of its own beside its layers, as a transformer's token for the class."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(4))
        self.head, self.first = nn.Linear(4, 3), nn.Linear(4, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.first(inputs + self.token).tanh())
        return outputs


class _Listed(nn.Module):
    """A layer, and a list of weights that is no layer and is called by nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList([nn.Parameter(torch.randn(4, 3))])

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = inputs @ self.weights[0]
        return outputs


@pytest.mark.parametrize(
    ("module", "shape", "adapted"),
    [
        (KINDS["residual"].make(3), (2, 6, 6), ["head.weight", "head.bias"]),
        (nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), (4,), ["0.weight", "0.bias"]),
        (_Listed(), (4,), ["weights.0"]),
        (_WithToken(), (4,), ["head.weight", "head.bias"]),
    ],
    ids=["registered first", "before batch norm", "no layer", "a weight of its own"],
)
def test_an_experiment_takes_the_layer_called_last_as_head(
    module: nn.Module, shape: tuple[int, ...], adapted: list[str]
) -> None:
    setup = LearnerSetup(
        tasks=TaskSpec("classification", shape, 3),
        backbone=OwnBackbone(module),
        num_updates=1,
        generator=torch.Generator(),
        device=torch.device("cpu"),
    )
    learner = MamlConfig(adapted="head").make(setup)
    assert learner.inner.adapted == adapted


class _Scaled(Mlp):
    """A perceptron of the package whose forward is another."""

    def forward(self, inputs: Tensor) -> Tensor:
        return 10 * super().forward(inputs)


def test_a_subclass_is_called_by_its_own_forward() -> None:
    episodes = episodes_of(KINDS["items"], "maml")
    network = _Scaled(4, (6,), 3, activation="relu", generator=torch.Generator().manual_seed(0))
    outputs = Maml(network, MamlConfig()).adapt(episodes.support, 0)[0](episodes.query.inputs)
    assert torch.allclose(outputs, network(episodes.query.inputs), atol=1e-5)
