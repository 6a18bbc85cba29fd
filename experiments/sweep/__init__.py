"""Sweeps: trials of an experiment with other settings, chosen by Optuna."""
