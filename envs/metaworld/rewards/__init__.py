"""Rewards of Meta-World's environments for many rows at once, a file per kind of skill."""
