"""Memory SAC's networks and the losses of one gradient step on sequences of trials."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from metarl.agents.memory_sac.critics import Critics
from metarl.agents.memory_sac.losses import (
    choice_values,
    critic_loss,
    imitation_loss,
    learned_steps,
    mean_over_steps,
    trial_targets,
)
from metarl.agents.memory_sac.policy import SoftPolicy, SoftPolicyConfig, Trunk
from metarl.learning.losses import temperature_loss
from metarl.learning.trial_replay import Sequences
from metarl.learning.trials import Trials
from metarl.nets.distributions import Categorical, TanhGaussian
from metarl.runs.configs import MOST_LAYERS, check_counts, check_fraction, check_sizes
from metarl.tasks import HasSpaces


@dataclass(frozen=True)
class CriticConfig:
    """Critics of a policy with memory.

    Attributes:
        hidden_sizes: Hidden layer sizes of each critic, which reads the memory's features, the step's inputs and
            the action.
        num_members: Number of critics in the ensemble.
        num_compared: Number of critics, drawn anew for every gradient step, of which the least value counts.
        normalise_values: Values are learned in units of their running mean and spread (PopArt).
        value_rate: Weight of the targets of one gradient step in the running mean and spread.
    """

    hidden_sizes: tuple[int, ...] = (128, 128)
    num_members: int = 2
    num_compared: int = 2
    normalise_values: bool = False
    value_rate: float = 1e-3

    def __post_init__(self) -> None:
        check_sizes(self, "hidden_sizes")
        check_counts(self, "num_members", "num_compared", most=MOST_LAYERS)
        check_fraction(self, "value_rate")
        if self.num_compared > self.num_members:
            raise ValueError(
                f"num_compared must be at most num_members, got {self.num_compared} of {self.num_members}"
            )


class Losses(NamedTuple):
    """The losses of a gradient step, and what else is worth watching; all are single numbers.

    Attributes:
        critic: Loss of the critics.
        actor: Loss of the policy, in units of the normalised value.
        imitation: Loss of the policy on actions that were better than its own; zero if it has no weight.
        temperature: Loss of log alpha; zero if alpha is fixed.
        entropy: Mean entropy of the policy, or its estimate from one action per step.
        value: Mean target of the first discount, in units of the running reward.
    """

    critic: Tensor
    actor: Tensor
    imitation: Tensor
    temperature: Tensor
    entropy: Tensor
    value: Tensor


class Learner(nn.Module):
    """Policy, critics, and slow copies of the critics.

    Args:
        env: Environment of the family, read for its spaces alone.
        policy: Kinds and sizes of the policy.
        critics: Sizes of the critics.
        gammas: Discounts; the policy maximises the value under the first.
        shared_memory: Whether critics read the policy's memory instead of one of their own.
        temperature: Initial temperature alpha.
        generator: Source of the weights.
    """

    gammas: Tensor

    def __init__(
        self,
        env: HasSpaces,
        policy: SoftPolicyConfig,
        critics: CriticConfig,
        gammas: Sequence[float],
        *,
        shared_memory: bool,
        temperature: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self._config = critics
        self.policy = SoftPolicy(env, policy, generator=generator)
        self.trunk = None if shared_memory else Trunk(env, policy, generator=generator)
        self.critics = Critics(
            self.policy.num_features,
            self.policy.actions,
            critics.hidden_sizes,
            num_members=critics.num_members,
            num_discounts=len(gammas),
            generator=generator,
        )
        self.target_trunk, self.target_critics = copy.deepcopy((self.trunk, self.critics))
        for target, _ in self._targets():
            target.requires_grad_(False)
        self.log_temperature = nn.Parameter(torch.tensor(temperature).log())
        self.register_buffer("gammas", torch.tensor(gammas))

    def groups(self) -> list[list[nn.Parameter]]:
        """Parameters that are learned, in groups whose gradients are shortened apart."""
        critics = [*self.critics.parameters(), *(self.trunk.parameters() if self.trunk is not None else ())]
        return [list(self.policy.parameters()), critics, [self.log_temperature]]

    def see(self, trials: Trials) -> None:
        """Take new trials into the running statistics that inputs and rewards are scaled by."""
        for network in (self.policy, self.trunk, self.target_trunk):
            if network is not None:
                network.see(trials)

    def follow(self, rate: float) -> None:
        """Move the slow copies a fraction of the way to the critics."""
        with torch.no_grad():
            for target, network in self._targets():
                torch._foreach_lerp_(list(target.parameters()), list(network.parameters()), rate)

    def _targets(self) -> list[tuple[nn.Module, nn.Module]]:
        pairs: list[tuple[nn.Module, nn.Module]] = [(self.target_critics, self.critics)]
        if self.trunk is not None and self.target_trunk is not None:
            pairs.append((self.target_trunk, self.trunk))
        return pairs

    def losses(
        self,
        sequences: Sequences,
        noise: Tensor,
        compared: Tensor,
        *,
        endless: bool,
        target_entropy: float | None,
        imitates: bool,
    ) -> Losses:
        """The losses on sequences; normalised values take the units of their targets first.

        Args:
            sequences: Steps of trials on the device, [time, trial, ...].
            noise: Standard normal noise of continuous actions, [time, trial, act].
            compared: Members of which the least value counts, int64 [compared].
            endless: Whether trials count as going on after a last step at which a time limit cut them.
            target_entropy: Entropy that the temperature is adjusted to; None leaves the temperature as it is.
            imitates: Whether the loss of imitation is needed.
        """
        trials, policy, alpha = sequences.trials, self.policy, self.log_temperature.detach().exp()
        ends = sequences.ends & trials.terminated if endless else sequences.ends
        learned, follows = learned_steps(trials.mask, ends)
        learned = learned & sequences.learned
        inputs = policy.trial_inputs(trials)
        context, read = policy.read_trials(inputs, trials)
        act = _Acting(policy.distribution(context, read), noise)
        own = features = torch.cat((context, read), -1)
        with torch.no_grad():
            if self.target_trunk is not None:
                own = torch.cat(self.target_trunk.read_trials(inputs, trials), -1)
            values = act.soft_values(self.target_critics, own.detach(), compared, alpha)
            targets = trial_targets(trials.rewards * policy.reward_scale, values, follows, self.gammas)
            if self._config.normalise_values:
                self.critics.rescale(targets, learned, self._config.value_rate, self.target_critics)
        if self.trunk is not None:
            features = torch.cat(self.trunk.read_trials(inputs, trials), -1)
        taken = self.critics(features, policy.actions.encode(trials.actions))
        judged = features.detach()  # the policy is no reason to see states as better ones
        gains = act.soft_values(self.critics, judged, compared, alpha)[..., 0] / self.critics.scale[0]
        entropy = mean_over_steps(act.entropies(), learned)
        zero = entropy.new_zeros(())
        imitation = zero
        if imitates:
            with torch.no_grad():
                better = taken[compared].amin(0)[..., 0]
                better = better - act.soft_values(self.critics, judged, compared, 0.0)[..., 0]
            imitation = imitation_loss(act.distribution.log_prob(trials.actions), better, learned)
        return Losses(
            critic=critic_loss(taken / self.critics.scale, targets / self.critics.scale, learned),
            actor=-mean_over_steps(gains, learned),
            imitation=imitation,
            temperature=(
                zero
                if target_entropy is None
                else temperature_loss(self.log_temperature, -entropy, target_entropy) * learned.any()
            ),
            entropy=entropy.detach(),
            value=mean_over_steps(targets[..., 0], learned),
        )


class _Acting:
    """What the policy does at every step of sequences.

    Args:
        distribution: Distribution over actions at every step.
        noise: Noise that one continuous action per step is made of.
    """

    def __init__(self, distribution: Categorical | TanhGaussian, noise: Tensor) -> None:
        self.distribution = distribution
        if isinstance(distribution, TanhGaussian):
            sampled = distribution.sample_with_log_prob(noise)
            self._actions: Tensor = sampled[0]
            self._log_probs: Tensor = sampled[1]

    def soft_values(
        self, critics: Critics, features: Tensor, compared: Tensor, temperature: Tensor | float
    ) -> Tensor:
        """Soft values of the policy by the least of the compared critics, in units of the reward.

        Gradients reach the policy, not the critics.

        Returns:
            Values, [time, trial, discount].
        """
        if isinstance(self.distribution, Categorical):
            values = critics.of_choices(features, frozen=True)[compared].amin(0)
            return choice_values(values, self.distribution.log_probs, temperature)
        values = critics(features, self._actions, frozen=True)[compared].amin(0)
        soft: Tensor = values - temperature * self._log_probs.unsqueeze(-1)
        return soft

    def entropies(self) -> Tensor:
        """Entropy at every step, [time, trial]; of continuous actions its estimate from one action."""
        if isinstance(self.distribution, Categorical):
            return self.distribution.entropy()
        return -self._log_probs
