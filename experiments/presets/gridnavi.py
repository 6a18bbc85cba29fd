"""The experiments on GridNavi (Zintgraf et al. 2020)."""

from dataclasses import replace

from metarl.agents.rl2.rl2 import Rl2Config
from metarl.agents.rl2.trial_policy import TrialPolicyConfig
from metarl.agents.varibad.network import BeliefPolicyConfig
from metarl.experiments.presets.preset import Presets
from metarl.experiments.presets.trials import trials
from metarl.experiments.presets.varibad import SOURCE, varibad
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

VARIBAD = replace(
    varibad(RL2, BeliefPolicyConfig(memory_size=64, memory_span=60, decoder_sizes=(64, 64), head_sizes=(64,))),
    outer_lr=1e-3,
    minibatches=4,
    belief_lr=3e-3,
    num_posteriors=20,
    num_decoded=30,
    kl_coef=0.01,
)
_TRAINING = TrainingConfig(iterations=300, meta_batch_size=420, checkpoint_every=10, evaluate_every=0)

GRIDNAVI: Presets = {
    "gridnavi-rl2": trials(
        "gridnavi",
        RL2,
        _TRAINING,
        "Zintgraf et al. 2020, appendix: four episodes of 15 steps, gamma annealed from 0.95 to 1",
        num_tasks=21,
        num_episodes=20,
    ),
    "gridnavi-hyper-rl2": trials(
        "gridnavi",
        replace(RL2, policy=replace(RL2.policy, head_sizes=(32,), hypernetwork="bias-hyperinit")),
        _TRAINING,
        "Beck et al. 2023: the memory writes the policy's weights; settings of gridnavi-rl2",
        num_tasks=21,
        num_episodes=20,
    ),
    "gridnavi-varibad": trials(
        "gridnavi",
        VARIBAD,
        _TRAINING,
        SOURCE,
        num_tasks=21,
        num_episodes=20,
    ),
}
