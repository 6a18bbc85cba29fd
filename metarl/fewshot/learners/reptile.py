"""Reptile: move the initialisation towards what training on a task makes of it (Nichol et al. 2018).

arXiv:1803.02999, algorithm 2.

For a batch of tasks, all of them at once:

    W_i = theta;  inner_steps times: W_i = Adam(W_i, grad L(minibatch of task i; W_i))
    theta = theta + epsilon (mean_i W_i - theta),      epsilon annealed linearly to 0

A training task's minibatches come from its support and query sets alike. The inner Adam has no first moment, and
its second moment goes on from task to task.

How we differ: tasks of a batch train side by side, each from the second moment that the batch before left on
average, where the original's train one after another.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from metarl.fewshot.call_order import check_averages
from metarl.fewshot.episodes import Episodes, Examples
from metarl.fewshot.functional import TaskModule
from metarl.fewshot.inner_loop import InnerLoop
from metarl.fewshot.learner import LearnerConfig, LearnerSetup, ModuleLearner, Predictor
from metarl.fewshot.normalisation import NormStatistics
from metarl.fewshot.objectives import Objective, TaskObjective, as_objective, task_losses
from metarl.fewshot.outer import check_finite, check_trainable, in_pieces
from metarl.fewshot.weights import check_tensors
from metarl.learning.bilevel import Params, UpdateRule, sgd
from metarl.runs.configs import MOST_REPEATS, MOST_TASKS, MOST_UPDATES, check_counts, check_positive
from metarl.runs.seeding import draw_seed, torch_generator


@dataclass(frozen=True)
class ReptileConfig(LearnerConfig):
    """Reptile's hyperparameters, with the published ones for 5-way Omniglot.

    Attributes:
        inner_lr: Step size of the inner optimiser.
        inner_steps: Number of minibatches per task in training.
        test_steps: Number of adaptation steps per task that evaluation is meant for.
        inner_batch_size: Number of examples per minibatch.
        inner_optimizer: Inner optimiser, Adam without a first moment or plain gradient descent.
        outer_lr: Step size of the outer loop, epsilon, at the start.
        annealing_updates: Number of updates until the outer step size is 0; 0 for no annealing, None for the whole
            run.
        normalisation: Statistics that batch-norm layers normalise by.
        tasks_at_once: Number of tasks that adapt at a time; None for 4 where convolutions run on a CPU, and for
            all tasks otherwise.
    """

    inner_lr: float = 1e-3
    inner_steps: int = 5
    test_steps: int = 50
    inner_batch_size: int = 10
    inner_optimizer: Literal["adam", "sgd"] = "adam"
    outer_lr: float = 1.0
    annealing_updates: int | None = None
    normalisation: NormStatistics = "transductive"
    tasks_at_once: int | None = None

    def __post_init__(self) -> None:
        check_positive(self, "inner_lr", "outer_lr")
        check_counts(self, "inner_steps", "test_steps", most=MOST_REPEATS)
        check_counts(self, "inner_batch_size", "tasks_at_once", most=MOST_TASKS)
        check_counts(self, "annealing_updates", least=0, most=MOST_UPDATES)

    def make(self, setup: LearnerSetup) -> "Reptile":
        """The untrained learner, whose network has an output per way or predicted number."""
        updates = setup.num_updates if self.annealing_updates is None else self.annealing_updates
        return Reptile(setup.output_network(), replace(self, annealing_updates=updates), objective=setup.objective)


class SecondMoments:
    """Adam without a first moment (beta_1 = 0, beta_2 = 0.999), as an update rule.

    Args:
        lr: Step size.
        moments: Second moments to continue from, each [...]; empty at first.
        num_steps: Number of steps that the moments come from.
    """

    def __init__(self, lr: float, moments: Params, num_steps: int) -> None:
        self._lr = lr
        self._start, self._num_steps = dict(moments), num_steps
        self.moments = dict(moments)

    def __call__(self, step: int, name: str, param: Tensor, grad: Tensor) -> Tensor:
        """The updated parameter [task, ...]."""
        before = (self.moments if step else self._start).get(name)
        squared = 0.001 * grad.square()
        moment = squared if before is None else 0.999 * before + squared
        self.moments[name] = moment
        corrected = moment / (1 - 0.999 ** (self._num_steps + step + 1))
        return param - self._lr * grad / (corrected.sqrt() + 1e-8)


class Reptile(ModuleLearner):
    """A Reptile learner; see `metarl.fewshot.learner.Learner`.

    Args:
        module: Maps [row, *input] to [row, out]; its parameters are trained in place.
        config: Hyperparameters.
        objective: Loss of every task; cross-entropy for integer targets and squared error for others by default.
    """

    not_weights: ClassVar[tuple[str, ...]] = ("moments",)
    """Parts of the state that a warm start leaves out."""

    def __init__(
        self, module: nn.Module, config: ReptileConfig, *, objective: Objective | TaskObjective = task_losses
    ) -> None:
        super().__init__(TaskModule(module, normalisation=config.normalisation, num_steps=config.test_steps), {})
        if config.normalisation == "running":
            check_averages(self.network.module, self.network.weights)
        check_trainable(self.network.weights.values())
        self.config = config
        self.num_steps = config.test_steps
        self.objective = as_objective(objective)
        self.moments: Params = {}
        self.moment_steps = 0
        self.updates = 0

    @property
    def epsilon(self) -> float:
        """The outer step size of this update."""
        if not self.config.annealing_updates:
            return self.config.outer_lr
        return self.config.outer_lr * max(0.0, 1 - self.updates / self.config.annealing_updates)

    def update(self, episodes: Episodes, rng: np.random.Generator) -> dict[str, float]:
        """Take one outer step; returns metrics by name."""
        config, params = self.config, self.network.params
        check_trainable(params.values())
        self.inner.track(episodes.support)
        generator = torch_generator(draw_seed(rng))
        deltas = {name: torch.zeros_like(p) for name, p in params.items()}
        moments = {name: torch.zeros_like(p) for name, p in params.items()}
        losses, scores = [], []
        for place, part in in_pieces(episodes, config.tasks_at_once):
            loop = self.inner
            examples = part.support.join(part.query)
            batches = _minibatches(examples, config.inner_batch_size, config.inner_steps, generator)
            adapted = loop.trace_on(batches, part.num_tasks, "none")[-1]
            with torch.no_grad():
                outputs = loop.outputs(adapted, part.support, part.query.inputs, config.inner_steps)
                losses.append(self.objective.losses(outputs, part.query.targets))
                check_finite(losses[-1], place)
                scores.append(self.objective.scores(outputs, part.query.targets))
                for name, p in params.items():
                    deltas[name] += (adapted[name] - p).sum(0) / episodes.num_tasks
                    if isinstance(loop.rule, SecondMoments):
                        moments[name] += loop.rule.moments[name].sum(0) / episodes.num_tasks
        with torch.no_grad():
            for name, p in params.items():
                p.add_(deltas[name], alpha=self.epsilon)
        if config.inner_optimizer == "adam":
            self.moments, self.moment_steps = moments, self.moment_steps + config.inner_steps
        self.updates += 1
        # The query examples were trained on: this says how well tasks are fitted, not how well they are learned.
        return {
            "loss/fitted": float(torch.cat(losses).mean()),
            f"train/{self.objective.score_name(episodes.query.targets)}_fitted": float(torch.cat(scores).mean()),
        }

    def adapt(self, support: Examples, num_steps: int) -> list[Predictor]:
        """Predictors after 0, 1, ... `num_steps` steps, each on the whole support set."""
        return self.inner.predictors(support, num_steps, self.config.tasks_at_once)

    @property
    def inner(self) -> InnerLoop:
        """An inner loop whose optimiser starts where training left it; evaluation does not move that."""
        rule: UpdateRule = sgd(self.config.inner_lr)
        if self.config.inner_optimizer == "adam":
            rule = SecondMoments(self.config.inner_lr, self.moments, self.moment_steps)
        return InnerLoop(self.network, rule, self.network.weights, self.objective)

    def state_dict(self) -> dict[str, Any]:
        """Weights, second moments and the number of updates."""
        own = {"moments": dict(self.moments), "moment_steps": self.moment_steps, "updates": self.updates}
        return super().state_dict() | own

    def _check_state(self, state: Mapping[str, Any]) -> None:
        super()._check_state(state)
        moments, weights = state.get("moments"), self.network.weights
        check_tensors("moments", {name: p for name, p in weights.items() if name in (moments or ())}, moments)
        for name in ("moment_steps", "updates"):
            number = state.get(name)
            if type(number) is not int or number < 0:
                raise ValueError(f"{name} in the state must be a whole number of 0 or more, got {number!r}")

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave; nothing, with an error in one line, if it is another learner's."""
        super().load_state_dict(state)
        self.moments = {name: m.to(self.network.weights[name]) for name, m in state["moments"].items()}
        self.moment_steps, self.updates = state["moment_steps"], state["updates"]


def _minibatches(examples: Examples, size: int, num_batches: int, generator: torch.Generator) -> list[Examples]:
    """Minibatches of every task that go through its examples in random order, again and again."""
    num_tasks, num_rows = examples.inputs.shape[:2]
    size = min(size, num_rows)
    rounds = -(-size * num_batches // num_rows)
    order = torch.cat([torch.rand(num_tasks, num_rows, generator=generator).argsort(1) for _ in range(rounds)], 1)
    order = order.to(examples.inputs.device)
    return [examples.rows(order[:, k * size : (k + 1) * size]) for k in range(num_batches)]
