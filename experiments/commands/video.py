"""metarl video DIR: film a trained agent before adaptation and after each step of it, side by side."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from metarl.experiments.agent_run import AgentRun
from metarl.experiments.arguments import UsageError, check_new, parse
from metarl.experiments.console import Waiting, say, show_table
from metarl.experiments.loading import open_again
from metarl.experiments.outside import OwnWords
from metarl.experiments.video import (
    FOLDER,
    SUFFIXES,
    FilmSettings,
    check_film,
    film_tasks,
    free_film,
    write_film,
)
from metarl.runs.checkpoint import CHECKPOINT
from metarl.runs.configs import MOST_REPEATS, MOST_STEPS, MOST_TASKS, check_counts, check_seed
from metarl.tasks import load_tasks


@dataclass(frozen=True)
class VideoArguments:
    """Film a trained agent on test tasks: a row per task, a panel before adaptation and one after each step.

    Attributes:
        folder: Run folder.
        out: New file to write, ending in .mp4 or .gif; by default the next free DIR/videos/NUMBER.mp4.
        tasks: JSON file with the tasks to film, instead of the run's test tasks.
        first: Number of the first task to film, counted from 0.
        num_tasks: Number of tasks to film, one below the other.
        num_steps: Number of adaptation steps; the run's own by default, at most 3.
        num_episodes: Number of episodes that a gradient step is taken on; the run's own by default.
        horizon: Steps per episode; those of training by default.
        deterministic: Mode of the policy instead of samples.
        seed: Seed of the resets and of the actions' noise.
        checkpoint: File name of the checkpoint, checkpoint.pt or checkpoint.previous.pt.
        own: Words for what the run was made with and its folder does not hold.
    """

    folder: tyro.conf.Positional[Path]
    out: Path | None = None
    tasks: Path | None = None
    first: int = 0
    num_tasks: int = 1
    num_steps: int | None = None
    num_episodes: int | None = None
    horizon: int | None = None
    deterministic: bool = False
    seed: int = 0
    checkpoint: str = CHECKPOINT
    own: Annotated[OwnWords, tyro.conf.arg(name="")] = field(default_factory=OwnWords)

    def __post_init__(self) -> None:
        check_counts(self, "num_tasks", "num_episodes", most=MOST_TASKS)
        check_counts(self, "horizon", most=MOST_STEPS)
        check_counts(self, "first", least=0, most=MOST_TASKS)
        check_counts(self, "num_steps", least=0, most=MOST_REPEATS)
        check_seed(self)
        if self.out is not None and self.out.suffix not in SUFFIXES:
            raise ValueError(f"--out must end in {' or '.join(SUFFIXES)}, got {self.out}")


def command(words: list[str]) -> int:
    """Run `metarl video`; returns the exit status."""
    arguments = parse(VideoArguments, words, "metarl video")
    check_new(arguments.out, "--out")
    run = open_again(arguments.folder, arguments.own)
    if not isinstance(run, AgentRun):
        raise UsageError(f"{run.folder} is a few-shot run, which has no environment to film")
    tasks = run.test_tasks if arguments.tasks is None else load_tasks(arguments.tasks, run.benchmark.family)
    chosen = tasks[arguments.first : arguments.first + arguments.num_tasks]
    if len(chosen) < arguments.num_tasks:
        raise UsageError(
            f"there are {len(tasks)} tasks, counted from 0; --first {arguments.first} and --num-tasks "
            f"{arguments.num_tasks} ask for more"
        )
    out = arguments.out or free_film(run.folder / FOLDER)
    check_film(out)
    evaluation = run.experiment.evaluation
    settings = FilmSettings(
        min(3, evaluation.num_steps) if arguments.num_steps is None else arguments.num_steps,
        arguments.num_episodes or evaluation.num_episodes,
        arguments.horizon or run.experiment.horizon,
        arguments.seed,
        arguments.deterministic,
    )
    agent = run.agent(checkpoint=arguments.checkpoint)
    with Waiting("filming") as waiting:
        rows, pictures, fps = film_tasks(
            agent, run.benchmark.test, chosen, settings, name=run.name, progress=waiting.progress
        )
    out.parent.mkdir(exist_ok=True)
    write_film(out, pictures, fps)
    returns = [
        [description.removeprefix(f"{run.name}: "), *(f"{panel.returns[-1]:.1f}" for panel in panels)]
        for description, panels in rows
    ]
    show_table(f"{run.name}: returns", ["task", *(panel.title for panel in rows[0][1])], returns)
    say(f"written to {out}")
    return 0
