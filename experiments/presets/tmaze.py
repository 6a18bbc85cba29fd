"""The experiments on T-mazes: how long a memory lasts."""

from dataclasses import replace

from metarl.agents.rl2.rl2 import Rl2Config
from metarl.agents.rl2.trial_policy import TrialPolicyConfig
from metarl.experiments.presets.preset import Presets
from metarl.experiments.presets.trials import trials
from metarl.training import TrainingConfig

RL2 = Rl2Config(
    policy=TrialPolicyConfig(memory_size=64, memory_span=100),
    num_episodes=1,
    gamma=1.0,
    gae_lambda=0.95,
    outer_lr=1.5e-3,
    final_outer_lr=1e-4,
    entropy_coef=0.05,
    final_entropy_coef=0.0,
)

LONG = replace(
    RL2,
    policy=TrialPolicyConfig(head_sizes=(64,), normalise_observations=True, memory="splagger", memory_size=64),
    final_outer_lr=3e-4,
    epochs=4,
    minibatches=2,
    max_grad_norm=0.5,
)

TMAZE: Presets = {
    "tmaze-100-rl2": trials(
        "tmaze-100",
        RL2,
        TrainingConfig(iterations=120, meta_batch_size=200, checkpoint_every=10, evaluate_every=0),
        "Ni et al. 2023: a GRU that begins remembering for as long as the corridor",
        num_tasks=2,
        num_episodes=100,
    ),
    "tmaze-500-rl2": trials(
        "tmaze-500",
        LONG,
        TrainingConfig(iterations=120, meta_batch_size=100, checkpoint_every=10, evaluate_every=0),
        "Beck et al. 2024 (SplAgger): half of the memory's features are their greatest so far",
        num_tasks=2,
        num_episodes=100,
    ),
}
