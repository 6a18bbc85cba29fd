"""Memory SAC's losses as pure functions of tensors, time first.

Values are in units of the reward, [..., discount] or, of choices, [..., discount, choice]. A member's axis comes
first.
"""

import torch
from torch import Tensor


def choice_values(values: Tensor, log_probs: Tensor, temperature: Tensor | float) -> Tensor:
    """Soft state values, sum over choices of pi (Q - alpha log pi), [..., discount].

    Args:
        values: Q of every choice, [..., discount, choice].
        log_probs: Log probabilities of the choices, [..., choice].
        temperature: Weight alpha of the entropy.
    """
    log_probs = log_probs.unsqueeze(-2)
    return (log_probs.exp() * (values - temperature * log_probs)).sum(-1)


def trial_targets(rewards: Tensor, values: Tensor, follows: Tensor, gammas: Tensor) -> Tensor:
    """r_t + gamma V(t + 1) for every discount, without V where nothing follows, [time, trial, discount].

    Args:
        rewards: Rewards, [time, trial].
        values: Soft values of the state at every step, [time, trial, discount].
        follows: True where the trial goes on after the step, [time, trial]: an episode's end does not end it.
        gammas: Discounts, [discount].
    """
    following = torch.cat((values[1:], torch.zeros_like(values[:1])))
    following = torch.where(follows.unsqueeze(-1), following, torch.zeros_like(following))
    return rewards.unsqueeze(-1) + gammas * following


def learned_steps(mask: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    """The steps that have a target, and those of them that another step follows; both bool [time, trial].

    A step has none that nothing is known of after it: a sequence's last one, unless the trial ends there.

    Args:
        mask: True for real steps, [time, trial].
        ends: True at last steps of trials that nothing comes after, [time, trial].
    """
    follows = torch.cat((mask[1:], torch.zeros_like(mask[:1]))) & mask
    return follows | (ends & mask), follows


def mean_over_steps(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the steps of the mask [time, trial], and over all further axes of values [time, trial, ...]."""
    weights = mask.to(values.dtype)
    per_step = values.flatten(2).mean(2) if values.dim() > 2 else values
    return (per_step * weights).sum() / weights.sum().clamp(min=1)


def critic_loss(values: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error over steps and discounts, summed over members.

    Args:
        values: Values of the actions that were taken, [member, time, trial, discount].
        targets: Targets of all members, in the units of the values, [time, trial, discount].
        mask: True for steps that have a target, [time, trial].
    """
    return mean_over_steps((values - targets).square().sum(0), mask)


def imitation_loss(log_probs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """-log pi(a_t) where a_t is better than the policy's actions (Grigsby et al. 2024, eq. 3), mean over steps.

    Args:
        log_probs: Log probabilities of the actions that were taken, [time, trial].
        advantages: Values of these actions minus those of the policy, [time, trial].
        mask: True for steps that are learned from, [time, trial].
    """
    return -mean_over_steps(log_probs * (advantages > 0), mask)
