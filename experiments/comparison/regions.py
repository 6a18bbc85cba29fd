"""The region that training tasks lie in, which figures shade."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from metarl.experiments.agent_run import AgentRun
from metarl.experiments.comparison.figures import Regions, parameter_values
from metarl.experiments.loading import open_run
from metarl.experiments.runs import CONFIG


def training_regions(folders: Sequence[Path]) -> Regions | None:
    """Least and greatest values of 1,000 training tasks; None where the benchmark is a user's own.

    Args:
        folders: Folders of runs, or of groups of runs, on one benchmark.
    """
    first = folders[0]
    try:
        run = open_run(first if (first / CONFIG).is_file() else next(first.glob(f"*/{CONFIG}")).parent)
    except ValueError:
        return None
    assert isinstance(run, AgentRun)
    tasks = [task.to_json() for task in run.benchmark.train.sample(1000, np.random.default_rng(0))]
    values = [parameter_values(task) for task in tasks]
    return {
        name: (min(v[name] for v in values), max(v[name] for v in values))
        for name in values[0]
        if all(name in v for v in values)
    }
