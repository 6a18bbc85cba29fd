"""metarl lake RUNS DIR ...: the errors of few-shot runs on Lake's one-shot classification of Omniglot."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from metarl.experiments.arguments import UsageError, check_new, parse
from metarl.experiments.console import Waiting, say, show_table
from metarl.experiments.fewshot.run import FewshotRun
from metarl.experiments.loading import open_again
from metarl.experiments.outside import OwnWords
from metarl.fewshot.data.omniglot import OmniglotData
from metarl.fewshot.lake import hausdorff_error, learner_error, read_lake_runs
from metarl.intervals import Sampling
from metarl.nets.devices import make_device
from metarl.runs.checkpoint import CHECKPOINT
from metarl.runs.configs import MOST_TASKS, check_counts
from metarl.runs.files import write_json

_SIZE = 105


@dataclass(frozen=True)
class LakeArguments:
    """Measure few-shot runs on Lake's one-shot classification, beside the Modified Hausdorff distance.

    Attributes:
        runs: The archive all_runs.zip of Omniglot, or the folder that it unpacks to.
        folders: Run folders of learners that were trained on Omniglot; none for the baseline alone.
        views: Number of views of every image, itself and distorted copies; the trained run's own by default.
        json: New file to write the errors to, besides showing them.
        checkpoint: File name of the checkpoint, checkpoint.pt or checkpoint.previous.pt.
        own: Words for what the runs were made with and their folders do not hold.
    """

    runs: tyro.conf.Positional[Path]
    folders: tyro.conf.Positional[tuple[Path, ...]] = ()
    views: int | None = None
    json: Path | None = None
    checkpoint: str = CHECKPOINT
    own: Annotated[OwnWords, tyro.conf.arg(name="")] = field(default_factory=OwnWords)

    def __post_init__(self) -> None:
        check_counts(self, "views", most=MOST_TASKS)


def command(words: list[str]) -> int:
    """Run `metarl lake`; returns the exit status."""
    arguments = parse(LakeArguments, words, "metarl lake")
    check_new(arguments.json)
    opened = [_opened(folder, arguments.own) for folder in arguments.folders]
    errors = {"Modified Hausdorff distance": _baseline(arguments.runs)}
    for run in opened:
        errors[str(run.folder)] = _errors(run, arguments)
    _show(errors)
    if arguments.json is not None:
        write_json(arguments.json, {"errors": errors})
        say(f"written to {arguments.json}")
    return 0


def _opened(folder: Path, own: OwnWords) -> FewshotRun:
    run = open_again(folder, own)
    if not isinstance(run, FewshotRun) or not isinstance(run.experiment.data, OmniglotData):
        raise UsageError(f"{folder} is not a few-shot run on Omniglot; give one that was trained on it")
    return run


def _baseline(runs: Path) -> dict[str, float]:
    images = read_lake_runs(runs, size=_SIZE, resize="nearest")
    errors = {}
    with Waiting("measuring distances, run") as waiting:
        for place, run in enumerate(images):
            errors[run.name] = hausdorff_error(run)
            waiting.progress(place + 1, len(images))
    return errors


def _errors(run: FewshotRun, arguments: LakeArguments) -> dict[str, float]:
    experiment, device = run.experiment, make_device(run.experiment.device)
    assert isinstance(experiment.data, OmniglotData)
    learner, _ = run.restored(arguments.checkpoint)
    images = read_lake_runs(arguments.runs, size=experiment.data.size, resize=experiment.data.resize)
    views, num_steps = arguments.views or experiment.evaluation.views, experiment.evaluation.num_steps
    return {
        one.name: learner_error(learner, one, views=views, num_steps=num_steps, device=device) for one in images
    }


def _show(errors: dict[str, dict[str, float]]) -> None:
    lines: list[list[str]] = []
    for name, by_run in errors.items():
        values = list(by_run.values())
        bounds = Sampling.independent(len(values)).mean_interval(np.array(values), least=0, most=1)
        interval = "-" if bounds is None else f"[{100 * bounds[0]:.1f}, {100 * bounds[1]:.1f}]"
        mean = 100 * sum(values) / len(values)
        lines.append([name, f"{mean:.1f}", interval, f"{100 * min(values):.0f} to {100 * max(values):.0f}"])
    title = f"Lake's one-shot classification: {len(next(iter(errors.values())))} runs within an alphabet"
    show_table(title, ["", "errors, %", "95% interval", "best to worst run"], lines)
