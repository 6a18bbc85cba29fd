"""VariBAD: the agent, its policy on beliefs, and the lower bound that the beliefs are learned by."""

from metarl.agents.varibad.elbo import Decoder, Elbo, elbo
from metarl.agents.varibad.network import BeliefPolicy, BeliefPolicyConfig
from metarl.agents.varibad.varibad import Varibad, VaribadConfig

__all__ = ["BeliefPolicy", "BeliefPolicyConfig", "Decoder", "Elbo", "Varibad", "VaribadConfig", "elbo"]
