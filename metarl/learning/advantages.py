"""Returns, generalised advantage estimates, and the linear feature baseline, for all tasks at once."""

from typing import Literal

import torch
from torch import Tensor

from metarl.trajectories import Trajectories

Normalisation = Literal["std", "variance", "none"]

_TINY = 1e-100  # keeps a size of zero out of divisions


def discounted_returns(rewards: Tensor, *, gamma: float) -> Tensor:
    """Discounted sum of the rewards from each step on, same shape as the rewards [..., time]."""
    return _sums_from_the_end(rewards, torch.full_like(rewards, gamma))


def _sums_from_the_end(values: Tensor, factors: Tensor) -> Tensor:
    """x_t = values_t + factors_t x_{t+1}, zero after the last step; all of shape [..., time].

    A scan by doubling (Blelloch 1990): after round k, x_t holds the terms of the next 2^k steps, and products_t
    the product of their factors: log2(time) operations on whole arrays instead of one small operation per step.
    """
    sums, products, reach = values, factors, 1
    while reach < values.shape[-1]:
        later = torch.nn.functional.pad(sums[..., reach:], (0, reach))
        sums = sums + products * later
        products = products * torch.nn.functional.pad(products[..., reach:], (0, reach))
        reach *= 2
    return sums


def gae(rewards: Tensor, values: Tensor, terminated: Tensor, *, gamma: float, gae_lambda: float) -> Tensor:
    """Generalised advantage estimates (Schulman et al. 2016, eq. 16; arXiv:1506.02438).

    Args:
        rewards: Rewards r_t, shape [task, episode, time].
        values: Values V(s_t) for t = 0..T, one step longer than the rewards, shape [task, episode, time + 1]. The
            last value is the bootstrap; zero counts a time limit as an end, as the MAML literature does.
        terminated: True where the MDP ended at t; a time limit is not an end. Same shape as the rewards.
        gamma: Discount per environment step, in [0, 1].
        gae_lambda: Weight of longer estimates (lambda), in [0, 1]; 1 gives Monte-Carlo advantages.

    Returns:
        Advantages A_t, not normalised, shape [task, episode, time].

    Raises:
        ValueError: If values is not one step longer than rewards.
    """
    steps = rewards.shape[-1]
    if values.shape != (*rewards.shape[:-1], steps + 1):
        raise ValueError(f"values must have {steps + 1} steps (bootstrap included), got {values.shape[-1]}")
    going = (~terminated).to(rewards.dtype)
    deltas = rewards + gamma * values[..., 1:] * going - values[..., :-1]
    return _sums_from_the_end(deltas, gamma * gae_lambda * going)


def linear_features(observations: Tensor, mask: Tensor) -> Tensor:
    """Features of the linear baseline (Duan et al. 2016): o, o^2, t, t^2, t^3, 1, with o clipped to +-10.

    Args:
        observations: Observations o_t, shape [task, episode, time, obs].
        mask: True for real steps; the features of all others are zero, [task, episode, time].

    Returns:
        Float64 features with t in units of 100 steps, shape [task, episode, time, 2 obs + 4].
    """
    clipped = observations.double().clamp(-10, 10)
    time = torch.arange(observations.shape[2], dtype=torch.float64, device=observations.device) / 100
    powers = torch.stack((time, time**2, time**3, torch.ones_like(time)), dim=-1)
    powers = powers.expand(*observations.shape[:2], *powers.shape)
    return torch.cat((clipped, clipped**2, powers), dim=-1) * mask.unsqueeze(-1)


