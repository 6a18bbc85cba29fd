"""Matching networks: attention over the support set (Vinyals et al. 2016, arXiv:1606.04080).

    a(x, x_k) = softmax_k( s cos(f(x), g(x_k)) )
    P(class c) = sum of a(x, x_k) over the support examples of class c

With full context embeddings, g(x_k) goes through a bidirectional LSTM over the support set and f(x) through an
LSTM that reads the support set by attention for some steps, each with a skip connection (the paper's appendix A).

How we differ: the cosines have a learned scale s, without which the softmax over a few cosines in [-1, 1] can
hardly commit itself.
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from metarl.fewshot.learner import LearnerConfig, LearnerSetup
from metarl.fewshot.learners.prototypical import Scale
from metarl.fewshot.metric import MetricLearner, Solution, check_vectors, cosines, one_hot
from metarl.fewshot.normalisation import NormStatistics
from metarl.fewshot.outer import OuterConfig
from metarl.runs.configs import MOST_REPEATS, MOST_UNITS, check_counts, check_positive


@dataclass(frozen=True)
class MatchingConfig(LearnerConfig):
    """The hyperparameters of matching networks.

    Attributes:
        full_context: Whether each example is embedded in the context of the support set.
        num_features: Features that the network puts out; needed for full context embeddings.
        reading_steps: Steps that the queries' LSTM reads the support set for.
        scale: Factor of cosines at the start, s; it is learned.
        normalisation: Statistics that batch-norm layers normalise by.
        outer: Outer optimiser.
    """

    full_context: bool = False
    num_features: int = 64
    reading_steps: int = 5
    scale: float = 10.0
    normalisation: NormStatistics = "running"
    outer: OuterConfig = field(default_factory=OuterConfig)

    def __post_init__(self) -> None:
        check_counts(self, "num_features", most=MOST_UNITS)
        check_counts(self, "reading_steps", most=MOST_REPEATS)
        check_positive(self, "scale")

    def make(self, setup: LearnerSetup) -> "Matching":
        """The untrained learner, whose network puts out features."""
        setup.require("classification", self)
        return Matching(
            setup.feature_network(),
            replace(self, outer=self.outer.over(setup.num_updates)),
            generator=setup.generator,
        ).trained_by(setup.objective)


class FullContext(nn.Module):
    """Embeds support and query features in the context of the support set.

    Args:
        num_features: Features that the network puts out.
        reading_steps: Steps that the queries' LSTM reads the support set for.
        generator: Random stream of the initial weights.
    """

    def __init__(self, num_features: int, reading_steps: int, generator: torch.Generator) -> None:
        super().__init__()
        self._steps = reading_steps
        self.support_lstm = nn.LSTM(num_features, num_features, batch_first=True, bidirectional=True)
        self.query_lstm = nn.LSTMCell(2 * num_features, num_features)
        for p in self.parameters():
            bound = num_features**-0.5
            nn.init.uniform_(p, -bound, bound, generator=generator)

    def forward(self, support: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """Map features [task, row, feature] of both sets to features of the same shapes."""
        forward, backward = self.support_lstm(support)[0].chunk(2, -1)
        keys = forward + backward + support
        hidden, cell = query, torch.zeros_like(query)
        for _ in range(self._steps):
            read = (hidden @ keys.transpose(1, 2)).softmax(-1) @ keys
            inputs = torch.cat([query, read], -1).flatten(0, 1)
            state = self.query_lstm(inputs, (hidden.flatten(0, 1), cell.flatten(0, 1)))
            hidden, cell = (x.view_as(query) for x in state)
            hidden = hidden + query
        return keys, hidden


class _Head(nn.Module):
    """The learned scale, and full context embeddings if there are any."""

    def __init__(self, scale: Scale, context: FullContext | None) -> None:
        super().__init__()
        self.scale = scale
        self.context = context


class Matching(MetricLearner):
    """A learner by matching networks; see `metarl.fewshot.learner.Learner`.

    Args:
        module: Maps [row, *input] to [row, feature]; its parameters are trained in place.
        config: Hyperparameters.
        generator: Random stream of the initial weights of full context embeddings.
    """

    head: _Head

    needs_all_classes = False
    never_positive = True

    def __init__(self, module: nn.Module, config: MatchingConfig, *, generator: torch.Generator) -> None:
        self.config = config
        context = None
        self.solves_by_fixed_steps = not config.full_context  # its LSTM takes a step for every support example
        if config.full_context:
            context = FullContext(config.num_features, config.reading_steps, generator)
        super().__init__(module, config.normalisation, config.outer, _Head(Scale(config.scale), context))

    def judge(self, solution: Solution, query: Tensor) -> Tensor:
        """Logarithms of the classes' probabilities, [task, row, way]."""
        support, targets = solution
        check_vectors((support, query))
        if self.head.context is not None:
            if support.shape[-1] != self.config.num_features:
                raise ValueError(
                    f"full context embeddings were made for {self.config.num_features} features, the backbone "
                    f"puts out {support.shape[-1]}; set num_features to that"
                )
            support, query = self.head.context(support, query)
        # [task, query row, support row]
        attention: Tensor = (self.head.scale() * cosines(query, support)).log_softmax(-1)
        members = one_hot(targets, attention).transpose(1, 2).unsqueeze(1)  # [task, 1, way, support row]
        by_class = attention.unsqueeze(2).masked_fill(members == 0, -torch.inf)
        return torch.logsumexp(by_class, -1)
