"""Stochastic policies whose parameters are data: one call serves shared parameters and those of every task."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from metarl.learning.bilevel import Params
from metarl.nets.actions import ActionMap
from metarl.nets.distributions import AnyDistribution, DiagonalGaussian
from metarl.nets.networks import Activation, Mlp
from metarl.runs import parallel

CONTEXT = "context"
"""Name of the parameters that are inputs: a task's context, behind its features (Zintgraf et al. 2019)."""


def with_context(params: Params, features: Tensor) -> Tensor:
    """Features [..., feature], and behind them the parameters' context [(task,) context], if they have one."""
    if CONTEXT not in params:
        return features
    context = params[CONTEXT].unsqueeze(-2)
    return torch.cat((features, context.expand(*features.shape[:-1], -1)), -1)


class GaussianPolicy(nn.Module):
    """A diagonal Gaussian with a state-independent log standard deviation (Finn et al. 2017).

    All its parameters, the log standard deviation included, are adapted by gradient-based learners. With
    parameters that have a leading task axis, features must be [task, row, feature].

    Args:
        obs_size: Number of observation features, those of a context included.
        act_size: Number of action dimensions.
        hidden_sizes: Widths of the hidden layers of the mean's network.
        activation: Activation of the mean's network.
        init_std: Standard deviation at the start.
        min_std: Least standard deviation.
        generator: Source of the initial weights.
    """

    def __init__(
        self,
        obs_size: int,
        act_size: int,
        *,
        hidden_sizes: Sequence[int],
        activation: Activation,
        init_std: float,
        min_std: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.obs_size, self.act_size = obs_size, act_size
        self.mean = Mlp(obs_size, hidden_sizes, act_size, activation=activation, generator=generator)
        self.log_std = nn.Parameter(torch.full((act_size,), math.log(init_std)))
        self._min_log_std = math.log(min_std)

    def parameter_dict(self) -> Params:
        """The parameters as data."""
        return dict(self.named_parameters())

    def distribution(self, params: Params, features: Tensor) -> DiagonalGaussian:
        """The action distribution under other parameters; nothing of the module is changed."""
        log_std = params["log_std"].clamp(min=self._min_log_std)
        if log_std.dim() == 2:
            log_std = log_std.unsqueeze(1)  # [task, 1, act]
        return DiagonalGaussian(self.mean.call(params, with_context(params, features), prefix="mean."), log_std)

    def metrics(self, acted: AnyDistribution, mask: Tensor) -> dict[str, float]:
        """Mean standard deviation of the unadapted policy."""
        return {"policy/std": float(self.log_std.detach().exp().mean())}


class ChoicePolicy(nn.Module):
    """A network that puts out the distribution of discrete actions; see `metarl.nets.actions`.

    With parameters that have a leading task axis, features must be [task, row, feature].

    Args:
        obs_size: Number of observation features, those of a context included.
        actions: Action space and the distribution that goes with it.
        hidden_sizes: Widths of the hidden layers.
        activation: Activation of the hidden layers.
        generator: Source of the initial weights; those of the last layer are small, so that all choices are near
            equally probable at first.
    """

    def __init__(
        self,
        obs_size: int,
        actions: ActionMap,
        *,
        hidden_sizes: Sequence[int],
        activation: Activation,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self._actions = actions
        self.outputs = Mlp(obs_size, hidden_sizes, actions.num_outputs, activation=activation, generator=generator)
        with torch.no_grad():
            self.outputs.get_parameter(f"weight_{self.outputs.num_layers - 1}").mul_(0.01)

    def parameter_dict(self) -> Params:
        """The parameters as data."""
        return dict(self.named_parameters())

    def distribution(self, params: Params, features: Tensor) -> AnyDistribution:
        """The action distribution under other parameters; nothing of the module is changed."""
        outputs = self.outputs.call(params, with_context(params, features), prefix="outputs.")
        return self._actions.distribution(outputs)

    def metrics(self, acted: AnyDistribution, mask: Tensor) -> dict[str, float]:
        """Mean entropy of the distributions that were acted with, over the real steps."""
        entropy = parallel.total((acted.entropy() * mask).sum()) / parallel.total(mask.sum())
        return {"policy/entropy": float(entropy)}


FunctionalPolicy = GaussianPolicy | ChoicePolicy
"""A policy whose parameters are data, so that every task can have its own."""
