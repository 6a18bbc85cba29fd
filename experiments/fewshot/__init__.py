"""Few-shot experiments: presets, commands and measuring."""
