"""Steps to recover from a change, by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from metarl.envs.dynamics import steps_to_recover
from metarl.tasks import Task
from metarl.trajectories import Trajectories


def trajectories_of(rewards: list[float], change_step: float, length: int | None = None) -> Trajectories:
    """One episode of one task."""
    num_steps = len(rewards)
    flags = torch.zeros(1, 1, num_steps, dtype=torch.bool)
    mask = torch.arange(num_steps).view(1, 1, -1) < (num_steps if length is None else length)
    return Trajectories(
        tasks=(Task.of("test", change_step=change_step),),
        observations=torch.zeros(1, 1, num_steps, 1),
        actions=torch.zeros(1, 1, num_steps, 1),
        rewards=torch.tensor(rewards).view(1, 1, -1),
        terminated=flags,
        truncated=flags,
        mask=mask,
        last_observations=torch.zeros(1, 1, 1),
        records={},
        infos={},
    )


@pytest.mark.parametrize(
    ("rewards", "change_step", "expected"),
    [
        # Before: 2. Means of two from step 4 on: 0, 0.5, 1.4, 1.9, 2; at least 1.8 first at step 7.
        ([2, 2, 2, 2, 0, 0, 1, 1.8, 2, 2], 4, 3.0),
        ([2, 2, 2, 2, 2, 2, 2, 2, 2, 2], 4, 0.0),  # no harm
        ([2, 2, 2, 2, 0, 0, 1, 1, 1, 2], 4, math.nan),  # not back in time
        # Before: -1, so -1.1 is enough; means of two: -3, -2, -1.05.
        ([-1, -1, -1, -1, -3, -3, -1, -1.1, -1.1, -1.1], 4, 2.0),
        ([2, 2, 2, 2, 0, 0, 2, 2, 2, 2], 1, math.nan),  # one step before the change is no window
        ([2, 2, 2, 2, 0, 0, 2, 2, 2, 2], 50, math.nan),  # the episode ended before the change
    ],
)
def test_steps_to_recover(rewards: list[float], change_step: float, expected: float) -> None:
    found = steps_to_recover(trajectories_of(rewards, change_step), window=2, tolerance=0.1)
    np.testing.assert_array_equal(found, [[expected]])


def test_steps_after_an_episodes_end_are_no_recovery() -> None:
    rewards = [-2.0, -2.0, -2.0, -3.0, -3.0, 0.0, 0.0, 0.0]  # zeros from where it ended on
    assert steps_to_recover(trajectories_of(rewards, 3), window=2)[0, 0] == 1.0
    assert np.isnan(steps_to_recover(trajectories_of(rewards, 3, length=5), window=2)).all()


def test_recovery_from_nothing_is_refused() -> None:
    found = trajectories_of([1.0, 1.0], 1.0)
    with pytest.raises(ValueError, match="has no parameter 'change_step': nothing changes"):
        steps_to_recover(replace(found, tasks=(Task.of("test", tilt=1.0),)))
    with pytest.raises(ValueError, match="window must be at least 1 and tolerance in"):
        steps_to_recover(found, window=0)
