"""What the metric learners share: an embedding, and queries judged by their distances to the support set."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from metarl.fewshot.data.classes import Augmentation, ClassData, ClassEpisodes, as_inputs
from metarl.fewshot.episodes import Episodes, Examples
from metarl.fewshot.functional import TaskModule, takes_channels_last
from metarl.fewshot.learner import Outcome, OuterConfig, OuterOptimizer, Predictor
from metarl.fewshot.normalisation import Normalisation
from metarl.fewshot.objectives import task_losses


class MetricLearner(ABC):
    """A learner that embeds examples and compares them; see `metarl.fewshot.learner.Learner`.

    Args:
        module: maps [row, *input] to features; its parameters are trained in place.
        normalisation: of its batch-norm layers.
        outer: the outer optimiser.
        head: whatever else is trained.
    """

    num_steps = 0
    needs_all_classes = True  # of a task, in its support set

    def __init__(
        self, module: nn.Module, normalisation: Normalisation, outer: OuterConfig, head: nn.Module | None = None
    ) -> None:
        if takes_channels_last(module):
            _lay_channels_last(module)
        self.network = TaskModule(module, normalisation=normalisation)
        self.head = nn.Module() if head is None else head
        params = [*self.network.params.values(), *self.head.parameters()]
        self.outer = OuterOptimizer(params, outer)

    @property
    def normalisation(self) -> Normalisation | None:
        """Of batch-norm layers, or None without any."""
        return self.network.normalisation if self.network.has_norms else None

    @property
    def embeds_rows_alone(self) -> bool:
        """Whether an example's features in evaluation depend on nothing but the example."""
        return self.normalisation in (None, "running")

    @abstractmethod
    def outputs(self, support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
        """What is said of query features [task, row, *feature], given support features and their targets."""

    def losses(self, support: Tensor, query: Tensor, outputs: Tensor, episodes: Episodes) -> Tensor:
        """The loss of each task, [task]: that of the outputs, unless a learner looks at the features."""
        return task_losses(outputs, episodes.query.targets)

    def update(self, episodes: Episodes, rng: np.random.Generator) -> dict[str, float]:
        """One outer step."""
        return self.outer.update(self.outcome, episodes)

    def outcome(self, episodes: Episodes) -> Outcome:
        """The losses of tasks, and the outputs on their query sets."""
        support, query = self._embed(episodes.support.inputs, episodes.query.inputs)
        outputs = self.outputs(support, episodes.support.targets, query)
        return Outcome(self.losses(support, query, outputs, episodes), outputs)

    def adapt(self, support: Examples, num_steps: int) -> list[Predictor]:
        """A single predictor, whatever the number of steps.

        Raises:
            ValueError: if targets are not 0 to N - 1, or a class has no example.
        """
        if self.needs_all_classes:
            check_classes(support.targets)

        @torch.no_grad()
        def predict(inputs: Tensor) -> Tensor:
            with self._evaluating():
                features = self._embed(support.inputs, inputs)
                return self.outputs(features[0], support.targets, features[1])

        return [predict]

    def adapt_to_features(self, support: Examples, num_steps: int) -> list[Predictor]:
        """As `adapt`, for support and query sets that are features already; see `embed_classes`."""

        @torch.no_grad()
        def predict(features: Tensor) -> Tensor:
            with self._evaluating():
                return self.outputs(support.inputs, support.targets, features)

        return [predict]

    @torch.no_grad()
    def embed_classes(self, episodes: ClassEpisodes, *, views: int = 1, at_once: int = 500) -> ClassEpisodes:
        """The same episodes, whose inputs are features: each example is embedded once, however often it is drawn.

        Args:
            episodes: of plain examples.
            views: of every example, whose mean are its features: itself, and from the second on copies of it that
                are turned, moved, scaled and sheared a little, always the same ones.
            at_once: examples held in memory together.

        Raises:
            ValueError: if examples that are no images are to be distorted.
        """
        if views > 1 and episodes.data.examples.dim() != 4:
            shape = tuple(episodes.data.examples.shape[1:])
            raise ValueError(f"views must be 1 of examples that are no images, got {views} of shape {shape}")
        generator, distort = torch.Generator().manual_seed(0), Augmentation()

        def embed(piece: Tensor) -> Tensor:
            total = self.network.pooled(piece)
            for _ in range(views - 1):
                total = total + self.network.pooled(distort(piece, None, generator))
            return total / views

        with self._evaluating():
            features = torch.cat(
                [embed(as_inputs(piece)) for piece in torch.split(episodes.data.examples, at_once)]
            )
        return ClassEpisodes(
            ClassData(episodes.data.names, features, episodes.data.counts),
            num_ways=episodes.num_ways,
            num_shots=episodes.num_shots,
            num_queries=episodes.num_queries,
        )

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Normalise and drop as in evaluation."""
        training = self.head.training
        self.network.training = False
        self.head.eval()
        try:
            yield
        finally:
            self.network.training = True
            self.head.train(training)

    def _embed(self, support: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """Features [task, row, *feature] of both sets."""
        network = self.network
        if network.normalisation == "running":
            both = torch.cat([support, query], 1)
            flat = network.pooled(both.flatten(0, 1))
            features = flat.view(*both.shape[:2], *flat.shape[1:])
            return features[:, : support.shape[1]], features[:, support.shape[1] :]
        given = network.moments(network.params, support)
        return network(network.params, support), network(network.params, query, given=given)

    def state_dict(self) -> dict[str, Any]:
        """Weights and the outer optimiser."""
        return {
            "module": self.network.module.state_dict(),
            "head": self.head.state_dict(),
            "outer": self.outer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.network.module.load_state_dict(state["module"])
        self.head.load_state_dict(state["head"])
        self.outer.load_state_dict(state["outer"])


def one_hot(targets: Tensor, like: Tensor) -> Tensor:
    """Class indices [task, row] as [task, row, way], with as many ways as there are classes in the support set."""
    return nn.functional.one_hot(targets, int(targets.max()) + 1).to(like.dtype)


def class_means(features: Tensor, targets: Tensor) -> Tensor:
    """The mean of each class's features [task, row, feature], [task, way, feature]."""
    members = one_hot(targets, features)
    return members.transpose(1, 2) @ features / members.sum(1).unsqueeze(-1)


def squared_distances(queries: Tensor, points: Tensor) -> Tensor:
    """Squared Euclidean distances of [task, row, feature] to [task, point, feature], [task, row, point]."""
    squares = queries.square().sum(-1, keepdim=True) + points.square().sum(-1).unsqueeze(1)
    return torch.baddbmm(squares, queries, points.transpose(1, 2), alpha=-2.0)


def cosines(queries: Tensor, points: Tensor) -> Tensor:
    """Cosines of [task, row, feature] and [task, point, feature], [task, row, point]."""
    return nn.functional.normalize(queries, dim=-1) @ nn.functional.normalize(points, dim=-1).transpose(1, 2)


def check_classes(targets: Tensor) -> None:
    """Raise a ValueError unless every task's targets [task, row] are 0, 1, ... N - 1, each at least once."""
    if targets.is_floating_point():
        raise ValueError(f"targets must be class indices, got {targets.dtype}; a regression learner takes numbers")
    for row in targets:
        found = row.unique()
        if not torch.equal(found, torch.arange(len(found), device=found.device, dtype=found.dtype)):
            raise ValueError(
                "targets must be classes 0 to N - 1, each with an example in the support set, got "
                f"{found.tolist()[:10]}"
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
