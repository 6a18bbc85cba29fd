"""Constructors of learners refuse what is not their own configuration, all of them in the same line."""

import importlib
import inspect
import pkgutil
import re
from typing import Any

import pytest
import torch
from torch import nn

from metarl.fewshot import learners
from metarl.fewshot.learner import ModuleLearner
from metarl.fewshot.learners.adml import Adml
from metarl.fewshot.learners.maml import Maml, MamlConfig
from metarl.fewshot.learners.prototypical import Prototypical, PrototypicalConfig
from metarl.fewshot.learners.relation import Relation, RelationConfig

MODULES = [
    importlib.import_module(f"{learners.__name__}.{each.name}") for each in pkgutil.iter_modules(learners.__path__)
]
LEARNERS: list[Any] = [
    kind
    for module in MODULES
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, ModuleLearner) and kind.__module__ == module.__name__
]
NEEDED: dict[str, dict[str, Any]] = {
    "Baseline": {"num_features": 3, "generator": torch.Generator()},
    "Matching": {"generator": torch.Generator()},
    "Relation": {"relation": nn.Linear(6, 1)},
}


def _config_of(learner: Any) -> Any:
    return inspect.signature(learner).parameters["config"].annotation


def test_all_learners_are_tested_here() -> None:
    assert len(LEARNERS) == 19
    assert {Adml, Maml, Prototypical, Relation} <= set(LEARNERS)


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda kind: kind.__name__)
def test_a_learner_takes_a_configuration_of_its_own(learner: Any) -> None:
    name, kind = learner.__name__, _config_of(learner)
    module, needed = nn.Bilinear(4, 5, 3) if name == "Cavia" else nn.Linear(4, 3), NEEDED.get(name, {})
    learner(module, kind(), **needed)
    learner(module, config=kind(), **needed)
    other = MamlConfig() if kind is PrototypicalConfig else PrototypicalConfig()
    wrong = ((None, "None"), ({}, "dict"), (kind, f"the class {kind.__name__}"), (other, type(other).__name__))
    for config, came in wrong:
        said = f"the configuration of {name} must be an instance of {kind.__name__}, got {came}; "
        with pytest.raises(TypeError, match=f"^{re.escape(said)}.*$"):
            learner(module, config, **needed)
        with pytest.raises(TypeError, match=f"^{re.escape(said)}"):
            learner(module, config=config, **needed)
    with pytest.raises(TypeError, match=f"^the configuration of {name} must be .* got Linear"):
        learner(kind(), nn.Linear(4, 3), **needed)


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda kind: kind.__name__)
def test_a_configuration_within_a_configuration_is_of_its_kind(learner: Any) -> None:
    kind = _config_of(learner)
    for name in ("outer", "maml", "prototypical"):
        if hasattr(kind(), name):
            for wrong in (None, {}, RelationConfig()):
                with pytest.raises(TypeError, match=f"^{name} must be an instance of "):
                    kind(**{name: wrong})


class _Narrow(MamlConfig):
    """A configuration that is derived from another learner's."""


class _Own(Maml):
    """A learner of one's own that is derived from another."""

    def __init__(self, module: nn.Module, config: _Narrow) -> None:
        super().__init__(module, config)


def test_learners_of_ones_own_are_checked_too_and_derived_configurations_will_do() -> None:
    Maml(nn.Linear(4, 3), _Narrow())
    _Own(nn.Linear(4, 3), _Narrow())
    with pytest.raises(TypeError, match=r"the configuration of _Own must be .* _Narrow, got MamlConfig"):
        _Own(nn.Linear(4, 3), MamlConfig())  # type: ignore[arg-type]


def test_other_mistakes_are_pythons_to_tell() -> None:
    learner: Any = Maml
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'config'"):
        learner(nn.Linear(4, 3))
    with pytest.raises(TypeError, match="unexpected keyword argument 'outer'"):
        learner(nn.Linear(4, 3), outer=3)


def test_a_relation_is_a_module() -> None:
    learner: Any = Relation
    with pytest.raises(TypeError, match=r"expected an instance of torch\.nn\.Module, got NoneType"):
        learner(nn.Conv2d(1, 2, 3), RelationConfig(), relation=None)
