"""Few-shot runs: a supervised few-shot learner and the episodes that it learns from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from metarl.experiments.console import Waiting
from metarl.experiments.fewshot.configuration import (
    FewshotExperiment,
    data_name,
    encode,
    make_learner,
)
from metarl.experiments.fewshot.measure import measure, norms, show
from metarl.experiments.options import EvaluationOptions
from metarl.experiments.runs import Kind, Run, checkpoint_path
from metarl.fewshot.conformance import sources_of, try_data, try_learner
from metarl.fewshot.data.class_tasks import ClassTasks, ImageClasses, SplitName
from metarl.fewshot.data.classes import ClassData, ClassSource
from metarl.fewshot.data.drawn import FixedEpisodes, read_tasks
from metarl.fewshot.data.mixed import MixedData
from metarl.fewshot.inner_loop import GradientLearner
from metarl.fewshot.learner import Learner
from metarl.fewshot.learners.fine_tuning import FineTuning, choose_inner_lr
from metarl.fewshot.metric import is_transductive
from metarl.fewshot.prediction import (
    Prediction,
    Queries,
    predict_files,
    read_labelled_rows,
    read_new_rows,
    read_queries,
    read_support,
)
from metarl.fewshot.sources import DataConfig, OtherSizes, Sources, on_examples_read
from metarl.fewshot.training import FewshotEvaluationConfig, train
from metarl.loop import Progress, Report
from metarl.nets.devices import make_device
from metarl.runs import parallel, seeding
from metarl.runs.checkpoint import CHECKPOINT
from metarl.runs.loggers import Logger
from metarl.runs.metrics import Axis
from metarl.states import load_state

_TRANSDUCTIVE = "transductive: a prediction depends on the other queries; scores compare with such ones only"
_SIZES = ("num_ways", "num_shots", "num_queries")


@dataclass(frozen=True)
class FewshotRun(Run):
    """The run of a `FewshotExperiment`."""

    kind: ClassVar[Kind] = "few-shot"
    axis: ClassVar[Axis] = "tasks"
    options: ClassVar[tuple[str, ...]] = (
        *("tasks", "num_tasks", "num_steps", *_SIZES, "views", "data_folder", "data_source", "seed", "checkpoint"),
    )

    experiment: FewshotExperiment
    data_source: int | None = None  # the place in a mixture of the data that held-out tasks are of; None for all

    @classmethod
    def prepare(
        cls, folder: Path, name: str, experiment: FewshotExperiment, sources: Mapping[str, Any]
    ) -> "FewshotRun":
        """The run of an experiment before there is a folder."""
        return cls(folder, name, experiment, sources)

    @classmethod
    def open(
        cls, folder: Path, name: str, experiment: FewshotExperiment, sources: Mapping[str, Any]
    ) -> "FewshotRun":
        """The run of a folder."""
        return cls(folder, name, experiment, sources)

    @property
    def identity(self) -> str:
        """The owner of the checkpoints in the folder."""
        return f"{type(self.experiment.learner).__name__.removesuffix('Config')} on {data_name(self.experiment)}"

    def encode(self) -> Any:
        """The experiment as JSON types."""
        return encode(self.experiment)

    def introduction(self) -> list[str]:
        """The learner, the data and the batch norm."""
        episodes = try_data(self.data, self.episodes())
        learner = self.untrained()
        try_learner(learner, episodes)
        parallel.check_divisible(learner, self.experiment.training.meta_batch_size)
        together = [_TRANSDUCTIVE] if is_transductive(learner) else []
        title = f"{self.identity}; {norms(learner.normalisation)}"
        return [title, *together, *_what_adapts(learner), *self.origin()]

    def untrained(self) -> Learner:
        """The learner before any training."""
        return make_learner(self.experiment, make_device(self.experiment.device))

    def spaces(self) -> Mapping[str, Any]:
        """Nothing: a network's weights have the shapes of what it reads and puts out."""
        return {}

    @property
    def data(self) -> DataConfig:
        """The data of its tasks: the experiment's, or one of those that are mixed."""
        data = self.experiment.data
        if self.data_source is None:
            return data
        assert isinstance(data, MixedData)
        return data.source(self.data_source)

    def on_source(self, number: int | None) -> Self:
        """The same trained run, judged on one of the data of its mixture.

        Args:
            number: Place among the data, from 0; None for all of them, mixed.

        Raises:
            ValueError: If nothing is mixed, or there are not so many data.
        """
        if number is None:
            return self
        data = self.experiment.data
        if not isinstance(data, MixedData):
            raise ValueError(
                f"--data-source chooses one of several data that are mixed, {self.folder} has only "
                f"{data_name(self.experiment)}; leave it out"
            )
        data.source(number)
        return replace(self, data_source=number)

    def resized(self, sizes: OtherSizes) -> Self:
        """The same trained run with held-out tasks of other sizes, or its data read from another folder.

        Raises:
            ValueError: If the data have no such size.
        """
        data = self.data.resized(sizes)
        if self.data_source is not None:
            assert isinstance(self.experiment.data, MixedData)
            data = self.experiment.data.with_source(self.data_source, data)
        return replace(self, experiment=replace(self.experiment, data=data))

    def episodes(self) -> Sources:
        """The sources of its tasks."""
        if not isinstance(self.data, ClassTasks):
            return sources_of(self.data, make_device(self.experiment.device))
        with Waiting("reading examples") as waiting:
            token = on_examples_read.set(waiting.progress)
            try:
                return self.data.make(make_device(self.experiment.device))
            finally:
                on_examples_read.reset(token)

    def classes(self, split: SplitName) -> ClassSource:
        """The source of the tasks of a split's classes.

        Raises:
            ValueError: If it has none; one line.
        """
        source = self.episodes().held_out.get(split)
        if not isinstance(source, ClassSource):
            raise ValueError(
                f"{self.folder} has no {split} classes; {self._expected('a few-shot run on classes')}"
            )
        return source

    def _expected(self, what: str) -> str:
        """What to do where something else is expected."""
        data = self.experiment.data
        if isinstance(data, MixedData) and self.data_source is None:
            return f"choose one of the data that it mixes, --data-source 0 to {len(data.sources) - 1}"
        return f"expected {what}"

    def train(
        self,
        *,
        loggers: Sequence[Logger],
        report: Report | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> Progress:
        """Train to the configured number of iterations, from the checkpoint if there is one."""
        return train(
            self.started(),
            self.episodes(),
            self.experiment.training,
            self.experiment.evaluation,
            folder=self.folder,
            seed=self.experiment.seed,
            identity=self.identity,
            loggers=loggers,
            report=report or (lambda progress, metrics: None),
            stop=stop or (lambda: False),
        )

    def restored(self, checkpoint: str = CHECKPOINT) -> tuple[Learner, Progress]:
        """The learner as a checkpoint left it, and how far it was trained."""
        learner, generators = self.untrained(), seeding.streams(self.experiment.seed)
        return learner, load_state(learner, generators, checkpoint_path(self, checkpoint), self.identity)

    def measure(self, options: EvaluationOptions) -> dict[str, Any]:
        """Evaluate on every split, and the untrained learner on the test split."""
        sizes = OtherSizes(options.num_ways, options.num_shots, options.num_queries, options.data_folder)
        run = self.on_source(options.data_source).resized(sizes)
        settings = _settings(run.experiment.evaluation, options)
        learner, progress = run.restored(options.checkpoint)
        sources, described = run.episodes(), run.data.describe()
        chosen = choose_on_validation(learner, sources, settings.num_steps, options.seed)
        if options.tasks is not None:
            if any(getattr(options, size) is not None for size in _SIZES):
                raise ValueError(
                    f"a list of episodes has its own ways, shots and queries; leave them out of {options.tasks}"
                )
            split, source = run.listed(sources, options.tasks)
            sources, described = Sources(sources.train, {split: source}), f"the list {options.tasks.name}"
            settings = replace(settings, num_tasks=len(source.tasks))
        return {
            **run.result_head(options, progress),
            **chosen,
            "num_tasks": settings.num_tasks,
            "episodes": described,
            "normalisation": learner.normalisation,
            "transductive": is_transductive(learner),
            "views": settings.views,
            "train_tasks": progress.tasks,
            **measure(learner, run.untrained(), sources, settings, seed=options.seed),
        }

    def listed(self, sources: Sources, path: Path) -> tuple[str, FixedEpisodes]:
        """The tasks of a file, and the split that their classes are of.

        Raises:
            ValueError: If it is no such file, or no split has all of its classes; one line.
        """
        reasons = []
        for split in ("test", "validation", "train"):
            source = sources.held_out.get(split)
            if isinstance(source, ClassSource):
                try:
                    return split, FixedEpisodes(source.data, read_tasks(path, source.data))
                except ValueError as error:
                    reasons.append(error)
        if reasons:
            raise reasons[0]
        raise ValueError(f"{path} lists episodes of classes; {self._expected('a run on classes')}")

    def predict(
        self,
        support: Path | str,
        queries: Path | str,
        *,
        views: int | None = None,
        num_steps: int | None = None,
        checkpoint: str = CHECKPOINT,
    ) -> list[Prediction]:
        """The classes of images, or of rows of a table, by the trained learner.

        Args:
            support: Folder that holds a folder of labelled images for every class, which may be new; of runs on
                anything else, a table with a label for every row: CSV, Parquet, or npz of inputs and targets.
            queries: Folder of the images to predict, itself or in folders below it; or a table, or an npy file.
            views: Number of views of every image whose mean features are compared; None for the configured one.
            num_steps: Number of adaptation steps, of learners that have them; None for the configured one.
            checkpoint: File name of one of the run's checkpoints.

        Raises:
            ValueError: If the run is on no classes, a file is not of this form, or an image cannot be read.
        """
        settings, device = self.experiment.evaluation, make_device(self.experiment.device)
        known, new = self._examples(Path(support), Path(queries))
        return predict_files(
            self.restored(checkpoint)[0],
            known.to(device),
            new.names,
            new.inputs.to(device),
            true_labels=new.labels,
            views=settings.views if views is None else views,
            num_steps=settings.num_steps if num_steps is None else num_steps,
        )

    def _examples(self, support: Path, queries: Path) -> tuple[ClassData, Queries]:
        """The labelled examples of every class, and those to predict."""
        kind = self.data.tasks.kind
        if kind != "classification" or isinstance(self.data, MixedData):
            raise ValueError(
                f"{self.folder} was trained on {data_name(self.experiment)}, tasks of {kind}; "
                + self._expected("a run on classes, such as omniglot-protonet or table-protonet")
            )
        for path in (support, queries):
            if path.is_file() and isinstance(self.data, ImageClasses):
                raise ValueError(f"{path} is a file, and {self.folder} was trained on images; expected a folder")
            if path.is_dir() and not isinstance(self.data, ImageClasses):
                raise ValueError(
                    f"{path} is a folder, and {self.folder} was trained on {data_name(self.experiment)}; expected "
                    "a table, CSV, Parquet, npz, or npy without labels"
                )
        if not isinstance(self.data, ImageClasses):
            return read_labelled_rows(support, self.data), read_new_rows(queries, self.data)
        known = read_support(support, self.data.decode)
        files, images = read_queries(queries, self.data.decode)
        folders = [Path(file).parent.name for file in files]
        return known, Queries(files, images, [name if name in known.names else None for name in folders])

    def show(self, result: Mapping[str, Any]) -> None:
        """Print a result of `measure` as tables."""
        show(result)

    def describe(self, progress: Progress, metrics: Mapping[str, float]) -> list[str]:
        """Tasks, loss and score."""
        scores = [
            f"{name.split('/')[1]} {value:.4f}" for name, value in metrics.items() if name.startswith("train/")
        ]
        losses = [f"loss {value:.4f}" for name, value in metrics.items() if name in ("loss/outer", "loss/fitted")]
        return [f"{progress.tasks:,} tasks", *losses[:1], *scores[:2]]

    def experience(self, progress: Progress) -> str:
        """The number of tasks."""
        return f"{progress.tasks:,} tasks"


def choose_on_validation(learner: Learner, sources: Sources, num_steps: int, seed: int) -> dict[str, Any]:
    """Choose the step size of fine-tuning, if that is done on validation tasks; it and the scores of all."""
    if not isinstance(learner, FineTuning) or not learner.config.inner_lr_choices:
        return {}
    validation = sources.held_out.get("validation")
    if validation is None:
        raise ValueError(
            "the step size of fine-tuning is chosen on validation tasks, of which the data have none; set "
            "--learner.inner-lr-choices to nothing, or hold classes out for validation"
        )
    scores = choose_inner_lr(learner, validation, seeding.streams(seed)["tasks"], num_steps=num_steps)
    return {
        "inner_lr": learner.config.inner_lr,
        "inner_lr_scores": {str(inner_lr): score for inner_lr, score in scores.items()},
    }


def _what_adapts(learner: Learner) -> list[str]:
    """The tensors that adapt to a task, by name."""
    if not isinstance(learner, GradientLearner):
        return []
    names = learner.inner.adapted
    shown = ", ".join(names) if len(names) <= 4 else f"{names[0]} to {names[-1]}"
    return [f"adapts {len(names)} of {len(learner.network.weights)} tensors: {shown}"]


def _settings(settings: FewshotEvaluationConfig, options: EvaluationOptions) -> FewshotEvaluationConfig:
    """The settings with the numbers that were wanted for."""
    wanted = {name: getattr(options, name) for name in ("num_tasks", "num_steps", "views")}
    return replace(settings, **{name: value for name, value in wanted.items() if value is not None})
