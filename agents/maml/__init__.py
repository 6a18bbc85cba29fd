"""The common part of ProMP, MAML-TRPO and their baselines: a policy that policy gradients adapt, and data."""

from metarl.agents.maml.adaptive_policy import AdaptationConfig, AdaptivePolicy, PolicyConfig, check_plain
from metarl.agents.maml.batches import (
    MetaBatch,
    PolicyBatch,
    change_parts,
    check_finite,
    full_parts,
    mean_kl,
    overall_mean,
)
from metarl.agents.maml.gradient_actor import GradientActor, collect_levels
from metarl.agents.maml.gradient_agent import GradientAgent

__all__ = [
    "AdaptationConfig",
    "AdaptivePolicy",
    "GradientActor",
    "GradientAgent",
    "MetaBatch",
    "PolicyBatch",
    "PolicyConfig",
    "change_parts",
    "check_finite",
    "check_plain",
    "collect_levels",
    "full_parts",
    "mean_kl",
    "overall_mean",
]
