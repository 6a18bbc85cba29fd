"""Any module as a function of parameters that may differ from task to task.

A module with a `call` of its own, like `metarl.nets.networks.Mlp`, takes parameters with a task axis itself. Any
other is lifted with `torch.func.vmap`, which turns the convolutions of several tasks into one with groups; but on
a CPU tasks of many pixels run one after the other, channels last, see `_MANY_PLACES`. The module fixed is left as
it is, but for its parameters, which are trained in place: what runs is a copy that shares them and has `TaskNorm`
for batch norm.
"""

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from metarl.fewshot.normalisation import (
    BATCH_NORMS,
    NORM_STATISTICS,
    Moments,
    NormContext,
    NormStatistics,
    TaskNorm,
)
from metarl.learning.bilevel import Params

_MANY_PLACES = 3_500
"""Rows times places after the first convolution from which on a CPU takes tasks in turn.

It convolves several times as fast channels last, which convolutions with groups do not. Conv4 with pooling on one
core: one of 75 images takes 0.29 ms in turn and 1.2 ms with four tasks at once, a second-order MAML gradient of
eight 5-way tasks 492 and 668 ms with 5 queries per class, 1.0 and 1.8 s with 15. With strides a task of 5 images
takes longer in turn, one of 25 as long.
"""

_Fixed = list[Moments] | None
_OneTask = Callable[[Params, tuple[Tensor, ...], _Fixed], tuple[Tensor, list[Moments]]]


