"""metarl episodes DIR --out FILE.json: a list of few-shot tasks, on which several learners can be compared."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from metarl.experiments.arguments import UsageError, check_new, parse
from metarl.experiments.console import say
from metarl.experiments.fewshot.run import FewshotRun
from metarl.experiments.loading import open_again
from metarl.experiments.outside import OwnWords
from metarl.fewshot.data.classes import ClassEpisodes
from metarl.fewshot.data.drawn import as_json
from metarl.fewshot.data.unequal import UnequalEpisodes
from metarl.fewshot.sources import OtherSizes
from metarl.runs import seeding
from metarl.runs.configs import MOST_TASKS, check_counts, check_seed
from metarl.runs.files import write_json


@dataclass(frozen=True)
class EpisodesArguments:
    """Write a list of few-shot tasks that `metarl evaluate DIR --tasks FILE` reads, of this run and of others.

    Attributes:
        folder: Run folder, whose data the tasks are drawn from.
        out: New file of the list, in JSON.
        split: Split whose classes the tasks are made of.
        num_tasks: Number of tasks.
        num_ways: Number of classes per task; the run's own by default.
        num_shots: Number of support examples per class; the run's own by default.
        num_queries: Number of query examples per class; the run's own by default.
        data_folder: Folder of the images, if they are no longer where they were.
        data_source: Place in data.sources, from 0, of the data that are meant, of runs on several data.
        seed: Seed of the tasks.
        own: Words for what the run was made with and its folder does not hold.
    """

    folder: tyro.conf.Positional[Path]
    out: Path
    split: Literal["train", "validation", "test"] = "test"
    num_tasks: int = 600
    num_ways: int | None = None
    num_shots: int | None = None
    num_queries: int | None = None
    data_folder: str | None = None
    data_source: int | None = None
    seed: int = 0
    own: Annotated[OwnWords, tyro.conf.arg(name="")] = field(default_factory=OwnWords)

    def __post_init__(self) -> None:
        check_counts(self, "num_tasks", "num_ways", "num_shots", "num_queries", most=MOST_TASKS)
        check_counts(self, "data_source", least=0, most=MOST_TASKS)
        check_seed(self)


def command(words: list[str]) -> int:
    """Run `metarl episodes`; returns the exit status."""
    arguments = parse(EpisodesArguments, words, "metarl episodes")
    check_new(arguments.out, "--out")
    run = open_again(arguments.folder, arguments.own)
    if not isinstance(run, FewshotRun):
        raise UsageError(f"{run.folder} is an RL run; expected a few-shot run on classes")
    sizes = OtherSizes(arguments.num_ways, arguments.num_shots, arguments.num_queries, arguments.data_folder)
    run = run.on_source(arguments.data_source).resized(sizes).on_device("cpu")
    source = run.classes(arguments.split)
    if not isinstance(source, ClassEpisodes | UnequalEpisodes):
        raise UsageError(f"{run.folder} has no {arguments.split} classes; expected a few-shot run on classes")
    rng = seeding.streams(arguments.seed)["evaluation"]
    write_json(arguments.out, as_json(source.data, source.draw(arguments.num_tasks, rng)))
    say(f"{arguments.num_tasks:,} tasks of {run.data.describe()} written to {arguments.out}")
    return 0
