"""Every learner: its meta-gradient against finite differences, improvement on a tiny problem, save and load."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metarl.fewshot import learn_task
from metarl.fewshot.backbones import ContextAsInput, FilmConv4, conv4, regression_mlp
from metarl.fewshot.data.classes import ClassData, ClassEpisodes
from metarl.fewshot.data.sinusoids import Sinusoids
from metarl.fewshot.episodes import Episodes, Examples
from metarl.fewshot.evaluation import adaptation_scores
from metarl.fewshot.learner import Learner, Predictor
from metarl.fewshot.learners.adml import Adml, AdmlConfig
from metarl.fewshot.learners.cavia import Cavia, CaviaConfig
from metarl.fewshot.learners.implicit_maml import ImplicitMaml, ImplicitMamlConfig
from metarl.fewshot.learners.kernel_regression import KernelRegression, KernelRegressionConfig
from metarl.fewshot.learners.maml import Maml, MamlConfig
from metarl.fewshot.learners.matching import Matching, MatchingConfig
from metarl.fewshot.learners.proto_maml import ProtoMaml, ProtoMamlConfig
from metarl.fewshot.learners.prototypical import Prototypical, PrototypicalConfig
from metarl.fewshot.learners.relation import Relation, RelationConfig, relation_module
from metarl.fewshot.learners.reptile import Reptile, ReptileConfig
from metarl.fewshot.learners.siamese import Siamese, SiameseConfig
from metarl.fewshot.objectives import task_scores
from metarl.fewshot.outer import OuterConfig
from metarl.learning.bilevel import flatten

OUTER = OuterConfig(outer_lr=0.01)
Make = Callable[[], Learner]


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _network(num_outputs: int = 3) -> nn.Module:
    """Smooth, of ordinary layers, with batch norm: 4 numbers in."""
    torch.manual_seed(0)
    layers = (nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, num_outputs))
    return nn.Sequential(*layers)


class _Maps(nn.Module):
    """Smooth feature maps from 4 numbers: 2 channels of 2 x 2 places."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = _network(8)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.tanh(self.linear(inputs)).view(-1, 2, 2, 2)


def _relation() -> Relation:
    torch.manual_seed(1)
    head = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 1))
    return Relation(_Maps(), RelationConfig(outer=OUTER), relation=head)


def _matching(full_context: bool) -> Matching:
    config = MatchingConfig(full_context=full_context, num_features=6, outer=OUTER)
    return Matching(_network(6), config, generator=_generator())


def _maml(**options: object) -> Maml:
    return Maml(_network(), MamlConfig(inner_lr=0.5, outer=OUTER, **options))  # type: ignore[arg-type]


def _cavia() -> Cavia:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(24, 16), nn.Tanh(), nn.Linear(16, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 3)
    )
    return Cavia(ContextAsInput(network), CaviaConfig(num_context=20, inner_lr=5.0, inner_steps=2, outer=OUTER))


