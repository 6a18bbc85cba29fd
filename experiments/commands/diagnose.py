"""metarl diagnose DIR: what a trained few-shot learner confuses, and how far its probabilities can be believed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import tyro

from metarl.experiments.arguments import UsageError, check_new, parse
from metarl.experiments.comparison.figures import can_draw
from metarl.experiments.console import Waiting, say, show_table
from metarl.experiments.fewshot.figures import by_shots, calibration, confusion, draw_all, embedding, under_attack
from metarl.experiments.fewshot.run import FewshotRun, choose_on_validation
from metarl.experiments.loading import open_again
from metarl.experiments.outside import OwnWords
from metarl.fewshot.attacks import Attack
from metarl.fewshot.data.classes import ClassEpisodes, ClassSource
from metarl.fewshot.diagnosis import (
    Diagnosis,
    Projection,
    accuracy_by_shots,
    check_projection,
    diagnose,
    embed_task,
)
from metarl.fewshot.learner import Learner
from metarl.fewshot.learners.fine_tuning import FineTuning
from metarl.fewshot.metric import MetricLearner
from metarl.fewshot.robustness import attacked_scores
from metarl.intervals import Sampling
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
        num_tasks: Number of tasks; the run's own by default. They are those of an evaluation by the same seed.
        num_steps: Number of adaptation steps, of learners that have them; the run's own by default.
        data_source: Place in data.sources, from 0, of the data that are meant, of runs on several data.
        seed: Seed of the tasks.
        views: Number of views of every image, of learners that compare features; the run's own by default.
        shots: Numbers of support examples per class to judge by on the same queries, as far as classes have
            enough; none for tasks of unequal shots, which show theirs. Their examples are others than those of the
            accuracy above, which an evaluation reports too.
        attack_sizes: Largest changes of an entry of a query by an adversary, in the inputs' units (images lie in
            [0, 1] and stay there), for accuracy under attack, of one view; none by default.
        attack_steps: Number of steps of the stronger of two attacks, projected gradients (PGD); the other one
            takes a single step (FGSM).
        json: New file to write all counts to, besides showing the largest.
        figures: New folder for figures as PNG and PDF: confusions, a task's features with the means of its
            classes, accuracy by shots, accuracy by probability, and accuracy under attack if there is one.
        projection: Way of the features into a plane, principal components or t-SNE, which needs scikit-learn.
        checkpoint: File name of the checkpoint, checkpoint.pt, checkpoint.previous.pt or checkpoint.best.pt.
        own: Words for what the run was made with and its folder does not hold.
    """

    folder: tyro.conf.Positional[Path]
    split: Literal["train", "validation", "test"] = "test"
    num_tasks: int | None = None
    num_steps: int | None = None
    views: int | None = None
    data_source: int | None = None
    seed: int = 0
    shots: tuple[int, ...] = (1, 2, 5)
    attack_sizes: tuple[float, ...] = ()
    attack_steps: int = 10
    json: Path | None = None
    figures: Path | None = None
    projection: Projection = "pca"
    checkpoint: str = CHECKPOINT
    own: Annotated[OwnWords, tyro.conf.arg(name="")] = field(default_factory=OwnWords)

    def __post_init__(self) -> None:
        check_counts(self, "num_tasks", "views", most=MOST_TASKS)
        check_counts(self, "num_steps", least=0, most=MOST_REPEATS)
        check_counts(self, "data_source", least=0, most=MOST_TASKS)
        check_counts(self, "attack_steps", most=MOST_REPEATS)
        if not all(0 < size < float("inf") for size in self.attack_sizes):
            raise ValueError(f"attack_sizes must be positive each, got {list(self.attack_sizes)}")
        if any(number < 1 for number in self.shots):
            raise ValueError(f"shots must be 1 or more each, got {min(self.shots)}")


def command(words: list[str]) -> int:
    """Run `metarl diagnose`; returns the exit status."""
    arguments = parse(DiagnoseArguments, words, "metarl diagnose")
    check_new(arguments.json)
    check_new(arguments.figures, "--figures")
    if arguments.figures is not None and not can_draw():
        raise UsageError('figures need matplotlib; pip install "metarl-toolkit[report]"')
    check_projection(arguments.projection)
    run = open_again(arguments.folder, arguments.own)
    if not isinstance(run, FewshotRun):
        raise UsageError(f"{run.folder} is an RL run; expected a few-shot run on classes")
    judged = run.on_source(arguments.data_source)
    source, settings = judged.classes(arguments.split), run.experiment.evaluation
    learner, _ = run.restored(arguments.checkpoint)
    num_tasks = settings.num_tasks if arguments.num_tasks is None else arguments.num_tasks
    num_steps = settings.num_steps if arguments.num_steps is None else arguments.num_steps
    views = settings.views if arguments.views is None else arguments.views
    if isinstance(learner, FineTuning) and learner.config.inner_lr_choices:
        choose_on_validation(learner, judged.episodes(), num_steps, arguments.seed)
    sizes = {"num_tasks": num_tasks, "num_steps": num_steps}
    diagnosis = diagnose(learner, source, _stream(arguments), **sizes, views=views)
    accuracies = _by_shots(learner, source, arguments, sizes | {"views": views})
    attacked = _attacked(learner, source, arguments, sizes) if arguments.attack_sizes else {}
    title = f"{run.name}, {arguments.split} classes"
    _show(title, diagnosis)
    _show_shots(diagnosis, accuracies)
    if attacked:
        _show_attacked(attacked)
    if arguments.figures is not None:
        figures = {"calibration": calibration(diagnosis.reliability()), "confusion": confusion(diagnosis)}
        if attacked:
            figures["robustness"] = under_attack(attacked)
        if accuracies:
            figures["shots"] = by_shots(accuracies)
        embedding_of = learner.base if isinstance(learner, FineTuning) else learner
        if isinstance(embedding_of, MetricLearner) and embedding_of.embeds_rows_alone:
            task = embed_task(embedding_of, source, _stream(arguments), projection=arguments.projection)
            figures["embedding"] = embedding(task, arguments.projection)
        draw_all(figures, arguments.figures, title, num_tasks)
        say(f"figures written to {arguments.figures}: {', '.join(figures)}")
    if arguments.json is not None:
        result = {
            "experiment": run.name,
            "split": arguments.split,
            "accuracy": diagnosis.accuracy,
            "calibration_error": diagnosis.calibration(),
            "accuracy_by_class": diagnosis.by_class,
            "accuracy_by_shots": {str(n): float(each.mean()) for n, each in accuracies.items()}
            or {str(n): accuracy for n, accuracy in diagnosis.by_shots.items()},
            "accuracy_under_attack": {
                name: {str(size): float(each.mean()) for size, each in by_size.items()}
                for name, by_size in attacked.items()
            },
            "classes": list(diagnosis.names),
            "confusion": diagnosis.confusion.tolist(),
            "taken_for_none": diagnosis.of_none.tolist(),
        }
        write_json(arguments.json, result)
        say(f"written to {arguments.json}")
    return 0


