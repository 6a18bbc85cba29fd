"""The experiment on GridNavi (Zintgraf et al. 2020)."""

from metarl.agents.rl2.rl2 import Rl2Config
from metarl.agents.rl2.trial_policy import TrialPolicyConfig
from metarl.experiments.presets.preset import Presets
from metarl.experiments.presets.trials import trials
from metarl.training import TrainingConfig

RL2 = Rl2Config(
    policy=TrialPolicyConfig(memory_size=64),
    num_episodes=4,
    gamma=0.95,
    final_gamma=1.0,
    gae_lambda=0.9,
    outer_lr=3e-3,
    final_outer_lr=1e-4,
    entropy_coef=0.03,
    final_entropy_coef=0.0,
)

GRIDNAVI: Presets = {
    "gridnavi-rl2": trials(
        "gridnavi",
        RL2,
        TrainingConfig(iterations=300, meta_batch_size=420, checkpoint_every=10, evaluate_every=0),
        "Zintgraf et al. 2020, appendix: four episodes of 15 steps, gamma annealed from 0.95 to 1",
        num_tasks=21,
        num_episodes=20,
    ),
}
