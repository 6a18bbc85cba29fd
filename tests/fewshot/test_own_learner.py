"""A learner, data and a network of a user's, put in from outside, a LEO-like learner among them."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metarl.experiments.fewshot.configuration import FewshotExperiment, decode, encode, make_learner
from metarl.fewshot.backbones import NetworkSpec, OwnBackbone, StandardBackbone, linear, output_shape
from metarl.fewshot.data.classes import ClassData, ClassEpisodes
from metarl.fewshot.episodes import Episodes, Examples
from metarl.fewshot.evaluation import adaptation_scores
from metarl.fewshot.learner import LearnerConfig, LearnerSetup, Predictor
from metarl.fewshot.learners.maml import MamlConfig
from metarl.fewshot.learners.matching import MatchingConfig
from metarl.fewshot.learners.prototypical import PrototypicalConfig
from metarl.fewshot.learners.relation import RelationConfig
from metarl.fewshot.metric import class_means
from metarl.fewshot.objectives import task_losses
from metarl.fewshot.outer import OuterConfig, OuterLosses, OuterOptimizer
from metarl.fewshot.sources import DataConfig, OtherSizes, Sources, TaskSpec
from metarl.fewshot.training import FewshotEvaluationConfig, FewshotTrainingConfig, train
from metarl.learning.bilevel import Order, adapt_params, sgd

CPU = torch.device("cpu")


@dataclass(frozen=True)
class LeoConfig(LearnerConfig):
    """Latent embedding optimisation (Rusu et al. 2019) without its relation network and its noise."""

    num_latents: int = 4
    inner_lr: float = 1.0
    inner_steps: int = 3
    outer: OuterConfig = field(default_factory=lambda: OuterConfig(outer_lr=0.01))

    def make(self, setup: LearnerSetup) -> "Leo":
        setup.require("classification", self)
        features = setup.feature_network(exact=True)
        (size,) = output_shape(features, setup.tasks.input_shape, setup.device)
        encoder = linear(size, self.num_latents, setup.generator)
        decoder = linear(self.num_latents, size, setup.generator)
        module = nn.ModuleDict({"features": features, "encoder": encoder, "decoder": decoder}).to(setup.device)
        return Leo(module, replace(self, outer=self.outer.over(setup.num_updates)))


class Leo:
    """Classes are latents; gradient steps move them, and a decoder makes of each the weights of a linear head."""

    normalisation = None

    def __init__(self, module: nn.ModuleDict, config: LeoConfig) -> None:
        self.module, self.config = module, config
        self.num_steps = config.inner_steps
        self.outer = OuterOptimizer(list(module.parameters()), config.outer)

    def _features(self, inputs: Tensor) -> Tensor:
        return self.module["features"](inputs.flatten(0, 1)).unflatten(0, inputs.shape[:2])  # type: ignore[no-any-return]

    def _logits(self, features: Tensor, latents: Tensor) -> Tensor:
        return features @ self.module["decoder"](latents).transpose(1, 2)

    def _latents(self, support: Examples, num_steps: int, order: Order) -> list[dict[str, Tensor]]:
        features = self._features(support.inputs)
        start = class_means(self.module["encoder"](features), support.targets)

        def losses(params: dict[str, Tensor], batch: Examples) -> Tensor:
            return task_losses(self._logits(features, params["latents"]), batch.targets)

        steps = [support] * num_steps
        return adapt_params(losses, {"latents": start}, steps, sgd(self.config.inner_lr), order=order)

    def outer_losses(self, episodes: Episodes) -> OuterLosses:
        latents = self._latents(episodes.support, self.num_steps, "second")[-1]["latents"]
        outputs = self._logits(self._features(episodes.query.inputs), latents)
        return OuterLosses(task_losses(outputs, episodes.query.targets), outputs)

    def update(self, episodes: Episodes, rng: np.random.Generator) -> dict[str, float]:
        return self.outer.update(self.outer_losses, episodes)

    def adapt(self, support: Examples, num_steps: int) -> list[Predictor]:
        trace = self._latents(support, num_steps, "none")

        def predictor(latents: Tensor) -> Predictor:
            return torch.no_grad()(lambda inputs: self._logits(self._features(inputs), latents))

        return [predictor(params["latents"].detach()) for params in trace]

    def state_dict(self) -> dict[str, Any]:
        return {"module": self.module.state_dict(), "outer": self.outer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        self.outer.load_state_dict(state["outer"])


@dataclass(frozen=True)
class BlobData(DataConfig):
    """Classes are points in a plane, seen among louder noise."""

    num_ways: int = 3
    num_noises: int = 3

    @property
    def tasks(self) -> TaskSpec:
        return TaskSpec("classification", (2 + self.num_noises,), self.num_ways)

    def make(self, device: torch.device) -> Sources:
        generator = torch.Generator().manual_seed(0)

        def classes(num_classes: int) -> ClassEpisodes:
            centres = 2 * torch.randn(num_classes, 1, 2, generator=generator)
            signal = centres + 0.3 * torch.randn(num_classes, 8, 2, generator=generator)
            noise = 3 * torch.randn(num_classes, 8, self.num_noises, generator=generator)
            examples = torch.cat([signal, noise], -1).to(device)
            data = ClassData.join({f"class{c}": x for c, x in enumerate(examples)})
            return ClassEpisodes(data, num_ways=self.num_ways, num_shots=2, num_queries=4)

        return Sources(classes(30), {"test": classes(30)})


class Backbone(nn.Module):
    """A network of a user's, of which the features of a hidden layer may be asked for."""

    def __init__(self, num_inputs: int = 5, num_outputs: int = 16) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(num_inputs, 32), nn.Tanh(), nn.Linear(32, num_outputs))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(inputs)  # type: ignore[no-any-return]


