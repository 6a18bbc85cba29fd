"""Changes of a module after a learner was made of it are followed, or refused in one line."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from metarl.fewshot import ClassData, ClassEpisodes, Episodes, Maml, MamlConfig, Prototypical, PrototypicalConfig
from metarl.fewshot.learner import ModuleLearner
from metarl.fewshot.learners.adml import Adml, AdmlConfig
from metarl.fewshot.learners.baseline import Baseline, BaselineConfig
from metarl.fewshot.learners.fine_tuning import FineTuning, FineTuningConfig
from metarl.fewshot.learners.implicit_maml import ImplicitMaml, ImplicitMamlConfig
from metarl.fewshot.learners.proto_maml import ProtoMaml, ProtoMamlConfig
from metarl.fewshot.learners.relation import Relation, RelationConfig
from metarl.fewshot.learners.reptile import Reptile, ReptileConfig
from metarl.nets.networks import Mlp

LEARNERS: dict[str, Callable[[nn.Module], ModuleLearner]] = {
    "maml": lambda module: Maml(module, MamlConfig()),
    "adml": lambda module: Adml(module, AdmlConfig()),
    "implicit-maml": lambda module: ImplicitMaml(module, ImplicitMamlConfig(inner_steps=1)),
    "reptile": lambda module: Reptile(module, ReptileConfig(inner_steps=1)),
    "proto-maml": lambda module: ProtoMaml(module, ProtoMamlConfig()),
    "prototypical": lambda module: Prototypical(module, PrototypicalConfig()),
    "transductive": lambda module: Prototypical(module, PrototypicalConfig(normalisation="transductive")),
    "fine-tuning": lambda module: FineTuning(module, FineTuningConfig(num_rounds=1, steps_per_round=1)),
    "baseline": lambda module: Baseline(
        module, BaselineConfig(), num_features=3, generator=torch.Generator().manual_seed(0)
    ),
}
every_learner = pytest.mark.parametrize("make", LEARNERS.values(), ids=LEARNERS)


def _network() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Sequential(nn.ReLU(), nn.Linear(8, 3))
    )


def _episodes() -> Episodes:
    examples = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    data = ClassData.of(examples, torch.arange(60) // 20)
    source = ClassEpisodes(data, num_ways=3, num_shots=2, num_queries=3)
    return source.sample(2, np.random.default_rng(0))


def _update(learner: ModuleLearner) -> dict[str, float]:
    return learner.update(_episodes(), np.random.default_rng(0))


def _predict(learner: ModuleLearner) -> torch.Tensor:
    support, query = _episodes()
    return learner.adapt(support, 1)[-1](query.inputs)


def _assigned(module: Any) -> None:
    module.load_state_dict({name: value.clone() for name, value in module.state_dict().items()}, assign=True)


CHANGES: dict[str, tuple[Callable[[Any], object], str]] = {
    "layer": (lambda module: module.__setitem__(0, nn.Linear(4, 8)), "'0' of the module was replaced"),
    "inner layer": (lambda m: m[3].__setitem__(1, nn.Linear(8, 3)), r"'3\.1' of the module was replaced"),
    "more layers": (lambda module: module.append(nn.ReLU()), "'4' of the module was added"),
    "fewer layers": (lambda module: module[3].__delitem__(1), r"'3\.1' of the module was removed"),
    "parameter": (
        lambda module: setattr(module[0], "weight", nn.Parameter(torch.zeros(8, 4))),
        r"'0\.weight' of the module was replaced",
    ),
    "no bias": (lambda module: setattr(module[0], "bias", None), r"'0\.bias' of the module was replaced"),
    "last of all": (
        lambda module: module[3][1].register_parameter("more", nn.Parameter(torch.zeros(1))),
        r"'3\.1\.more' of the module was added",
    ),
    "tied": (
        lambda module: setattr(module[1], "weight", module[1].bias),
        r"'1\.weight' of the module was replaced",
    ),
    "assigned": (_assigned, r"'0\.weight' of the module was replaced"),
    "converted": (lambda module: module.double(), r"'1\.running_mean' of the module was replaced"),
    "parametrized": (
        lambda m: parametrizations.weight_norm(m[0]),
        r"'0\.parametrizations' of the module was added",
    ),
}


@every_learner
@pytest.mark.parametrize("change", CHANGES)
def test_what_a_copy_cannot_follow_is_refused(make: Callable[[nn.Module], ModuleLearner], change: str) -> None:
    module = _network()
    learner = make(module)
    _update(learner)
    apply, said = CHANGES[change]
    apply(module)
    for call in (_update, _predict):
        with pytest.raises(ValueError, match=rf"^{said} after the learner was made, .* in place, or make .*$"):
            call(learner)


@every_learner
def test_the_mode_is_followed_in_training_and_batch_norms_must_keep_theirs(
    make: Callable[[nn.Module], ModuleLearner],
) -> None:
    module = _network()
    learner = make(module)
    _update(learner)
    copied = learner.network.module
    module[2].eval()
    _update(learner)
    assert [layer.training for layer in copied] == [True, True, False, True]  # type: ignore[attr-defined]
    module.eval()
    outputs = _predict(learner)
    with pytest.raises(
        ValueError, match=r"^the layer '1' \(BatchNorm1d\) was in training mode .* call \.train\(\)"
    ):
        _update(learner)
    module.train()
    assert torch.equal(_predict(learner), outputs)  # which the owner's mode does not change
    _update(learner)
    assert all(layer.training for layer in copied.modules())


def test_units_are_no_more_dropped_once_the_owner_says_so() -> None:
    module = nn.Sequential(nn.Linear(4, 400), nn.Dropout(), nn.Linear(400, 3))
    learner = Maml(module, MamlConfig())
    params, inputs = learner.network.params, _episodes().query.inputs
    assert not torch.equal(learner.network(params, inputs), learner.network(params, inputs))
    module.eval()
    params = learner.network.params
    assert torch.equal(learner.network(params, inputs), learner.network(params, inputs))


def test_a_frozen_batch_norm_must_stay_frozen_unless_all_are() -> None:
    module = _network()
    module[1].eval()
    learner = Maml(module, MamlConfig())
    module.train()
    with pytest.raises(ValueError, match=r"was in evaluation mode .* is in training mode now; call \.eval\(\)"):
        _update(learner)
    module[1].eval()
    _update(learner)
    frozen = Maml(module, MamlConfig(normalisation="frozen"))
    for mode in (True, False):
        module.train(mode)
        _update(frozen)
    free = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, 3))
    learner = Maml(free, MamlConfig())
    free.eval()
    _update(learner)  # without averages the mode means nothing


@every_learner
def test_what_is_changed_in_place_is_shared(make: Callable[[nn.Module], ModuleLearner]) -> None:
    module = _network()
    learner = make(module)
    module.load_state_dict(_network().state_dict())
    module[1].reset_running_stats()
    module[0].requires_grad_(False)
    before = module[0].weight.clone()
    assert torch.equal(learner.network.weights["0.weight"], before)
    _update(learner)
    assert torch.equal(module[0].weight, before)
    module[0].requires_grad_(True)
    module[2].p = 0.0
    for _ in range(2):
        _update(learner)
    assert not torch.equal(module[0].weight, before)


def test_gains_of_every_step_are_frozen_and_unfrozen_with_the_modules_own() -> None:
    module = _network()
    learner = Maml(module, MamlConfig(inner_steps=2, multi_step_updates=9, normalisation="per_step"))
    before = learner.network.weights["1.weight"].clone()
    module[1].requires_grad_(False)
    _update(learner)
    assert torch.equal(learner.network.weights["1.weight"], before)
    module[1].requires_grad_(True)
    _update(learner)
    assert not torch.equal(learner.network.weights["1.weight"], before)


def test_copies_and_pickled_learners_follow_a_module_of_their_own() -> None:
    module = _network()
    learner = Maml(module, MamlConfig(normalisation="per_step"))
    others = [copy.deepcopy(learner), pickle.loads(pickle.dumps(learner))]
    module.append(nn.ReLU())
    for other in others:
        _update(other)
    with pytest.raises(ValueError, match="'4' of the module was added"):
        _update(learner)


def test_a_perceptron_that_is_its_own_copy_is_watched_too() -> None:
    module = Mlp(4, [8], 3, activation="tanh", generator=torch.Generator().manual_seed(0))
    learner = Maml(module, MamlConfig())
    _update(learner)
    name, weight = next(iter(module.named_parameters()))
    setattr(module, name, nn.Parameter(weight.detach().clone()))
    with pytest.raises(ValueError, match=f"'{name}' of the module was replaced"):
        _update(learner)


def test_a_relation_that_is_changed_is_refused() -> None:
    relation = nn.Sequential(nn.Flatten(), nn.Linear(4 * 36, 1))
    learner = Relation(nn.Conv2d(1, 2, 3), RelationConfig(), relation=relation)
    data = ClassData.of(torch.rand(60, 1, 8, 8), torch.arange(60) // 20)
    episodes = ClassEpisodes(data, num_ways=3, num_shots=2, num_queries=3).sample(2, np.random.default_rng(0))
    learner.update(episodes, np.random.default_rng(0))
    relation[1] = nn.Linear(4 * 36, 1)
    with pytest.raises(ValueError, match="'1' of the module was replaced"):
        learner.update(episodes, np.random.default_rng(0))


class _OwnNorm(nn.BatchNorm1d):
    """A batch norm of one's own."""


