"""Configurations and checkpoints of earlier versions are still read."""

import dataclasses
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metarl.experiments.fewshot.configuration import decode, make_learner
from metarl.experiments.presets.table import FEWSHOT_PRESETS
from metarl.fewshot.backbones import StandardBackbone
from metarl.fewshot.learners.implicit_maml import ImplicitMamlConfig
from metarl.fewshot.learners.maml import MamlConfig
from metarl.fewshot.outer import OuterConfig

RESULTS = Path(__file__).resolve().parents[2] / "experiments" / "results"
CONFIGURATIONS = sorted(
    path for path in RESULTS.glob("*/config.json") if "learner" in json.loads(path.read_text())["experiment"]
)


def test_old_names_of_fields_are_read() -> None:
    outer = {"lr": 0.5, "final_lr": 0.25, "annealing_steps": 7}
    data = {"kind": "sinusoids"}
    backbone = {"num_filters": 3}
    maml = {"algorithm": "maml", "outer": outer}
    experiment = decode({"data": data, "learner": maml, "backbone": backbone})
    expected = OuterConfig(outer_lr=0.5, final_outer_lr=0.25, annealing_updates=7)
    assert experiment.learner == MamlConfig(outer=expected)
    assert experiment.backbone == StandardBackbone(num_filters=3)
    implicit = {"algorithm": "implicit-maml", "cg_iterations": 9}
    assert decode({"data": data, "learner": implicit}).learner == ImplicitMamlConfig(cg_iters=9)


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.parent.name)
def test_the_configuration_of_every_result_still_makes_a_learner(path: Path) -> None:
    experiment = decode(json.loads(path.read_text())["experiment"])
    make_learner(experiment, torch.device("cpu"))


def test_there_are_results_of_every_data_set_and_most_learners() -> None:
    experiments = [decode(json.loads(path.read_text())["experiment"]) for path in CONFIGURATIONS]
    assert len({type(experiment.learner) for experiment in experiments}) == 11
    assert len(experiments) >= 30


def _undocumented(kind: type[Any]) -> list[str]:
    """Fields of a configuration, or of what it is derived from, that no docstring describes."""
    described = " ".join(base.__doc__ or "" for base in kind.__mro__)
    fields = dataclasses.fields(kind)
    return [f"{kind.__name__}.{field.name}" for field in fields if f"\n        {field.name}: " not in described]


def test_every_field_of_an_experiment_is_described_for_the_help() -> None:
    missing = []
    for preset in FEWSHOT_PRESETS.values():
        experiment = preset.configuration
        parts: list[Any] = [
            experiment,
            *(getattr(experiment, field.name) for field in dataclasses.fields(experiment)),
        ]
        for part in (part for part in parts if dataclasses.is_dataclass(part)):
            missing += _undocumented(type(part))  # type: ignore[arg-type]
            values = [getattr(part, field.name) for field in dataclasses.fields(part)]
            missing += [
                name for value in values if dataclasses.is_dataclass(value) for name in _undocumented(type(value))
            ]  # type: ignore[arg-type]
    assert missing == []


def _keys(tree: Any, depth: int = 2) -> Any:
    if depth == 0 or not isinstance(tree, dict):
        return None
    return {str(name): _keys(value, depth - 1) for name, value in tree.items()}


NORMS = ("weight", "bias", "running_mean", "running_var")
PERCEPTRON = {f"{kind}_{layer}" for layer in range(3) for kind in ("weight", "bias")}
CONV4 = {f"{i}.0.weight" for i in range(4)} | {f"{i}.1.{name}" for i in range(4) for name in NORMS}
OUTER = {"adam", "updates"}
LAYOUTS: dict[str, dict[str, set[str]]] = {
    "sinusoid-maml": {"module": PERCEPTRON, "meta": set(), "outer": OUTER},
    "sinusoid-meta-sgd": {
        "module": PERCEPTRON,
        "meta": {f"rate.{name}" for name in PERCEPTRON},
        "outer": OUTER,
    },
    "sinusoid-adml": {"module": PERCEPTRON, "meta": set(), "outer": OUTER},
    "sinusoid-cavia": {"module": {f"network.{name}" for name in PERCEPTRON}, "outer": OUTER},
    "sinusoid-kernel-regression": {"module": PERCEPTRON, "head": {"log"}, "outer": OUTER},
    "omniglot-proto-maml": {"module": CONV4, "outer": OUTER},
    "omniglot-protonet": {"module": CONV4, "head": set(), "outer": OUTER},
    "omniglot-protonet-augmented": {
        "module": {f"module.{name}" for name in CONV4},
        "head": set(),
        "outer": OUTER,
    },
    "omniglot-matching": {"module": CONV4, "head": {"scale.log"}, "outer": OUTER},
}


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_a_checkpoint_is_laid_out_as_it_was(name: str) -> None:
    """Names that the first checkpoints hold, written down by hand."""
    experiment = FEWSHOT_PRESETS[name].configuration
    state = make_learner(experiment, torch.device("cpu")).state_dict()
    assert {part: set(_keys(state)[part] or ()) for part in state} == LAYOUTS[name]


def test_step_sizes_are_annealed_over_the_whole_run_unless_a_configuration_says_otherwise() -> None:
    experiment = FEWSHOT_PRESETS["sinusoid-adml"].configuration
    num_updates = experiment.training.iterations * experiment.training.updates_per_iteration
    learner: Any = make_learner(experiment, torch.device("cpu"))
    assert learner.outer.config.annealing_updates == num_updates > 1
    reptile = FEWSHOT_PRESETS["sinusoid-reptile"].configuration
    num_updates = reptile.training.iterations * reptile.training.updates_per_iteration
    for configured, expected in ((None, num_updates), (0, 0), (7, 7)):
        config = replace(reptile.learner, annealing_updates=configured)  # type: ignore[call-arg,type-var]
        learner = make_learner(replace(reptile, learner=config), torch.device("cpu"))
        assert learner.config.annealing_updates == expected


def test_reptiles_checkpoint_is_laid_out_as_it_was() -> None:
    experiment = FEWSHOT_PRESETS["sinusoid-reptile"].configuration
    learner = make_learner(experiment, torch.device("cpu"))
    source = experiment.data.make(torch.device("cpu")).train
    learner.update(source.sample(2, np.random.default_rng(0)), np.random.default_rng(0))
    state = learner.state_dict()
    assert set(state) == {"module", "moments", "moment_steps", "updates"}
    assert set(state["module"]) == PERCEPTRON
