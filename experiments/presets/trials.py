"""The common form of experiments on trials: their evaluation is as long as the trials of the training."""

from metarl.agents.memory_sac import MemorySacConfig
from metarl.agents.trials.ppo import TrialPpoConfig
from metarl.experiments.configuration import Experiment
from metarl.experiments.presets.preset import Preset, experiment_preset
from metarl.training import EvaluationConfig, TrainingConfig


def trials(
    benchmark: str,
    agent: TrialPpoConfig | MemorySacConfig,
    training: TrainingConfig,
    source: str,
    *,
    num_tasks: int,
    num_episodes: int = 1,
    horizon: int | None = None,
) -> Preset[Experiment]:
    """An experiment evaluated on as many episodes as it trains on."""
    evaluation = EvaluationConfig(num_tasks, num_steps=agent.num_episodes - 1, num_episodes=num_episodes)
    return experiment_preset(benchmark, agent, training, evaluation, source, horizon=horizon)
