"""The common parts of metric learners: an embedding, and queries judged by their distances to the support set."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Self, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from metarl.fewshot.data.augmentation import Augmentation
from metarl.fewshot.data.classes import ClassData, ClassSource
from metarl.fewshot.episodes import Episodes, Examples, as_inputs
from metarl.fewshot.functional import TaskModule
from metarl.fewshot.layers import takes_channels_last
from metarl.fewshot.learner import Learner, ModuleLearner, Predictor, differentiable_in_queries
from metarl.fewshot.normalisation import NormStatistics
from metarl.fewshot.objectives import Objective, TaskObjective, as_objective
from metarl.fewshot.original import Original
from metarl.fewshot.outer import OuterConfig, OuterLosses, OuterOptimizer

Source = TypeVar("Source", bound=ClassSource)
Solution = tuple[Tensor, ...]
"""Tensors [task, ...] that support sets decide, such as prototypes."""


class MetricLearner(ModuleLearner):
    """A learner that embeds examples and compares them; see `metarl.fewshot.learner.Learner`.

    Args:
        module: Maps [row, *input] to features; its parameters are trained in place.
        normalisation: Statistics that batch-norm layers normalise by.
        outer: Outer optimiser.
        head: Module that is trained beside the embedding, such as a learned scale.
    """

    needs_all_classes = True  # of a task, in its support set
    solves_by_fixed_steps = True  # which an exported model can repeat for any support set

    def __init__(
        self, module: nn.Module, normalisation: NormStatistics, outer: OuterConfig, head: nn.Module | None = None
    ) -> None:
        network = TaskModule(module, normalisation=normalisation)
        if takes_channels_last(module):
            _lay_channels_last(module)
        self.head = (
            nn.Module() if head is None else head.to(next(iter(module.parameters()), torch.empty(0)).device)
        )
        self._head_at_start = Original(self.head, self.head)
        own, beside = list(network.weights.values()), list(self.head.parameters())
        self.outer = OuterOptimizer([*own, *beside], outer, head=beside, head_lr_factor=outer.head_lr_factor)
        super().__init__(network, {"head": self.head, "outer": self.outer})

    def trained_by(self, objective: Objective | TaskObjective) -> Self:
        """The learner itself, with the loss on query sets and the score of an objective; see `ModuleLearner`."""
        objective = as_objective(objective)
        if objective.num_outputs(1) != 1:
            raise ValueError(
                f"{type(self).__name__} puts out a number per target, got the objective "
                f"{type(objective).__name__}, which needs {objective.num_outputs(1)}; take SquaredError"
            )
        return super().trained_by(objective)

    @property
    def data_parallel(self) -> bool:
        """Whether several processes can train it: not where batch norm pools the rows of all their tasks."""
        return self.normalisation != "running"

    @property
    def embeds_rows_alone(self) -> bool:
        """Whether an example's features in evaluation depend on nothing but the example."""
        return self.normalisation in (None, "running", "frozen")

    def solve(self, support: Tensor, targets: Tensor) -> Solution:
        """The part of the work that support sets decide; the features and targets unless overridden.

        Args:
            support: Features [task, row, *feature].
            targets: Class indices [task, row], bool [task, row, way] that is true at each row's class, or numbers
                [task, row, out].
        """
        return support, targets

    @abstractmethod
    def judge(self, solution: Solution, query: Tensor) -> Tensor:
        """The outputs [task, row, out] for query features [task, row, *feature], from what `solve` gave."""

    def outputs(self, support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
        """The outputs for query features [task, row, *feature], from support features and their targets."""
        return self.judge(self.solve(support, targets), query)

    def losses(self, support: Tensor, query: Tensor, outputs: Tensor, episodes: Episodes) -> Tensor:
        """The loss of each task, [task]: that of the outputs, unless a learner looks at the features."""
        return self.objective.losses(outputs, episodes.query.targets)

    def update(self, episodes: Episodes, rng: np.random.Generator) -> dict[str, float]:
        """Take one outer step; returns metrics by name."""
        return self.outer.update(self.outer_losses, episodes, self.objective)

    def outer_losses(self, episodes: Episodes) -> OuterLosses:
        """The losses of tasks, and the outputs on their query sets."""
        support, query = self._embed(episodes.support.inputs, episodes.query.inputs)
        outputs = self.outputs(support, episodes.support.targets, query)
        return OuterLosses(self.losses(support, query, outputs, episodes), outputs)

    def adapt(self, support: Examples, num_steps: int) -> list[Predictor]:
        """A single predictor, whatever the number of steps.

        Raises:
            ValueError: if targets are not 0 to N - 1, or a class has no example.
        """
        if self.needs_all_classes:
            check_classes(support.targets)

        @differentiable_in_queries
        @self.network.evaluating(self.head)
        def predict(inputs: Tensor) -> Tensor:
            features = self._embed(support.inputs, inputs)
            return self.outputs(features[0], support.targets, features[1])

        return [predict]

    def adapt_to_features(self, support: Examples, num_steps: int) -> list[Predictor]:
        """The predictor of `adapt` for support and query sets of features; see `embed_classes`."""

        @differentiable_in_queries
        @self.network.evaluating(self.head)
        def predict(features: Tensor) -> Tensor:
            return self.outputs(support.inputs, support.targets, features)

        return [predict]

    @torch.no_grad()
    def embed_classes(self, episodes: Source, *, views: int = 1, at_once: int = 500) -> Source:
        """The same episodes, whose inputs are features: each example is embedded once, when it is first drawn.

        Args:
            episodes: Episodes of plain examples.
            views: Number of views of every example, whose mean features stand for it: the example itself, and
                copies that are turned, moved, scaled and sheared a little, always the same ones. All examples are
                embedded at once where there are several.
            at_once: Number of examples that are held in memory together.
        """
        data = episodes.data
        if views > 1:
            features = self.features(data.examples, views=views, at_once=at_once)
        else:
            when_drawn = FeaturesWhenDrawn(data.examples, lambda rows: self.features(rows, at_once=at_once))
            features = cast(Tensor, when_drawn)  # indexed by rows, which is all that is done with examples
        return episodes.with_data(ClassData(data.names, features, data.counts))

    @torch.no_grad()
    def features(self, examples: Tensor, *, views: int = 1, at_once: int = 500) -> Tensor:
        """The features of examples [row, *input], each embedded by itself; see `embed_classes`."""
        generator, distort = torch.Generator().manual_seed(0), Augmentation()

        def embed(piece: Tensor) -> Tensor:
            total = self.network.pooled(piece)
            for _ in range(views - 1):
                total = total + self.network.pooled(distort(piece, None, generator))
            return total / views

        with self.network.evaluating(self.head):
            return torch.cat([embed(as_inputs(piece)) for piece in torch.split(examples, at_once)])

    def _embed(self, support: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """Features [task, row, *feature] of both sets."""
        network = self.network
        self._head_at_start.check()
        if network.normalisation == "running":
            both = torch.cat([support, query], 1)
            if not network.maps_rows_alone or (network.has_norms and not network.is_evaluating):
                # Each task is a batch: were they pooled, statistics would depend on the number of tasks at once.
                flat = torch.cat([network.pooled(rows) for rows in both])
            else:
                flat = network.pooled(both.flatten(0, 1))
            features = flat.view(*both.shape[:2], *flat.shape[1:])
            return features[:, : support.shape[1]], features[:, support.shape[1] :]
        fixed = network.moments(network.params, support)
        return network(network.params, support), network(network.params, query, fixed=fixed)


class FeaturesWhenDrawn:
    """The features of examples, each of which is computed when it is first asked for.

    Args:
        examples: Examples [example, *input].
        embed: Function from examples to features [example, *feature].
    """

    def __init__(self, examples: Tensor, embed: Callable[[Tensor], Tensor]) -> None:
        self._examples, self._embed = examples, embed
        self._is_there = torch.zeros(len(examples), dtype=torch.bool, device=examples.device)
        self._features: Tensor | None = None

    @property
    def device(self) -> torch.device:
        """The device of the examples, which is that of the features."""
        return self._examples.device

    @property
    def num_embedded(self) -> int:
        """The number of examples that were embedded."""
        return int(self._is_there.sum())

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """The features of examples at some rows, int64 [row]."""
        is_drawn = torch.zeros_like(self._is_there)
        is_drawn[rows] = True
        missing = (is_drawn & ~self._is_there).nonzero().squeeze(1)
        if len(missing):
            features = self._embed(self._examples[missing])
            if self._features is None:
                self._features = features.new_empty(len(self), *features.shape[1:])
            self._features[missing] = features
            self._is_there[missing] = True
        assert self._features is not None
        return self._features[rows]


def is_transductive(learner: Learner) -> bool:
    """Whether a prediction depends on the other queries."""
    together = isinstance(learner, ModuleLearner) and learner.judges_queries_together
    return together or learner.normalisation in ("transductive", "per_step")


def one_hot(targets: Tensor, like: Tensor) -> Tensor:
    """Class indices [task, row] as [task, row, way], with as many ways as there are classes in the support set.

    Classes that are [task, row, way] already, as bool, only become numbers.
    """
    if targets.dtype == torch.bool:
        return targets.to(like.dtype)
    return nn.functional.one_hot(targets, int(targets.max()) + 1).to(like.dtype)


def class_means(features: Tensor, targets: Tensor) -> Tensor:
    """The mean of each class's features [task, row, feature], [task, way, feature]; targets as of `one_hot`."""
    members = one_hot(targets, features)
    return members.transpose(1, 2) @ features / members.sum(1).unsqueeze(-1)


def squared_distances(queries: Tensor, points: Tensor) -> Tensor:
    """Squared Euclidean distances of [task, row, feature] to [task, point, feature], [task, row, point]."""
    # Far from zero, the squares would leave nothing of small distances; these do not depend on the origin.
    origin = points.mean(1, keepdim=True).detach()
    queries, points = queries - origin, points - origin
    squares = queries.square().sum(-1, keepdim=True) + points.square().sum(-1).unsqueeze(1)
    return torch.baddbmm(squares, queries, points.transpose(1, 2), alpha=-2.0)


def cosines(queries: Tensor, points: Tensor) -> Tensor:
    """Cosines of [task, row, feature] and [task, point, feature], [task, row, point]."""
    return nn.functional.normalize(queries, dim=-1) @ nn.functional.normalize(points, dim=-1).transpose(1, 2)


def check_classes(targets: Tensor) -> None:
    """Raise a ValueError unless every task's targets [task, row] are 0, 1, ... N - 1, each at least once."""
    if targets.is_floating_point():
        raise ValueError(f"targets must be class indices, got {targets.dtype}; a regression learner takes numbers")
    if targets.dim() != 2:
        raise ValueError(f"targets must be a class index per row, [task, row], got shape {tuple(targets.shape)}")
    for row in targets:
        classes = row.unique()
        if not torch.equal(classes, torch.arange(len(classes), device=classes.device, dtype=classes.dtype)):
            raise ValueError(
                "targets must be classes 0 to N - 1, each with an example in the support set, got "
                f"{classes.tolist()[:10]}"
            )


def check_vectors(features: Sequence[Tensor]) -> None:
    """Raise a ValueError unless the backbone put out a vector for every row."""
    for tensor in features:
        if tensor.dim() != 3:
            raise ValueError(
                f"the backbone must put out a vector for every row, shape [row, feature], got "
                f"{('row', *tensor.shape[2:])}; end it with torch.nn.Flatten()"
            )


def _lay_channels_last(module: nn.Module) -> None:
    """Lay a module's convolutions out so that they take images channels last, where that is faster.

    On a CPU it is for a Conv4 of one batch (0.2 s instead of 0.4 for 360 images), and not for the grouped
    convolutions that become of parameters that differ from task to task.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d) and not layer.weight.is_cuda:
            layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)
