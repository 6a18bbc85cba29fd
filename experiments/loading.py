"""Opening the trained agent of a run folder."""

from pathlib import Path
from typing import Any

from metarl.agent import Agent
from metarl.experiments.configuration import Device, make_agent
from metarl.experiments.runs import Run, checkpoint_path, on_device, open_run
from metarl.loop import Progress
from metarl.runs import seeding
from metarl.runs.checkpoint import FILE as CHECKPOINT
from metarl.training import restore


def load_agent(folder: Path | str, *, checkpoint: str = CHECKPOINT, device: Device | None = "cpu") -> Agent[Any]:
    """The trained agent of a run folder, to act and adapt; `metarl resume` trains it on.

    Args:
        folder: that `metarl train` made.
        checkpoint: which of the run's checkpoints.
        device: where its networks are; None for where the configuration says.

    Raises:
        ValueError: saying what is missing or malformed.
    """
    return restored(on_device(open_run(Path(folder)), device), checkpoint)[0]


def restored(run: Run, checkpoint: str = CHECKPOINT) -> tuple[Agent[Any], Progress]:
    """The agent of an opened run as a checkpoint left it, and how far it was trained."""
    agent = make_agent(run.experiment, run.benchmark)
    generators = seeding.streams(run.experiment.seed)
    return agent, restore(agent, generators, checkpoint_path(run, checkpoint), run.benchmark)
