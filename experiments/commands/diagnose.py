"""metarl diagnose DIR: what a trained few-shot learner confuses, and how far its probabilities can be believed."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from metarl.experiments.arguments import UsageError, check_new, parse
from metarl.experiments.console import say, show_table
from metarl.experiments.fewshot.run import FewshotRun
from metarl.experiments.loading import open_again
from metarl.experiments.outside import OwnWords
from metarl.fewshot.data.classes import ClassEpisodes
from metarl.fewshot.diagnosis import Diagnosis, diagnose
from metarl.runs import seeding
from metarl.runs.checkpoint import CHECKPOINT
from metarl.runs.configs import MOST_REPEATS, MOST_TASKS, check_counts
from metarl.runs.files import write_json

_SHOWN = 10


@dataclass(frozen=True)
class DiagnoseArguments:
    """Count what a trained few-shot learner takes for what, and compare its probabilities with its accuracy.

    Attributes:
        folder: Run folder of a learner that was trained on classes.
        split: Split whose classes are judged.
        num_tasks: Number of tasks.
        num_steps: Number of adaptation steps, of learners that have them; the run's own by default.
        seed: Seed of the tasks.
        json: New file to write all counts to, besides showing the largest.
        checkpoint: File name of the checkpoint, checkpoint.pt, checkpoint.previous.pt or checkpoint.best.pt.
        own: Words for what the run was made with and its folder does not hold.
    """

    folder: tyro.conf.Positional[Path]
    split: Literal["train", "validation", "test"] = "test"
    num_tasks: int = 300
    num_steps: int | None = None
    seed: int = 0
    json: Path | None = None
    checkpoint: str = CHECKPOINT
    own: Annotated[OwnWords, tyro.conf.arg(name="")] = field(default_factory=OwnWords)

    def __post_init__(self) -> None:
        check_counts(self, "num_tasks", most=MOST_TASKS)
        check_counts(self, "num_steps", least=0, most=MOST_REPEATS)


def command(words: list[str]) -> int:
    """Run `metarl diagnose`; returns the exit status."""
    arguments = parse(DiagnoseArguments, words, "metarl diagnose")
    check_new(arguments.json)
    run = open_again(arguments.folder, arguments.own)
    source = run.episodes().held_out.get(arguments.split) if isinstance(run, FewshotRun) else None
    if not isinstance(run, FewshotRun) or not isinstance(source, ClassEpisodes):
        raise UsageError(f"{run.folder} has no {arguments.split} classes; expected a few-shot run on classes")
    num_steps = run.experiment.evaluation.num_steps if arguments.num_steps is None else arguments.num_steps
    diagnosis = diagnose(
        run.restored(arguments.checkpoint)[0],
        source,
        seeding.streams(arguments.seed)["evaluation"],
        num_tasks=arguments.num_tasks,
        num_steps=num_steps,
    )
    _show(f"{run.name}, {arguments.split} classes", diagnosis)
    if arguments.json is not None:
        result = {
            "experiment": run.name,
            "split": arguments.split,
            "accuracy": diagnosis.accuracy,
            "calibration_error": diagnosis.calibration(),
            "accuracy_by_class": diagnosis.by_class,
            "classes": list(diagnosis.names),
            "confusion": diagnosis.confusion.tolist(),
        }
        write_json(arguments.json, result)
        say(f"written to {arguments.json}")
    return 0


def _show(title: str, diagnosis: Diagnosis) -> None:
    accuracy, error = f"{100 * diagnosis.accuracy:.1f}", f"{100 * diagnosis.calibration():.1f}"
    say(f"{title}: accuracy {accuracy}%, calibration error {error}%")
    hardest = list(diagnosis.by_class.items())[:_SHOWN]
    show_table("hardest classes", ["class", "accuracy, %"], [[name, f"{100 * x:.1f}"] for name, x in hardest])
    rows = [[one, other, str(count)] for one, other, count in diagnosis.confused[:_SHOWN]]
    show_table("most confused", ["class", "taken for", "queries"], rows, text_columns=2, keys=2)
