"""RL2: the agent, and the policy with memory that it trains."""

from metarl.agents.rl2.rl2 import Rl2, Rl2Config
from metarl.agents.rl2.trial_policy import TrialPolicy, TrialPolicyConfig
from metarl.agents.trials.actor import TrialActor

__all__ = ["Rl2", "Rl2Config", "TrialActor", "TrialPolicy", "TrialPolicyConfig"]
