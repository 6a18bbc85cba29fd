"""The common form of PEARL experiments: Rakelly et al. 2019's runs, and their size for a CPU.

Their numbers of steps are given in episodes here, and `kl_coef` is their weight times the number of tasks in an
update.
"""

from dataclasses import replace

from metarl.agents.pearl.pearl import PearlConfig
from metarl.experiments.configuration import Experiment
from metarl.experiments.presets.preset import Preset, experiment_preset
from metarl.training import EvaluationConfig, TrainingConfig


def off_policy(
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
) -> Preset[Experiment]:
    """A PEARL experiment with a fixed number of training tasks; evaluated on trials of some trajectories."""
    training = TrainingConfig(iterations, meta_batch_size=collected_tasks, checkpoint_every=10, evaluate_every=10)
    evaluation = EvaluationConfig(test_tasks, num_steps=num_trajectories - 1, num_episodes=num_trials)
    return experiment_preset(
        benchmark, agent, training, evaluation, source, horizon=horizon, num_train_tasks=train_tasks
    )


def cpu_sized(
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
