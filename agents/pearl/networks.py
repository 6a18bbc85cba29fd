"""PEARL's networks, made for an environment's spaces: those that act, and those that judge the actions."""

from dataclasses import dataclass

import torch
from gymnasium.spaces import Box
from torch import Tensor, nn

from metarl.agent import Interface
from metarl.agents.pearl.context import (
    ContextConfig,
    RecurrentEncoder,
    SetEncoder,
    make_inference_network,
    transition_inputs,
)
from metarl.agents.pearl.soft_actor_critic import LatentPolicy, SoftActorCritic
from metarl.learning.reward_scale import RewardScale
from metarl.nets.actions import ActionMap, action_map
from metarl.nets.encoders import FLAT, Encoder
from metarl.observations import describe
from metarl.tasks import HasSpaces
from metarl.trajectories import Observations


@dataclass(frozen=True)
class ActingConfig:
    """Settings of the networks that act.

    Attributes:
        context: Configuration of the inference network.
        hidden_sizes: Hidden layer sizes of the policy.
        normalise_rewards: Whether context rows hold rewards in units of their running scale.
    """

    context: ContextConfig
    hidden_sizes: tuple[int, ...]
    normalise_rewards: bool


class ActingNetworks(nn.Module):
    """The parts of an agent that act: the inference network, the policy and the map to the action bounds.

    Args:
        config: Settings of the networks.
        encoder: Network that infers the latent.
        policy: Policy that acts on the latent.
        observations: Encoder of observations, without weights.
        actions: Action space, bounded.
    """

    def __init__(
        self,
        config: ActingConfig,
        encoder: SetEncoder | RecurrentEncoder,
        policy: LatentPolicy,
        *,
        observations: Encoder,
        actions: ActionMap,
    ) -> None:
        super().__init__()
        self.config, self.encoder, self.policy = config, encoder, policy
        self.observations, self.actions = observations, actions
        self.rewards = RewardScale(running=config.normalise_rewards)
        self.interface = Interface(observations.space, actions.space)

    def context_rows(
        self, observations: Observations, actions: Tensor, rewards: Tensor, next_observations: Observations
    ) -> Tensor:
        """The encoder's inputs for transitions, [..., in]."""
        reads = self.config.context.next_observations
        following = self.observations(next_observations) if reads else None
        return transition_inputs(self.observations(observations), actions, self.rewards(rewards), following)


def make_networks(
    env: HasSpaces, config: ActingConfig, *, temperature: float, generator: torch.Generator
) -> tuple[SoftActorCritic, ActingNetworks]:
    """The actor and critics, and the networks that act, which share the policy with them.

    Args:
        env: Environment of the family, read for its spaces alone.
        config: Settings of the networks; policy, critics and value have the same hidden layers.
        temperature: Initial temperature of the policy's entropy.
        generator: Generator that draws the weights.

    Raises:
        ValueError: If the policy cannot act in these spaces.
    """
    actions, observations, encoder = _parts(env, config, generator)
    learner = SoftActorCritic(
        observations.output_size,
        actions.num_outputs,
        config.context.latent_size,
        config.hidden_sizes,
        temperature=temperature,
        generator=generator,
    )
    return learner, ActingNetworks(config, encoder, learner.policy, observations=observations, actions=actions)


def make_acting_networks(env: HasSpaces, config: ActingConfig, *, generator: torch.Generator) -> ActingNetworks:
    """The networks that act, without critics; the arguments are those of `make_networks`."""
    actions, observations, encoder = _parts(env, config, generator)
    policy = LatentPolicy(
        observations.output_size,
        actions.num_outputs,
        config.context.latent_size,
        config.hidden_sizes,
        generator=generator,
    )
    return ActingNetworks(config, encoder, policy, observations=observations, actions=actions)


def _parts(
    env: HasSpaces, config: ActingConfig, generator: torch.Generator
) -> tuple[ActionMap, Encoder, SetEncoder | RecurrentEncoder]:
    if not isinstance(env.single_action_space, Box):
        raise ValueError(
            f"PEARL takes bounded Box actions, got {describe(env.single_action_space)}; "
            "RL2, MAML-TRPO and ProMP take discrete ones"
        )
    actions = action_map(env.single_action_space, "PEARL")
    observations = FLAT.make(env.single_observation_space, generator)
    sizes = observations.output_size, actions.num_outputs
    return actions, observations, make_inference_network(config.context, *sizes, generator)
