"""Losses of all algorithms as pure functions of tensors.

Policy losses map log probabilities and advantages to one loss per task. Arrays are [task, row]; a row is one
step of one episode. The mask multiplies, and a task's mean is over its real steps. Soft actor-critic's losses are
means over all rows, whatever their shape.
"""

from torch import Tensor, arange, exp, where


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over a task's real steps, [task, row] to [task]."""
    weights = mask.to(values.dtype)
    return (values * weights).sum(1) / weights.sum(1).clamp(min=1)


def policy_gradient_loss(log_probs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """-E[log pi(a|s) A], the REINFORCE surrogate (Williams 1992), [task]."""
    return -masked_mean(log_probs * advantages, mask)


def ratio_loss(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """-E[pi(a|s) / pi_old(a|s) A], [task].

    At pi = pi_old it has the gradient of the REINFORCE surrogate and the Hessian of the low-variance curvature
    estimator (Rothfuss et al. 2019, arXiv:1810.06784, eq. 8): the surrogate to differentiate twice.
    """
    return -masked_mean(exp(log_probs - old_log_probs) * advantages, mask)


def dice_loss(log_probs: Tensor, advantages: Tensor, mask: Tensor, steps: Tensor) -> Tensor:
    """-E[(box(a_0 ... a_t) - box(a_0 ... a_t-1)) A], loaded DiCE (Farquhar et al. 2019, arXiv:1909.10549), [task].

    box(a) = exp(sum log pi(a) - the same, not differentiated) is 1. The gradient is that of the REINFORCE
    surrogate, and the expected Hessian is that of the expected return, whatever baseline the advantages have. With
    returns to go as advantages it is DiCE (Foerster et al. 2018, arXiv:1802.05098).

    Args:
        log_probs: Log probabilities of the actions, [task, row]; the steps of an episode follow one another.
        advantages: Advantages, [task, row].
        mask: True for the real steps, [task, row].
        steps: Number of each row's step in its episode, from 0 on, [task, row].
    """
    taken = log_probs * mask
    through = taken.cumsum(1)
    before = through - taken
    starts = (arange(taken.shape[1], device=taken.device) - steps).expand_as(steps)
    so_far = before.gather(1, starts)  # of earlier episodes
    boxes = _box(through - so_far) - _box(before - so_far)
    return -masked_mean(boxes * advantages, mask)


def _box(log_probs: Tensor) -> Tensor:
    """DiCE's magic box: 1, with the gradient of the log probabilities."""
    return exp(log_probs - log_probs.detach())


def clipped_surrogate(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clip_ratio: float) -> Tensor:
    """PPO's clipped surrogate of every step (Schulman et al. 2017, arXiv:1707.06347, eq. 7), to be maximised."""
    ratio = exp(log_probs - old_log_probs)
    clipped = ratio.clamp(1 - clip_ratio, 1 + clip_ratio)
    return (ratio * advantages).minimum(clipped * advantages)


def clipped_ratio_loss(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, mask: Tensor, *, clip_ratio: float
) -> Tensor:
    """Minus the mean of PPO's clipped surrogate, [task]."""
    return -masked_mean(clipped_surrogate(log_probs, old_log_probs, advantages, clip_ratio), mask)


def bellman_targets(rewards: Tensor, terminated: Tensor, next_values: Tensor, *, gamma: float) -> Tensor:
    """r + gamma V(s'), without V(s') where the MDP ended; a time limit is not an end. All [...]."""
    return where(terminated > 0, rewards, rewards + gamma * next_values)


def critic_loss(values: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error of each critic, summed over the critics.

    Args:
        values: Action values Q(s, a), [critic, ...].
        targets: Targets of all critics, [...].
    """
    return (values - targets).square().flatten(1).mean(1).sum()


def soft_values(values: Tensor, log_probs: Tensor, temperature: Tensor | float) -> Tensor:
    """min_i Q_i(s, a) - alpha log pi(a|s) (Haarnoja et al. 2018, arXiv:1801.01290, eq. 3), [...].

    The actor maximises its mean, and a value network regresses on it.

    Args:
        values: Values Q(s, a) of actions drawn from the policy, [critic, ...].
        log_probs: Log probabilities of these actions, log pi(a|s), [...].
        temperature: Weight alpha of the entropy, positive.
    """
    return values.amin(0) - temperature * log_probs


def temperature_loss(log_temperature: Tensor, log_probs: Tensor, target_entropy: float) -> Tensor:
    """-log alpha (log pi + target) (Haarnoja et al. 2018b, arXiv:1812.05905, section 5).

    The temperature alpha rises while the policy's entropy is below the target, and falls while it is above.
    """
    return -(log_temperature * (log_probs.detach() + target_entropy)).mean()
