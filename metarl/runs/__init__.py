"""Parts of every run: checkpoints, metrics, random streams, and checks of configurations."""
