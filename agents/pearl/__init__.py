"""PEARL: the agent, its context encoder, its actor and its critics."""

from metarl.agents.pearl.pearl import Pearl, PearlConfig

__all__ = ["Pearl", "PearlConfig"]
