"""Words of the smallest trainings that make a whole run."""

TINY = [
    "--training.iterations", "1",
    "--training.meta-batch-size", "2",
    "--training.evaluate-every", "0",
    "--agent.adaptation.num-episodes", "2",
    "--evaluation.num-tasks", "2",
    "--evaluation.num-steps", "1",
    "--evaluation.num-episodes", "2",
    "--num-threads", "1",
]  # fmt: skip

SMALL = [
    "--training.iterations", "1",
    "--training.meta-batch-size", "2",
    "--horizon", "4",
    "--num-threads", "1",
]  # fmt: skip
"""Words of a small run of any agent."""
