"""Metrics of training batches: which episodes count as adapted, and one column per family."""

from dataclasses import replace

import pytest
import torch

from metarl.learning.adaptation_metrics import adaptation_metrics
from metarl.tasks import Task
from metarl.trajectories import Trajectories

TASKS = tuple(Task.of(f"meta-world/{name}", goal=0.0) for name in ("reach-v3", "push-v3", "reach-v3"))


def _trajectories(success: bool) -> Trajectories:
    """Three tasks, two episodes of four and of two steps, whose rewards are their numbers."""
    numbers = torch.arange(24.0).view(3, 2, 4)
    mask = torch.ones(3, 2, 4, dtype=torch.bool)
    mask[:, 1, 2:] = False
    never = torch.zeros_like(mask)
    reached = torch.zeros(3, 2, 4)
    reached[0, 1, 1] = reached[1, 0, 3] = 1.0
    reached[2, 1, 3] = 1.0  # after its end
    return Trajectories(
        tasks=TASKS,
        observations=numbers.unsqueeze(-1),
        actions=numbers.unsqueeze(-1),
        rewards=numbers * mask,
        terminated=never,
        truncated=never,
        mask=mask,
        last_observations=torch.zeros(3, 2, 1),
        records={},
        infos={"success": reached} if success else {},
    )


def test_every_family_of_a_batch_has_its_own_success() -> None:
    both = _trajectories(success=True)
    metrics = adaptation_metrics(both, both, before=slice(1), after=slice(-1, None))
    assert metrics == pytest.approx(
        {
            "train/return_pre": (6 + 38 + 70) / 3,
            "train/return_post": (9 + 25 + 41) / 3,
            "train/episode_length": 3.0,
            "train/success_post": 1 / 3,
            "train/success_post/push-v3": 0.0,
            "train/success_post/reach-v3": 0.5,
        }
    )


def test_without_successes_every_family_has_its_own_return() -> None:
    both = _trajectories(success=False)
    metrics = adaptation_metrics(both, both)
    assert metrics["train/return_post/push-v3"] == pytest.approx((38 + 25) / 2)
    assert metrics["train/return_post/reach-v3"] == pytest.approx((6 + 9 + 70 + 41) / 4)
    assert not any("success" in name for name in metrics)


def test_a_batch_of_one_family_has_no_column_of_it() -> None:
    one = replace(_trajectories(success=True), tasks=(TASKS[0],) * 3)
    assert set(adaptation_metrics(one, one)) == {
        "train/return_pre",
        "train/return_post",
        "train/episode_length",
        "train/success_post",
    }
