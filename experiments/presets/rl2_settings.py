"""The RL2 settings that all locomotion experiments share."""

from metarl.agents.rl2.rl2 import Rl2Config
from metarl.agents.rl2.trial_policy import TrialPolicyConfig

# Zintgraf et al. 2020 train RL2 with these discounts and horizons; sizes and step sizes are ours.
LOCOMOTION_RL2 = Rl2Config(
    policy=TrialPolicyConfig(memory_size=128, head_sizes=(128,), normalise_observations=True),
    num_episodes=2,
    gamma=0.97,
    gae_lambda=0.9,
    outer_lr=1e-3,
    final_outer_lr=2e-4,
    entropy_coef=1e-3,
    epochs=6,
    minibatches=2,
    max_grad_norm=0.5,
)
