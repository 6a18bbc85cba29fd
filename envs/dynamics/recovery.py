"""The number of steps that an agent needs to recover from a change within an episode."""

import numpy as np

from metarl.envs.dynamics.ranges import CHANGE_STEP
from metarl.trajectories import Trajectories


def steps_to_recover(trajectories: Trajectories, *, window: int = 20, tolerance: float = 0.1) -> np.ndarray:
    """Steps from the change of a task until the reward is back, of episodes whose tasks change.

    The reward before is the mean of the `window` steps up to the change. It is back at the first step from which
    the mean of `window` steps is at least that reward less a fraction `tolerance` of its magnitude.

    Args:
        trajectories: Trajectories of tasks with a parameter "change_step".
        window: Number of steps that are averaged, before and after the change.
        tolerance: Allowed loss of reward, a fraction in [0, 1]; 0.1 asks for 90% of a positive reward.

    Returns:
        Number of steps, float64 [task, episode]; 0 if the change did no harm. It is nan if the reward did not
        recover before the episode's end, or fewer than `window` steps were made before the change.

    Raises:
        ValueError: If a task does not change, or the window or tolerance make no sense.
    """
    if window < 1 or not 0.0 <= tolerance <= 1.0:
        raise ValueError(f"window must be at least 1 and tolerance in [0, 1], got {window} and {tolerance}")
    for task in trajectories.tasks:
        if CHANGE_STEP not in dict(task.params):
            raise ValueError(f"a task of family {task.family!r} has no parameter {CHANGE_STEP!r}: nothing changes")
    change = np.array([int(np.asarray(task[CHANGE_STEP]).item()) for task in trajectories.tasks])
    rewards = trajectories.rewards.double().cpu().numpy()
    lengths = trajectories.mask.sum(-1).cpu().numpy()
    num_steps = rewards.shape[-1]
    sums = np.concatenate((np.zeros((*rewards.shape[:2], 1)), rewards.cumsum(-1)), axis=-1)
    if num_steps < window:
        return np.full(rewards.shape[:2], np.nan)
    means = (sums[..., window:] - sums[..., :-window]) / window  # of the window that starts at a step
    starts = np.arange(means.shape[-1])
    before_at = change - window
    usable = (before_at >= 0) & (before_at < len(starts))
    before = means[np.arange(len(change)), :, np.where(usable, before_at, 0)]
    enough = means >= (before - tolerance * np.abs(before))[..., None]
    enough &= (starts >= change[:, None])[:, None] & (starts + window <= lengths[..., None])
    enough &= usable[:, None, None]
    steps: np.ndarray = np.where(enough.any(-1), enough.argmax(-1) - change[:, None], np.nan)
    return steps
