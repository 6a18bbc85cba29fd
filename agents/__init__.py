"""The agents: one file or folder per algorithm."""
