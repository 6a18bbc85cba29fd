"""A few-shot learner as training, evaluation and users see it, and the configuration that makes one."""

import copy
import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn

from metarl.fewshot.backbones import BackboneConfig, NetworkSpec, Output, OwnBackbone, check_network
from metarl.fewshot.episodes import Episodes, Examples, as_inputs
from metarl.fewshot.functional import TaskModule
from metarl.fewshot.normalisation import NormStatistics
from metarl.fewshot.objectives import ByTargets, Objective, TaskObjective, as_objective
from metarl.fewshot.outer import OuterOptimizer
from metarl.fewshot.pixels import OnImageNetScale
from metarl.fewshot.sources import TaskKind, TaskSpec, TrainLabels
from metarl.fewshot.weights import check_state, weight_at_fault
from metarl.runs.configs import Configuration, check_kind

_BY_TARGETS = ByTargets()

Predictor = Callable[[Tensor], Tensor]
"""Maps query inputs [task, row, *input] to outputs [task, row, out] of the tasks that were adapted to.

Outputs have gradients where the inputs ask for them, see `differentiable_in_queries`.
"""


def differentiable_in_queries(predict: Predictor) -> Predictor:
    """The predictor without gradients, unless query inputs ask for them, as an adversary's do.

    It takes inputs as `Examples` does.
    """

    @functools.wraps(predict)
    def call(inputs: Tensor) -> Tensor:
        inputs = as_inputs(inputs)
        with torch.set_grad_enabled(inputs.requires_grad and torch.is_grad_enabled()):
            return predict(inputs)

    return call


class Learner(Protocol):
    """A learner of tasks, trained on many and adapted to new ones."""

    @property
    def num_steps(self) -> int:
        """Number of adaptation steps that the learner is trained for; 0 if it has none."""

    @property
    def normalisation(self) -> NormStatistics | None:
        """Statistics that batch-norm layers normalise by, or None without such layers."""

    def update(self, episodes: Episodes, rng: np.random.Generator) -> dict[str, float]:
        """Take one outer step; returns metrics by name.

        Raises:
            FloatingPointError: if a loss is not finite, naming the task.
        """

    def adapt(self, support: Examples, num_steps: int) -> list[Predictor]:
        """Learn the tasks of some support sets: predictors after 0, 1, ... `num_steps` steps.

        A learner without adaptation steps gives a single one, whatever the number. All hold until the next
        update.
        """

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""


@dataclass(frozen=True)
class LearnerSetup:
    """The tasks, the network and the run that a learner is made for.

    Attributes:
        tasks: Kind and sizes of the tasks.
        backbone: Configuration that makes the network.
        num_updates: Number of outer updates of the whole run, for annealing.
        generator: Random stream that initial weights are drawn from.
        device: Device of the networks.
        objective: Loss that tasks are learned by, and score that is reported.
    """

    tasks: TaskSpec
    backbone: BackboneConfig
    num_updates: int
    generator: torch.Generator
    device: torch.device
    objective: Objective = _BY_TARGETS

    def require(self, kind: TaskKind, config: object) -> None:
        """Raise a ValueError that names the learner's configuration unless tasks are of a kind."""
        if self.tasks.kind != kind:
            raise ValueError(
                f"{type(config).__name__} needs tasks of {kind}, got tasks of {self.tasks.kind}; choose other "
                "data or another learner"
            )

    def output_network(self, *, num_context: int = 0) -> nn.Module:
        """A network that puts out a number per class, or the predicted numbers.

        Args:
            num_context: Numbers of the context that the network takes as its second argument; 0 for none.

        Raises:
            ValueError: if the number of classes differs between training and evaluation.
        """
        num_outputs, train_ways = self.tasks.num_outputs, self.tasks.train_ways
        if not self.tasks.equal_ways:
            raise ValueError(
                "the network's last layer has one output per way, and ways differ from task to task; take "
                "proto-maml or a learner that compares features, or --data.episodes.unequal none"
            )
        if train_ways not in (None, num_outputs):
            raise ValueError(
                f"the network's last layer has one output per way: train_ways must be num_ways, {num_outputs}, "
                f"got {train_ways}; or take a learner that compares features"
            )
        num_outputs = self.objective.num_outputs(num_outputs)
        dtype = self.tasks.input_dtype
        return self.network(
            NetworkSpec(self.tasks.input_shape, "outputs", num_outputs, num_context, input_dtype=dtype)
        )

    def feature_network(
        self, *, exact: bool = False, maps: bool = False, labels: TrainLabels = "task"
    ) -> nn.Module:
        """A network that puts out a feature vector for every row.

        Args:
            exact: Whether float32 is needed, because the learner differentiates through gradients.
            maps: Whether feature maps [channel, height, width] are needed instead of vectors.
            labels: Targets of training tasks that the learner takes.
        """
        output: Output = "maps" if maps else "features"
        spec = NetworkSpec(self.tasks.input_shape, output, exact=exact, input_dtype=self.tasks.input_dtype)
        return self.network(spec, labels=labels)

    def network(self, spec: NetworkSpec, *, labels: TrainLabels = "task") -> nn.Module:
        """A network of any kind.

        Raises:
            ValueError: if the backbone cannot be so, or is not, or the learner takes other targets in training.
        """
        if self.tasks.train_labels != labels:
            raise ValueError(
                f"the learner needs training tasks with labels by {labels}, got {self.tasks.train_labels}; "
                f"set --data.episodes.train-labels {labels}"
            )
        if not spec.input_dtype.is_floating_point and not isinstance(self.backbone, OwnBackbone):
            kind = type(self.backbone)
            if kind.__module__.startswith("metarl."):
                raise ValueError(
                    f"{kind.__name__} takes numbers, got inputs of {spec.input_dtype}; give a network of your own "
                    "that begins with torch.nn.Embedding"
                )
        network = self.backbone.make(spec, self.generator)
        if self.tasks.pixel_scale == "imagenet":
            network = OnImageNetScale(network)
        network = network.to(self.device)
        check_network(network, spec, self.device)
        return network


