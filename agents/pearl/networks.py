"""PEARL's networks, made for an environment's spaces: those that act, and those that judge the actions."""

from collections.abc import Sequence

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
from metarl.tasks import TaskEnv
from metarl.trajectories import Observations


class ActingNetworks(nn.Module):
    """The parts of an agent that act: the inference network, the policy and the map to the action bounds.

    Args:
        encoder: Network that infers the latent.
        policy: Policy that acts on the latent.
        next_observations: Whether context rows hold the next observation.
        observations: Encoder of observations, without weights.
        actions: Action space, bounded.
        normalise_rewards: Whether context rows hold rewards in units of their running scale.
    """

    def __init__(
        self,
        encoder: SetEncoder | RecurrentEncoder,
        policy: LatentPolicy,
        *,
        next_observations: bool,
        observations: Encoder,
        actions: ActionMap,
        normalise_rewards: bool,
    ) -> None:
        super().__init__()
        self.encoder, self.policy, self.next_observations = encoder, policy, next_observations
        self.observations, self.actions = observations, actions
        self.rewards = RewardScale(running=normalise_rewards)
        self.interface = Interface(observations.space, actions.space)

    def context_rows(
        self, observations: Observations, actions: Tensor, rewards: Tensor, next_observations: Observations
    ) -> Tensor:
        """The encoder's inputs for transitions, [..., in]."""
        following = self.observations(next_observations) if self.next_observations else None
        return transition_inputs(self.observations(observations), actions, self.rewards(rewards), following)


def make_networks(
    env: TaskEnv,
    context: ContextConfig,
    hidden_sizes: Sequence[int],
    *,
    temperature: float,
    normalise_rewards: bool,
    generator: torch.Generator,
) -> tuple[SoftActorCritic, ActingNetworks]:
    """The actor and critics, and the networks that act, which share the policy with them.

    Args:
        env: Environment of the family, read for its spaces alone.
        context: Configuration of the inference network.
        hidden_sizes: Hidden layer sizes of policy, critics and value.
        temperature: Initial temperature of the policy's entropy.
        normalise_rewards: Whether the context's rewards are in units of their running scale.
        generator: Generator that draws the weights.

    Raises:
        ValueError: If the policy cannot act in these spaces.
    """
    if not isinstance(env.single_action_space, Box):
        raise ValueError(
            f"PEARL takes bounded Box actions, got {describe(env.single_action_space)}; "
            "RL2, MAML-TRPO and ProMP take discrete ones"
        )
    actions = action_map(env.single_action_space, "PEARL")
    observations = FLAT.make(env.single_observation_space, generator)
    obs_size, act_size = observations.output_size, actions.num_outputs
    encoder = make_inference_network(context, obs_size, act_size, generator)
    learner = SoftActorCritic(
        obs_size,
        act_size,
        context.latent_size,
        hidden_sizes,
        temperature=temperature,
        generator=generator,
    )
    acting = ActingNetworks(
        encoder,
        learner.policy,
        next_observations=context.next_observations,
        observations=observations,
        actions=actions,
        normalise_rewards=normalise_rewards,
    )
    return learner, acting
