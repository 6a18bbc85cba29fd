"""Comparing runs and groups of runs over seeds: read, compute, draw, and write as numbers."""