class LearnerConfig(Configuration, ABC):
    """The hyperparameters of a learner: a frozen dataclass that makes it.

    A new learner is one file: a dataclass that derives from this, and the learner that `make` returns.
    """

    @abstractmethod
    def make(self, setup: LearnerSetup) -> Learner:
        """The untrained learner; its initial weights follow from the setup's generator.

        Raises:
            ValueError: if the learner cannot learn such tasks; says what it needs.
        """


class ModuleLearner(ABC):
    """The common parts of learners of one module; see `Learner`.

    A constructor's argument `config` is checked before the constructor begins, by the class that it is annotated
    with.

    Args:
        network: The module, called for all tasks at once.
        parts: Whatever else a checkpoint holds, by name.
    """

    num_steps = 0
    objective: Objective = _BY_TARGETS
    has_own_loss = False  # which no objective replaces
    never_positive = False  # its outputs, such as minus distances and logarithms of probabilities

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            cls.__init__ = _with_checked_config(cls)  # type: ignore[method-assign]

    @property
    def judges_queries_together(self) -> bool:
        """Whether a prediction depends on the other queries, whatever normalises."""
        return False

    def __init__(self, network: TaskModule, parts: Mapping[str, nn.Module | OuterOptimizer]) -> None:
        self.network = network
        self._parts = {"module": network.module, **parts}

    def trained_by(self, objective: Objective | TaskObjective) -> Self:
        """The learner itself, with the loss and the score of an objective.

        Raises:
            TypeError: If it is no objective.
            ValueError: If the learner cannot be trained by it.
        """
        objective, name = as_objective(objective), type(self).__name__
        if self.has_own_loss and objective != self.objective:
            raise ValueError(
                f"{name} has a loss of its own, got the objective {type(objective).__name__}; leave it out"
            )
        if self.never_positive and objective.needs_positive_outputs:
            raise ValueError(
                f"{name} puts out numbers up to zero, such as minus distances, got the objective "
                f"{type(objective).__name__}, which needs more for a right class; take CrossEntropy"
            )
        self.objective = objective
        return self

    @property
    def normalisation(self) -> NormStatistics | None:
        """Statistics that batch-norm layers normalise by, or None without such layers."""
        return self.network.normalisation if self.network.has_norms else None

    @abstractmethod
    def update(self, episodes: Episodes, rng: np.random.Generator) -> dict[str, float]:
        """Take one outer step; returns metrics by name."""

    @abstractmethod
    def adapt(self, support: Examples, num_steps: int) -> list[Predictor]:
        """Predictors after 0, 1, ... `num_steps` adaptation steps, or a single one without any."""

    def state_dict(self) -> dict[str, Any]:
        """Weights and the outer optimiser, by the name of the part."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave.

        Raises:
            TypeError: If it is no mapping; the learner is as it was then.
            ValueError: If it is the state of another learner or network, or a weight is not finite; likewise.
        """
        self._check_state(state)
        before = copy.deepcopy({name: part.state_dict() for name, part in self._parts.items()})
        try:
            for name, part in self._parts.items():
                part.load_state_dict(state[name])
        except Exception:
            for name, part in self._parts.items():
                part.load_state_dict(before[name])
            raise

    def _check_state(self, state: Mapping[str, Any]) -> None:
        """Raise an error in one line unless the state is that of such a learner."""
        name, own = type(self).__name__, self.state_dict()
        if not isinstance(state, Mapping):
            raise TypeError(f"the state of a {name} must be a mapping of its parts, got {type(state).__name__}")
        missing, more = [x for x in self._parts if x not in state], [x for x in state if x not in own]
        if missing or more:
            differs = f"lacks {missing[0]!r}" if missing else f"has {more[0]!r}"
            raise ValueError(
                f"the state {differs}, that of this {name} has {', '.join(own)}; load that of the same learner"
            )
        for place, part in self._parts.items():
            if isinstance(part, nn.Module):
                check_state(place, part, state[place])
            else:
                part.check_state(state[place])

    def weight_at_fault(self) -> str | None:
        """The name of a weight that is NaN or infinite, behind that of its part; None if all are finite."""
        modules = {name: part for name, part in self._parts.items() if isinstance(part, nn.Module)}
        named = ((part, weight_at_fault(module)) for part, module in modules.items())
        return next((f"{part}.{name}" for part, name in named if name is not None), None)