def _stream(arguments: DiagnoseArguments) -> np.random.Generator:
    """The random stream of the tasks, from its start: all parts of a diagnosis are of the same ones."""
    return seeding.streams(arguments.seed)["evaluation"]


def _by_shots(
    learner: Learner, source: ClassSource, arguments: DiagnoseArguments, sizes: Mapping[str, int]
) -> dict[int, np.ndarray]:
    """The accuracy on every task [task] by the number of shots, of those that all classes have examples for."""
    if not isinstance(source, ClassEpisodes):
        return {}
    left = int(source.data.counts.min()) - source.num_queries
    shots = sorted({number for number in arguments.shots if number <= left})
    return accuracy_by_shots(learner, source, _stream(arguments), shots=shots, **sizes) if shots else {}


def _attacked(
    learner: Learner, source: ClassSource, arguments: DiagnoseArguments, sizes: Mapping[str, int]
) -> dict[str, dict[float, np.ndarray]]:
    """The accuracy on every task [task] by the attack's name and size; size 0 is without any."""
    input_range = (0.0, 1.0) if source.data.examples.dtype == torch.uint8 else None
    kinds = {"FGSM": 1, f"PGD, {arguments.attack_steps} steps": arguments.attack_steps}
    attacks = {
        (name, size): Attack(size, num_steps if size else 1, input_range)
        for name, num_steps in kinds.items()
        for size in (0.0, *sorted(set(arguments.attack_sizes)))
    }
    del attacks[list(kinds)[1], 0.0]  # the same as the other one
    rng = _stream(arguments)
    with Waiting("attacking, task") as waiting:
        scores = attacked_scores(learner, source, rng, attacks=attacks, **sizes, progress=waiting.progress)
    first, second = kinds
    scores[second, 0.0] = scores[first, 0.0]
    return {name: {size: each for (kind, size), each in scores.items() if kind == name} for name in kinds}


def _show_attacked(attacked: Mapping[str, Mapping[float, np.ndarray]]) -> None:
    rows = [
        [name, f"{size:g}", *_percent(each)]
        for name, by_size in attacked.items()
        for size, each in sorted(by_size.items())
    ]
    names = ["attack", "largest change", "accuracy, %", "95% interval"]
    show_table("under attack", names, rows, keys=2)


def _percent(accuracies: np.ndarray) -> tuple[str, str]:
    """The mean of accuracies in percent, and its 95% interval."""
    interval = Sampling.independent(len(accuracies)).mean_interval(100 * accuracies, least=0, most=100)
    bounds = "-" if interval is None else "[{:.1f}, {:.1f}]".format(*interval)
    return f"{100 * accuracies.mean():.1f}", bounds


def _show(title: str, diagnosis: Diagnosis) -> None:
    accuracy, error = f"{100 * diagnosis.accuracy:.1f}", f"{100 * diagnosis.calibration():.1f}"
    say(f"{title}: accuracy {accuracy}%, calibration error {error}%")
    if of_none := int(diagnosis.of_none.sum()):
        queries = int(diagnosis.num_queries.sum())
        say(f"{of_none} of {queries} queries were taken for no class of their task, which has fewer than outputs")
    hardest = list(diagnosis.by_class.items())[:_SHOWN]
    show_table("hardest classes", ["class", "accuracy, %"], [[name, f"{100 * x:.1f}"] for name, x in hardest])
    rows = [[one, other, str(count)] for one, other, count in diagnosis.confused[:_SHOWN]]
    show_table("most confused", ["class", "taken for", "queries"], rows, text_columns=2, keys=2)


def _show_shots(diagnosis: Diagnosis, accuracies: dict[int, np.ndarray]) -> None:
    rows = [[str(number), *_percent(each)] for number, each in accuracies.items()]
    if not rows:
        rows = [
            [f"{number} to {2 * number - 1}" if number > 1 else "1", f"{100 * accuracy:.1f}", "-"]
            for number, accuracy in diagnosis.by_shots.items()
        ]
    show_table("by shots", ["support examples per class", "accuracy, %", "95% interval"], rows)