class TaskModule:
    """A module, its parameters, and calls of it for all tasks at once.

    Args:
        module: Maps [row, *input] to [row, *output]; rows may depend on each other through batch norm alone.
        normalisation: Statistics that batch-norm layers normalise by.
        num_steps: Number of inner steps, for "per_step".

    Attributes:
        module: The copy that is called.
    """

    def __init__(
        self, module: nn.Module, *, normalisation: NormStatistics = "transductive", num_steps: int = 0
    ) -> None:
        if normalisation not in NORM_STATISTICS:
            raise ValueError(f"normalisation must be one of {', '.join(NORM_STATISTICS)}, got {normalisation!r}")
        self.normalisation = normalisation
        self._context = NormContext()
        self.batched = callable(getattr(module, "call", None))
        steps = num_steps + 1 if normalisation == "per_step" else None
        self.module = module if self.batched else _with_task_norms(module, self._context, steps)
        self._dims = {name: p.dim() for name, p in self.module.named_parameters()}
        norms = {name: x for name, x in self.module.named_modules() if isinstance(x, TaskNorm)}
        self.norm_params = {
            f"{prefix}.{name}".lstrip(".")
            for prefix, layer in norms.items()
            for name, _ in layer.named_parameters()
        }
        self.has_norms = bool(norms)
        convolutions = (layer for layer in self.module.modules() if isinstance(layer, nn.Conv2d))
        self._stride = math.prod(next(convolutions, nn.Conv2d(1, 1, 1)).stride)
        self._channels_last = takes_channels_last(self.module)
        self.module.train()

    @contextlib.contextmanager
    def evaluating(self, *others: nn.Module) -> Iterator[None]:
        """Drop no units, and under "running" normalise by the running averages; a decorator too.

        Args:
            others: Further modules that are to be in evaluation mode meanwhile.
        """
        modules = (self.module, *others)
        for module in modules:
            module.eval()
        try:
            yield
        finally:
            for module in modules:
                module.train()

    @property
    def params(self) -> Params:
        """The trainable parameters, without a task axis; those frozen with `requires_grad_(False)` stay inside."""
        return {name: p for name, p in self.module.named_parameters() if p.requires_grad}

    def __call__(
        self, params: Mapping[str, Tensor], *inputs: Tensor, step: int = 0, fixed: Sequence[Moments] | None = None
    ) -> Tensor:
        """Map [task, row, *input] to [task, row, *output].

        Args:
            params: Parameters by name, each [...] or [task, ...].
            inputs: Inputs of every task.
            step: Number of inner steps taken, for "per_step".
            fixed: Moments that normalise, see `moments`.
        """
        return self._run(params, inputs, step, fixed, record=False)[0]

    def moments(self, params: Mapping[str, Tensor], *inputs: Tensor) -> list[Moments] | None:
        """The statistics by which the query sets of tasks with these support inputs are normalised.

        None if the query set's own or running ones are, or if there is nothing to normalise.
        """
        if self.normalisation != "support" or not self.has_norms:
            return None
        return self._run(params, inputs, 0, None, record=True)[1]

    def track(self, params: Mapping[str, Tensor], *inputs: Tensor) -> None:
        """Move the running averages towards the statistics of a batch, if they are used."""
        if self.normalisation != "running" or not self.has_norms:
            return
        with torch.no_grad():
            recorded = self._run(params, inputs, 0, None, record=True)[1]
        for layer, moments in zip(self._context.layers, recorded, strict=True):
            layer.track(moments)

    def pooled(self, *inputs: Tensor) -> Tensor:
        """Map [row, *input] to [row, *output] with the module's own parameters and all rows as one batch.

        Under "running" this trains the running averages, or uses them when not training.
        """
        context = self._prepare(1, 0, None, record=False)
        context.track = self.normalisation == "running" and self.module.training
        outputs: Tensor = self.module(*(channels_last(x) if self._channels_last else x for x in inputs))
        return outputs

    def _run(
        self,
        params: Mapping[str, Tensor],
        inputs: Sequence[Tensor],
        step: int,
        fixed: Sequence[Moments] | None,
        *,
        record: bool,
    ) -> tuple[Tensor, list[Moments]]:
        if self.batched:
            outputs: Tensor = self.module.call(params, *inputs)  # type: ignore[operator]
            return outputs, []
        rows = None if fixed is None else list(fixed)
        if self._has_many_places(inputs[0]):
            return self._in_turn(params, inputs, step, rows, record)
        if any(p.dim() > self._dims[name] for name, p in params.items()):
            return self._lifted(params, inputs, step, rows, record)
        num_tasks = len(inputs[0])
        context = self._prepare(num_tasks, step, rows, record=record)
        flat: Tensor = functional_call(self.module, dict(params), tuple(x.flatten(0, 1) for x in inputs))
        return flat.view(num_tasks, -1, *flat.shape[1:]), context.recorded

    def _has_many_places(self, inputs: Tensor) -> bool:
        """Whether tasks of inputs like these, [task, row, channel, height, width], are to be taken in turn."""
        if not self._channels_last or inputs.dim() != 5 or inputs.device.type != "cpu":
            return False
        return inputs[0, :, 0].numel() >= _MANY_PLACES * self._stride

    def _one_task(self, step: int, record: bool) -> _OneTask:
        """The call of one task: parameters, inputs [row, ...] and moments [channel] to outputs and moments."""

        def call(params: Params, inputs: tuple[Tensor, ...], fixed: _Fixed) -> tuple[Tensor, list[Moments]]:
            rows = None if fixed is None else [(mean.unsqueeze(0), var.unsqueeze(0)) for mean, var in fixed]
            context = self._prepare(1, step, rows, record=record)
            outputs = functional_call(self.module, params, inputs)
            return outputs, [(mean.squeeze(0), var.squeeze(0)) for mean, var in context.recorded]

        return call

    def _lifted(
        self, params: Mapping[str, Tensor], inputs: Sequence[Tensor], step: int, fixed: _Fixed, record: bool
    ) -> tuple[Tensor, list[Moments]]:
        """All tasks at once."""
        axes: Any = {name: 0 if p.dim() > self._dims[name] else None for name, p in params.items()}
        fixed_axes: Any = None if fixed is None else 0
        lifted = vmap(self._one_task(step, record), in_dims=(axes, 0, fixed_axes), randomness="different")
        lifted_result: tuple[Tensor, list[Moments]] = lifted(dict(params), tuple(inputs), fixed)
        return lifted_result

    def _in_turn(
        self, params: Mapping[str, Tensor], inputs: Sequence[Tensor], step: int, fixed: _Fixed, record: bool
    ) -> tuple[Tensor, list[Moments]]:
        """One task after the other, channels last."""
        num_tasks, call = len(inputs[0]), self._one_task(step, record)
        own = {name: p.unbind() for name, p in params.items() if p.dim() > self._dims[name]}
        shared = {name: channels_last(p) for name, p in params.items() if name not in own}
        outputs, recorded = [], []
        for task in range(num_tasks):
            theirs = shared | {name: channels_last(parts[task]) for name, parts in own.items()}
            moments = None if fixed is None else [(mean[task], var[task]) for mean, var in fixed]
            output, noted = call(theirs, tuple(channels_last(x[task]) for x in inputs), moments)
            outputs.append(output)
            recorded.append(noted)
        layers = zip(*recorded, strict=True)
        stacked = [tuple(torch.stack(parts) for parts in zip(*layer, strict=True)) for layer in layers]
        return torch.stack(outputs), [(mean, var) for mean, var in stacked]

    def _prepare(self, num_tasks: int, step: int, fixed: Sequence[Moments] | None, *, record: bool) -> NormContext:
        """Set what the normalisation layers do in the next call."""
        context = self._context
        context.num_tasks, context.step = num_tasks, step
        context.fixed = None if fixed is None else iter(fixed)
        context.use_running = self.normalisation == "running" and not self.module.training
        context.record, context.recorded, context.layers = record, [], []
        context.track = False
        return context


def takes_channels_last(module: nn.Module) -> bool:
    """Whether a module is made of PyTorch's and this package's alone, which take any layout.

    A forward of one's own may not: `x.view(len(x), -1)` is an error channels last.
    """
    return all(type(layer).__module__.startswith(("torch.nn.", "metarl.")) for layer in module.modules())


def channels_last(tensor: Tensor) -> Tensor:
    """Images, or a convolution's weights, laid out channels last on a CPU; anything else as it is.

    Images of one channel have to be told: their layout is both at once, and the first convolution then puts out
    channels first, for the largest normalisation and pooling there are (an update of Conv4 on 360 images took
    0.83 s so, and takes 0.52).
    """
    if tensor.dim() != 4 or tensor.is_cuda:
        return tensor
    return tensor.clone(memory_format=torch.channels_last)


def _with_task_norms(module: nn.Module, context: NormContext, num_steps: int | None) -> nn.Module:
    """A copy of a module that shares its parameters and buffers, with `TaskNorm` for every batch norm."""
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    root = nn.ModuleList([copy.deepcopy(module, shared)])
    made: dict[nn.Module, TaskNorm] = {}
    for parent in list(root.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BATCH_NORMS):
                made.setdefault(child, TaskNorm(child, context, num_steps))
                parent.register_module(name, made[child])
    return root[0]