def check_numbers(learner: Learner, are_numbers: Tensor, what: str, place: int = 0) -> None:
    """Raise a FloatingPointError that names the first task of those whose numbers are not all finite.

    Args:
        learner: Learner, whose weight is named if one is not finite.
        are_numbers: Whether they are, bool [task].
        what: Words for what is not finite, such as "an output".
        place: Place of the first task.
    """
    if bool(are_numbers.all()):
        return
    task = place + int((~are_numbers).nonzero()[0])
    raise FloatingPointError(f"{what} on task {task} is not finite{fault_of(learner)}")


def fault_of(learner: Learner) -> str:
    """The words, after a semicolon, for a weight that is not finite; none if all are."""
    name = learner.weight_at_fault() if isinstance(learner, ModuleLearner) else None
    return "" if name is None else f"; the weight {name!r} of the learner is not finite"


def _with_checked_config(learner: type[ModuleLearner]) -> Callable[..., None]:
    """The constructor of a learner, which refuses a configuration that is not its own in one line."""
    own = learner.__init__
    names = [*inspect.signature(own).parameters]
    kind = inspect.get_annotations(own).get("config")
    if not (isinstance(kind, type) and issubclass(kind, LearnerConfig)):
        return own

    @functools.wraps(own)
    def checked(*values: Any, **named: Any) -> None:
        arguments = dict(zip(names, values, strict=False)) | named
        if "config" in arguments:
            check_kind(f"the configuration of {learner.__name__}", arguments["config"], kind)
        own(*values, **named)

    return checked


def learn_task(
    learner: Learner,
    inputs: Tensor | np.ndarray,
    targets: Tensor | np.ndarray,
    *,
    num_steps: int | None = None,
) -> Callable[[Tensor | np.ndarray], Tensor]:
    """Learn one task from a few examples, and predict.

    Tensors and NumPy's arrays will do; bytes stand for numbers in [0, 1], and arrays of floats become float32.

    Args:
        learner: Meta-trained learner; it is left as it is.
        inputs: Examples [row, *input].
        targets: Class indices [row] of any integer type or bool, or numbers [row, out].
        num_steps: Number of adaptation steps; None for as many as the learner was trained for.

    Returns:
        A function from new inputs [row, *input] to outputs [row, out].

    Raises:
        FloatingPointError: If a weight of the learner is not finite.
        TypeError: If inputs or targets are not numbers.
        ValueError: If there are no examples, or not as many targets, or the learner cannot learn such targets.
    """
    if fault := fault_of(learner):
        raise FloatingPointError(f"nothing can be learned{fault}; load an earlier state")
    num_steps = learner.num_steps if num_steps is None else num_steps
    if num_steps < 0:
        raise ValueError(f"num_steps must be 0 or more, got {num_steps}")
    predict = learner.adapt(Examples.of_one_task(inputs, targets), num_steps)[-1]
    return lambda queries: predict(as_inputs(queries).unsqueeze(0)).squeeze(0)
