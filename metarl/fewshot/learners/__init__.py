"""Few-shot learners, one file each."""
