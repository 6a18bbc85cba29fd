"""The common part of MAML-TRPO and ProMP: a policy that is adapted by policy gradients, its actor and its data."""

from metarl.agents.maml.adaptive_policy import AdaptationConfig, AdaptivePolicy, PolicyConfig
from metarl.agents.maml.batches import (
    MetaBatch,
    PolicyBatch,
    change_parts,
    check_finite,
    full_parts,
    mean_kl,
)
from metarl.agents.maml.gradient_actor import GradientActor, collect_levels

__all__ = [
    "AdaptationConfig",
    "AdaptivePolicy",
    "GradientActor",
    "MetaBatch",
    "PolicyBatch",
    "PolicyConfig",
    "change_parts",
    "check_finite",
    "collect_levels",
    "full_parts",
    "mean_kl",
]
