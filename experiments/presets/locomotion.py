"""The experiments on MuJoCo's robots that walk at another speed, into another direction or to another place."""

from dataclasses import replace

from metarl.agent import AgentConfig
from metarl.agents.es_maml import EsAdaptationConfig, EsMamlConfig
from metarl.agents.maml import AdaptationConfig
from metarl.agents.maml_trpo import MamlTrpoConfig
from metarl.agents.memory_sac import MemorySacConfig, SoftPolicyConfig
from metarl.agents.memory_sac.learner import CriticConfig
from metarl.agents.pearl.pearl import PearlConfig
from metarl.agents.promp import PrompConfig
from metarl.agents.rl2.rl2 import Rl2Config
from metarl.agents.rl2.trial_policy import TrialPolicyConfig
from metarl.agents.trials.ppo import TrialPpoConfig
from metarl.agents.varibad.network import BeliefPolicyConfig
from metarl.experiments.configuration import Experiment
from metarl.experiments.presets.off_policy import cpu_sized, off_policy
from metarl.experiments.presets.preset import Preset, Presets, experiment_preset
from metarl.experiments.presets.trials import trials
from metarl.experiments.presets.varibad import SOURCE as VARIBAD_SOURCE
from metarl.experiments.presets.varibad import varibad
from metarl.training import EvaluationConfig, TrainingConfig

