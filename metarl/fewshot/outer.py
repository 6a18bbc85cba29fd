"""The outer step that most learners share: along the gradient of the mean loss, a few tasks at a time."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

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
Made = TypeVar("Made")


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
        final_outer_lr: Step size after annealing_updates, or the least one of the step schedule; None for no
            annealing.
        annealing_updates: Number of updates until the step size is final_outer_lr, warm-up included; None for the
            whole run.
        max_grad: Largest size of an entry of the outer gradient, beyond which it is clipped; None for no clipping.
        tasks_at_once: Number of tasks whose graphs are held in memory at a time; None for 4 where convolutions run
            on a CPU, whose caches hold no more, and for all tasks otherwise.
        optimizer: Optimiser of the outer loop; adamw shrinks weights apart from their gradients.
        momentum: Share of the last step in the next one of sgd, in [0, 1).
        weight_decay: Weight of half the squared weights beside the loss, or of adamw's shrinking.
        max_grad_norm: Largest norm of the outer gradient, beyond which it is scaled down; None for no limit.
        head_lr_factor: Step size of what learners that compare train beside their network, such as scales and
            regularisation, as a multiple of outer_lr.
        backbone_lr_factor: Step size of the network but for its head, as a multiple of outer_lr, such as 0.1 for
            pretrained weights. The head is the named one, or the last layer, or what learners that compare train
            beside the network.
        schedule: Way from outer_lr to final_outer_lr: along half a cosine, or a line, or in steps.
        step_updates: Number of updates between the steps of the step schedule.
        step_factor: Factor of the step size at each step of the step schedule, in (0, 1].
        warmup_updates: Number of updates at the start over which the step size rises linearly to outer_lr; 0 for
            none.
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
    backbone_lr_factor: float = 1.0
    schedule: Literal["cosine", "linear", "step"] = "cosine"
    step_updates: int | None = None
    step_factor: float = 0.1
    warmup_updates: int = 0

    def __post_init__(self) -> None:
        limits = (name for name in ("max_grad", "max_grad_norm") if getattr(self, name) is not None)
        check_positive(self, "outer_lr", "head_lr_factor", "backbone_lr_factor", "step_factor", *limits)
        check_not_negative(self, "weight_decay")
        check_fraction(self, "momentum", "step_factor")
        if self.momentum and self.optimizer != "sgd":
            raise ValueError(f"momentum is of sgd, got {self.momentum} for {self.optimizer}; leave it out")
        check_not_negative(self, "final_outer_lr", optional=True)
        check_counts(self, "annealing_updates", "step_updates", most=MOST_UPDATES)
        check_counts(self, "warmup_updates", least=0, most=MOST_UPDATES)
        check_counts(self, "tasks_at_once", most=MOST_TASKS)
        if (self.schedule == "step") != (self.step_updates is not None):
            raise ValueError(
                f"step_updates is of the step schedule, which needs it: got {self.step_updates} for "
                f"{self.schedule}; set both or neither"
            )
        if self.schedule == "linear" and self.final_outer_lr is None:
            raise ValueError("the linear schedule needs final_outer_lr, the step size at its end; set it")
        annealed = self.schedule != "step" and self.final_outer_lr is not None
        if annealed and self.annealing_updates is not None and self.warmup_updates >= self.annealing_updates:
            raise ValueError(
                f"warmup_updates must be below annealing_updates, {self.annealing_updates}, got "
                f"{self.warmup_updates}; lower it, or raise annealing_updates"
            )

    @property
    def has_groups(self) -> bool:
        """Whether the head is a group of its own beside the backbone."""
        return self.backbone_lr_factor != 1.0

    def optimizer_for(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimiser of some groups of leaves, each with "params", "lr" and "name"."""
        # Names are not for these: a checkpoint holds what a group has, and older ones have none.
        unnamed = [{"params": group["params"], "lr": group["lr"]} for group in groups]
        if self.optimizer == "sgd":
            return torch.optim.SGD(unnamed, momentum=self.momentum, weight_decay=self.weight_decay)
        kind = torch.optim.AdamW if self.optimizer == "adamw" else torch.optim.Adam
        return kind(unnamed, weight_decay=self.weight_decay)

    def schedule_for(self, optimizer: torch.optim.Optimizer) -> LRScheduler | None:
        """PyTorch's schedule of the step sizes, or None for that of `outer_lr_after`."""
        return None

    def over(self, num_updates: int) -> "OuterConfig":
        """The same, annealed over a run of so many updates unless the configuration says over how many."""
        return replace(self, annealing_updates=self.annealing_updates or num_updates)

    def outer_lr_after(self, updates: int) -> float:
        """The step size after some updates."""
        if updates < self.warmup_updates:
            return self.outer_lr * (updates + 1) / self.warmup_updates
        updates -= self.warmup_updates
        if self.step_updates is not None:
            stepped = self.outer_lr * self.step_factor ** (updates // self.step_updates)
            return max(stepped, self.final_outer_lr or 0.0)
        if self.final_outer_lr is None:
            return self.outer_lr
        if self.annealing_updates is None:
            raise ValueError("final_outer_lr needs annealing_updates, the updates until it is reached, got None")
        done = min(updates / (self.annealing_updates - self.warmup_updates), 1.0)
        left = 1 - done if self.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
        return self.final_outer_lr + (self.outer_lr - self.final_outer_lr) * left


@dataclass(frozen=True, kw_only=True)
class OwnOuter(OuterConfig):
    """An outer optimiser of one's own, and a schedule.

    Attributes:
        make_optimizer: Function from groups of parameters to a torch.optim.Optimizer that steps without a closure.
            Each group has its "params", its "lr" and a "name": backbone, head, or rule for learned update rules.
        make_schedule: Function from the optimiser to a schedule of torch.optim.lr_scheduler, which steps after
            every update; None for the schedule of the other fields, which multiplies the step sizes that the
            optimiser starts with.
    """

    make_optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
    make_schedule: Callable[[torch.optim.Optimizer], LRScheduler] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        ignored = ["optimizer", "momentum", "weight_decay"]
        if self.make_schedule is not None:
            ignored += ["final_outer_lr", "schedule", "step_updates", "warmup_updates"]
        for name in ignored:
            if getattr(self, name) != getattr(OuterConfig, name):
                raise ValueError(f"{name} is not for optimisers or schedules of one's own; set it in the function")

    @property
    def has_groups(self) -> bool:
        """Always: the function may treat each in a way of its own."""
        return True

    def optimizer_for(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimiser that the function makes."""
        return _checked("make_optimizer", self.make_optimizer(groups), torch.optim.Optimizer)

    def schedule_for(self, optimizer: torch.optim.Optimizer) -> LRScheduler | None:
        """The schedule that the function makes, or None without one."""
        if self.make_schedule is None:
            return None
        return _checked("make_schedule", self.make_schedule(optimizer), LRScheduler)


class OuterOptimizer:
    """An optimiser of everything that is meta-learned, with the step sizes and the clipping of its configuration.

    Args:
        params: Leaves to train.
        config: Step sizes and clipping.
        head: Those of `params` that are no part of the backbone.
        head_lr_factor: Step size of the head as a multiple of the configuration's.
        rule: Leaves of a learned update rule, which have a step size of their own.
        rule_lr_factor: Step size of the rule's leaves as a multiple of the configuration's.

    Attributes:
        updates: Number of steps taken.
    """

    def __init__(
        self,
        params: Sequence[Tensor],
        config: OuterConfig,
        *,
        head: Sequence[Tensor] = (),
        head_lr_factor: float = 1.0,
        rule: Sequence[Tensor] = (),
        rule_lr_factor: float = 1.0,
    ) -> None:
        self.config = config
        self.updates = 0
        self._params = [*params, *rule]
        self._known_kinds = self._kinds()
        check_trainable(self._params)
        # A checkpoint numbers the leaves by group: without need of two, there is one in the order of `params`.
        apart = {id(p) for p in head} if config.has_groups or head_lr_factor != 1.0 else set[int]()
        groups = {
            "backbone": ([p for p in params if id(p) not in apart], config.backbone_lr_factor),
            "head": ([p for p in params if id(p) in apart], head_lr_factor),
            "rule": (list(rule), rule_lr_factor),
        }
        self._optimizer = config.optimizer_for(
            [
                {"params": leaves, "lr": factor * config.outer_lr, "name": name}
                for name, (leaves, factor) in groups.items()
                if leaves
            ]
        )
        self._factors = [group["lr"] / config.outer_lr for group in self._optimizer.param_groups]
        self._schedule = config.schedule_for(self._optimizer)

    def update(
        self,
        losses_of: Callable[[Episodes], OuterLosses],
        episodes: Episodes,
        objective: Objective = _BY_TARGETS,
    ) -> dict[str, float]:
        """Take a step along the gradient of the mean loss; returns metrics, the objective's score among them.

        Raises:
            FloatingPointError: if a loss is not finite, naming the task; nothing is moved then.
            ValueError: if all leaves were frozen meanwhile.
        """
        check_trainable(self._params)
        self.zero_grad()
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

    def zero_grad(self) -> None:
        """Forget the gradients that the leaves hold."""
        self._optimizer.zero_grad()

    def step(self) -> dict[str, float]:
        """Take a step along the gradients that the leaves hold; returns metrics."""
        if self._schedule is None:
            for group, factor in zip(self._optimizer.param_groups, self._factors, strict=True):
                group["lr"] = factor * self.config.outer_lr_after(self.updates)
        grads = [p.grad for p in self._params if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads)
        if self.config.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._params, self.config.max_grad_norm)
        if self.config.max_grad is not None:
            torch.nn.utils.clip_grad_value_(self._params, self.config.max_grad)
        self._follow_conversions()
        self._optimizer.step()
        if self._schedule is not None:
            self._schedule.step()
        self.updates += 1
        return {"loss/grad_norm": float(norm)}

    def _follow_conversions(self) -> None:
        """Convert or move the optimiser's moments where the owner of the leaves did so with them."""
        kinds = self._kinds()
        if kinds != self._known_kinds:
            # PyTorch's loading takes the moments to the leaves, and leaves the numbers of steps as they are.
            self._optimizer.load_state_dict(self._optimizer.state_dict())
            self._known_kinds = kinds

    def _kinds(self) -> list[tuple[torch.dtype, torch.device]]:
        return [(p.dtype, p.device) for p in self._params]

    def state_dict(self) -> dict[str, Any]:
        """The optimiser's moments, the number of updates, and the state of a schedule of one's own."""
        # The name is that of older checkpoints, whatever the optimiser is.
        state = {"adam": self._optimizer.state_dict(), "updates": self.updates}
        return state if self._schedule is None else state | {"schedule": self._schedule.state_dict()}

    def check_state(self, state: object) -> None:
        """Raise a ValueError that says what differs unless a state is that of such an optimiser."""
        own = self.state_dict()
        if not isinstance(state, Mapping) or set(state) != set(own):
            came = ", ".join(map(str, state)) if isinstance(state, Mapping) else type(state).__name__
            raise ValueError(f"the outer optimiser's state must have {', '.join(own)}, got {came}")
        groups, updates = own["adam"]["param_groups"], state["updates"]
        if type(updates) is not int or updates < 0:
            raise ValueError(f"the outer optimiser's updates must be a whole number of 0 or more, got {updates!r}")
        others = state["adam"].get("param_groups") if isinstance(state["adam"], Mapping) else None
        if not isinstance(others, list) or not all(isinstance(group, Mapping) for group in others):
            raise ValueError("the outer optimiser's state must be that of a torch.optim.Optimizer, got another")
        sizes = [len(group["params"]) for group in groups], [len(group.get("params", ())) for group in others]
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"the outer optimiser's state must be of {sizes[0]} tensors by group, got {sizes[1]}; load that "
                "of the same learner, network and groups"
            )
        if any(("betas" in group) != ("betas" in other) for group, other in zip(groups, others, strict=True)):
            raise ValueError(
                f"the outer optimiser's state must be of {type(self._optimizer).__name__}, got that of another; "
                "set the optimizer that the state was made with"
            )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self._optimizer.load_state_dict(state["adam"])
        self.updates = state["updates"]
        if self._schedule is not None:
            self._schedule.load_state_dict(state["schedule"])


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


def check_trainable(params: Iterable[Tensor]) -> None:
    """Raise a ValueError if all of some parameters are frozen."""
    if not any(p.requires_grad for p in params):
        raise ValueError("there is nothing to train: the network has no trainable parameters; unfreeze some")


def check_finite(losses: Tensor, place: int) -> None:
    """Raise a FloatingPointError that names the first task whose loss [task] is not finite."""
    bad = ~torch.isfinite(losses.detach())
    if bad.any():
        index = int(bad.nonzero()[0])
        raise FloatingPointError(f"the outer loss is {losses[index].item()} on task {place + index} of the batch")


def _checked(name: str, made: object, kind: type[Made]) -> Made:
    """What a function of the configuration made, which must be of a kind."""
    if not isinstance(made, kind):
        raise TypeError(f"{name} must return PyTorch's {kind.__name__}, got {type(made).__name__}")
    return made
