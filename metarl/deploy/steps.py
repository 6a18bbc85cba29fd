"""One step of a policy as a function of tensors alone, all of its state explicit, which can be exported.

    inputs     observation, what the last step was, whether an episode begins, noise, state
    outputs    the action without and with noise, the distribution's parameters, the state after the step

A tensor of the inputs and outputs has no batch axis: one policy acts in one environment. Observations and actions
are the environment's own; all scaling is inside. The outcome of a step is read when the next one is taken, so that
a controller calls one function per step.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from metarl.agent import Interface
from metarl.learning.trials import TrialSteps
from metarl.nets.actions import ActionMap, Continuous
from metarl.nets.distributions import (
    AnyDistribution,
    Bernoulli,
    Categorical,
    DiagonalGaussian,
    MultiCategorical,
    TanhGaussian,
)
from metarl.nets.memories import Carry
from metarl.observations import as_arrays, map_parts, space_parts
from metarl.trajectories import Observations, as_tensors, map_observations

NOISE, LATENT_NOISE = "noise", "latent_noise"

Reads = Literal["nothing", "outcomes", "every outcome"]
"""Whether a policy reads what followed its actions: not at all, if it is reported, or after every action."""


class StepInputs(NamedTuple):
    """Inputs of one step; all have one leading axis of length 1.

    Attributes:
        observations: Observations before the step, each part [1, *shape].
        last: The last step and what followed it.
        happened: True if there is a last step that was not read yet, bool [1].
        begins: True at the first step of an episode, bool [1].
        noise: Noise that samples are made of, by name.
        state: State before the step.
    """

    observations: Observations
    last: TrialSteps
    happened: Tensor
    begins: Tensor
    noise: Mapping[str, Tensor]
    state: Carry


class Noise(NamedTuple):
    """Noise that a step reads.

    Attributes:
        shape: Shape of the noise at one step.
        kind: Kind of noise: standard normal, or uniform in [0, 1).
        per: Whether it is drawn for every step or once for an episode.
        stream: Number whose bits, by exclusive or with the policy's seed, give the seed of its random stream.
    """

    shape: tuple[int, ...]
    kind: Literal["normal", "uniform"] = "normal"
    per: Literal["step", "episode"] = "step"
    stream: int = 0


class PolicyStep(nn.Module, ABC):
    """One step of a policy in one environment.

    Args:
        interface: Spaces of the policy.
        actions: Map between the policy's actions and the environment's.
        sampling: Whether the policy samples its actions; otherwise it takes the most probable ones.
        state: State of the policy before its first step, each part with one leading axis of length 1.
        reads: Whether it reads what followed its actions.
        noise: Noise that it reads beside the one that actions are sampled with.
        growing: Places of the parts of the state that are longer by one after every step.

    Raises:
        ValueError: if the policy's actions cannot be told from those of the environment.
    """

    def __init__(
        self,
        interface: Interface,
        actions: ActionMap,
        *,
        sampling: bool,
        state: Carry = (),
        reads: Reads = "nothing",
        noise: Mapping[str, Noise] | None = None,
        growing: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if reads != "nothing" and isinstance(actions, Continuous) and not (actions.high > actions.low).all():
            raise ValueError("cannot export a policy that reads its actions while some have equal bounds")
        self.interface, self.actions, self.sampling, self.reads = interface, actions, sampling, reads
        self.state, self.growing = tuple(part.detach().cpu() for part in state), tuple(growing)
        self.noise = {NOISE: Noise(actions.shape, actions.noise), **(noise or {})}

    @abstractmethod
    def decide(self, inputs: StepInputs) -> tuple[AnyDistribution | TanhGaussian, Carry]:
        """The distribution over actions, and the state after the step; all have a leading axis of length 1."""

    def examples(self) -> dict[str, Tensor]:
        """Inputs by name in their order: zeros, and the state before the first step."""
        space = self.interface.action_space
        observation = _examples(self.interface.observation_space)
        inputs = _named("observation", observation)
        if self.reads != "nothing":
            inputs |= _named("previous_observation", observation)
            number = torch.float32 if isinstance(space, spaces.Box) else torch.int64
            inputs["previous_action"] = torch.zeros(space.shape or (), dtype=number)
            inputs["previous_reward"] = torch.zeros(())
            flags = ("previous_terminated", "previous_truncated", "has_previous", "begins_episode")
            inputs |= {flag: torch.zeros((), dtype=torch.bool) for flag in flags}
            inputs |= _named("next_observation", observation)
        inputs |= {name: torch.zeros(noise.shape) for name, noise in self.noise.items()}
        return inputs | {f"state.{place}": part[0] for place, part in enumerate(self.state)}

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Outputs in the order of `output_names` for inputs in the order of `examples`."""
        inputs = {name: value.unsqueeze(0) for name, value in zip(self.examples(), values, strict=True)}
        distribution, state = self.decide(self._inputs(inputs))
        mode, noise = distribution.mode(), inputs[NOISE]
        actions = (self.actions.bounded(mode), self.actions.bounded(distribution.sample(noise)))
        parts = (*actions, *_parameters(distribution).values(), *state)
        return tuple(part.squeeze(0) for part in parts)

    def output_names(self) -> list[str]:
        """Names of the outputs."""
        names = {DiagonalGaussian: ("mean", "std"), Bernoulli: ("log_odds",)}
        parameters = names.get(self.actions.kind, ("log_probabilities",))
        return ["action", "sampled_action", *parameters, *(f"next_state.{n}" for n in range(len(self.state)))]

    def _inputs(self, inputs: Mapping[str, Tensor]) -> StepInputs:
        observations = self._observations(inputs, "observation")
        state = tuple(inputs[f"state.{place}"] for place in range(len(self.state)))
        if self.reads == "nothing":
            none = torch.zeros(1, dtype=torch.bool)
            last = TrialSteps(observations, none, none, none, none, observations)
            return StepInputs(observations, last, none, none, inputs, state)
        last = TrialSteps(
            self._observations(inputs, "previous_observation"),
            self.actions.unbounded(inputs["previous_action"]),
            inputs["previous_reward"],
            inputs["previous_terminated"],
            inputs["previous_truncated"],
            self._observations(inputs, "next_observation"),
        )
        return StepInputs(observations, last, inputs["has_previous"], inputs["begins_episode"], inputs, state)

    def _observations(self, inputs: Mapping[str, Tensor], name: str) -> Observations:
        parts = {part: inputs[_joined(name, part)] for part in space_parts(self.interface.observation_space)}
        return parts.get("", parts)