# The literature uses Monte-Carlo advantages. With gae_lambda 0.95 the same number of steps teaches more than twice
# as much (see AdaptationConfig.gae_lambda); `--agent.adaptation.gae-lambda 1` is as published.
ADAPTATION = AdaptationConfig(gae_lambda=0.95)
# Zintgraf et al. 2020 train RL2 with these discounts and horizons; sizes and step sizes are ours.
RL2 = Rl2Config(
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
RL2_SOURCE = "RL2 as in Zintgraf et al. 2020: two episodes of 200 steps, gamma 0.97, lambda 0.9"
VARIBAD = varibad(
    RL2,
    BeliefPolicyConfig(
        memory_size=128, embedding_size=64, memory_span=100, head_sizes=(128, 128), normalise_observations=True
    ),
)
# Ni et al. 2022 learn from whole trials of 400 steps; sizes and step sizes are ours, for a CPU. Half-cheetah-vel
# comes to -53 in 0.6 million steps; without the burn-in, with half as many updates, it is at -200 there.
MEMORY_SAC = MemorySacConfig(
    policy=SoftPolicyConfig(memory_size=64, head_sizes=(128,), normalise_observations=True, read_actions=False),
    critics=CriticConfig(hidden_sizes=(128, 128)),
    num_episodes=2,
    gamma=0.97,
    endless_trials=True,
    num_updates=200,
    batch_size=32,
    sequence_length=40,
    burn_in=10,
    temperature=0.02,
    target_entropy=-1.0,
    outer_lr=1e-3,
    final_outer_lr=3e-4,
    target_rate=0.02,
    replay_capacity=2_000_000,
)
# Linear policies and hill climbing as in Song et al. 2020; sizes and step sizes are ours.
ES_MAML = EsMamlConfig(adaptation=EsAdaptationConfig(num_episodes=5), outer_lr=0.01, outer_std=0.05)
ES_TRAINING = TrainingConfig(iterations=400, meta_batch_size=40, checkpoint_every=10, evaluate_every=40)
# Rakelly et al. 2019's settings, see `metarl.experiments.presets.off_policy`.
_VELOCITY_PEARL = PearlConfig()
SMALL_PEARL = replace(
    cpu_sized(_VELOCITY_PEARL, hidden_size=256, encoder_size=128, batch_size=64),
    num_updates=1000,
    target_rate=0.005,
)
_DIRECTION_PEARL = PearlConfig(
    num_prior_episodes=5,
    num_extra_episodes=5,
    update_tasks=4,
    context_size=256,
    kl_coef=0.4,
    replay_capacity=1_000_000,
)


def _published(
    benchmark: str, agent: AgentConfig, source: str, evaluation: EvaluationConfig | None = None
) -> Preset[Experiment]:
    """A locomotion experiment with the published 1,000 iterations of 40 tasks."""
    return experiment_preset(benchmark, agent, TrainingConfig(iterations=1000), evaluation, source)


def _trials(benchmark: str, agent: TrialPpoConfig, source: str = RL2_SOURCE) -> Preset[Experiment]:
    """An experiment on trials of two episodes of 200 steps, 80 per iteration."""
    training = TrainingConfig(iterations=400, meta_batch_size=80, evaluate_every=50)
    return trials(benchmark, agent, training, source, num_tasks=40, num_episodes=5, horizon=200)


QUICKSTART: Presets = {
    "quickstart": experiment_preset(
        "half-cheetah-dir",
        PrompConfig(adaptation=ADAPTATION),
        TrainingConfig(iterations=25, meta_batch_size=20, evaluate_every=0),
        EvaluationConfig(num_tasks=20, num_steps=1, num_episodes=20),
        "half-cheetah-dir-promp, shortened to take minutes on two cores",
    ),
}

LOCOMOTION: Presets = {
    "half-cheetah-dir-promp": experiment_preset(
        "half-cheetah-dir",
        PrompConfig(adaptation=ADAPTATION),
        TrainingConfig(iterations=250, meta_batch_size=20, evaluate_every=25),
        None,
        "Rothfuss et al. 2019, appendix, with gae_lambda 0.95 and 20 tasks; 20 million environment steps",
    ),
    "half-cheetah-dir-maml-ppo": _published(
        "half-cheetah-dir",
        PrompConfig(adaptation=ADAPTATION, inner_kl_coef=0.0),
        "ProMP without its inner KL penalty",
    ),
    "half-cheetah-dir-maml-trpo": _published(
        "half-cheetah-dir",
        MamlTrpoConfig(adaptation=ADAPTATION, fisher_fraction=0.2),
        "MAML-TRPO, settings of Rothfuss et al. 2019 with gae_lambda 0.95, Fisher matrix on a fifth of the steps",
    ),
    "half-cheetah-dir-es-maml": experiment_preset(
        "half-cheetah-dir",
        ES_MAML,
        ES_TRAINING,
        EvaluationConfig(10, 2, ES_MAML.adaptation.num_episodes, deterministic=True),
        "Song et al. 2020's algorithm with hill climbing and linear policies; sizes are ours",
    ),
    "half-cheetah-dir-rl2": _trials("half-cheetah-dir", RL2),
    "half-cheetah-dir-varibad": _trials("half-cheetah-dir", VARIBAD, VARIBAD_SOURCE),
    "half-cheetah-dir-pearl": off_policy(
        "half-cheetah-dir",
        _DIRECTION_PEARL,
        "Rakelly et al. 2019: forward and backward, 200 steps",
        train_tasks=None,
        test_tasks=2,
        num_trials=4,
        horizon=200,
    ),
    "half-cheetah-vel-promp": _published(
        "half-cheetah-vel",
        PrompConfig(adaptation=ADAPTATION),
        "Rothfuss et al. 2019, appendix, with gae_lambda 0.95",
    ),
    "half-cheetah-vel-rl2": _trials("half-cheetah-vel", RL2),
    "half-cheetah-vel-varibad": _trials("half-cheetah-vel", VARIBAD, VARIBAD_SOURCE),
    "half-cheetah-vel-memory-sac": trials(
        "half-cheetah-vel",
        MEMORY_SAC,
        TrainingConfig(iterations=120, meta_batch_size=20, checkpoint_every=10, evaluate_every=20),
        "Ni et al. 2022's memories on soft actor-critic; the trials of half-cheetah-vel-rl2, a tenth of its steps",
        num_tasks=40,
        num_episodes=5,
        horizon=200,
    ),
    "half-cheetah-vel-memoryless": _trials(
        "half-cheetah-vel", replace(RL2, policy=replace(RL2.policy, memory="none"))
    ),
    "half-cheetah-vel-pearl": off_policy(
        "half-cheetah-vel",
        _VELOCITY_PEARL,
        "Rakelly et al. 2019: 100 speeds, 200 steps",
        train_tasks=100,
        test_tasks=30,
        horizon=200,
    ),
    "half-cheetah-vel-pearl-cpu": off_policy(
        "half-cheetah-vel",
        SMALL_PEARL,
        "half-cheetah-vel-pearl with smaller networks and batches, and half the updates",
        train_tasks=100,
        test_tasks=30,
        iterations=60,
        horizon=200,
    ),
    "ant-dir-promp": _published(
        "ant-dir",
        PrompConfig(adaptation=ADAPTATION),
        "Rothfuss et al. 2019, appendix, with gae_lambda 0.95 and horizon 200",
        evaluation=EvaluationConfig(num_tasks=40, num_steps=3, num_episodes=10),
    ),
    "ant-dir-rl2": _trials("ant-dir", RL2),
    "ant-dir-pearl": off_policy(
        "ant-dir",
        replace(_DIRECTION_PEARL, num_prior_episodes=2, num_extra_episodes=3, num_updates=4000),
        "Rakelly et al. 2019: forward and backward, 200 steps",
        train_tasks=None,
        test_tasks=2,
        num_trials=4,
        horizon=200,
    ),
    "ant-goal-pearl": off_policy(
        "ant-goal",
        PearlConfig(num_updates=4000, update_tasks=10, context_size=256, kl_coef=10.0),
        "Rakelly et al. 2019: 150 goals, 200 steps",
        train_tasks=150,
        test_tasks=30,
        horizon=200,
    ),
    "humanoid-dir-pearl": off_policy(
        "humanoid-dir",
        PearlConfig(num_updates=4000, context_size=256),
        "Rakelly et al. 2019: 100 headings, 200 steps",
        train_tasks=100,
        test_tasks=30,
        horizon=200,
    ),
}
