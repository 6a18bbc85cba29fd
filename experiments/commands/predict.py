"""metarl predict DIR --support FOLDER --query FOLDER: classes of new examples, by a trained few-shot learner."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from metarl.experiments.arguments import UsageError, check_new, parse
from metarl.experiments.configuration import Device
from metarl.experiments.console import say, show_table
from metarl.experiments.fewshot.measure import norms
from metarl.experiments.fewshot.run import FewshotRun
from metarl.experiments.loading import open_again
from metarl.experiments.outside import OwnWords
from metarl.fewshot.metric import is_transductive
from metarl.fewshot.prediction import Prediction
from metarl.runs.checkpoint import CHECKPOINT
from metarl.runs.configs import MOST_REPEATS, MOST_TASKS, check_counts
from metarl.runs.files import write_csv, write_json

_BEST = ("class", "second", "third")


@dataclass(frozen=True)
class PredictArguments:
    """Predict the classes of images, or of rows of a table, by a trained few-shot learner.

    Attributes:
        folder: Run folder of a learner that was trained on images, on a table, or on classes of your own.
        support: Folder that holds a folder of labelled images for every class, which may be new; or, of runs on
            no images, a table with a class for every row, CSV, Parquet, or npz with arrays inputs and targets.
        query: Folder of the images to predict, itself or in folders below it; or a table, whose rows need no
            class, or an npy file.
        views: Number of views of every image, itself and distorted copies; the run's own by default.
        num_steps: Number of adaptation steps, of learners that have them; the run's own by default.
        data_source: Place in data.sources, from 0, of the data that are meant, of runs on several data.
        json: New file to write all probabilities to, besides showing the largest.
        csv: New file to write all probabilities to as a table with a row for every image or row.
        checkpoint: File name of the checkpoint, checkpoint.pt, checkpoint.previous.pt or checkpoint.best.pt.
        device: Device of the networks, instead of the configured one.
        own: Words for what the run was made with and its folder does not hold.
    """

    folder: tyro.conf.Positional[Path]
    support: Path
    query: Path
    views: int | None = None
    num_steps: int | None = None
    data_source: int | None = None
    json: Path | None = None
    csv: Path | None = None
    checkpoint: str = CHECKPOINT
    device: Device | None = None
    own: Annotated[OwnWords, tyro.conf.arg(name="")] = field(default_factory=OwnWords)

    def __post_init__(self) -> None:
        check_counts(self, "views", most=MOST_TASKS)
        check_counts(self, "num_steps", least=0, most=MOST_REPEATS)
        check_counts(self, "data_source", least=0, most=MOST_TASKS)


def command(words: list[str]) -> int:
    """Run `metarl predict`; returns the exit status."""
    arguments = parse(PredictArguments, words, "metarl predict")
    check_new(arguments.json)
    check_new(arguments.csv, "--csv")
    run = open_again(arguments.folder, arguments.own).on_device(arguments.device)
    if not isinstance(run, FewshotRun):
        raise UsageError(f"{run.folder} is an RL run; expected a few-shot run on classes")
    predictions = run.on_source(arguments.data_source).predict(
        arguments.support,
        arguments.query,
        views=arguments.views,
        num_steps=arguments.num_steps,
        checkpoint=arguments.checkpoint,
    )
    result = summary(run, predictions)
    _show(result)
    if arguments.json is not None:
        write_json(arguments.json, result)
        say(f"written to {arguments.json}")
    if arguments.csv is not None:
        write_csv(arguments.csv, *_rows(predictions))
        say(f"written to {arguments.csv}")
    return 0


def summary(run: FewshotRun, predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Predictions as JSON types, and how many are right if every query says its class."""
    classes = list(predictions[0].probabilities)
    says_all = {prediction.true_label for prediction in predictions} <= set(classes)
    right = sum(prediction.true_label == prediction.label for prediction in predictions)
    learner = run.untrained()
    return {
        "experiment": run.name,
        "classes": classes,
        "batch_norm": norms(learner.normalisation),
        "transductive": is_transductive(learner),
        **({"num_right": right} if says_all else {}),
        "predictions": [prediction._asdict() for prediction in predictions],
    }


def _show(result: dict[str, Any]) -> None:
    predictions, classes = result["predictions"], result["classes"]
    examples = "row" if predictions[0]["file"] == "row 0" else "image"
    count = f"{len(predictions)} {examples}{'s' if len(predictions) > 1 else ''}"
    title = f"{result['experiment']}: {count}, {len(classes)} classes; {result['batch_norm']}"
    if result["transductive"]:
        title += "; predicted together"
    if "num_right" in result:
        title += f"; {result['num_right']} of {len(predictions)} right"
    lines = []
    for prediction in predictions:
        best = sorted(prediction["probabilities"].items(), key=lambda pair: -pair[1])[: len(_BEST)]
        lines.append([prediction["file"], *(f"{name} {100 * value:.1f}%" for name, value in best)])
    columns = [examples, *_BEST[: len(classes)]]
    show_table(title, columns, lines, text_columns=len(columns), keys=len(columns))


def _rows(predictions: Sequence[Prediction]) -> tuple[list[str], list[dict[str, str]]]:
    """The columns and the rows of a table of all probabilities."""
    columns = ["file", "label", *(f"probability of {name}" for name in predictions[0].probabilities)]
    return columns, [
        {
            "file": prediction.file,
            "label": prediction.label,
            **{f"probability of {name}": f"{value:.6g}" for name, value in prediction.probabilities.items()},
        }
        for prediction in predictions
    ]
