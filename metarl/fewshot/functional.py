"""Any module as a function of parameters that may differ from task to task.

`metarl.nets.networks.Mlp` takes parameters with a task axis itself. For any other module there are two engines:

    at once     `torch.func.vmap`, which turns the convolutions of several tasks into one with groups
    in turn     one task after the other, which any module can

Tasks are taken in turn where that is faster, that is on a CPU from `_MANY_PLACES` pixels on, and where `vmap`
cannot: recurrent layers, spectral norm, buffers written in forward, branches that depend on data, `.item()`,
autograd functions of one's own. Whether it can is learned at the first call, whose traces are undone if not.
Without a task axis, the rows of all tasks are one batch if every layer maps rows by themselves.

The module itself is left as it is, but for its parameters, which are trained in place: what runs is a copy that
shares them and has `TaskNorm` for batch norm; see `metarl.fewshot.original`.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from metarl.fewshot.call_order import is_in_order, order_checked
from metarl.fewshot.checkpointing import Function, refused, second_calls
from metarl.fewshot.layers import (
    as_outputs,
    channels_last,
    check_module,
    explained,
    is_row_wise,
    takes_channels_last,
    without_traces,
)
from metarl.fewshot.normalisation import (
    NORM_STATISTICS,
    Moments,
    NormContext,
    NormStatistics,
    TaskNorm,
    is_norm,
    with_task_norms,
)
from metarl.fewshot.original import Original
from metarl.learning.bilevel import Params
from metarl.nets.networks import Mlp

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
        module: Maps [row, *input] to [row, *output].
        normalisation: Statistics that batch-norm layers normalise by.
        num_steps: Number of inner steps, for "per_step".
        twice: Whether outputs are differentiated twice; attention then takes its mathematical kernel, and
            recurrent layers do without cuDNN, since the others' gradients have no derivative.
        num_arguments: Number of arguments that it is called with.

    Attributes:
        module: The copy that is called.
        is_evaluating: Whether it is called in evaluation.
        maps_rows_alone: Whether rows are known to depend on each other through batch norm alone.
        needs_check: Whether only a batch will show in which order layers are called.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        normalisation: NormStatistics = "transductive",
        num_steps: int = 0,
        twice: bool = False,
        num_arguments: int = 1,
    ) -> None:
        check_module(module, num_arguments)
        if normalisation not in NORM_STATISTICS:
            raise ValueError(f"normalisation must be one of {', '.join(NORM_STATISTICS)}, got {normalisation!r}")
        self.normalisation = normalisation
        self._context = NormContext()
        self.batched = type(module) is Mlp and is_row_wise(module)
        steps = num_steps + 1 if normalisation == "per_step" else None
        self.module = module if self.batched else with_task_norms(module, self._context, steps, normalisation)
        self._original = Original(module, self.module, normalisation)
        self._dims = {name: p.dim() for name, p in self.module.named_parameters()}
        norms = {name: x for name, x in self.module.named_modules() if isinstance(x, TaskNorm)}
        self.norm_params = {
            f"{prefix}.{name}".lstrip(".")
            for prefix, layer in norms.items()
            for name, _ in layer.named_parameters()
        }
        self.has_norms = any(is_norm(layer) for layer in self.module.modules())
        convolutions = (layer for layer in self.module.modules() if isinstance(layer, nn.Conv2d))
        self._stride = math.prod(next(convolutions, nn.Conv2d(1, 1, 1)).stride)
        self._channels_last = takes_channels_last(self.module)
        self.maps_rows_alone = is_row_wise(self.module)
        self._twice = twice and not self.maps_rows_alone
        self._recurrent = any(isinstance(layer, nn.RNNBase) for layer in self.module.modules())
        self._in_turn_only: dict[bool, bool] = {}  # by whether the module is training, once that is known
        self.is_evaluating = False
        self.needs_check = not self.batched and not is_in_order(self.module)

    @contextlib.contextmanager
    def evaluating(self, *others: nn.Module) -> Iterator[None]:
        """Drop no units, and under "running" normalise by the running averages; a decorator too.

        Modules that their owner put in evaluation mode are in it before and after.

        Args:
            others: Further modules that are to be in evaluation mode meanwhile.
        """
        was_evaluating = self.is_evaluating
        modes = [(layer, layer.training) for module in (self.module, *others) for layer in module.modules()]
        for layer, _ in modes:
            layer.training = False
        self.is_evaluating = True
        try:
            yield
        finally:
            self.is_evaluating = was_evaluating
            for layer, training in modes:
                layer.training = training

    def check_order(self, params: Params, *inputs: Tensor, adapted: Params, head: str | None) -> None:
        """Raise a ValueError if a call of one task shows that other weights should adapt.

        Args:
            params: Parameters by name, each [...].
            inputs: Inputs [row, ...] of one task.
            adapted: Tensors that adapt, by name, on which the call depends.
            head: Layer that adapts because it is registered last; None if another reason chose what adapts.
        """
        averaged = self.normalisation == "running"
        call = self._one_task(0, False, lifted=False)
        with (
            self.evaluating(),
            order_checked(self.module, adapted, head, averaged=averaged),
            explained(self.module, inputs[0]),
        ):
            call(params, self._as_floats(inputs), None)

    @property
    def weights(self) -> Params:
        """All parameters, the frozen ones too, without a task axis."""
        return dict(self.module.named_parameters())

    @property
    def params(self) -> Params:
        """The trainable parameters, without a task axis; those frozen with `requires_grad_(False)` stay inside."""
        self._original.check()
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
        self._original.check()
        with self._as_owned(inputs[0]), second_calls(self._repeated({}, on_cuda=inputs[0].is_cuda)):
            context = self._prepare(1, 0, None, record=False)
            context.track = self.normalisation == "running" and not self.is_evaluating
            laid = channels_last if self._channels_last else _as_it_is
            return as_outputs(self.module(*map(laid, self._as_floats(inputs))))

    def _run(
        self,
        params: Mapping[str, Tensor],
        inputs: Sequence[Tensor],
        step: int,
        fixed: Sequence[Moments] | None,
        *,
        record: bool,
    ) -> tuple[Tensor, list[Moments]]:
        """Outputs [task, row, *output], and moments if they are to be recorded."""
        with self._as_owned(inputs[0]):
            inputs = self._as_floats(inputs)
            if isinstance(self.module, Mlp) and self.batched:
                return self.module.call(params, inputs[0]), []
            rows = None if fixed is None else list(fixed)
            if not self.maps_rows_alone or any(p.dim() > self._dims[name] for name, p in params.items()):
                with self._kernels(on_cuda=inputs[0].is_cuda):
                    return self._task_by_task(params, inputs, step, rows, record)
            if self._has_many_places(inputs[0]):
                return self._in_turn(params, inputs, step, rows, record)
            num_tasks = len(inputs[0])
            context = self._prepare(num_tasks, step, rows, record=record)
            flat = as_outputs(functional_call(self.module, dict(params), tuple(x.flatten(0, 1) for x in inputs)))
            return flat.view(num_tasks, -1, *flat.shape[1:]), context.recorded

    @contextlib.contextmanager
    def _as_owned(self, inputs: Tensor) -> Iterator[None]:
        """Call the copy in the modes of the owner's layers and with the same buffers.

        In evaluation the modes are those of evaluation.
        """
        if not self.is_evaluating and self._original.follow_modes():
            self._in_turn_only.clear()  # `vmap` may be able to do other things
        with self._original.buffers_followed(), explained(self.module, inputs):
            yield

    def _as_floats(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Inputs of float64 as float32, unless the module has weights of float64 or none at all."""
        if torch.float64 not in {x.dtype for x in inputs}:
            return tuple(inputs)
        weights = {p.dtype for p in self.module.parameters()}
        if not weights or torch.float64 in weights:
            return tuple(inputs)
        return tuple(x.float() if x.dtype == torch.float64 else x for x in inputs)

    def _has_many_places(self, inputs: Tensor) -> bool:
        """Whether tasks of inputs like these, [task, row, channel, height, width], are to be taken in turn."""
        if inputs.dim() != 5 or inputs.device.type != "cpu":
            return False
        return inputs[0, :, 0].numel() >= _MANY_PLACES * self._stride

    @contextlib.contextmanager
    def _kernels(self, *, on_cuda: bool) -> Iterator[None]:
        """Choose kernels whose gradients can be differentiated, where that is going to be done."""
        with contextlib.ExitStack() as stack:
            if self._twice and torch.is_grad_enabled():
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
                if self._recurrent and on_cuda:
                    stack.enter_context(torch.backends.cudnn.flags(enabled=False))
            yield

    def _task_by_task(
        self, params: Mapping[str, Tensor], inputs: Sequence[Tensor], step: int, fixed: _Fixed, record: bool
    ) -> tuple[Tensor, list[Moments]]:
        """Every task by itself, at once if that is faster and the module can, else in turn."""
        if torch.compiler.is_exporting():
            return self._in_turn(params, inputs, step, fixed, record)
        mode = not self.is_evaluating
        in_turn_only = self._in_turn_only.get(mode)
        if not in_turn_only and not self._has_many_places(inputs[0]):
            try:
                with without_traces(self.module, first=in_turn_only is None, on_cuda=inputs[0].is_cuda):
                    outcome = self._lifted(params, inputs, step, fixed, record)
                self._in_turn_only[mode] = False
                return outcome
            except torch.OutOfMemoryError:
                raise
            except Exception:  # vmap raises many kinds; what is wrong with the module itself is raised below again
                in_turn_only = True
        outcome = self._in_turn(params, inputs, step, fixed, record)
        if in_turn_only:
            self._in_turn_only[mode] = True
        return outcome

    def _one_task(self, step: int, record: bool, *, lifted: bool) -> _OneTask:
        """The call of one task: parameters, inputs [row, ...] and moments [channel] to outputs and moments.

        What the module checkpoints is computed again with the task's parameters; by `vmap` it cannot be.
        """

        def call(params: Params, inputs: tuple[Tensor, ...], fixed: _Fixed) -> tuple[Tensor, list[Moments]]:
            rows = None if fixed is None else [(mean.unsqueeze(0), var.unsqueeze(0)) for mean, var in fixed]
            context = self._prepare(1, step, rows, record=record)
            with second_calls(refused if lifted else self._repeated(params, on_cuda=inputs[0].is_cuda)):
                outputs = as_outputs(functional_call(self.module, params, inputs))
            return outputs, [(mean.squeeze(0), var.squeeze(0)) for mean, var in context.recorded]

        return call

    def _lifted(
        self, params: Mapping[str, Tensor], inputs: Sequence[Tensor], step: int, fixed: _Fixed, record: bool
    ) -> tuple[Tensor, list[Moments]]:
        """All tasks at once."""
        axes: Any = {name: 0 if p.dim() > self._dims[name] else None for name, p in params.items()}
        fixed_axes: Any = None if fixed is None else 0
        one_task = self._one_task(step, record, lifted=True)
        lifted = vmap(one_task, in_dims=(axes, 0, fixed_axes), randomness="different")
        lifted_result: tuple[Tensor, list[Moments]] = lifted(dict(params), tuple(inputs), fixed)
        return lifted_result

    def _in_turn(
        self, params: Mapping[str, Tensor], inputs: Sequence[Tensor], step: int, fixed: _Fixed, record: bool
    ) -> tuple[Tensor, list[Moments]]:
        """One task after the other, channels last where every layer takes that."""
        num_tasks, call = len(inputs[0]), self._one_task(step, record, lifted=False)
        laid = channels_last if self._channels_last else _as_it_is
        own = {name: p.unbind() for name, p in params.items() if p.dim() > self._dims[name]}
        shared = {name: laid(p) for name, p in params.items() if name not in own}
        outputs, recorded = [], []
        for task in range(num_tasks):
            theirs = shared | {name: laid(parts[task]) for name, parts in own.items()}
            moments = None if fixed is None else [(mean[task], var[task]) for mean, var in fixed]
            output, noted = call(theirs, tuple(laid(x[task]) for x in inputs), moments)
            outputs.append(output)
            recorded.append(noted)
        layers = zip(*recorded, strict=True)
        stacked = [tuple(torch.stack(parts) for parts in zip(*layer, strict=True)) for layer in layers]
        return torch.stack(outputs), [(mean, var) for mean, var in stacked]

    def _repeated(self, params: Params, *, on_cuda: bool) -> Callable[[Function], Function]:
        """Turn a part of the module's call into one that is the same whenever it is made.

        Args:
            params: Parameters of the call; the module's own for others.
            on_cuda: Whether inputs are on a GPU.
        """
        whole = {f"part_of.{name}": p for name, p in params.items()}

        def repeated(function: Function) -> Function:
            settings, evaluating = self._context.keep(), self.is_evaluating

            def again(*args: Any, **kwargs: Any) -> Any:
                with contextlib.ExitStack() as stack:
                    stack.enter_context(settings())
                    stack.enter_context(self._kernels(on_cuda=on_cuda))
                    stack.enter_context(second_calls(repeated))  # a checkpoint within a checkpoint
                    if evaluating:
                        stack.enter_context(self.evaluating())
                    return functional_call(_Part(self.module, function), whole, args, kwargs)

            return again

        return repeated

    def _prepare(self, num_tasks: int, step: int, fixed: Sequence[Moments] | None, *, record: bool) -> NormContext:
        """Set what the normalisation layers do in the next call."""
        context = self._context
        context.num_tasks, context.step = num_tasks, step
        context.fixed = None if fixed is None else iter(fixed)
        context.use_running = self.normalisation == "running" and self.is_evaluating
        context.record, context.recorded, context.layers = record, [], []
        context.track = False
        return context


class _Part(nn.Module):
    """A function that calls parts of a module, as a module with its weights.

    Args:
        part_of: Module that has the weights.
        function: Function of any arguments.
    """

    def __init__(self, part_of: nn.Module, function: Function) -> None:
        super().__init__()
        self.part_of, self.function = part_of, function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The function's results."""
        return self.function(*args, **kwargs)


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor
