"""Action spaces: which distribution a policy puts out for each, and what becomes of its actions.

    space                  distribution        policy's actions              environment's actions
    Discrete(n, start)     Categorical         int64 []                      start + choice
    MultiDiscrete          MultiCategorical    int64 [choice]                start + choices, in the space's shape
    MultiBinary            Bernoulli           int64 [bit]                   bits, in the space's shape
    Box, bounded           DiagonalGaussian    float32 [act]                 +-1 mapped to the bounds, then clipped

A policy is made of `ActionMap`s alone, so that a new kind of action space is one more class here.
"""

from abc import ABC, abstractmethod
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from metarl.nets.distributions import (
    NO_CHOICE,
    AnyDistribution,
    Bernoulli,
    Categorical,
    DiagonalGaussian,
    MultiCategorical,
)
from metarl.observations import describe


class ActionMap(ABC):
    """The properties of an action space that a policy needs.

    Attributes:
        space: Action space of the environment.
        num_outputs: Numbers that a network puts out for one distribution.
        shape: Shape of one action as the policy puts it out.
        encoded_size: Numbers that represent one action as an input of a network.
        noise: Kind of noise that actions are made of.
        kind: Class of the distributions.
    """

    space: spaces.Space[Any]
    num_outputs: int
    shape: tuple[int, ...]
    encoded_size: int
    noise: Literal["normal", "uniform"] = "uniform"
    kind: type[AnyDistribution]

    @abstractmethod
    def distribution(self, outputs: Tensor, log_std: Tensor | None = None) -> AnyDistribution:
        """The distribution over actions.

        Args:
            outputs: Outputs of a network, [..., num_outputs].
            log_std: Logarithm of the standard deviations, [num_outputs]; of continuous actions alone.
        """

    @abstractmethod
    def to_env(self, actions: Tensor) -> np.ndarray:
        """The environment's actions [..., *space.shape] for actions of the policy on the CPU."""

    @abstractmethod
    def from_env(self, env_actions: np.ndarray) -> Tensor:
        """The policy's actions for those of the environment; the inverse of `to_env` but for what it clips."""

    @abstractmethod
    def bounded(self, actions: Tensor) -> Tensor:
        """The environment's actions as `to_env` has them, but as a tensor; operations that can be exported."""

    @abstractmethod
    def unbounded(self, env_actions: Tensor) -> Tensor:
        """The policy's actions as `from_env` has them, but of a tensor; operations that can be exported."""

    @abstractmethod
    def encode(self, actions: Tensor) -> Tensor:
        """Actions as inputs of a network, float32 [..., encoded_size]."""

    def _inside(self, array: Any) -> tuple[int, ...]:
        """The leading axes of environment actions."""
        shape: tuple[int, ...] = array.shape
        return shape[: len(shape) - len(self.space.shape or ())]


class Choice(ActionMap):
    """One choice out of several.

    Args:
        space: Space with any first choice.
    """

    kind = Categorical

    def __init__(self, space: spaces.Discrete) -> None:
        self.space, self._start = space, int(space.start)
        self.num_outputs = self.encoded_size = int(space.n)
        self.shape = ()

    def distribution(self, outputs: Tensor, log_std: Tensor | None = None) -> Categorical:
        """The categorical distribution over the choices."""
        return Categorical.of(outputs)

    def to_env(self, actions: Tensor) -> np.ndarray:
        """Choices from the space's first on."""
        return np.asarray(actions.numpy() + self._start)

    def from_env(self, env_actions: np.ndarray) -> Tensor:
        """Choices from zero on."""
        return torch.from_numpy(env_actions.astype(np.int64) - self._start)

    def bounded(self, actions: Tensor) -> Tensor:
        """Choices from the space's first on."""
        return actions + self._start

    def unbounded(self, env_actions: Tensor) -> Tensor:
        """Choices from zero on; what is none becomes the nearest."""
        return (env_actions - self._start).clamp(0, self.num_outputs - 1)

    def encode(self, actions: Tensor) -> Tensor:
        """The choice as a one-hot vector."""
        return nn.functional.one_hot(actions, self.num_outputs).float()


class Choices(ActionMap):
    """Several choices at the same time.

    Args:
        space: Space of any shape.
    """

    kind = MultiCategorical

    def __init__(self, space: spaces.MultiDiscrete) -> None:
        self.space = space
        self._starts = np.asarray(space.start, dtype=np.int64)
        self._sizes = [int(size) for size in np.ravel(space.nvec)]
        self.num_outputs = self.encoded_size = sum(self._sizes)
        self.shape = (len(self._sizes),)

    def distribution(self, outputs: Tensor, log_std: Tensor | None = None) -> MultiCategorical:
        """Independent categorical distributions, padded to the longest."""
        longest = max(self._sizes)
        parts = [
            nn.functional.pad(torch.log_softmax(part, -1), (0, longest - part.shape[-1]), value=NO_CHOICE)
            for part in torch.split(outputs, self._sizes, -1)
        ]
        return MultiCategorical(torch.stack(parts, -2))

    def to_env(self, actions: Tensor) -> np.ndarray:
        """Choices from the space's first ones on, in its shape."""
        choices = actions.numpy().reshape(*actions.shape[:-1], *self._starts.shape)
        return np.asarray(choices + self._starts)

    def from_env(self, env_actions: np.ndarray) -> Tensor:
        """Choices from zero on, as a list."""
        choices = env_actions.astype(np.int64) - self._starts
        return torch.from_numpy(choices.reshape(*self._inside(env_actions), -1))

    def bounded(self, actions: Tensor) -> Tensor:
        """Choices from the space's first ones on, in its shape."""
        choices = actions.reshape(*actions.shape[:-1], *self._starts.shape)
        return choices + torch.from_numpy(self._starts)

    def unbounded(self, env_actions: Tensor) -> Tensor:
        """Choices from zero on, as a list; what is none becomes the nearest."""
        choices = env_actions - torch.from_numpy(self._starts)
        listed = choices.reshape(*self._inside(env_actions), -1)
        return torch.minimum(listed.clamp(min=0), torch.tensor(self._sizes) - 1)

    def encode(self, actions: Tensor) -> Tensor:
        """One-hot, one choice after the other."""
        chosen = zip(actions.unbind(-1), self._sizes, strict=True)
        return torch.cat([nn.functional.one_hot(part, size) for part, size in chosen], -1).float()


class Bits(ActionMap):
    """Several bits at the same time.

    Args:
        space: Space of any shape.
    """

    kind = Bernoulli

    def __init__(self, space: spaces.MultiBinary) -> None:
        self.space = space
        self.num_outputs = self.encoded_size = int(np.prod(space.shape))
        self.shape = (self.num_outputs,)

    def distribution(self, outputs: Tensor, log_std: Tensor | None = None) -> Bernoulli:
        """The distribution of independent bits."""
        return Bernoulli(outputs)

    def to_env(self, actions: Tensor) -> np.ndarray:
        """The bits in the space's shape and kind of numbers."""
        bits = actions.numpy().reshape(*actions.shape[:-1], *(self.space.shape or ()))
        return np.asarray(bits.astype(self.space.dtype))

    def from_env(self, env_actions: np.ndarray) -> Tensor:
        """The bits as a list."""
        return torch.from_numpy(env_actions.astype(np.int64).reshape(*self._inside(env_actions), -1))

    def bounded(self, actions: Tensor) -> Tensor:
        """The bits in the space's shape."""
        return actions.reshape(*actions.shape[:-1], *(self.space.shape or ()))

    def unbounded(self, env_actions: Tensor) -> Tensor:
        """The bits as a list."""
        return env_actions.reshape(*self._inside(env_actions), -1).long()

    def encode(self, actions: Tensor) -> Tensor:
        """The bits as zeros and ones."""
        return actions.float()


class Continuous(ActionMap):
    """A list of numbers: what the policy puts out times a scale, then +-1 mapped to the bounds, then clipped.

    Args:
        space: Bounded space of any shape.
        scale: Factor of the policy's output.

    Raises:
        ValueError: if a bound is not finite.
    """

    noise = "normal"
    kind = DiagonalGaussian

    def __init__(self, space: spaces.Box, *, scale: float = 1.0) -> None:
        self.space, self._scale = space, scale
        self.low, self.high = np.ravel(space.low), np.ravel(space.high)
        if not (np.isfinite(self.low).all() and np.isfinite(self.high).all()):
            raise ValueError(
                f"continuous actions must have finite bounds, got {describe(space)}; "
                "gymnasium.wrappers.RescaleAction or a bounded Box of your environment sets them"
            )
        if space.dtype.kind != "f":
            raise ValueError(
                f"actions of a Box must be floats, got {describe(space)}; use MultiDiscrete for whole numbers"
            )
        half = (self.high - self.low) / 2
        self._middle, self._width = (self.high + self.low) / 2, half * scale
        self.num_outputs = self.encoded_size = len(self.low)
        self.shape = (len(self.low),)

    def distribution(self, outputs: Tensor, log_std: Tensor | None = None) -> DiagonalGaussian:
        """Independent normals around the outputs."""
        assert log_std is not None, "continuous actions need a standard deviation"
        return DiagonalGaussian(outputs, log_std)

    def to_env(self, actions: Tensor) -> np.ndarray:
        """Numbers within the bounds, in the space's shape."""
        scaled = self._middle + self._width * actions.numpy()
        bounded: np.ndarray = np.minimum(np.maximum(scaled, self.low), self.high)
        return bounded.reshape(*actions.shape[:-1], *(self.space.shape or ()))

    def from_env(self, env_actions: np.ndarray) -> Tensor:
        """Numbers in units of the policy's output, as a list."""
        listed = env_actions.reshape(*self._inside(env_actions), -1)
        width = np.where(self._width > 0, self._width, 1.0)
        return torch.from_numpy(((listed - self._middle) / width).astype(np.float32))

    def bounded(self, actions: Tensor) -> Tensor:
        """Numbers within the bounds, float32 in the space's shape."""
        middle, width, low, high = (_float32(part) for part in (self._middle, self._width, self.low, self.high))
        scaled = torch.minimum(torch.maximum(middle + width * actions, low), high)
        return scaled.reshape(*actions.shape[:-1], *(self.space.shape or ()))

    def unbounded(self, env_actions: Tensor) -> Tensor:
        """Numbers in units of the policy's output, as a list."""
        listed = env_actions.reshape(*self._inside(env_actions), -1)
        return (listed - _float32(self._middle)) / _float32(np.where(self._width > 0, self._width, 1.0))

    def encode(self, actions: Tensor) -> Tensor:
        """The environment's action, in units of its bounds: within +-1."""
        return (self._scale * actions).clamp(-1, 1) if self._scale != 1 else actions.clamp(-1, 1)


def _float32(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))


def action_map(space: spaces.Space[Any], agent: str, *, scale: float = 1.0) -> ActionMap:
    """The map of an action space.

    Args:
        space: Action space of an environment.
        agent: Name of the algorithm, for messages.
        scale: Factor of a policy's continuous outputs.

    Raises:
        ValueError: in one line, if no policy can act in this space.
    """
    if isinstance(space, spaces.Discrete):
        return Choice(space)
    if isinstance(space, spaces.MultiDiscrete):
        return Choices(space)
    if isinstance(space, spaces.MultiBinary):
        return Bits(space)
    if isinstance(space, spaces.Box):
        return Continuous(space, scale=scale)
    raise ValueError(
        f"{agent} takes Discrete, MultiDiscrete, MultiBinary or bounded Box actions, got {describe(space)}; "
        "no agent takes others"
    )
