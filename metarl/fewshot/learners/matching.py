"""Matching networks: attention over the support set (Vinyals et al. 2016, arXiv:1606.04080).

    a(x, x_k) = softmax_k( s cos(f(x), g(x_k)) )
    P(class c) = sum of a(x, x_k) over the support examples of class c

With full context embeddings, g(x_k) goes through a bidirectional LSTM over the support set and f(x) through an
LSTM that reads the support set by attention for some steps, each with a skip connection (the paper's appendix A).

How we differ: the cosines have a learned scale s, without which the softmax over a few cosines in [-1, 1] can
hardly commit itself.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from metarl.fewshot.learner import OuterConfig
from metarl.fewshot.learners.prototypical import Scale
from metarl.fewshot.metric import MetricLearner, check_vectors, cosines, one_hot
from metarl.fewshot.normalisation import Normalisation
from metarl.runs.configs import check_counts, check_positive


@dataclass(frozen=True)
class MatchingConfig:
    """Matching networks' hyperparameters.

    Attributes:
        full_context: embed each example in the context of the support set.
        num_features: of the embedding; needed for full context embeddings.
        reading_steps: of the queries' LSTM.
        scale: s at first.
        normalisation: of batch-norm layers.
        outer: the optimiser.
    """

    full_context: bool = False
    num_features: int = 64
    reading_steps: int = 5
    scale: float = 10.0
    normalisation: Normalisation = "running"
    outer: OuterConfig = field(default_factory=OuterConfig)

    def __post_init__(self) -> None:
        check_counts(self, "num_features", "reading_steps")
        check_positive(self, "scale")


class FullContext(nn.Module):
    """Embeds support and query features in the context of the support set.

    Args:
        num_features: of the embedding.
        reading_steps: of the queries' LSTM.
        generator: draws the weights.
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
    """What is trained beside the embedding."""

    def __init__(self, scale: Scale, context: FullContext | None) -> None:
        super().__init__()
        self.scale = scale
        self.context = context


class Matching(MetricLearner):
    """Matching networks.

    Args:
        module: maps [row, *input] to [row, feature]; its parameters are trained in place.
        config: hyperparameters.
        generator: draws the weights of the full context embeddings.
    """

    head: _Head

    needs_all_classes = False

    def __init__(self, module: nn.Module, config: MatchingConfig, *, generator: torch.Generator) -> None:
        self.config = config
        context = None
        if config.full_context:
            context = FullContext(config.num_features, config.reading_steps, generator)
        head = _Head(Scale(config.scale), context).to(next(module.parameters()).device)
        super().__init__(module, config.normalisation, config.outer, head)

    def outputs(self, support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
        """Logarithms of the classes' probabilities, [task, row, way]."""
        check_vectors((support, query))
        if self.head.context is not None:
            if support.shape[-1] != self.config.num_features:
                raise ValueError(
                    f"full context embeddings were made for {self.config.num_features} features, the backbone "
                    f"puts out {support.shape[-1]}; set num_features to that"
                )
            support, query = self.head.context(support, query)
        attention: Tensor = (self.head.scale() * cosines(query, support)).log_softmax(
            -1
        )  # [task, query row, support row]
        members = one_hot(targets, attention).transpose(1, 2).unsqueeze(1)  # [task, 1, way, support row]
        by_class = attention.unsqueeze(2).masked_fill(members == 0, -torch.inf)
        return torch.logsumexp(by_class, -1)