CLASSIFIERS: dict[str, Make] = {
    "maml": lambda: _maml(inner_steps=2),
    "anil": lambda: _maml(inner_steps=2, adapted="head"),
    "meta-sgd": lambda: _maml(rates="per_entry"),
    "maml++": lambda: _maml(
        inner_steps=3, rates="per_tensor_and_step", multi_step_updates=20, normalisation="per_step"
    ),
    "meta-curvature": lambda: _maml(inner_steps=2, curvature=True),
    "maml-support-norm": lambda: _maml(inner_steps=2, normalisation="support"),
    "cavia": _cavia,
    "adml": lambda: Adml(_network(), AdmlConfig(MamlConfig(inner_lr=0.5, outer=OUTER))),
    "proto-maml": lambda: ProtoMaml(_network(6), ProtoMamlConfig(first_order=False, outer=OUTER)),
    "prototypical": lambda: Prototypical(_network(6), PrototypicalConfig(outer=OUTER)),
    "prototypical-support-norm": lambda: Prototypical(
        _network(6), PrototypicalConfig(normalisation="support", outer=OUTER)
    ),
    "prototypical-cosine": lambda: Prototypical(_network(6), PrototypicalConfig(distance="cosine", outer=OUTER)),
    "prototypical-gaussian": lambda: Prototypical(
        _network(6), PrototypicalConfig(distance="gaussian", outer=OUTER)
    ),
    "matching": lambda: _matching(full_context=False),
    "matching-full-context": lambda: _matching(full_context=True),
    "relation": _relation,
    "siamese-contrastive": lambda: Siamese(_network(6), SiameseConfig(margin=1.0, outer=OUTER)),
    "siamese-triplet": lambda: Siamese(_network(6), SiameseConfig(loss="triplet", outer=OUTER)),
}
WITHOUT_GRADIENT: dict[str, Make] = {
    "first-order-maml": lambda: _maml(inner_steps=2, first_order=True),
    "derivative-order-annealing": lambda: _maml(inner_steps=2, first_order_updates=20),
    "reptile": lambda: Reptile(
        _network(), ReptileConfig(inner_lr=0.02, inner_steps=10, test_steps=5, outer_lr=0.5)
    ),
    "implicit-maml": lambda: ImplicitMaml(
        _network(), ImplicitMamlConfig(inner_lr=0.3, inner_steps=8, regularisation=0.5, outer=OUTER)
    ),
}


def _blobs(num_dims: int = 4) -> ClassEpisodes:
    """Classes are points on the first two of some axes, and the other axes are louder noise."""
    generator = _generator()
    centres = 2 * torch.randn(30, 1, 2, generator=generator)
    signal = centres + 0.3 * torch.randn(30, 8, 2, generator=generator)
    noise = 3 * torch.randn(30, 8, num_dims - 2, generator=generator)
    examples = torch.cat([signal, noise], -1)
    data = ClassData.join({f"class{c}": x for c, x in enumerate(examples)})
    return ClassEpisodes(data, num_ways=3, num_shots=2, num_queries=4)


def _in_double(episodes: Episodes) -> Episodes:
    def cast(examples: Examples) -> Examples:
        return examples._replace(inputs=examples.inputs.double())

    return Episodes(cast(episodes.support), cast(episodes.query))


def _trained(learner: Learner) -> list[Tensor]:
    """Everything that the outer optimiser owns."""
    params: list[Tensor] = learner.outer._params  # type: ignore[attr-defined]
    return params


@pytest.mark.parametrize("name", sorted(CLASSIFIERS))
def test_the_meta_gradient_equals_finite_differences(name: str) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        learner = CLASSIFIERS[name]()
    finally:
        torch.set_default_dtype(torch.float32)
    episodes = _in_double(_blobs().sample(3, np.random.default_rng(0)))
    params = _trained(learner)

    def loss() -> Tensor:
        found: Tensor = learner.outer_losses(episodes).losses.mean()  # type: ignore[attr-defined]
        return found

    grads = torch.autograd.grad(loss(), params, allow_unused=True, materialize_grads=True)
    assert flatten(grads).norm() > 1e-3
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in params]
        slope = sum(float((g * d).sum()) for g, d in zip(grads, direction, strict=True))
        values = []
        with torch.no_grad():
            for size in (1e-6, -2e-6, 1e-6):  # there, to the other side, and back
                for p, d in zip(params, direction, strict=True):
                    p.add_(d, alpha=size)
                with torch.enable_grad():
                    values.append(float(loss().detach()))
        assert slope == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5, abs=1e-7)


def _accuracy(learner: Learner, source: ClassEpisodes) -> float:
    episodes = source.sample(100, np.random.default_rng(99))
    predict = learner.adapt(episodes.support, learner.num_steps)[-1]
    return float(task_scores(predict(episodes.query.inputs), episodes.query.targets).mean())