def backbone(spec: NetworkSpec, generator: torch.Generator) -> nn.Module:
    """The same as a function, for learners of any kind."""
    return Backbone(spec.input_shape[0], spec.num_outputs or 16)


EXPERIMENT = FewshotExperiment(
    BlobData(),
    LeoConfig(),
    backbone=OwnBackbone(backbone),
    training=FewshotTrainingConfig(iterations=4, updates_per_iteration=25, meta_batch_size=8, evaluate_every=4),
    evaluation=FewshotEvaluationConfig(num_tasks=20, num_steps=3, training_tasks=20),
)


@pytest.mark.thorough
def test_a_learner_and_data_from_outside_are_trained_by_the_same_loop(tmp_path: Path) -> None:
    experiment = EXPERIMENT
    learner, sources = make_learner(experiment, CPU), experiment.data.make(CPU)

    def accuracies() -> np.ndarray:
        return adaptation_scores(
            learner, sources.held_out["test"], np.random.default_rng(9), num_tasks=100, num_steps=3
        )[1].mean(1)

    before = accuracies()
    train(
        learner,
        sources,
        experiment.training,
        experiment.evaluation,
        folder=tmp_path,
        seed=0,
        identity="leo",
        loggers=[],
        report=lambda progress, metrics: None,
        stop=lambda: False,
    )
    after = accuracies()
    assert after[3] > max(before[3] + 0.1, 0.65)  # a third is chance
    assert after[3] > after[0] - 0.02  # latents are moved to where they serve, not away
    other = make_learner(experiment, CPU)
    other.load_state_dict(learner.state_dict())
    support = sources.train.sample(2, np.random.default_rng(0)).support
    assert torch.equal(*(x.adapt(support, 2)[-1](support.inputs) for x in (learner, other)))


def test_weights_of_a_function_of_ones_own_follow_from_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = make_learner(EXPERIMENT, CPU).state_dict()["module"]
    torch.manual_seed(2)
    second, third = (make_learner(replace(EXPERIMENT, seed=seed), CPU).state_dict()["module"] for seed in (0, 1))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert not all(torch.equal(value, third[name]) for name, value in first.items())


@pytest.mark.parametrize(
    "learner", [MamlConfig(), PrototypicalConfig(), LeoConfig()], ids=lambda c: type(c).__name__
)
def test_any_learner_takes_a_function_that_makes_its_network(learner: LearnerConfig) -> None:
    made = make_learner(replace(EXPERIMENT, learner=learner), CPU)
    episodes = EXPERIMENT.data.make(CPU).train.sample(4, np.random.default_rng(0))
    assert made.update(episodes, np.random.default_rng(0))["loss/outer"] > 0


def test_a_module_of_ones_own_is_copied_for_every_learner_and_checked() -> None:
    module = Backbone()
    experiment = replace(EXPERIMENT, learner=PrototypicalConfig(), backbone=OwnBackbone(module))
    learner = make_learner(experiment, CPU)
    episodes = experiment.data.make(CPU).train.sample(4, np.random.default_rng(0))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    learner.update(episodes, np.random.default_rng(0))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    with pytest.raises(ValueError, match=r"must put out 3 numbers for every row, got shape \('row', 16\)"):
        make_learner(replace(experiment, learner=MamlConfig()), CPU)
    with pytest.raises(ValueError, match="must put out square feature maps"):
        make_learner(replace(experiment, learner=RelationConfig()), CPU)
    with pytest.raises(
        ValueError, match=r"must take inputs \[row, 5\], got the error: .*shapes cannot be multiplied"
    ):
        make_learner(replace(experiment, backbone=OwnBackbone(Backbone(4))), CPU)
    with pytest.raises(ValueError, match=r"must return a torch\.nn\.Module, got int"):
        make_learner(replace(experiment, backbone=OwnBackbone(lambda spec, generator: 3)), CPU)  # type: ignore[arg-type,return-value]


