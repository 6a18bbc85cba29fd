"""Shares of a batch: every task is in one of them, with what its episodes depend on."""

import numpy as np
import pytest
import torch

from metarl.agents.maml import AdaptationConfig, AdaptivePolicy, GradientActor, PolicyConfig
from metarl.envs import make_benchmark
from metarl.executors.shares import split


@pytest.mark.parametrize(("count", "sizes"), [(1, [5]), (2, [2, 3]), (3, [1, 2, 2]), (9, [1] * 5)], ids=str)
def test_every_task_keeps_its_seeds_in_its_share(count: int, sizes: list[int]) -> None:
    point = make_benchmark("point")
    tasks = point.train.sample(5, np.random.default_rng(0))
    policy = AdaptivePolicy(
        point.family.make_env(1), PolicyConfig(), AdaptationConfig(), seed=0, device=torch.device("cpu")
    )
    env_seeds, noise_seeds = np.arange(10).reshape(5, 2), np.arange(100, 105)
    shares = split(GradientActor(policy, None), tasks, env_seeds, noise_seeds, count)
    assert [len(share.tasks) for share in shares] == sizes
    assert [task for share in shares for task in share.tasks] == list(tasks)
    assert np.concatenate([share.env_seeds for share in shares]).tolist() == env_seeds.tolist()
    assert np.concatenate([share.noise_seeds for share in shares]).tolist() == noise_seeds.tolist()
