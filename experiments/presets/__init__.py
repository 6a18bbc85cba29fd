"""The named experiments and studies, a file for each family, each with the source of its settings."""