@pytest.mark.parametrize("name", sorted(CLASSIFIERS | WITHOUT_GRADIENT))
def test_a_learner_beats_its_untrained_self(name: str) -> None:
    learner = (CLASSIFIERS | WITHOUT_GRADIENT)[name]()
    source, rng = _blobs(), np.random.default_rng(0)
    before = _accuracy(learner, source)
    for _ in range(60 if name in ("cavia", "relation") else 25):  # the two that begin slowly
        metrics = learner.update(source.sample(8, rng), rng)
    assert all(np.isfinite(value) for value in metrics.values())
    assert _accuracy(learner, source) > before + 0.05


@pytest.mark.parametrize("name", sorted(CLASSIFIERS | WITHOUT_GRADIENT))
def test_a_learner_survives_being_saved_and_loaded(name: str) -> None:
    make = (CLASSIFIERS | WITHOUT_GRADIENT)[name]
    source, rng = _blobs(), np.random.default_rng(0)
    learner = make()
    for _ in range(3):
        learner.update(source.sample(2, rng), rng)
    state, drawn = copy.deepcopy(learner.state_dict()), copy.deepcopy(rng.bit_generator.state)
    other = make()
    other.load_state_dict(state)
    again = np.random.default_rng(0)
    again.bit_generator.state = drawn
    first = learner.update(source.sample(2, rng), rng)
    second = other.update(source.sample(2, again), again)
    assert first == second
    episodes = source.sample(2, rng)
    steps = learner.num_steps + 1  # learned step sizes serve beyond the steps they were trained for
    for a, b in zip(learner.adapt(episodes.support, steps), other.adapt(episodes.support, steps), strict=True):
        assert torch.equal(a(episodes.query.inputs), b(episodes.query.inputs))


def _state(learner: Learner) -> list[Tensor]:
    leaves = torch.utils._pytree.tree_leaves(learner.state_dict())
    return [leaf.clone() for leaf in leaves if isinstance(leaf, Tensor)]


@pytest.mark.parametrize("name", sorted(CLASSIFIERS | WITHOUT_GRADIENT))
def test_a_copy_and_a_pickled_one_are_learners_of_their_own(name: str) -> None:
    source = _blobs()
    learner = (CLASSIFIERS | WITHOUT_GRADIENT)[name]()
    learner.update(source.sample(2, np.random.default_rng(0)), np.random.default_rng(0))
    copies = [copy.deepcopy(learner), pickle.loads(pickle.dumps(learner))]
    before = _state(learner)

    def after(trained: Learner) -> list[Tensor]:
        rng = np.random.default_rng(1)
        trained.update(source.sample(2, rng), rng)
        return _state(trained)

    of_copies = [after(trained) for trained in copies]
    assert all(torch.equal(*pair) for pair in zip(_state(learner), before, strict=True))
    expected = after(learner)
    assert any(not torch.equal(*pair) for pair in zip(expected, before, strict=True))
    for state in of_copies:
        assert all(torch.equal(*pair) for pair in zip(state, expected, strict=True))


