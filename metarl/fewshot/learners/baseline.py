"""A classifier of all training classes whose features then judge new ones: Baseline and its relatives, two stages.

    stage 1, pretraining_updates times:  Adam on the loss, cross-entropy, of a classifier of all training classes
    stage 2, the rest of the run:        episodes, by the same features and the judge (Meta-Baseline)
    on a new task the features are fixed, and the judge is
        probe       logistic regression on the support set, a linear probe
        cosine      a learned multiple of the cosine to the mean of each class's examples
        euclidean   minus the squared distance to that mean

Baseline (Chen et al. 2019, arXiv:1904.04232) is a linear classifier with a probe, Baseline++ a cosine classifier
and cosines, SimpleShot (Wang et al. 2019, arXiv:1911.04623) centred features of length 1 and distances,
Meta-Baseline (Chen et al. 2021, arXiv:2003.04390) cosines and both stages.

How we differ: the batches of stage 1 are the examples of episodes, all classes alike; the centre is a running
average over training; Baseline's probe is solved to its optimum, without the papers' schedules of fine-tuning.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from metarl.fewshot.backbones import output_shape
from metarl.fewshot.episodes import Episodes, by_task
from metarl.fewshot.learner import LearnerConfig, LearnerSetup
from metarl.fewshot.learners.logistic import logistic_duals
from metarl.fewshot.learners.prototypical import Scale
from metarl.fewshot.learners.ridge import with_ones
from metarl.fewshot.metric import (
    MetricLearner,
    Solution,
    check_vectors,
    class_means,
    cosines,
    one_hot,
    squared_distances,
)
from metarl.fewshot.normalisation import NormStatistics
from metarl.fewshot.outer import OuterConfig, OuterLosses
from metarl.runs.configs import MOST_UNITS, MOST_UPDATES, check_counts, check_positive

Judge = Literal["probe", "cosine", "euclidean"]

_CENTRE_SHARE = 0.01
_PROBE_STEPS = 20
"""Newton steps of the probe; 8 leave a gradient of 1e-4 where classes can be separated and its weight is small."""


@dataclass(frozen=True)
class BaselineConfig(LearnerConfig):
    """The hyperparameters of a classifier of all training classes whose features judge new ones.

    Attributes:
        classifier: Classifier of the training classes, linear or a learned multiple of cosines.
        judge: Way that new classes are judged by.
        centred: Whether features are centred by their mean over training and made of length 1 for the judge.
        pretraining_updates: Number of updates of the classifier before those on episodes; None for the whole run.
        num_classes: Outputs of the classifier, at least as many as there are training classes.
        regularisation: Weight of half the squared size of the probe's solution.
        scale: Factor of cosines at the start; it is learned.
        normalisation: Statistics that batch-norm layers normalise by.
        outer: Outer optimiser.
    """

    classifier: Literal["linear", "cosine"] = "linear"
    judge: Judge = "cosine"
    centred: bool = False
    pretraining_updates: int | None = None
    num_classes: int = 1024
    regularisation: float = 1.0
    scale: float = 10.0
    normalisation: NormStatistics = "running"
    outer: OuterConfig = field(default_factory=OuterConfig)

    def __post_init__(self) -> None:
        check_counts(self, "pretraining_updates", least=0, most=MOST_UPDATES)
        check_counts(self, "num_classes", least=2, most=MOST_UNITS)
        check_positive(self, "regularisation", "scale")

    def make(self, setup: LearnerSetup) -> "Baseline":
        """The untrained learner, whose network puts out features; training tasks have labels by class."""
        setup.require("classification", self)
        network = setup.feature_network(labels="class")
        tasks = setup.tasks
        (size,) = output_shape(network, tasks.input_shape, setup.device, dtype=tasks.input_dtype)
        config = replace(self, outer=self.outer.over(setup.num_updates))
        return Baseline(network, config, num_features=size, generator=setup.generator).trained_by(setup.objective)


class _Classifier(nn.Module):
    """What is trained beside the features, and their mean.

    Attributes:
        weight: Weights of the classifier, [class, feature].
        bias: Its shifts, of a linear one.
        scale: Factor of its cosines, and of the judge's.
        centre: Mean feature over training.
    """

    centre: Tensor

    def __init__(self, num_classes: int, num_features: int, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        start = torch.randn(num_classes, num_features, generator=generator) / num_features**0.5
        self.weight = nn.Parameter(start)
        self.bias = nn.Parameter(torch.zeros(num_classes))
        self.scale = Scale(scale)
        self.register_buffer("centre", torch.zeros(num_features))


class Baseline(MetricLearner):
    """A learner by features that classify; see `metarl.fewshot.learner.Learner`.

    Args:
        module: Maps [row, *input] to [row, feature]; its parameters are trained in place.
        config: Hyperparameters.
        num_features: Features that the module puts out.
        generator: Random stream of the classifier's initial weights.
    """

    head: _Classifier

    def __init__(
        self, module: nn.Module, config: BaselineConfig, *, num_features: int, generator: torch.Generator
    ) -> None:
        self.config = config
        self.never_positive = config.judge == "euclidean" and config.pretraining_updates is not None
        head = _Classifier(config.num_classes, num_features, config.scale, generator)
        super().__init__(module, config.normalisation, config.outer, head)

    @property
    def is_pretraining(self) -> bool:
        """Whether the next update is one of the classifier."""
        updates = self.config.pretraining_updates
        return updates is None or self.outer.updates < updates

    def update(self, episodes: Episodes, rng: np.random.Generator) -> dict[str, float]:
        """Take one outer step, on the classes or on tasks of them; returns metrics by name."""
        if not self.is_pretraining:
            return super().update(by_task(episodes), rng)
        most = int(max(examples.targets.max() for examples in episodes))
        if most >= self.config.num_classes:
            raise ValueError(
                f"num_classes must be at least the number of training classes, got {self.config.num_classes} and "
                f"class {most}; set --learner.num-classes higher"
            )
        return super().update(episodes, rng)

    def outer_losses(self, episodes: Episodes) -> OuterLosses:
        """The losses of tasks, and the outputs on their query sets: of all classes, or of a task's."""
        if not self.is_pretraining:
            return super().outer_losses(episodes)
        support, query = self._embed(episodes.support.inputs, episodes.query.inputs)
        features = torch.cat([support, query], 1)
        check_vectors((features,))
        if self.config.centred:
            with torch.no_grad():
                self.head.centre.lerp_(features.mean((0, 1)), _CENTRE_SHARE)
        logits = self._classified(features)
        targets = torch.cat([episodes.support.targets, episodes.query.targets], 1)
        return OuterLosses(self.objective.losses(logits, targets), logits[:, support.shape[1] :])

    def _classified(self, features: Tensor) -> Tensor:
        """The classifier's logits [task, row, class]."""
        if self.config.classifier == "cosine":
            weight = self.head.weight.expand(len(features), -1, -1)
            logits: Tensor = self.head.scale() * cosines(features, weight)
            return logits
        return nn.functional.linear(features, self.head.weight, self.head.bias)

    def solve(self, support: Tensor, targets: Tensor) -> Solution:
        """The probe's weights [task, feature, way], or the means of classes [task, way, feature]."""
        support = self._centred(support)
        if self.config.judge == "probe":
            known = with_ones(support).double()
            ridge = torch.tensor(self.config.regularisation, dtype=known.dtype, device=known.device)
            gram = known @ known.transpose(1, 2)
            duals = logistic_duals(gram, one_hot(targets, known), ridge, _PROBE_STEPS)
            return (known.transpose(1, 2) @ duals,)
        return (class_means(support, targets),)

    def judge(self, solution: Solution, query: Tensor) -> Tensor:
        """Logits [task, row, way]."""
        query, (means,) = self._centred(query), solution
        if self.config.judge == "probe":
            return (with_ones(query).double() @ means).to(query.dtype)
        if self.config.judge == "euclidean":
            return -squared_distances(query, means)
        logits: Tensor = self.head.scale() * cosines(query, means)
        return logits

    def _centred(self, features: Tensor) -> Tensor:
        """Features less their mean over training, of length 1, where the judge takes them so."""
        check_vectors((features,))
        if not self.config.centred:
            return features
        return nn.functional.normalize(features - self.head.centre, dim=-1)
