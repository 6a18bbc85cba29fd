"""Batch normalisation in episodes: the statistics that normalise, chosen explicitly.

transductive  every batch normalises itself: the support set by its own statistics, the query set by its own, so a
              prediction depends on the other queries. MAML's published numbers are so (Finn et al. 2017).
support       query sets are normalised by the statistics of their task's support set: no prediction depends on
              another query.
running       training normalises by the batch and keeps a running average, which evaluation uses: the ordinary
              meaning, and prototypical networks' published numbers are so (Snell et al. 2017).
frozen        a pretrained layer keeps its averages, in training too, and only its gain and shift are trained.
per_step      transductive, with a gain and a shift for every inner step (MAML++, Antoniou et al. 2019), of which
              the module's own are those before the first. Its code also keeps running statistics per step but
              never normalises by them, so there are none here.

Layers that their owner put in evaluation mode are frozen whatever is chosen. Where the weights before a layer
adapt, its averages are those of no task, and "running" is refused, at the first batch where only that shows it. A
subclass of batch norm, which may do more, is called as it is: its batch, or under "running" and "frozen" its
averages, normalises.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from metarl.fewshot.layers import described, shared_copy

NormStatistics = Literal["transductive", "support", "running", "frozen", "per_step"]
NORM_STATISTICS: tuple[NormStatistics, ...] = get_args(NormStatistics)
Moments = tuple[Tensor, Tensor]
"""Means and variances, each [task, channel]."""

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class NormContext:
    """The settings of the present call, shared by all normalisation layers of a network.

    Attributes:
        num_tasks: Number of tasks whose rows follow each other in the batch, in equal numbers; 1 pools all rows.
        step: Inner step whose gain and shift are used.
        fixed: Moments to normalise by, layer by layer; None for the batch's own.
        use_running: Whether the running averages normalise.
        track: Whether the batch normalises and trains the running averages in passing.
        record: Whether moments are recorded, layer by layer.
        recorded: Moments that were recorded.
        layers: Layers that recorded them.
        repeats: Whether the call repeats an earlier one, so that running averages stay where they are.
    """

    def __init__(self) -> None:
        self.num_tasks = 1
        self.step = 0
        self.fixed: Iterator[Moments] | None = None
        self.use_running = False
        self.track = False
        self.record = False
        self.recorded: list[Moments] = []
        self.layers: list[TaskNorm] = []
        self.repeats = False

    def __getstate__(self) -> dict[str, Any]:
        """What a copy starts from, without the tensors of a call that is over."""
        return vars(NormContext())

    def keep(self) -> Callable[[], contextlib.AbstractContextManager[None]]:
        """A function to a context in which the settings are those of now, for what repeats a part of this call."""
        now = dict(vars(self)) | {"fixed": copy.copy(self.fixed), "repeats": True}

        @contextlib.contextmanager
        def again() -> Iterator[None]:
            before = dict(vars(self))
            vars(self).update(now | {"fixed": copy.copy(now["fixed"]), "recorded": [], "layers": []})
            try:
                yield
            finally:
                vars(self).update(before)

        return again


class TaskNorm(nn.Module):
    """Stands in for a batch normalisation layer and shares its parameters and buffers.

    Args:
        layer: Batch-norm layer that it stands in for.
        context: Settings of the present call.
        num_steps: Number of gains and shifts, one for each inner step; None for the layer's own.
        frozen: Whether the layer's averages always normalise and never move.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    weight: Tensor | None
    bias: Tensor | None

    def __init__(
        self,
        layer: nn.modules.batchnorm._BatchNorm,
        context: NormContext,
        num_steps: int | None,
        *,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        self._context = context
        self.eps = layer.eps
        self.momentum = layer.momentum
        self.frozen = frozen
        self.training = layer.training
        self.per_step = num_steps is not None and layer.affine and not frozen
        weight, bias = layer.weight, layer.bias
        if num_steps is not None and self.per_step:
            weight, bias = _by_step(weight, num_steps), _by_step(bias, num_steps)
        self.register_parameter("weight", weight if layer.affine else None)
        self.register_parameter("bias", bias if layer.affine else None)
        like = torch.zeros(()) if layer.weight is None else layer.weight.detach()
        for name, start in (("running_mean", 0.0), ("running_var", 1.0)):
            average = getattr(layer, name)
            fresh = like.new_full((layer.num_features,), start)
            self.register_buffer(name, fresh if average is None else average)
        if self.momentum is None:  # the averages of all batches alike, which have to be counted
            counter = layer.num_batches_tracked
            self.register_buffer("num_batches_tracked", torch.tensor(0) if counter is None else counter)
        self._num_values = 0

    def freeze_as(self, layer: nn.Module) -> None:
        """Train gains and shifts of every step if the layer that this stands in for trains its own."""
        if self.per_step:
            for name, rows in self._parameters.items():
                own = layer._parameters[name]
                if rows is not None and own is not None:
                    rows.requires_grad_(own.requires_grad)

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalise [task * row, channel, ...]."""
        context = self._context
        weight, bias = self.weight, self.bias
        if self.per_step and weight is not None and bias is not None:
            step = min(context.step, len(weight) - 1)
            weight, bias = weight[step], bias[step]
        if self.frozen:
            averages = self.running_mean, self.running_var
            return nn.functional.batch_norm(inputs, *averages, weight, bias, eps=self.eps)
        if context.num_tasks == 1 and context.fixed is None and not context.record:
            averaged = context.use_running or context.track
            mean, var = (self.running_mean, self.running_var) if averaged else (None, None)
            batch = not context.use_running
            if batch:
                _check_number(inputs.numel() // inputs.shape[1])
            share = self._share() if context.track and not context.repeats else 0.0
            return nn.functional.batch_norm(inputs, mean, var, weight, bias, batch, share, self.eps)
        rows = inputs.reshape(context.num_tasks, -1, inputs.shape[1], inputs[0, 0].numel())
        means, variances = self._moments(rows)
        scale = (variances + self.eps).rsqrt()
        if weight is not None:
            scale = scale * weight
        shift = -means * scale if bias is None else bias - means * scale
        scale, shift = (x.reshape(-1, 1, x.shape[-1], 1) for x in (scale, shift))
        return torch.addcmul(shift, rows, scale).view_as(inputs)

    def _moments(self, rows: Tensor) -> Moments:
        """The moments that normalise rows [task, row, channel, place]."""
        context = self._context
        if context.use_running:
            return self.running_mean, self.running_var
        if context.fixed is not None:
            return next(context.fixed)
        self._num_values = rows.shape[1] * rows.shape[3]
        _check_number(self._num_values)
        var, mean = torch.var_mean(rows, (1, 3), correction=0)
        if context.record:
            context.recorded.append((mean, var))
            context.layers.append(self)
        return mean, var

    @torch.no_grad()
    def track(self, moments: Moments) -> None:
        """Move the running averages towards the mean of moments over tasks, of variances the unbiased ones."""
        mean, var = moments
        share, unbiased = self._share(), var * (self._num_values / (self._num_values - 1))
        for running, batch in ((self.running_mean, mean), (self.running_var, unbiased)):
            running.lerp_(batch.reshape(-1, batch.shape[-1]).mean(0), share)

    def _share(self) -> float:
        """The share of the next batch in the running averages."""
        if self.momentum is not None:
            return self.momentum
        self.num_batches_tracked += 1
        return 1 / float(self.num_batches_tracked)


def _by_step(own: nn.Parameter, num_steps: int) -> nn.Parameter:
    """A row for every step, [step, channel], the first of which is the layer's own and trained with it."""
    rows = nn.Parameter(own.detach().repeat(num_steps, 1), requires_grad=own.requires_grad)
    own.data = rows.data[0]
    return rows


def _check_number(num_values: int) -> None:
    """Raise a ValueError if there is one value per channel, which its own statistics turn into nothing."""
    if num_values == 1:
        raise ValueError(
            "batch norm needs more than one value per channel to normalise by, got a set of one example; give "
            "more examples, or take normalisation support, running or frozen"
        )


def is_norm(layer: nn.Module) -> bool:
    """Whether a layer is a batch norm, of PyTorch or of this package."""
    return isinstance(layer, TaskNorm | nn.modules.batchnorm._BatchNorm)


def with_task_norms(
    module: nn.Module, context: NormContext, num_steps: int | None, normalisation: NormStatistics
) -> nn.Module:
    """A copy of a module that shares its parameters and buffers, with `TaskNorm` for every batch norm.

    Raises:
        ValueError: If a layer cannot be normalised so; names it.
    """
    root = nn.ModuleList([shared_copy(module)])
    made: dict[nn.Module, TaskNorm] = {}
    for place, parent in list(root.named_modules()):
        for name, child in list(parent.named_children()):
            if not isinstance(child, nn.modules.batchnorm._BatchNorm):
                continue
            layer = described(f"{place.partition('.')[2]}.{name}".lstrip(".") if place else "", child)
            averaged = child.running_mean is not None
            frozen = averaged and (normalisation == "frozen" or not child.training)
            if normalisation == "frozen" and not averaged:
                raise ValueError(f"{layer} has no running averages that could be frozen")
            if type(child) in BATCH_NORMS:
                made.setdefault(child, TaskNorm(child, context, num_steps, frozen=frozen))
                parent.register_module(name, made[child])
            elif frozen:
                child.eval()
            elif normalisation == "support":
                raise ValueError(
                    f"{layer} is a batch norm of one's own, which support sets cannot normalise; "
                    "take normalisation transductive, running or frozen"
                )
            elif normalisation != "running":
                child.running_mean = child.running_var = child.num_batches_tracked = None
                child.track_running_stats = False
    return root[0]