REGRESSORS: dict[str, Make] = {
    "maml": lambda: Maml(regression_mlp(1, 1, generator=_generator()), MamlConfig(inner_lr=0.05, outer=OUTER)),
    "cavia": lambda: Cavia(ContextAsInput(regression_mlp(6, 1, generator=_generator())), CaviaConfig(outer=OUTER)),
    "kernel": lambda: KernelRegression(
        regression_mlp(1, 16, generator=_generator()), KernelRegressionConfig(outer=OUTER)
    ),
    "implicit-maml": lambda: ImplicitMaml(
        regression_mlp(1, 1, generator=_generator()),
        ImplicitMamlConfig(inner_lr=0.01, regularisation=5.0, outer=OuterConfig(outer_lr=0.003)),
    ),
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", sorted(REGRESSORS))
def test_a_learner_of_curves_beats_its_untrained_self(name: str) -> None:
    learner = REGRESSORS[name]()
    source, rng = Sinusoids(), np.random.default_rng(0)
    episodes = source.sample(200, np.random.default_rng(99))

    def error() -> float:
        predict = learner.adapt(episodes.support, learner.num_steps)[-1]
        return float(task_scores(predict(episodes.query.inputs), episodes.query.targets).mean())

    before = error()
    for _ in range(80 if name == "implicit-maml" else 40):
        learner.update(source.sample(25, rng), rng)
    assert error() < 0.8 * before


IMAGE_LEARNERS: dict[str, Make] = {
    "maml": lambda: Maml(_conv4(3), MamlConfig()),
    "cavia": lambda: Cavia(FilmConv4(3, 4, num_filters=4, generator=_generator()), CaviaConfig(num_context=4)),
    "prototypical": lambda: Prototypical(_conv4(None), PrototypicalConfig()),
    "relation": lambda: Relation(
        _conv4(None)[:3], RelationConfig(), relation=relation_module(4, 3, generator=_generator())
    ),
}


class _Viewing(nn.Module):
    """A backbone of the kind that users have: its forward views the maps, which must not be channels last."""

    def __init__(self, num_outputs: int | None) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.last = nn.Identity() if num_outputs is None else nn.Linear(4 * 7 * 7, num_outputs)

    def forward(self, images: Tensor) -> Tensor:
        maps = nn.functional.max_pool2d(self.norm(self.convolution(images)).relu(), 4)
        outputs: Tensor = self.last(maps.view(len(maps), -1))
        return outputs


@pytest.mark.parametrize(
    "make",
    [
        lambda: Maml(_Viewing(3), MamlConfig()),
        lambda: Prototypical(_Viewing(None), PrototypicalConfig()),
        lambda: Prototypical(_Viewing(None), PrototypicalConfig(normalisation="transductive")),
    ],
)
def test_a_backbone_may_view_its_maps(make: Callable[[], Learner]) -> None:
    targets = torch.arange(3).repeat(10).expand(2, -1)
    images = torch.rand(2, 30, 1, 28, 28, generator=_generator())
    learner = make()
    learner.update(Episodes(Examples(images, targets), Examples(images, targets)), np.random.default_rng(0))
    outputs = learner.adapt(Examples(images, targets), learner.num_steps)[-1](images)
    assert outputs.shape == (2, 30, 3)


def _conv4(num_outputs: int | None) -> nn.Sequential:
    return conv4(num_outputs, num_filters=4, generator=_generator())


@pytest.mark.parametrize("name", sorted(IMAGE_LEARNERS))
def test_learners_take_images(name: str) -> None:
    learner = IMAGE_LEARNERS[name]()
    images = torch.randint(0, 256, (20, 1, 28, 28), dtype=torch.uint8, generator=_generator())
    data = ClassData.of(images, torch.arange(20) // 4)
    source, rng = ClassEpisodes(data, num_ways=3, num_shots=1, num_queries=2), np.random.default_rng(0)
    metrics = learner.update(source.sample(5, rng), rng)
    assert 0 <= metrics["train/accuracy_post"] <= 1
    episodes = source.sample(5, rng)
    predictors = learner.adapt(episodes.support, 2)
    assert [p(episodes.query.inputs).shape for p in predictors] == [(5, 6, 3)] * len(predictors)


def test_a_users_module_adapts_and_predicts_and_is_trained_in_place() -> None:
    module = _network()
    learner = Maml(module, MamlConfig(inner_lr=0.5, outer=OUTER))
    before = [p.detach().clone() for p in module.parameters()]
    source, rng = _blobs(), np.random.default_rng(0)
    learner.update(source.sample(8, rng), rng)
    assert type(module[1]) is nn.BatchNorm1d
    assert any(not torch.equal(p, b) for p, b in zip(module.parameters(), before, strict=True))
    episodes = source.sample(2, rng)
    predict = learn_task(learner, episodes.support.inputs[0], episodes.support.targets[0])
    expected = learner.adapt(episodes.support, 1)[-1](episodes.query.inputs)[0]
    assert torch.allclose(predict(episodes.query.inputs[0]), expected, atol=1e-5)


def test_a_backbone_that_does_not_fit_is_one_clear_line() -> None:
    source, rng = _blobs(), np.random.default_rng(0)
    episodes = source.sample(2, rng)
    with pytest.raises(ValueError, match=r"must put out 3 numbers .* got \(2, 6, 2\); change its last layer"):
        Maml(_network(2), MamlConfig()).update(episodes, rng)
    with pytest.raises(ValueError, match=r"must put out a vector for every row.*got \('row', 2, 2, 2\)"):
        Prototypical(_Maps(), PrototypicalConfig()).update(episodes, rng)
    with pytest.raises(ValueError, match="must put out feature maps"):
        Relation(_network(), RelationConfig(), relation=nn.Identity()).update(episodes, rng)
    with pytest.raises(ValueError, match=r"what the targets are, shape \(2, 10, 1\).* got \(2, 10, 3\)"):
        Maml(regression_mlp(1, 3, generator=_generator()), MamlConfig()).update(Sinusoids().sample(2, rng), rng)


def test_a_loss_that_is_not_finite_names_the_task() -> None:
    source, rng = _blobs(), np.random.default_rng(0)
    episodes = source.sample(4, rng)
    episodes.query.inputs[2] = torch.nan
    for learner in (_maml(), Prototypical(_network(6), PrototypicalConfig(normalisation="transductive"))):
        with pytest.raises(FloatingPointError, match="nan on task 2 of the batch"):
            learner.update(episodes, rng)


@pytest.mark.parametrize(
    "make",
    [
        lambda network: Maml(network, MamlConfig(normalisation="running")),
        lambda network: ProtoMaml(network, ProtoMamlConfig()),
        lambda network: Prototypical(network, PrototypicalConfig()),
    ],
    ids=["maml", "proto-maml", "prototypical"],
)
def test_units_are_dropped_in_training_and_never_in_evaluation(make: Callable[[nn.Module], Learner]) -> None:
    network = nn.Sequential(nn.Linear(4, 20), nn.Dropout(0.5), nn.Linear(20, 3))
    learner: Any = make(network)
    episodes = _blobs().sample(2, np.random.default_rng(0))

    def loss() -> float:
        return float(learner.outer_losses(episodes).losses.detach().sum())

    def predicted() -> Tensor:
        return learner.adapt(episodes.support, 1)[-1](episodes.query.inputs)  # type: ignore[no-any-return]

    assert loss() != loss()
    predict = learner.adapt(episodes.support, 1)[-1]
    assert torch.equal(predicted(), predicted())
    assert torch.equal(predict(episodes.query.inputs), predict(episodes.query.inputs))
    assert loss() != loss()  # training goes on as before


class _Exploding:
    """Predicts well for some steps, and then nothing that is a number."""

    num_steps = 2
    normalisation = None

    def adapt(self, support: Examples, num_steps: int) -> list[Predictor]:
        def predictor(step: int) -> Predictor:
            def predict(inputs: Tensor) -> Tensor:
                outputs = torch.zeros(*inputs.shape[:2], 5)
                return outputs if step <= self.last else outputs.fill_(torch.nan)

            return predict

        return [predictor(step) for step in range(num_steps + 1)]

    last = 3


def test_a_curve_ends_where_more_steps_than_trained_for_explode() -> None:
    data = ClassData.of(torch.rand(20, 3), torch.arange(5).repeat_interleave(4))
    source = ClassEpisodes(data, num_ways=5, num_shots=1, num_queries=2)
    learner: Any = _Exploding()
    scores = adaptation_scores(learner, source, np.random.default_rng(0), num_tasks=4, num_steps=6)[1]
    assert scores.shape == (4, 4)  # steps 0 to 3
    scores = adaptation_scores(learner, source, np.random.default_rng(0), num_tasks=4, num_steps=6, score_every=2)[
        1
    ]
    assert scores.shape == (2, 4)  # steps 0 and 2
    learner.last = 1
    with pytest.raises(FloatingPointError, match="accuracy on task 0 is not finite after 2 adaptation steps"):
        adaptation_scores(learner, source, np.random.default_rng(0), num_tasks=4, num_steps=6)
