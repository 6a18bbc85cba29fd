"""The common part of agents that adapt by policy gradients: parameters, an actor, episodes of all levels."""

from collections.abc import Sequence
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import torch

from metarl.agent import Collector
from metarl.agents.maml.adaptive_policy import AdaptationConfig, AdaptivePolicy, PolicyConfig
from metarl.agents.maml.batches import MetaBatch
from metarl.agents.maml.gradient_actor import GradientActor, collect_levels
from metarl.tasks import Task, TaskEnv


class GradientConfig(Protocol):
    """Hyperparameters with a policy and an inner loop."""

    @property
    def policy(self) -> PolicyConfig:
        """Network of the policy."""

    @property
    def adaptation(self) -> AdaptationConfig:
        """Settings of the inner loop."""


Config = TypeVar("Config", bound=GradientConfig)


class GradientAgent(Generic[Config]):
    """An agent whose tasks adapt by gradient steps; a subclass adds `update`. See `metarl.agent.Agent`.

    Args:
        env: Environment of the family, for its spaces.
        config: Hyperparameters of the agent.
        seed: Seed of the initial weights.
        device: Device for parameters and losses.
    """

    algorithm: ClassVar[str]
    """Name of the algorithm, for messages."""

    def __init__(self, env: TaskEnv, config: Config, *, seed: int, device: torch.device) -> None:
        self.config = config
        self.learner = AdaptivePolicy(
            env, config.policy, config.adaptation, agent=self.algorithm, seed=seed, device=device
        )

    def actor(self) -> GradientActor:
        """An actor with the meta-parameters."""
        return GradientActor(self.learner, None)

    def collect(self, collector: Collector, tasks: Sequence[Task], rng: np.random.Generator) -> MetaBatch:
        """Episodes before and after each inner step."""
        return collect_levels(self.learner, collector, tasks, rng)

    def state_dict(self) -> dict[str, Any]:
        """The parameters, and the step sizes if they are learned."""
        return self.learner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.learner.load_state_dict(state)
