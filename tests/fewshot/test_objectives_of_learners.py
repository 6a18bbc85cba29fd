"""Every learner takes an objective by the same word, and uses it or refuses it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metarl.fewshot.episodes import Episodes, Examples
from metarl.fewshot.learner import ModuleLearner
from metarl.fewshot.learners.baseline import Baseline, BaselineConfig
from metarl.fewshot.learners.fine_tuning import FineTuning, FineTuningConfig
from metarl.fewshot.learners.kernel_regression import KernelRegression, KernelRegressionConfig
from metarl.fewshot.learners.label_propagation import LabelPropagation, LabelPropagationConfig
from metarl.fewshot.learners.logistic import Logistic, LogisticConfig
from metarl.fewshot.learners.mahalanobis import Mahalanobis, MahalanobisConfig
from metarl.fewshot.learners.maml import Maml, MamlConfig
from metarl.fewshot.learners.matching import Matching, MatchingConfig
from metarl.fewshot.learners.optimal_transport import OptimalTransport, OptimalTransportConfig
from metarl.fewshot.learners.prototypical import Prototypical, PrototypicalConfig
from metarl.fewshot.learners.relation import Relation, RelationConfig
from metarl.fewshot.learners.reptile import Reptile, ReptileConfig
from metarl.fewshot.learners.ridge import Ridge, RidgeConfig
from metarl.fewshot.learners.siamese import Siamese, SiameseConfig
from metarl.fewshot.learners.support_vectors import SupportVector, SupportVectorConfig
from metarl.fewshot.objectives import (
    BinaryCrossEntropy,
    ByTargets,
    CrossEntropy,
    GaussianLikelihood,
    GivenLoss,
    SquaredError,
)


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU())


def _baseline(**fields: Any) -> Baseline:
    config = BaselineConfig(num_classes=4, **fields)
    return Baseline(_network(), config, num_features=3, generator=torch.Generator().manual_seed(0))


class Kind(NamedTuple):
    """A learner of classes, and whether an output of it can be above zero."""

    make: Callable[[], ModuleLearner]
    above_zero: bool


KINDS = {
    "prototypical": Kind(lambda: Prototypical(_network(), PrototypicalConfig()), above_zero=False),
    "cosine": Kind(lambda: Prototypical(_network(), PrototypicalConfig(distance="cosine")), above_zero=True),
    "fine-tuning": Kind(
        lambda: FineTuning(_network(), FineTuningConfig(steps_per_round=1, num_rounds=1)), above_zero=False
    ),
    "matching": Kind(
        lambda: Matching(_network(), MatchingConfig(), generator=torch.Generator()), above_zero=False
    ),
    "mahalanobis": Kind(lambda: Mahalanobis(_network(), MahalanobisConfig()), above_zero=False),
    "label-propagation": Kind(lambda: LabelPropagation(_network(), LabelPropagationConfig()), above_zero=False),
    "optimal-transport": Kind(lambda: OptimalTransport(_network(), OptimalTransportConfig()), above_zero=False),
    "ridge": Kind(lambda: Ridge(_network(), RidgeConfig()), above_zero=True),
    "logistic": Kind(lambda: Logistic(_network(), LogisticConfig()), above_zero=True),
    "svm": Kind(lambda: SupportVector(_network(), SupportVectorConfig()), above_zero=True),
    "baseline": Kind(_baseline, above_zero=True),
    "meta-baseline": Kind(lambda: _baseline(pretraining_updates=0), above_zero=True),
    "distances": Kind(lambda: _baseline(pretraining_updates=0, judge="euclidean"), above_zero=False),
    "maml": Kind(lambda: Maml(_network(), MamlConfig()), above_zero=True),
    "reptile": Kind(lambda: Reptile(_network(), ReptileConfig(inner_steps=2)), above_zero=True),
}
OWN_LOSS: dict[str, Callable[[], ModuleLearner]] = {
    "siamese": lambda: Siamese(_network(), SiameseConfig()),
    "relation": lambda: Relation(_network(), RelationConfig(), relation=nn.Linear(6, 1)),
}
CLASSES = torch.tensor([[0, 0, 1, 1, 2, 2]])


def _episodes() -> Episodes:
    few = torch.randn(1, 6, 2, generator=torch.Generator().manual_seed(0)) + 4 * CLASSES.unsqueeze(-1)
    return Episodes(Examples(few, CLASSES), Examples(few + 0.1, CLASSES))


@pytest.mark.parametrize("name", KINDS)
def test_an_objective_is_used_or_refused(name: str) -> None:
    """Where outputs are never above zero, squared errors are least without any distances."""
    make, above_zero = KINDS[name]
    losses, metrics = set[float](), dict[str, float]()
    for objective in (ByTargets(), CrossEntropy(0.4), BinaryCrossEntropy(), SquaredError()):
        learner = make()
        if objective == SquaredError() and not above_zero:
            with pytest.raises(ValueError, match="puts out numbers up to zero, such as minus distances, got the"):
                learner.trained_by(objective)
            continue
        metrics = learner.trained_by(objective).update(_episodes(), np.random.default_rng(0))
        losses.add(next(value for key, value in metrics.items() if key.startswith("loss/")))
        assert learner.objective == objective
    assert len(losses) == 3 + above_zero
    outputs = learner.adapt(_episodes().support, 1)[-1](10 * torch.randn(1, 100, 2))
    assert bool((outputs > 1e-4).any()) == above_zero


@pytest.mark.parametrize("name", OWN_LOSS)
def test_learners_with_a_loss_of_their_own_refuse_another(name: str) -> None:
    learner = OWN_LOSS[name]()
    assert learner.trained_by(ByTargets()) is learner
    with pytest.raises(ValueError, match="has a loss of its own, got the objective CrossEntropy; leave it out"):
        learner.trained_by(CrossEntropy(0.1))


@pytest.mark.parametrize("objective", [None, "cross-entropy", CrossEntropy, nn.CrossEntropyLoss(), 3], ids=str)
def test_objects_that_are_no_objective_are_refused_at_once(objective: Any) -> None:
    takes: list[Callable[[Any], object]] = [kind.make().trained_by for kind in KINDS.values()]
    takes += [lambda given: Maml(_network(), MamlConfig(), objective=given)]
    takes += [lambda given: Reptile(_network(), ReptileConfig(), objective=given)]
    for take in takes:
        with pytest.raises(TypeError, match=r"an objective is an object such as CrossEntropy\(\), or a function"):
            take(objective)


def test_both_loops_are_trained_by_the_objective() -> None:
    late = Maml(_network(), MamlConfig(inner_lr=0.1)).trained_by(CrossEntropy(0.4))
    early = Maml(_network(), MamlConfig(inner_lr=0.1), objective=CrossEntropy(0.4))
    plain = Maml(_network(), MamlConfig(inner_lr=0.1))
    adapted = [
        learner.adapt(_episodes().support, 1)[1](_episodes().query.inputs) for learner in (late, early, plain)
    ]
    assert torch.equal(adapted[0], adapted[1])
    assert not torch.allclose(adapted[0], adapted[2], atol=1e-4)


def _wrong(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.square().mean()


def test_a_function_that_returns_no_loss_per_task_is_named() -> None:
    learner = Prototypical(_network(), PrototypicalConfig()).trained_by(_wrong)
    assert learner.objective == GivenLoss(_wrong)
    said = r"a loss must return a number per task, shape \(1,\) of outputs \(1, 6, 3\), got \(\)"
    with pytest.raises(ValueError, match=said):
        learner.update(_episodes(), np.random.default_rng(0))


def test_learners_that_compare_have_no_spreads() -> None:
    for learner in (Ridge(_network(), RidgeConfig()), KernelRegression(_network(), KernelRegressionConfig())):
        with pytest.raises(ValueError, match="puts out a number per target, got the objective GaussianLikelihood"):
            learner.trained_by(GaussianLikelihood())
