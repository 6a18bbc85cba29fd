"""The named experiments, each with its source."""

from metarl.experiments.presets.table import PRESETS, preset

__all__ = ["PRESETS", "preset"]
