"""What a few-shot learner is, as training, evaluation and users see it; and the outer step that most share."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from metarl.fewshot.episodes import Episodes, Examples
from metarl.fewshot.normalisation import Normalisation
from metarl.fewshot.objectives import score_name, task_scores
from metarl.runs.configs import check_counts, check_not_negative, check_positive

Predictor = Callable[[Tensor], Tensor]
"""Maps query inputs [task, row, *input] to outputs [task, row, out] of the tasks that were adapted to."""


class Learner(Protocol):
    """A learner of tasks.

    Attributes:
        num_steps: adaptation steps it is trained for; 0 if it has none.
        normalisation: of batch-norm layers, or None without any.
    """

    @property
    def num_steps(self) -> int: ...  # noqa: D102

    @property
    def normalisation(self) -> Normalisation | None: ...  # noqa: D102

    def update(self, episodes: Episodes, rng: np.random.Generator) -> dict[str, float]:
        """One outer step; metrics by name.

        Raises:
            FloatingPointError: if a loss is not finite, naming the task.
        """

    def adapt(self, support: Examples, num_steps: int) -> list[Predictor]:
        """Learn the tasks of some support sets: predictors after 0, 1, ... `num_steps` steps.

        A learner without adaptation steps gives a single one, whatever the number. All hold until the next
        update.
        """

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""


def adapt(learner: Learner, inputs: Tensor, targets: Tensor, *, num_steps: int | None = None) -> Predictor:
    """Learn one task from a few examples, and predict.

    Args:
        learner: meta-trained.
        inputs: [row, *input].
        targets: class indices [row], or numbers [row, out].
        num_steps: adaptation steps; those it was trained for by default.

    Returns:
        A function from new inputs [row, *input] to outputs [row, out].
    """
    support = Examples.of_one_task(inputs, targets)
    predict = learner.adapt(support, learner.num_steps if num_steps is None else num_steps)[-1]
    return lambda queries: predict(queries.unsqueeze(0)).squeeze(0)


class Outcome(NamedTuple):
    """What an outer loss was made of.

    Attributes:
        losses: of each task, with a graph, [task].
        outputs: on the query sets after adaptation, [task, row, out].
    """

    losses: Tensor
    outputs: Tensor


@dataclass(frozen=True)
class OuterConfig:
    """The outer optimiser, Adam.

    Attributes:
        lr: step size at the start.
        final_lr: step size after `annealing_steps` updates, approached along half a cosine; none keeps `lr`.
        annealing_steps: updates that the annealing takes; the experiments take their whole length by default.
        max_grad: every entry of the gradient is clipped to this; none leaves it.
        tasks_at_once: tasks whose graphs are held at a time; by default 4 where convolutions run on a CPU, whose
            caches hold no more, and all otherwise.
    """

    lr: float = 1e-3
    final_lr: float | None = None
    annealing_steps: int | None = None
    max_grad: float | None = None
    tasks_at_once: int | None = None

    def __post_init__(self) -> None:
        check_positive(self, "lr", *(name for name in ("max_grad",) if self.max_grad is not None))
        check_not_negative(self, *(["final_lr"] if self.final_lr is not None else []))
        check_counts(self, "annealing_steps", "tasks_at_once")

    def lr_after(self, updates: int) -> float:
        """The step size after some updates."""
        if self.final_lr is None:
            return self.lr
        if self.annealing_steps is None:
            raise ValueError("final_lr needs annealing_steps, the number of updates until it is reached, got none")
        done = min(updates / self.annealing_steps, 1.0)
        return self.final_lr + (self.lr - self.final_lr) * (1 + math.cos(math.pi * done)) / 2


class OuterOptimizer:
    """Adam on everything that is meta-learned, with the step sizes and the clipping of its configuration.

    Args:
        params: leaves.
        config: step sizes.
        rule: leaves of a learned update rule.
        rule_lr_factor: their step size, as a multiple of that of `params`.

    Attributes:
        updates: done so far.
    """

    def __init__(
        self,
        params: Sequence[Tensor],
        config: OuterConfig,
        *,
        rule: Sequence[Tensor] = (),
        rule_lr_factor: float = 1.0,
    ) -> None:
        self.config = config
        self.updates = 0
        self._params = [*params, *rule]
        self._factors = [1.0, rule_lr_factor][: 2 if rule else 1]
        groups = [{"params": list(params)}, {"params": list(rule)}][: len(self._factors)]
        self._adam = torch.optim.Adam(groups, lr=config.lr)

    def update(self, outcome_of: Callable[[Episodes], Outcome], episodes: Episodes) -> dict[str, float]:
        """A step along the gradient of the mean loss; returns metrics.

        Raises:
            FloatingPointError: if a loss is not finite, naming the task.
        """
        self._adam.zero_grad()
        scores, total = [], 0.0
        for place, part in in_pieces(episodes, self.config.tasks_at_once):
            losses, outputs = outcome_of(part)
            check_finite(losses, place)
            (losses.sum() / episodes.num_tasks).backward()  # type: ignore[no-untyped-call]
            total += float(losses.detach().sum())
            scores.append(task_scores(outputs.detach(), part.query.targets))
        metrics = self.step()
        score = f"train/{score_name(episodes.query.targets)}_post"
        return {"loss/outer": total / episodes.num_tasks, score: float(torch.cat(scores).mean()), **metrics}

    def step(self) -> dict[str, float]:
        """Take a step along the gradients that are there."""
        for group, factor in zip(self._adam.param_groups, self._factors, strict=True):
            group["lr"] = factor * self.config.lr_after(self.updates)
        grads = [p.grad for p in self._params if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads)
        if self.config.max_grad is not None:
            torch.nn.utils.clip_grad_value_(self._params, self.config.max_grad)
        self._adam.step()
        self.updates += 1
        return {"loss/grad_norm": float(norm)}

    def state_dict(self) -> dict[str, Any]:
        """Adam's moments and the number of updates."""
        return {"adam": self._adam.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self._adam.load_state_dict(state["adam"])
        self.updates = state["updates"]


def in_pieces(episodes: Episodes, tasks_at_once: int | None) -> list[tuple[int, Episodes]]:
    """Batches of tasks that fit the processor's caches, each with its first task's place."""
    inputs = episodes.support.inputs
    size = tasks_at_once
    if size is None:
        # A MAML gradient of Conv4 with strides took 0.29 s for 32 tasks in fours, 0.37 s in twos, 0.47 s at once.
        size = 4 if inputs.dim() > 3 and not inputs.is_cuda else max(1, len(inputs))
    if size >= len(inputs):
        return [(0, episodes)]
    return [(place * size, part) for place, part in enumerate(episodes.split(size))]


def check_finite(losses: Tensor, place: int) -> None:
    """Raise a FloatingPointError that names the first task whose loss [task] is not finite."""
    bad = ~torch.isfinite(losses.detach())
    if bad.any():
        index = int(bad.nonzero()[0])
        raise FloatingPointError(f"the outer loss is {losses[index].item()} on task {place + index} of the batch")