class _Pair(nn.Module):
    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        return inputs, inputs


def test_a_network_that_is_not_trained_serves_a_learner_that_trains_something_else() -> None:
    """Frozen features are compared with a learned scale; with nothing to learn the learner says so."""

    def made(network: nn.Module, learner: LearnerConfig) -> Any:
        return make_learner(replace(EXPERIMENT, learner=learner, backbone=OwnBackbone(network)), CPU)

    frozen = Backbone().requires_grad_(False)
    episodes = EXPERIMENT.data.make(CPU).train.sample(4, np.random.default_rng(0))
    for network in (frozen, nn.Flatten()):
        learner = made(network, MatchingConfig())
        before = learner.head.scale.log.item()
        learner.update(episodes, np.random.default_rng(0))
        assert learner.head.scale.log.item() != before
        with pytest.raises(ValueError, match="there is nothing to train: the network has no trainable parameters"):
            made(network, PrototypicalConfig())
    with pytest.raises(ValueError, match="no trainable parameters that could adapt"):
        made(Backbone(num_outputs=3).requires_grad_(False), MamlConfig())
    with pytest.raises(ValueError, match=r"the backbone must take inputs .* it returns tuple, not a tensor"):
        made(_Pair(), PrototypicalConfig())


def test_what_does_not_fit_is_refused_by_the_learner_or_the_network() -> None:
    class Curves(BlobData):
        @property
        def tasks(self) -> TaskSpec:
            return TaskSpec("regression", (1,), 1)

    with pytest.raises(ValueError, match="LeoConfig needs tasks of classification, got tasks of regression"):
        make_learner(replace(EXPERIMENT, data=Curves()), CPU)

    class Sounds(BlobData):
        @property
        def tasks(self) -> TaskSpec:
            return TaskSpec("classification", (2, 100), 3)

    with pytest.raises(ValueError, match=r"StandardBackbone takes numbers .* got inputs of shape \(2, 100\)"):
        make_learner(replace(EXPERIMENT, data=Sounds(), backbone=StandardBackbone()), CPU)
    with pytest.raises(ValueError, match="BlobData has no ways, shots, queries or folder to choose"):
        EXPERIMENT.data.resized(OtherSizes(num_ways=4))
    assert EXPERIMENT.data.resized(OtherSizes()) is EXPERIMENT.data
    assert EXPERIMENT.data.describe() == "3 ways"


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        (NetworkSpec((1, 28, 28), "outputs", 5), (5,)),
        (NetworkSpec((3, 32, 32), "features"), (4 * 2 * 2,)),
        (NetworkSpec((1, 28, 28), "maps"), (4, 3, 3)),  # three halvings of 28, not four
        (NetworkSpec((1, 28, 28), "outputs", 5, num_context=7), (5,)),
        (NetworkSpec((6,), "outputs", 2, num_context=7), (2,)),
        (NetworkSpec((6,), "features"), (9,)),
    ],
)
def test_the_standard_network_is_what_is_asked_for(spec: NetworkSpec, shape: tuple[int, ...]) -> None:
    network = StandardBackbone(num_filters=4, num_features=9).make(spec, torch.Generator())
    assert output_shape(network, spec.input_shape, CPU, spec.num_context) == shape
    assert network.training  # and looking at its shape leaves it so
    network.eval()
    output_shape(network, spec.input_shape, CPU, spec.num_context)
    assert not network.training


@pytest.mark.parametrize("num_outputs", [10**14, 10**19])
def test_a_network_that_no_memory_holds_is_one_line(num_outputs: int) -> None:
    spec = NetworkSpec((5,), "outputs", num_outputs)
    with pytest.raises(ValueError, match=r"^no network of these sizes can be made: StandardBackbone\(.*$"):
        StandardBackbone().make(spec, torch.Generator())


def test_an_experiment_from_outside_is_written_by_name_and_read_with_itself_as_the_template() -> None:
    written = json.loads(json.dumps(encode(EXPERIMENT)))
    assert written["learner"]["algorithm"].endswith(":LeoConfig")
    assert written["data"]["kind"].endswith(":BlobData")
    assert decode(written, EXPERIMENT) == EXPERIMENT
    with pytest.raises(ValueError, match="BlobData, which is not built in"):
        decode(written)


def test_layers_of_ones_own_network_stay_as_they_were_where_its_outputs_are_looked_at() -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout())
    network[1].eval()
    assert output_shape(network, (4,), torch.device("cpu")) == (3,)
    assert [layer.training for layer in network] == [True, False, True]
    assert network.training