@runtime_checkable
class ExportableActor(Protocol):
    """An actor of one task whose step is a function of tensors; a user's actor may be one too."""

    def policy_step(self) -> PolicyStep:
        """The step of the policy, from the state that trials start in."""


def _examples(space: spaces.Space[Any]) -> Observations:
    """Zeros of the kinds and shapes that a policy reads of a space."""
    zeros = map_parts(np.zeros_like, as_arrays(space.sample()))
    return map_observations(torch.zeros_like, as_tensors(zeros))


def _named(name: str, observations: Observations) -> dict[str, Tensor]:
    parts = observations if isinstance(observations, dict) else {"": observations}
    # Copies: an export takes the same tensor for the same input.
    return {_joined(name, part): values.clone() for part, values in parts.items()}


def _joined(name: str, part: str) -> str:
    return f"{name}.{part}" if part else name


def _parameters(distribution: AnyDistribution | TanhGaussian) -> dict[str, Tensor]:
    """The parameters by name; those of continuous actions are in units of the policy, before any squashing."""
    if isinstance(distribution, DiagonalGaussian | TanhGaussian):
        mean, log_std = distribution
        return {"mean": mean, "std": log_std.exp().expand_as(mean)}
    if isinstance(distribution, Categorical | MultiCategorical):
        return {"log_probabilities": distribution.log_probs}
    return {"log_odds": distribution.logits}
