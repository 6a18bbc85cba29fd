"""Adapting a trained agent to one environment, and what was recorded there."""
