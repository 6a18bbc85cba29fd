"""Relation networks: a network says how much a query is like a class (Sung et al. 2018, arXiv:1711.06025).

    score_c = g( [ mean of f(x_k) over the support examples of class c, f(x) ] )        in (0, 1)
    loss = mean over queries and classes of (score_c - [x is of class c])^2

f puts out feature maps, g is two convolution blocks and two linear layers.

How we differ: a class is the mean of its examples' maps, not their sum. With one number of shots the first
convolution makes these the same; trained with one shot and asked with five, sums are out of g's range (25% of
5-way 5-shot queries right, where 1-shot had 84%).
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from metarl.fewshot.backbones import linear, output_shape
from metarl.fewshot.episodes import Episodes
from metarl.fewshot.layers import check_module
from metarl.fewshot.learner import LearnerConfig, LearnerSetup
from metarl.fewshot.metric import MetricLearner, Solution, class_means, one_hot
from metarl.fewshot.normalisation import BATCH_NORMS, NormStatistics
from metarl.fewshot.outer import OuterConfig
from metarl.runs.configs import MOST_UNITS, check_counts


@dataclass(frozen=True)
class RelationConfig(LearnerConfig):
    """The hyperparameters of relation networks.

    Attributes:
        num_hidden: Units of the relation network's last but one layer.
        normalisation: Statistics that the embedding's batch-norm layers normalise by; the relation's own layers
            always take running averages.
        outer: Outer optimiser.
    """

    num_hidden: int = 8
    normalisation: NormStatistics = "running"
    outer: OuterConfig = field(default_factory=OuterConfig)

    def __post_init__(self) -> None:
        check_counts(self, "num_hidden", most=MOST_UNITS)

    def make(self, setup: LearnerSetup) -> "Relation":
        """The untrained learner, whose network puts out feature maps."""
        setup.require("classification", self)
        network = setup.feature_network(maps=True)
        channels, size, _ = output_shape(network, setup.tasks.input_shape, setup.device)
        relation = relation_module(channels, size, num_hidden=self.num_hidden, generator=setup.generator)
        config = replace(self, outer=self.outer.over(setup.num_updates))
        return Relation(network, config, relation=relation.to(setup.device)).trained_by(setup.objective)


def relation_module(
    num_channels: int, size: int, *, num_hidden: int = 8, generator: torch.Generator
) -> nn.Sequential:
    """The published g, for feature maps of `num_channels` channels and `size` x `size` places."""
    layers: list[nn.Module] = []
    inputs = 2 * num_channels
    for _ in range(2):
        convolution = nn.Conv2d(inputs, num_channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu", generator=generator)
        layers += [convolution, nn.BatchNorm2d(num_channels), nn.ReLU()]
        if size > 1:
            layers.append(nn.MaxPool2d(2))
            size //= 2
        inputs = num_channels
    layers += [nn.Flatten(), linear(num_channels * size * size, num_hidden, generator), nn.ReLU()]
    return nn.Sequential(*layers, linear(num_hidden, 1, generator))


class Relation(MetricLearner):
    """A learner by relation networks; see `metarl.fewshot.learner.Learner`.

    Args:
        module: Maps [row, *input] to [row, channel, height, width]; its parameters are trained in place.
        config: Hyperparameters.
        relation: Network that maps [row, 2 * channel, height, width] to [row, 1]; see `relation_module`.
    """

    has_own_loss = True

    def __init__(self, module: nn.Module, config: RelationConfig, *, relation: nn.Module) -> None:
        check_module(relation)
        has_norms = any(isinstance(layer, BATCH_NORMS) for layer in relation.modules())
        if has_norms and config.normalisation != "running":
            raise ValueError(
                "the relation's batch norm takes running averages, so normalisation must be 'running', got "
                f"{config.normalisation!r}"
            )
        self.config = config
        super().__init__(module, config.normalisation, config.outer, relation)

    def solve(self, support: Tensor, targets: Tensor) -> Solution:
        """Mean feature maps of the classes, [task, way, channel, height, width]."""
        if support.dim() != 5:
            raise ValueError(
                "the backbone must put out feature maps, shape [row, channel, height, width], got "
                f"{('row', *support.shape[2:])}; leave torch.nn.Flatten() out"
            )
        classes = class_means(support.flatten(2), targets)
        return (classes.view(*classes.shape[:2], *support.shape[2:]),)

    def judge(self, solution: Solution, query: Tensor) -> Tensor:
        """Scores before the sigmoid, [task, row, way]."""
        (classes,) = solution
        num_rows, num_ways = query.shape[1], classes.shape[1]
        pairs = [
            classes.unsqueeze(1).expand(-1, num_rows, -1, -1, -1, -1),
            query.unsqueeze(2).expand(-1, -1, num_ways, -1, -1, -1),
        ]
        joined = torch.cat(pairs, 3)  # [task, row, way, 2 * channel, height, width]
        scores: Tensor = self.head(joined.flatten(0, 2))
        return scores.view(joined.shape[:3])

    def losses(self, support: Tensor, query: Tensor, outputs: Tensor, episodes: Episodes) -> Tensor:
        """Mean squared error of the scores, [task]."""
        return (outputs.sigmoid() - one_hot(episodes.query.targets, outputs)).square().flatten(1).mean(1)
