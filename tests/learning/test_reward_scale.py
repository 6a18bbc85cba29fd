"""The running scale of rewards, by hand."""

import pytest
import torch

from metarl.learning.reward_scale import RewardScale


def test_the_scale_is_one_over_the_root_mean_square_of_all_rewards_but_zeros() -> None:
    rewards = RewardScale(running=True)
    assert rewards(torch.tensor([7.0])).tolist() == [0.0]  # no unit is known
    rewards.read(torch.tensor([[3.0, 0.0], [0.0, 5.0]]))
    # (9 + 25) / 2 = 17
    assert float(rewards.scale) == pytest.approx(17**-0.5)
    rewards.read(torch.tensor([1.0]))
    # (9 + 25 + 1) / 3
    assert float(rewards.scale) == pytest.approx((35 / 3) ** -0.5)
    assert rewards(torch.tensor([2.0])).item() == pytest.approx(2 * (35 / 3) ** -0.5)


def test_zeros_leave_the_scale_as_it_is() -> None:
    rewards = RewardScale(running=True)
    rewards.read(torch.zeros(9))
    assert float(rewards.scale) == 0.0
    rewards.read(torch.tensor([4.0]))
    rewards.read(torch.zeros(9))
    assert float(rewards.scale) == 0.25


def test_a_scale_that_is_not_running_stays_one() -> None:
    rewards = RewardScale(running=False)
    rewards.read(torch.tensor([1e6]))
    assert rewards(torch.tensor([3.0])).tolist() == [3.0]
