"""States of learners: another's is refused in one line that says what differs, and nothing of it is loaded."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metarl.fewshot import (
    ClassData,
    ClassEpisodes,
    Maml,
    MamlConfig,
    OuterConfig,
    Prototypical,
    PrototypicalConfig,
    learn_task,
)
from metarl.fewshot.attacks import Attack
from metarl.fewshot.evaluation import adaptation_scores
from metarl.fewshot.learner import ModuleLearner
from metarl.fewshot.learners.fine_tuning import FineTuning, FineTuningConfig
from metarl.fewshot.learners.proto_maml import ProtoMaml, ProtoMamlConfig
from metarl.fewshot.learners.reptile import Reptile, ReptileConfig
from metarl.fewshot.learners.ridge import Ridge, RidgeConfig
from metarl.fewshot.prediction import class_outputs
from metarl.fewshot.robustness import attacked_scores

LEARNERS: dict[str, Callable[[nn.Module], ModuleLearner]] = {
    "maml": lambda module: Maml(module, MamlConfig()),
    "meta-sgd": lambda module: Maml(module, MamlConfig(rates="per_entry")),
    "reptile": lambda module: Reptile(module, ReptileConfig(inner_steps=2)),
    "proto-maml": lambda module: ProtoMaml(module, ProtoMamlConfig()),
    "prototypical": lambda module: Prototypical(module, PrototypicalConfig()),
    "cosine": lambda module: Prototypical(module, PrototypicalConfig(distance="cosine")),
    "ridge": lambda module: Ridge(module, RidgeConfig()),
    "fine-tuning": lambda module: FineTuning(module, FineTuningConfig()),
    "sgd": lambda module: Maml(module, MamlConfig(outer=OuterConfig(optimizer="sgd"))),
}
every_learner = pytest.mark.parametrize("name", LEARNERS)


def _network(width: int = 5) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Tanh(), nn.Linear(width, 3))


def _source() -> ClassEpisodes:
    examples = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    return ClassEpisodes(ClassData.of(examples, torch.arange(60) // 20), num_ways=3, num_shots=2, num_queries=3)


def _made(name: str, width: int = 5) -> ModuleLearner:
    learner, rng = LEARNERS[name](_network(width)), np.random.default_rng(0)
    learner.update(_source().sample(2, rng), rng)
    return learner


def _flat(state: Any) -> list[Any]:
    if isinstance(state, Mapping):
        return [x for part in state.values() for x in _flat(part)]
    if isinstance(state, list | tuple):
        return [x for part in state for x in _flat(part)]
    return [state.clone() if isinstance(state, Tensor) else state]


def _is_refused(learner: ModuleLearner, state: Any, said: str) -> None:
    before = _flat(learner.state_dict())
    with pytest.raises((TypeError, ValueError), match=said) as raised:
        learner.load_state_dict(state)
    assert "\n" not in str(raised.value)
    after = _flat(learner.state_dict())
    assert len(before) == len(after)
    assert all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in zip(before, after, strict=True))


@every_learner
def test_a_state_of_the_same_learner_is_taken(name: str) -> None:
    state = copy.deepcopy(_made(name).state_dict())
    for learner in (_made(name), LEARNERS[name](_network())):
        learner.load_state_dict(state)
        pairs = zip(_flat(learner.state_dict()), _flat(state), strict=True)
        assert all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs)


@every_learner
def test_what_is_no_state_of_this_network_is_refused(name: str) -> None:
    learner, state = _made(name), _made(name).state_dict()
    module = state["module"]
    _is_refused(learner, None, "must be a mapping of its parts, got NoneType")
    _is_refused(learner, {}, f"^the state lacks 'module', that of this {type(learner).__name__} has module, ")
    _is_refused(learner, state | {"extra": 1}, "^the state has 'extra', that of this ")
    for part in state:
        _is_refused(learner, {key: value for key, value in state.items() if key != part}, part)
        _is_refused(learner, state | {part: None}, "got None")
    _is_refused(
        learner, _made(name, 6).state_dict(), r"'0\.weight' of module in the state is \(6, 4\), .*\(5, 4\)"
    )
    less = {key: value for key, value in module.items() if key != "3.bias"}
    _is_refused(learner, state | {"module": less}, r"^module in the state lacks '3\.bias'; expected the state of")
    _is_refused(
        learner, state | {"module": module | {"4.bias": torch.ones(1)}}, r"module in the state has '4\.bias'"
    )
    for value, key in ((torch.nan, "3.weight"), (torch.inf, "0.bias"), (torch.nan, "1.running_var")):
        wrong = state | {"module": module | {key: torch.full_like(module[key], value)}}
        _is_refused(learner, wrong, rf"^the weight '{key}' of module in the state is not finite; load an earlier")


def test_the_state_of_another_learner_is_refused() -> None:
    for name, other, said in (
        ("maml", "meta-sgd", r"must be of \[6\] tensors by group, got \[6, 4\]"),
        ("meta-sgd", "maml", r"must be of \[6, 4\] tensors by group, got \[6\]"),
        ("maml", "proto-maml", "lacks 'meta'|meta in the state must be a mapping"),
        ("proto-maml", "maml", "the state has 'meta', that of this ProtoMaml has module, outer"),
        ("prototypical", "cosine", "head in the state has 'log', which the learner lacks"),
        ("ridge", "cosine", "head in the state lacks"),
        ("maml", "prototypical", "the state has 'head'"),
        ("reptile", "maml", "the state has 'outer', that of this Reptile has module, moments"),
        ("maml", "reptile", "the state lacks 'outer'"),
        ("sgd", "maml", "must be of SGD, got that of another; set the optimizer"),
        ("maml", "sgd", "must be of Adam, got that of another"),
    ):
        _is_refused(_made(name), _made(other).state_dict(), said)


def test_an_optimiser_of_another_form_is_refused() -> None:
    learner, state = _made("maml"), _made("maml").state_dict()
    outer = state["outer"]
    groups = outer["adam"]["param_groups"]
    fewer = {"param_groups": [groups[0] | {"params": groups[0]["params"][:2]}]}
    for wrong, said in (
        ({"adam": outer["adam"]}, "must have adam, updates, got adam"),
        (outer | {"updates": -1}, "updates must be a whole number of 0 or more, got -1"),
        (outer | {"adam": {}}, "that of a torch.optim.Optimizer"),
        (outer | {"adam": outer["adam"] | fewer}, r"must be of \[6\] tensors by group, got \[2\]"),
    ):
        _is_refused(learner, state | {"outer": wrong}, said)
    reptile = _made("reptile").state_dict() | {"updates": 1.5}
    _is_refused(_made("reptile"), reptile, "updates in the state must be a whole number")


def test_nothing_stays_loaded_where_only_torch_sees_what_is_wrong() -> None:
    learner, state = _made("maml"), copy.deepcopy(_made("maml").state_dict())
    state["outer"]["adam"]["state"] = 3
    before = [x for x in _flat(learner.state_dict()) if isinstance(x, Tensor)]
    with pytest.raises((TypeError, AttributeError)):
        learner.load_state_dict(state)
    after = [x for x in _flat(learner.state_dict()) if isinstance(x, Tensor)]
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))


@every_learner
def test_a_learner_is_not_made_of_weights_that_are_no_numbers(name: str) -> None:
    for value in (torch.nan, torch.inf):
        module = _network()
        with torch.no_grad():
            module[3].weight[0, 0] = value  # type: ignore[index,union-attr]
        with pytest.raises(ValueError, match=r"^the weight '3\.weight' of Sequential is not finite"):
            LEARNERS[name](module)
    large = _network()
    with torch.no_grad():
        large[0].weight.fill_(3e38)  # type: ignore[union-attr,operator]
    LEARNERS[name](large)  # finite, though the norm of all is not


class _Masked(nn.Module):
    """Adds a mask of infinities, which is a parameter that nobody trains, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.mask = nn.Parameter(torch.full((3,), -torch.inf), requires_grad=False)
        self.register_buffer("other", torch.full((3,), torch.inf))

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layer(inputs)
        return outputs + self.mask.exp()


