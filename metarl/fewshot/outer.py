"""The outer step that most learners share: along the gradient of the mean loss, a few tasks at a time."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from metarl.fewshot.episodes import Episodes
from metarl.fewshot.objectives import ByTargets, Objective
from metarl.runs import parallel
from metarl.runs.configs import (
    MOST_TASKS,
    MOST_UPDATES,
    Configuration,
    check_counts,
    check_fraction,
    check_not_negative,
    check_positive,
)

_BY_TARGETS = ByTargets()


class OuterLosses(NamedTuple):
    """The outer losses of some tasks, and what they were computed from.

    Attributes:
        losses: Loss of each task, with a graph, [task].
        outputs: Outputs on the query sets after adaptation, [task, row, out].
    """

    losses: Tensor
    outputs: Tensor


@dataclass(frozen=True)
class OuterConfig(Configuration):
    """The outer optimiser, Adam unless another is named.

    Attributes:
        outer_lr: Step size of the outer loop, at the start if it is annealed.
        final_outer_lr: Step size after annealing_updates, approached along half a cosine; None for no
            annealing.
        annealing_updates: Number of updates until the step size is final_outer_lr; None for the whole run.
        max_grad: Largest size of an entry of the outer gradient, beyond which it is clipped; None for no clipping.
        tasks_at_once: Number of tasks whose graphs are held in memory at a time; None for 4 where convolutions run
            on a CPU, whose caches hold no more, and for all tasks otherwise.
        optimizer: Optimiser of the outer loop; adamw shrinks weights apart from their gradients.
        momentum: Share of the last step in the next one of sgd, in [0, 1).
        weight_decay: Weight of half the squared weights beside the loss, or of adamw's shrinking.
        max_grad_norm: Largest norm of the outer gradient, beyond which it is scaled down; None for no limit.
        head_lr_factor: Step size of what learners that compare train beside their network, such as scales and
            regularisation, as a multiple of outer_lr.
    """

    renamed: ClassVar[Mapping[str, str]] = {
        "lr": "outer_lr",
        "final_lr": "final_outer_lr",
        "annealing_steps": "annealing_updates",
    }

    outer_lr: float = 1e-3
    final_outer_lr: float | None = None
    annealing_updates: int | None = None
    max_grad: float | None = None
    tasks_at_once: int | None = None
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    momentum: float = 0.0
    weight_decay: float = 0.0
    max_grad_norm: float | None = None
    head_lr_factor: float = 1.0

    def __post_init__(self) -> None:
        limits = (name for name in ("max_grad", "max_grad_norm") if getattr(self, name) is not None)
        check_positive(self, "outer_lr", "head_lr_factor", *limits)
        check_not_negative(self, "weight_decay")
        check_fraction(self, "momentum")
        if self.momentum and self.optimizer != "sgd":
            raise ValueError(f"momentum is of sgd, got {self.momentum} for {self.optimizer}; leave it out")
        check_not_negative(self, "final_outer_lr", optional=True)
        check_counts(self, "annealing_updates", most=MOST_UPDATES)
        check_counts(self, "tasks_at_once", most=MOST_TASKS)

    def over(self, num_updates: int) -> "OuterConfig":
        """The same, annealed over a run of so many updates unless the configuration says over how many."""
        return replace(self, annealing_updates=self.annealing_updates or num_updates)

    def outer_lr_after(self, updates: int) -> float:
        """The step size after some updates."""
        if self.final_outer_lr is None:
            return self.outer_lr
        if self.annealing_updates is None:
            raise ValueError("final_outer_lr needs annealing_updates, the updates until it is reached, got None")
        done = min(updates / self.annealing_updates, 1.0)
        return self.final_outer_lr + (self.outer_lr - self.final_outer_lr) * (1 + math.cos(math.pi * done)) / 2


class OuterOptimizer:
    """An optimiser of everything that is meta-learned, with the step sizes and the clipping of its configuration.

    Args:
        params: Leaves to train.
        config: Step sizes and clipping.
        rule: Leaves of a learned update rule, which have a step size of their own.
        rule_lr_factor: Step size of the rule's leaves as a multiple of that of `params`.

    Attributes:
        updates: Number of steps taken.
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
        if not any(p.requires_grad for p in self._params):
            raise ValueError("there is nothing to train: the network has no trainable parameters; unfreeze some")
        self._factors = [1.0, rule_lr_factor][: 2 if rule else 1]
        groups = [{"params": list(params)}, {"params": list(rule)}][: len(self._factors)]
        self._optimizer = make_optimizer(groups, config)

    def update(
        self,
        losses_of: Callable[[Episodes], OuterLosses],
        episodes: Episodes,
        objective: Objective = _BY_TARGETS,
    ) -> dict[str, float]:
        """Take a step along the gradient of the mean loss; returns metrics, the objective's score among them.

        Raises:
            FloatingPointError: if a loss is not finite, naming the task; nothing is moved then.
        """
        self._optimizer.zero_grad()
        scores, total, num_tasks = [], 0.0, episodes.num_tasks
        own = parallel.share(num_tasks)
        for place, part in in_pieces(episodes.select(own), self.config.tasks_at_once):
            losses, outputs = losses_of(part)
            check_finite(losses, own.start + place)
            (losses.sum() / num_tasks).backward()  # type: ignore[no-untyped-call]
            total += float(losses.detach().sum())
            scores.append(objective.scores(outputs.detach(), part.query.targets))
        total = sum(parallel.gathered_objects(total))
        parallel.sum_gradients(self._params)
        metrics = self.step()
        score = f"train/{objective.score_name(episodes.query.targets)}_post"
        mean_score = float(parallel.gathered(torch.cat(scores)).mean())
        return {"loss/outer": total / num_tasks, score: mean_score, **metrics}

    def step(self) -> dict[str, float]:
        """Take a step along the gradients that the leaves hold; returns metrics."""
        for group, factor in zip(self._optimizer.param_groups, self._factors, strict=True):
            group["lr"] = factor * self.config.outer_lr_after(self.updates)
        grads = [p.grad for p in self._params if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads)
        if self.config.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._params, self.config.max_grad_norm)
        if self.config.max_grad is not None:
            torch.nn.utils.clip_grad_value_(self._params, self.config.max_grad)
        self._optimizer.step()
        self.updates += 1
        return {"loss/grad_norm": float(norm)}

    def state_dict(self) -> dict[str, Any]:
        """The optimiser's moments and the number of updates."""
        # The name is that of older checkpoints, whatever the optimiser is.
        return {"adam": self._optimizer.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self._optimizer.load_state_dict(state["adam"])
        self.updates = state["updates"]


def make_optimizer(groups: list[dict[str, Any]], config: OuterConfig) -> torch.optim.Optimizer:
    """The optimiser of a configuration, of groups of leaves."""
    decay = config.weight_decay
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.outer_lr, momentum=config.momentum, weight_decay=decay)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.outer_lr, weight_decay=decay)
    return torch.optim.Adam(groups, lr=config.outer_lr, weight_decay=decay)


def in_pieces(episodes: Episodes, tasks_at_once: int | None) -> list[tuple[int, Episodes]]:
    """Batches of tasks that fit the processor's caches, each with the place of its first task.

    Tasks that differ in their ways or shots come one by one, without padding.
    """
    if episodes.is_ragged:
        return list(enumerate(episodes.alone()))
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
