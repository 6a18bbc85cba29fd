"""The experiments on point robots: navigation to a goal that the reward alone tells of."""

from dataclasses import replace

from metarl.agents.es_maml import EsAdaptationConfig, EsMamlConfig
from metarl.agents.maml import AdaptationConfig, PolicyConfig
from metarl.agents.maml_trpo import MamlTrpoConfig
from metarl.agents.pearl.pearl import PearlConfig
from metarl.agents.promp import PrompConfig
from metarl.experiments.presets.off_policy import cpu_sized, off_policy
from metarl.experiments.presets.preset import Presets, experiment_preset
from metarl.training import EvaluationConfig, TrainingConfig

# Point navigation needs no scaling of the policy's output: its actions are at most a tenth of a unit already.
POLICY = PolicyConfig(hidden_sizes=(64, 64), output_scale=1.0)
ADAPTATION = AdaptationConfig(inner_lr=0.5, num_episodes=20)
# A linear policy learns to slow down near where it is going, which lets it perturb its goal by more.
ES_MAML = EsMamlConfig(adaptation=EsAdaptationConfig(perturbation_std=1.0), outer_lr=0.1, outer_std=0.3)

# Rakelly et al. 2019's settings, see `metarl.experiments.presets.off_policy`. If a task's context is many episodes
# but a test trial begins with few, contexts are varied: with contexts from all ten episodes, point robots returned
# -7 in training but -13 on test tasks after two trajectories.
_PEARL = PearlConfig(
    num_prior_episodes=10,
    num_extra_episodes=10,
    num_updates=1000,
    context_size=64,
    vary_context=True,
    reward_scale=100.0,
)
SMALL_PEARL = replace(
    cpu_sized(_PEARL, hidden_size=128, encoder_size=128, batch_size=64, latent_size=10),
    gamma=0.9,
    num_prior_episodes=5,
    num_posterior_episodes=5,
    num_extra_episodes=5,
    final_outer_lr=1e-4,
)
_SPARSE_PEARL = PearlConfig(
    num_prior_episodes=5,
    num_posterior_episodes=45,
    num_extra_episodes=0,
    num_updates=1000,
    context_size=1024,
    vary_context=True,
    gamma=0.9,
    reward_scale=100.0,
    kl_coef=16.0,
    replay_capacity=65_000,
    learned_reward="dense_reward",
    exploration_episodes=5,
)

POINT: Presets = {
    "point-promp": experiment_preset(
        "point",
        PrompConfig(policy=POLICY, adaptation=ADAPTATION),
        TrainingConfig(iterations=50, meta_batch_size=20),
        None,
        "ProMP of Rothfuss et al. 2019 on the task and with the inner step size of Finn et al. 2017",
    ),
    "point-maml-trpo": experiment_preset(
        "point",
        MamlTrpoConfig(policy=POLICY, adaptation=ADAPTATION, fisher_fraction=0.2),
        TrainingConfig(iterations=50, meta_batch_size=20),
        None,
        "Finn et al. 2017, section 5.3, 64-64 tanh policy, Fisher matrix on a fifth of the steps",
    ),
    "point-es-maml": experiment_preset(
        "point",
        ES_MAML,
        TrainingConfig(iterations=100, meta_batch_size=20),
        EvaluationConfig(num_episodes=ES_MAML.adaptation.num_episodes, deterministic=True),
        "Song et al. 2020's algorithm with hill climbing, a linear policy and sizes of ours",
    ),
    "point-robot-pearl": off_policy(
        "point-uniform-start",
        _PEARL,
        "Rakelly et al. 2019's code: 80 goals, 20 steps",
        train_tasks=80,
        test_tasks=20,
        num_trials=4,
    ),
    "point-robot-pearl-cpu": off_policy(
        "point-uniform-start",
        SMALL_PEARL,
        "point-robot-pearl with smaller networks and batches, more goals and latents, and contexts of both phases",
        train_tasks=200,
        test_tasks=20,
        collected_tasks=40,
        num_trajectories=10,
        num_trials=4,
        iterations=180,
    ),
    "sparse-point-robot-pearl": off_policy(
        "sparse-point",
        _SPARSE_PEARL,
        "Rakelly et al. 2019, section 6.4: 80 goals on a semicircle, 20 steps; learns from the dense reward",
        train_tasks=80,
        test_tasks=20,
        collected_tasks=10,
        num_trajectories=20,
    ),
    "sparse-point-robot-pearl-cpu": off_policy(
        "sparse-point",
        replace(
            cpu_sized(_SPARSE_PEARL, hidden_size=128, encoder_size=64, batch_size=64),
            num_initial_episodes=40,
            num_prior_episodes=25,
            num_posterior_episodes=15,
            context_size=256,
            reward_scale=30.0,
            kl_coef=5.0,
            exploration_episodes=8,
        ),
        "sparse-point-robot-pearl with smaller networks, batches and contexts, and more exploration",
        train_tasks=80,
        test_tasks=20,
        collected_tasks=40,
        num_trajectories=20,
        iterations=60,
    ),
}