def test_the_mode_of_a_batch_norm_of_ones_own_is_watched_too() -> None:
    module = nn.Sequential(nn.Linear(4, 8), _OwnNorm(8), nn.Linear(8, 3))
    for normalisation in ("transductive", "frozen"):
        module.train()
        learner = Maml(module, MamlConfig(normalisation=normalisation))  # type: ignore[arg-type]
        _update(learner)
        module.eval()
        if normalisation == "frozen":
            _update(learner)
            continue
        with pytest.raises(ValueError, match=r"the layer '1' \(_OwnNorm\) was in training mode"):
            _update(learner)


class _Centred(nn.Module):
    """A network that subtracts a mean, which it follows in training by a new tensor each time."""

    mean: torch.Tensor

    def __init__(self, *, follows: bool) -> None:
        super().__init__()
        self.follows, self.layer = follows, nn.Linear(4, 3)
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The outputs [row, 3]."""
        if self.follows and self.training:
            self.mean = 0.9 * self.mean + 0.1 * inputs.detach().mean(0)
        return self.layer(torch.tanh(inputs - self.mean))  # type: ignore[no-any-return]


@every_learner
def test_a_buffer_that_the_owner_replaces_is_the_copys_too(make: Callable[[nn.Module], ModuleLearner]) -> None:
    module = _Centred(follows=False)
    learner = make(module)
    before = _predict(learner)
    module.double().float()  # there and back, as through a GPU, which makes other buffers
    module.load_state_dict(module.state_dict() | {"mean": torch.tensor([3.0, -3.0, 3.0, -3.0])})
    after = _predict(learner)
    assert not torch.allclose(after, before, atol=1e-3)
    assert learner.network.module.mean is module.mean
    for other in (copy.deepcopy(learner), pickle.loads(pickle.dumps(learner))):
        assert torch.equal(_predict(other), after)


@every_learner
def test_a_buffer_that_the_copy_assigns_is_the_owners_too(make: Callable[[nn.Module], ModuleLearner]) -> None:
    module = _Centred(follows=True)
    learner = make(module)
    _update(learner)
    assert module.mean.abs().max() > 0
    assert module.mean is learner.network.module.mean
    mean = module.mean.clone()
    _predict(learner)
    assert torch.equal(module.mean, mean)