def fit_linear_baseline(features: Tensor, returns: Tensor, *, regularisation: float = 1e-5) -> Tensor:
    """Predictions of each task's ridge regression of the returns on the features.

    All tasks are solved at once, in float64. If the normal equations cannot be factorised, the ridge is
    multiplied by ten, up to five times, as the reference codes do.

    Args:
        features: Features of every step, zero outside the mask, shape [task, episode, time, feature].
        returns: Discounted returns, zero outside the mask, [task, episode, time].
        regularisation: Ridge coefficient.

    Returns:
        Predicted returns, float64 [task, episode, time].

    Raises:
        FloatingPointError: If no ridge makes the equations solvable: observations or rewards are not finite.
    """
    rows = features.flatten(1, 2)  # [task, episode * time, feature]
    gram = rows.transpose(1, 2) @ rows
    moments = rows.transpose(1, 2) @ returns.double().flatten(1, 2).unsqueeze(-1)
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    for power in range(6):
        factor, failed = torch.linalg.cholesky_ex(gram + regularisation * 10**power * eye)
        if not failed.any():
            weights = torch.cholesky_solve(moments, factor)
            return (rows @ weights).squeeze(-1).view(returns.shape)
    tasks = failed.nonzero().flatten().tolist()
    raise FloatingPointError(
        f"the baseline cannot be fitted on tasks {tasks} of the batch: experience is not finite"
    )


def normalise(
    advantages: Tensor, mask: Tensor, kind: Normalisation = "std", *, reward_size: Tensor | float = 1.0
) -> Tensor:
    """Advantages with each task's mean removed and its scale set to one, zero outside the mask.

    Args:
        advantages: Advantages of all steps, shape [task, episode, time].
        mask: True for real steps, shape [task, episode, time].
        kind: Divisor of the centred advantages: "std" is the standard deviation. "variance" is the variance, as in
            garage and metaworld-algorithms, to reproduce their numbers: with it learning depends on the units of
            rewards. "none" neither centres nor divides.
        reward_size: Size of the rewards, in units of which standard deviations below 1e-8 count as none; a number,
            or one per task, [task, 1, 1].
    """
    if kind == "none":
        return advantages * mask
    count = mask.sum((1, 2), keepdim=True).clamp(min=1)
    mean = (advantages * mask).sum((1, 2), keepdim=True) / count
    centred = (advantages - mean) * mask
    variance = centred.square().sum((1, 2), keepdim=True) / count
    if kind == "variance":
        return centred / (variance + 1e-8)
    return centred / (variance.sqrt() + 1e-8 * reward_size)


def linear_baseline_advantages(
    trajectories: Trajectories,
    observations: Tensor,
    *,
    gamma: float,
    gae_lambda: float,
    normalisation: Normalisation = "std",
) -> Tensor:
    """Normalised advantages against a linear baseline fitted to each task's own episodes.

    The baseline predicts the episodes that it was fitted on. Its value after the last step is zero, even at a
    time limit: the finite-horizon convention of the MAML literature, in which t is part of the features.

    Args:
        trajectories: Rewards, flags and mask.
        observations: Encoded observations, [task, episode, time, feature].
        gamma: Discount factor per environment step, in [0, 1].
        gae_lambda: Weight of longer estimates, in [0, 1].
        normalisation: Divisor of the centred advantages.

    Returns:
        Float32 advantages, zero outside the mask, shape [task, episode, time].
    """
    mask = trajectories.mask.double()
    rewards = trajectories.rewards.double() * mask
    returns = discounted_returns(rewards, gamma=gamma)
    features = linear_features(observations, trajectories.mask)
    finite = torch.isfinite(features).flatten(1).all(1) & torch.isfinite(returns).flatten(1).all(1)
    if not finite.all():
        index = int((~finite).nonzero()[0])
        raise FloatingPointError(f"experience of task {index}, {trajectories.tasks[index]}, is not finite")
    values = fit_linear_baseline(features, returns)
    values = torch.nn.functional.pad(values, (0, 1))  # zero features predict zero: so it is outside the mask
    advantages = gae(rewards, values, trajectories.terminated, gamma=gamma, gae_lambda=gae_lambda)
    count = mask.sum((1, 2), keepdim=True).clamp(min=1)
    # Relative to the rewards, so that learning does not depend on their units.
    reward_size = (rewards.square().sum((1, 2), keepdim=True) / count).sqrt().clamp(min=_TINY)
    return normalise(advantages, trajectories.mask, normalisation, reward_size=reward_size).float()
