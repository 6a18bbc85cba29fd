"""A memory learns to keep a sign along a corridor, and a policy without one cannot."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from metarl.agents.rl2.rl2 import Rl2
from metarl.agents.rl2.trial_policy import TrialPolicyConfig
from metarl.envs import make_benchmark
from metarl.evaluation import adaptation_curve
from metarl.experiments.presets.tmaze import RL2
from metarl.workers import EnvMaker, Workers


def success(policy: TrialPolicyConfig) -> float:
    """The success rate on a corridor of five steps after 60 updates."""
    benchmark = make_benchmark("tmaze-5")
    config = replace(RL2, policy=policy, final_outer_lr=None)
    agent = Rl2(benchmark.family.make_env(1), config, iterations=60, seed=0, device=torch.device("cpu"))
    rng = np.random.default_rng(0)
    with Workers(EnvMaker(benchmark.family), num_threads=1) as workers:
        for _ in range(60):
            agent.update(agent.collect(workers, benchmark.train.sample(100, rng), rng))
        tasks = benchmark.test.sample(2, rng)
        curve = adaptation_curve(agent.actor(), workers, tasks, rng, num_steps=0, num_episodes=50)
    assert curve.successes is not None
    return float(curve.successes.mean())


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["gru", "none"])
def test_only_a_memory_keeps_the_sign(memory: str) -> None:
    policy = TrialPolicyConfig(memory=memory, memory_size=64, memory_span=5 if memory == "gru" else None)  # type: ignore[arg-type]
    rate = success(policy)
    if memory == "gru":
        assert rate > 0.95
    else:  # turns by chance
        assert 0.2 < rate < 0.8
