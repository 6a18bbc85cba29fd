"""Presets, commands, and the results that were measured."""
