"""The experiments on MiniGrid: memory within an episode."""

from metarl.agents.rl2.rl2 import Rl2Config
from metarl.agents.rl2.trial_policy import TrialPolicyConfig
from metarl.experiments.presets.preset import Presets
from metarl.experiments.presets.trials import trials
from metarl.nets.encoders import EncoderConfig
from metarl.training import TrainingConfig

RL2 = Rl2Config(
    policy=TrialPolicyConfig(memory_size=128, memory_span=20, encoder=EncoderConfig(images="mlp")),
    num_episodes=1,
    gamma=0.99,
    gae_lambda=0.95,
    outer_lr=1e-3,
    final_outer_lr=1e-4,
    entropy_coef=0.02,
    final_entropy_coef=0.0,
)

MINIGRID: Presets = {
    "minigrid-memorys7-rl2": trials(
        "minigrid-memorys7+new-layouts+one-hot",
        RL2,
        TrainingConfig(iterations=400, meta_batch_size=400, checkpoint_every=10, evaluate_every=0),
        "Chevalier-Boisvert et al. 2023's memory task: remember an object, go to its like",
        num_tasks=1,
        num_episodes=100,
    ),
}
