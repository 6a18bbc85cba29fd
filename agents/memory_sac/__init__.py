"""Memory SAC: off-policy actor-critic on whole trials."""

from metarl.agents.memory_sac.memory_sac import MemorySac, MemorySacConfig
from metarl.agents.memory_sac.policy import SoftPolicy, SoftPolicyConfig

__all__ = ["MemorySac", "MemorySacConfig", "SoftPolicy", "SoftPolicyConfig"]
