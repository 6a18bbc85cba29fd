"""The options of an evaluation, of runs of either kind."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from metarl.runs.checkpoint import CHECKPOINT
from metarl.runs.configs import MOST_REPEATS, MOST_STEPS, MOST_TASKS, Configuration, check_counts, check_seed


@dataclass(frozen=True)
class EvaluationOptions(Configuration):
    """Tasks, sizes and checkpoint of an evaluation.

    Attributes:
        tasks: JSON file with a list of tasks, {"family": ..., "params": {...}}, or with the list of episodes that
            `metarl episodes` wrote.
        num_tasks: Number of tasks, or of few-shot episodes of every split, instead of the run's own. The tasks are
            fresh ones unless there are finitely many.
        split: Tasks to draw from: test tasks, or those that the agent was trained on; of RL runs.
        num_steps: Number of adaptation steps; the run's own by default.
        num_episodes: Number of episodes per task and step; the run's own by default; of RL runs.
        horizon: Steps per episode; those of training by default; of RL runs.
        deterministic: Mode of the policy instead of samples; the run's own choice by default; of RL runs.
        num_ways: Number of classes per task, of learners that compare features; of few-shot runs.
        num_shots: Number of support examples per class, or of points; of few-shot runs.
        num_queries: Number of query examples per class; of few-shot runs.
        views: Number of views of every image, of learners that compare features; of few-shot runs.
        data_folder: Folder of the images, if they are no longer where they were; of few-shot runs.
        data_source: Place in data.sources, from 0, of the data to judge on, of few-shot runs on several data; a
            list of episodes needs it.
        seed: Seed of the fresh tasks and of the episodes.
        checkpoint: File name of the checkpoint, checkpoint.pt or checkpoint.previous.pt.
    """

    tasks: Path | None = None
    num_tasks: int | None = None
    split: Literal["test", "train"] = "test"
    num_steps: int | None = None
    num_episodes: int | None = None
    horizon: int | None = None
    deterministic: bool | None = None
    num_ways: int | None = None
    num_shots: int | None = None
    num_queries: int | None = None
    views: int | None = None
    data_folder: str | None = None
    data_source: int | None = None
    seed: int = 0
    checkpoint: str = CHECKPOINT

    def __post_init__(self) -> None:
        if self.tasks is not None and self.num_tasks is not None:
            raise ValueError("--tasks and --num-tasks exclude each other: give the tasks or their number")
        if self.split == "train" and self.tasks is not None:
            raise ValueError("--split train and --tasks exclude each other: draw training tasks or give tasks")
        if self.split == "train" and self.num_tasks is None:
            raise ValueError("--split train draws tasks and needs their number: give --num-tasks too")
        check_counts(self, "num_tasks", "num_episodes", most=MOST_TASKS)
        check_counts(self, "num_ways", "num_shots", "num_queries", "views", most=MOST_TASKS)
        check_counts(self, "horizon", most=MOST_STEPS)
        check_counts(self, "num_steps", least=0, most=MOST_REPEATS)
        check_counts(self, "data_source", least=0, most=MOST_TASKS)
        check_seed(self)

    def check(self, allowed: Sequence[str], what: str) -> None:
        """Raise a ValueError if an option is set that a kind of runs does not have.

        Args:
            allowed: Names of its options.
            what: The run and its kind, for the message.
        """
        for option in fields(self):
            if option.name not in allowed and getattr(self, option.name) != option.default:
                flags = ", ".join(_flag(name) for name in allowed)
                raise ValueError(f"{_flag(option.name)} cannot be used: {what}, which has {flags}")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