def test_masks_are_no_fault() -> None:
    learner, rng = Maml(_Masked(), MamlConfig()), np.random.default_rng(0)
    learner.update(_source().sample(2, rng), rng)
    learner.load_state_dict(copy.deepcopy(learner.state_dict()))


@every_learner
def test_evaluations_and_predictions_name_the_weight_that_is_no_number(name: str) -> None:
    learner, source, rng = _made(name), _source(), np.random.default_rng(0)
    support, query = source.sample(1, rng)
    with torch.no_grad():
        learner.network.weights["3.weight"].fill_(torch.nan)
    said = r"; the weight 'module\.3\.weight' of the learner is not finite"
    with pytest.raises(FloatingPointError, match=f"the accuracy on task 0 is not finite after 0 .*{said}$"):
        adaptation_scores(learner, source, rng, num_tasks=3, num_steps=1)
    with pytest.raises(FloatingPointError, match=f"an output on task 0 is not finite{said}$"):
        class_outputs(learner, support, query.inputs[0], views=1, num_steps=1)
    with pytest.raises(FloatingPointError, match=f"nothing can be learned{said}"):
        learn_task(learner, support.inputs[0], support.targets[0])
    with pytest.raises(FloatingPointError, match=f"a score on task 0 is not finite{said}$"):
        attacked_scores(learner, source, rng, attacks={0: Attack(0.1)}, num_tasks=3, num_steps=1)
