"""Returns, GAE and the linear baseline against arithmetic by hand and numpy."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from metarl.learning.advantages import (
    discounted_returns,
    fit_linear_baseline,
    gae,
    linear_baseline_advantages,
    linear_features,
    normalise,
)
from metarl.trajectories import Trajectories


def test_discounted_returns_by_hand() -> None:
    rewards = torch.tensor([[[1.0, 2.0, 4.0]]])
    # 4; 2 + 0.5 * 4 = 4; 1 + 0.5 * 4 = 3
    assert discounted_returns(rewards, gamma=0.5).tolist() == [[[3.0, 4.0, 4.0]]]


def test_gae_by_hand() -> None:
    rewards = torch.tensor([[[1.0, 2.0]]])
    values = torch.tensor([[[0.5, 1.0, 4.0]]])
    going = torch.zeros(1, 1, 2, dtype=torch.bool)
    # delta_1 = 2 + 0.9 * 4 - 1 = 4.6;  delta_0 = 1 + 0.9 * 1 - 0.5 = 1.4
    # A_1 = 4.6;  A_0 = 1.4 + 0.9 * 0.8 * 4.6 = 4.712
    advantages = gae(rewards, values, going, gamma=0.9, gae_lambda=0.8)
    assert torch.allclose(advantages, torch.tensor([[[4.712, 4.6]]]), atol=1e-6)


def test_truncation_bootstraps_but_termination_does_not() -> None:
    rewards, values = torch.ones(1, 1, 1), torch.tensor([[[0.0, 10.0]]])
    cut = gae(rewards, values, torch.zeros(1, 1, 1, dtype=torch.bool), gamma=0.5, gae_lambda=1.0)
    ended = gae(rewards, values, torch.ones(1, 1, 1, dtype=torch.bool), gamma=0.5, gae_lambda=1.0)
    assert cut.item() == 6.0  # 1 + 0.5 * 10
    assert ended.item() == 1.0


def test_nothing_flows_back_through_a_termination() -> None:
    rewards, values = torch.tensor([[[0.0, 100.0]]]), torch.zeros(1, 1, 3)
    terminated = torch.tensor([[[True, False]]])
    assert gae(rewards, values, terminated, gamma=1.0, gae_lambda=1.0)[0, 0, 0].item() == 0.0


def test_lambda_one_is_return_minus_value() -> None:
    generator = torch.Generator().manual_seed(1)
    rewards = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64)
    values = torch.randn(2, 3, 6, generator=generator, dtype=torch.float64)
    values[..., -1] = 0
    advantages = gae(rewards, values, torch.zeros(2, 3, 5, dtype=torch.bool), gamma=0.9, gae_lambda=1.0)
    assert torch.allclose(advantages, discounted_returns(rewards, gamma=0.9) - values[..., :-1], atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("steps", [1, 2, 37, 64, 100])
def test_the_scan_is_the_loop_over_steps(steps: int, dtype: torch.dtype, tolerance: float) -> None:
    generator = torch.Generator().manual_seed(steps)
    rewards = torch.randn(2, 3, steps, generator=generator, dtype=dtype)
    values = torch.randn(2, 3, steps + 1, generator=generator, dtype=dtype)
    terminated = torch.rand(2, 3, steps, generator=generator) < 0.05
    advantages = gae(rewards, values, terminated, gamma=0.99, gae_lambda=0.95)
    running = torch.zeros(2, 3, dtype=dtype)
    for t in reversed(range(steps)):
        going = (~terminated[..., t]).to(dtype)
        delta = rewards[..., t] + 0.99 * values[..., t + 1] * going - values[..., t]
        running = delta + 0.99 * 0.95 * going * running
        assert torch.allclose(advantages[..., t], running, rtol=tolerance, atol=tolerance)


def test_padding_after_the_end_changes_no_bit() -> None:
    rewards = torch.randn(4, 3, 21, generator=torch.Generator().manual_seed(0))
    longer = torch.nn.functional.pad(rewards, (0, 50))
    assert torch.equal(discounted_returns(longer, gamma=0.9)[..., :21], discounted_returns(rewards, gamma=0.9))


def test_gae_needs_the_bootstrap_value() -> None:
    with pytest.raises(ValueError, match=r"values must have 4 steps \(bootstrap included\), got 3"):
        gae(torch.zeros(1, 1, 3), torch.zeros(1, 1, 3), torch.zeros(1, 1, 3).bool(), gamma=1.0, gae_lambda=1.0)


def test_features_by_hand() -> None:
    observations = torch.tensor([[[[20.0], [-2.0]]]])  # one task, one episode, two steps
    features = linear_features(observations, torch.ones(1, 1, 2, dtype=torch.bool))
    expected = torch.tensor([[10, 100, 0, 0, 0, 1], [-2, 4, 0.01, 1e-4, 1e-6, 1]], dtype=torch.float64)
    assert torch.allclose(features[0, 0], expected, atol=1e-15)


def test_baseline_equals_each_tasks_own_ridge_regression() -> None:
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(3, 4, 5, 6, generator=generator, dtype=torch.float64)
    returns = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64)
    fitted = fit_linear_baseline(features, returns, regularisation=1e-5)
    for task in range(3):
        rows, targets = features[task].reshape(20, 6).numpy(), returns[task].reshape(20).numpy()
        weights = np.linalg.solve(rows.T @ rows + 1e-5 * np.eye(6), rows.T @ targets)
        np.testing.assert_allclose(fitted[task].reshape(20).numpy(), rows @ weights, atol=1e-10)


def test_baseline_survives_collinear_features() -> None:
    features = torch.ones(1, 2, 3, 4, dtype=torch.float64)
    returns = torch.full((1, 2, 3), 7.0)
    assert torch.allclose(fit_linear_baseline(features, returns), returns.double(), atol=1e-4)


def test_baseline_of_experience_that_is_not_finite_names_the_tasks() -> None:
    features = torch.ones(2, 1, 3, 1, dtype=torch.float64)
    features[1, 0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match=r"tasks \[1\]"):
        fit_linear_baseline(features, torch.ones(2, 1, 3))


def test_normalisation_divides_by_the_standard_deviation_not_the_variance() -> None:
    advantages, mask = torch.tensor([[[1.0, 5.0]]]), torch.ones(1, 1, 2, dtype=torch.bool)
    # mean 3, variance 4, standard deviation 2
    assert torch.allclose(normalise(advantages, mask), torch.tensor([[[-1.0, 1.0]]]), atol=1e-6)
    assert torch.allclose(normalise(advantages, mask, "variance"), torch.tensor([[[-0.5, 0.5]]]), atol=1e-6)
    assert torch.equal(normalise(advantages, mask, "none"), advantages)


def test_what_counts_as_no_deviation_is_relative_to_the_rewards() -> None:
    advantages, mask = torch.tensor([[[1.0, 5.0]]]).double(), torch.ones(1, 1, 2, dtype=torch.bool)
    for size in (1e-12, 1e12):
        small = normalise(size * advantages, mask, reward_size=torch.full((1, 1, 1), size).double())
        assert torch.allclose(small, torch.tensor([[[-1.0, 1.0]]]).double(), rtol=1e-7)
    # The rounding of rewards of a million is no advantage.
    noise = normalise(1e-10 * advantages, mask, reward_size=1e6)
    assert noise.abs().max() < 1e-7


@pytest.mark.parametrize("factor", [2.0**-60, 2.0**60])
def test_advantages_do_not_depend_on_the_units_of_rewards(numbered: Trajectories, factor: float) -> None:
    uneven = numbered.rewards * (1 + 0.5 * numbered.rewards.sin())  # which the baseline does not explain
    plain, scaled = (
        linear_baseline_advantages(
            replace(numbered, rewards=uneven * by), numbered.observations, gamma=0.9, gae_lambda=0.9
        )
        for by in (1.0, factor)
    )
    assert plain.abs().max() > 0.5
    assert torch.equal(plain, scaled)


def test_tasks_without_any_reward_have_no_advantages(numbered: Trajectories) -> None:
    rewards = numbered.rewards.clone()
    rewards[0] = 0.0
    advantages = linear_baseline_advantages(
        replace(numbered, rewards=rewards), numbered.observations, gamma=0.9, gae_lambda=0.9
    )
    assert not advantages[0].any()
    assert advantages[1].any()


def test_normalisation_is_per_task_and_ignores_padding() -> None:
    advantages = torch.tensor([[[1.0, 5.0, 99.0]], [[10.0, 10.0, 40.0]]])
    mask = torch.tensor([[[True, True, False]], [[True, True, True]]])
    normal = normalise(advantages, mask)
    assert torch.allclose(normal[0, 0], torch.tensor([-1.0, 1.0, 0.0]), atol=1e-6)
    # mean 20, variance (100 + 100 + 400) / 3 = 200
    assert torch.allclose(normal[1, 0], torch.tensor([-10.0, -10.0, 20.0]) / 200**0.5, atol=1e-6)


def test_advantages_do_not_depend_on_other_tasks(numbered: Trajectories) -> None:
    both = linear_baseline_advantages(numbered, numbered.observations, gamma=0.9, gae_lambda=0.9)
    changed = numbered.rewards.clone()
    changed[1] = -(changed[1] ** 2)
    other = linear_baseline_advantages(
        Trajectories(**{**vars(numbered), "rewards": changed}), numbered.observations, gamma=0.9, gae_lambda=0.9
    )
    assert torch.equal(both[0], other[0])
    assert not torch.allclose(both[1], other[1])
