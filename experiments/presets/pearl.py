"""The PEARL experiments by name, each with its source: at published sizes, and at a CPU's."""

from dataclasses import replace

from metarl.agents.pearl.pearl import PearlConfig
from metarl.experiments.configuration import Experiment
from metarl.training import EvaluationConfig, TrainingConfig

Described = tuple[Experiment, str]
"""An experiment and the source of its settings."""


def _off_policy(
    benchmark: str,
    agent: PearlConfig,
    source: str,
    *,
    train_tasks: int | None,
    test_tasks: int,
    iterations: int = 500,
    collected_tasks: int = 5,
    num_trajectories: int = 3,
    num_trials: int = 1,
    horizon: int | None = None,
) -> Described:
    """A PEARL experiment with a fixed number of training tasks; evaluated on trials of some trajectories."""
    training = TrainingConfig(iterations, meta_batch_size=collected_tasks, checkpoint_every=10, evaluate_every=10)
    evaluation = EvaluationConfig(test_tasks, num_steps=num_trajectories - 1, num_episodes=num_trials)
    experiment = Experiment(benchmark, agent, training, evaluation, horizon=horizon, num_train_tasks=train_tasks)
    return experiment, source


def _cpu_sized(
    agent: PearlConfig, *, hidden_size: int, encoder_size: int, batch_size: int, latent_size: int = 5
) -> PearlConfig:
    """The same agent with smaller networks and batches, and larger steps to go with its fewer updates."""
    return replace(
        agent,
        context=replace(agent.context, hidden_sizes=(encoder_size, encoder_size), latent_size=latent_size),
        hidden_sizes=(hidden_size, hidden_size),
        batch_size=batch_size,
        outer_lr=1e-3,
        target_rate=0.02,
    )


# Rakelly et al. 2019's settings. Their numbers of steps are given in episodes here, and kl_coef is their weight
# times the number of tasks in an update. If a task's context is many episodes but a test trial begins with few,
# contexts are varied: with contexts from all ten episodes, point robots returned -7 in training but -13 on test
# tasks after two trajectories.
_VELOCITY_PEARL = PearlConfig()
_DIRECTION_PEARL = PearlConfig(
    num_prior_episodes=5,
    num_extra_episodes=5,
    update_tasks=4,
    context_size=256,
    kl_coef=0.4,
    replay_capacity=1_000_000,
)
_POINT_PEARL = PearlConfig(
    num_prior_episodes=10,
    num_extra_episodes=10,
    num_updates=1000,
    context_size=64,
    vary_context=True,
    reward_scale=100.0,
)
_SPARSE_POINT_PEARL = PearlConfig(
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

PEARL: dict[str, Described] = {
    "point-robot-pearl": _off_policy(
        "point-uniform-start",
        _POINT_PEARL,
        "Rakelly et al. 2019's code: 80 goals, 20 steps",
        train_tasks=80,
        test_tasks=20,
        num_trials=4,
    ),
    "point-robot-pearl-cpu": _off_policy(
        "point-uniform-start",
        replace(
            _cpu_sized(_POINT_PEARL, hidden_size=128, encoder_size=128, batch_size=64, latent_size=10),
            gamma=0.9,
            num_prior_episodes=5,
            num_posterior_episodes=5,
            num_extra_episodes=5,
            final_outer_lr=1e-4,
        ),
        "point-robot-pearl with smaller networks and batches, more goals and latents, and contexts of both phases",
        train_tasks=200,
        test_tasks=20,
        collected_tasks=40,
        num_trajectories=10,
        num_trials=4,
        iterations=180,
    ),
    "sparse-point-robot-pearl": _off_policy(
        "sparse-point",
        _SPARSE_POINT_PEARL,
        "Rakelly et al. 2019, section 6.4: 80 goals on a semicircle, 20 steps; learns from the dense reward",
        train_tasks=80,
        test_tasks=20,
        collected_tasks=10,
        num_trajectories=20,
    ),
    "sparse-point-robot-pearl-cpu": _off_policy(
        "sparse-point",
        replace(
            _cpu_sized(_SPARSE_POINT_PEARL, hidden_size=128, encoder_size=64, batch_size=64),
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
    "half-cheetah-vel-pearl": _off_policy(
        "half-cheetah-vel",
        _VELOCITY_PEARL,
        "Rakelly et al. 2019: 100 speeds, 200 steps",
        train_tasks=100,
        test_tasks=30,
        horizon=200,
    ),
    "half-cheetah-vel-pearl-cpu": _off_policy(
        "half-cheetah-vel",
        replace(
            _cpu_sized(_VELOCITY_PEARL, hidden_size=256, encoder_size=128, batch_size=64),
            num_updates=1000,
            target_rate=0.005,
        ),
        "half-cheetah-vel-pearl with smaller networks and batches, and half the updates",
        train_tasks=100,
        test_tasks=30,
        iterations=60,
        horizon=200,
    ),
    "half-cheetah-dir-pearl": _off_policy(
        "half-cheetah-dir",
        _DIRECTION_PEARL,
        "Rakelly et al. 2019: forward and backward, 200 steps",
        train_tasks=None,
        test_tasks=2,
        num_trials=4,
        horizon=200,
    ),
    "ant-dir-pearl": _off_policy(
        "ant-dir",
        replace(_DIRECTION_PEARL, num_prior_episodes=2, num_extra_episodes=3, num_updates=4000),
        "Rakelly et al. 2019: forward and backward, 200 steps",
        train_tasks=None,
        test_tasks=2,
        num_trials=4,
        horizon=200,
    ),
    "ant-goal-pearl": _off_policy(
        "ant-goal",
        PearlConfig(num_updates=4000, update_tasks=10, context_size=256, kl_coef=10.0),
        "Rakelly et al. 2019: 150 goals, 200 steps",
        train_tasks=150,
        test_tasks=30,
        horizon=200,
    ),
    "humanoid-dir-pearl": _off_policy(
        "humanoid-dir",
        PearlConfig(num_updates=4000, context_size=256),
        "Rakelly et al. 2019: 100 headings, 200 steps",
        train_tasks=100,
        test_tasks=30,
        horizon=200,
    ),
}
