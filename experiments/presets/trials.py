"""The common form of RL2 experiments: their evaluation is as long as the trials of the training."""

from metarl.agents.rl2.rl2 import Rl2Config
from metarl.experiments.configuration import Experiment
from metarl.experiments.presets.preset import Preset, experiment_preset
from metarl.training import EvaluationConfig, TrainingConfig


def trials(
    benchmark: str,
    agent: Rl2Config,
    training: TrainingConfig,
    source: str,
    *,
    num_tasks: int,
    num_episodes: int = 1,
    horizon: int | None = None,
) -> Preset[Experiment]:
    """An RL2 experiment, evaluated on as many episodes as it trains on."""
    evaluation = EvaluationConfig(num_tasks, num_steps=agent.num_episodes - 1, num_episodes=num_episodes)
    return experiment_preset(benchmark, agent, training, evaluation, source, horizon=horizon)
