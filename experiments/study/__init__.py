"""Sim-to-real adaptation studies: agents and baselines on the same held-out tasks, as one command."""
