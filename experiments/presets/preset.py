"""The one type of presets: a configuration under a name, with the source of its settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from metarl.agent import AgentConfig
from metarl.experiments.configuration import Experiment
from metarl.experiments.fewshot.configuration import FewshotExperiment
from metarl.experiments.study.configuration import Study
from metarl.fewshot.outer import OuterConfig
from metarl.training import EvaluationConfig, TrainingConfig

Configuration = TypeVar("Configuration", bound=Experiment | FewshotExperiment | Study)


@dataclass(frozen=True)
class Preset(Generic[Configuration]):
    """A configuration and the source of its settings.

    Attributes:
        configuration: Experiment of reinforcement learning or of few-shot learning, or a study.
        source: Publication that the settings come from and what differs from it, on one line.
    """

    configuration: Configuration
    source: str


Presets = Mapping[str, Preset[Experiment]]
"""Experiments of reinforcement learning by name."""

FewshotPresets = Mapping[str, Preset[FewshotExperiment]]
"""Experiments of few-shot learning by name."""

ANNEALED = OuterConfig(outer_lr=1e-3, final_outer_lr=1e-5)
"""Adam's step size in most few-shot experiments: from 1e-3 along half a cosine to 1e-5 over the whole run."""


def experiment_preset(
    benchmark: str,
    agent: AgentConfig,
    training: TrainingConfig,
    evaluation: EvaluationConfig | None,
    source: str,
    *,
    horizon: int | None = None,
    num_train_tasks: int | None = None,
) -> Preset[Experiment]:
    """A preset of reinforcement learning.

    Args:
        benchmark: Name of the benchmark.
        agent: Algorithm and its hyperparameters.
        training: Length of the run.
        evaluation: Sizes of evaluations; the defaults if None.
        source: Publication that the settings come from and what differs from it.
        horizon: Steps per episode; the benchmark's own number by default.
        num_train_tasks: Number of training tasks, drawn once; None for fresh ones in every batch.
    """
    experiment = Experiment(
        benchmark,
        agent,
        training,
        evaluation or EvaluationConfig(),
        horizon=horizon,
        num_train_tasks=num_train_tasks,
    )
    return Preset(experiment, source)
