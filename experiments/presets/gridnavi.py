"""The experiments on GridNavi (Zintgraf et al. 2020)."""

from dataclasses import replace

from metarl.agents.memory_sac import MemorySacConfig, SoftPolicyConfig
from metarl.agents.memory_sac.learner import CriticConfig
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

# With the task observed instead of a belief, PPO with this step size and 16 minibatches returned 43.6 over a trial
# after 20 updates, of 44.3 at best; with 1e-3 and 4 minibatches 14.4. On trials of a random policy the decoder
# named the goal of those who had been there in 5% after 100 Adam steps, in 55% after 200, in all after 300.
VARIBAD = replace(
    varibad(
        RL2,
        BeliefPolicyConfig(
            memory_size=64,
            memory_span=60,
            decoder_sizes=(64, 64),
            head_sizes=(64,),
            normalise_observations=True,
        ),
    ),
    belief_lr=3e-3,
    final_belief_lr=3e-4,
    belief_updates=24,
    belief_replay=0,
    num_posteriors=10,
    num_decoded=20,
)
MEMORY_SAC = MemorySacConfig(
    policy=SoftPolicyConfig(memory_size=64, head_sizes=(64,)),
    critics=CriticConfig(hidden_sizes=(64,)),
    num_episodes=4,
    gamma=0.97,
    num_initial_trials=4,
    num_updates=30,
    batch_size=64,
    target_entropy=0.8,
    final_target_entropy=0.02,
    target_rate=0.01,
    outer_lr=1e-3,
    final_outer_lr=2e-4,
    replay_capacity=1_000_000,
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
    "gridnavi-memory-sac": trials(
        "gridnavi",
        MEMORY_SAC,
        TrainingConfig(iterations=400, meta_batch_size=63, checkpoint_every=20, evaluate_every=0),
        "Ni et al. 2022's memories on soft actor-critic; the trials of gridnavi-rl2, a fifth of its steps",
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
