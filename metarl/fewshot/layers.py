"""The layers that a module is made of: which may be batched over tasks, which have no second derivatives."""

import contextlib
import copy
import inspect
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from metarl.fewshot.weights import check_weights

_ROW_WISE = (
    *("linear", "conv", "pooling", "padding", "flatten", "dropout", "normalization", "instancenorm", "activation"),
    *("upsampling", "pixelshuffle", "channelshuffle", "fold", "container"),
)
_ROW_WISE_MODULES = {f"torch.nn.modules.{name}" for name in _ROW_WISE}

_FIRST_DERIVATIVES_ONLY: tuple[type[nn.Module], ...] = (nn.EmbeddingBag,)
"""Layers whose weights PyTorch differentiates once."""


def is_row_wise(module: nn.Module) -> bool:
    """Whether every layer is one of PyTorch's or of this package's that maps each row by itself.

    The rows of several tasks may then be one batch. A class of one's own, a hook, a parametrization or attention,
    whose first axis need not be the rows, may do anything.
    """
    return all(_maps_rows(layer) for layer in module.modules())


def _maps_rows(layer: nn.Module) -> bool:
    kind = type(layer)
    if "forward" in vars(layer) or layer._forward_hooks or layer._forward_pre_hooks:
        return False
    if kind.__module__.startswith("metarl."):
        return True
    if kind is nn.MultiheadAttention or getattr(layer, "track_running_stats", False):
        return False
    return kind is nn.Embedding or kind.__module__ in _ROW_WISE_MODULES


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


def check_module(module: nn.Module, num_arguments: int = 1) -> None:
    """Raise an error in one line for what cannot be called with weights from outside.

    Args:
        module: Module of a learner.
        num_arguments: Number of arguments that the learner calls it with.

    Raises:
        TypeError: If it is no module, or takes other arguments.
        ValueError: If a layer holds its weights fast, or a weight is not finite; names it.
    """
    if not isinstance(module, nn.Module):
        kind = f"the class {module.__name__}" if isinstance(module, type) else type(module).__name__
        raise TypeError(f"expected an instance of torch.nn.Module, got {kind}")
    for name, layer in module.named_modules():
        if isinstance(layer, nn.DataParallel | nn.parallel.DistributedDataParallel):
            raise ValueError(
                f"{described(name, layer)} sends copies of its weights to other devices; give the module inside it"
            )
        if isinstance(layer, torch.jit.ScriptModule):
            raise ValueError(
                f"{described(name, layer)} is compiled by TorchScript, which shares no weights with a copy; give "
                "the module that it was compiled from"
            )
        lazy = [p for p in layer.parameters(recurse=False) if nn.parameter.is_lazy(p)]
        if lazy:
            raise ValueError(
                f"{described(name, layer)} has no weights yet; call the module once on an example before a "
                "learner is made of it"
            )
    check_weights(module)
    try:
        inspect.signature(module.forward).bind(*range(num_arguments))
    except TypeError as error:
        expected = "the inputs alone" if num_arguments == 1 else "the inputs and a context for every row"
        raise TypeError(
            f"the forward of {type(module).__name__} must take {expected}, got the error: {error}; wrap it in a "
            "module that does"
        ) from error


def check_second_derivatives(module: nn.Module, adapted: set[str]) -> None:
    """Raise a ValueError that names the layer whose adapting weights cannot be differentiated twice."""
    for name, layer in module.named_modules():
        own = {f"{name}.{own}".lstrip(".") for own, _ in layer.named_parameters(recurse=False)}
        if isinstance(layer, _FIRST_DERIVATIVES_ONLY) and own & adapted:
            raise ValueError(
                f"{described(name, layer)} has no second derivatives in PyTorch, which its adapting weights need; "
                "take first_order, let the head alone adapt, or take torch.nn.Embedding and a mean"
            )


def check_attackable(module: nn.Module) -> None:
    """Raise a ValueError that names the layer of a module that reads integers, which no small change moves."""
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Embedding | nn.EmbeddingBag):
            raise ValueError(
                f"{described(name, layer)} reads integers, which an attack cannot move a little; leave it out of "
                "the module and embed the data before"
            )


def owner(parameter: str) -> str:
    """The name of the layer that a parameter belongs to; a parametrized layer owns what its weights come from."""
    layer, parametrized, _ = parameter.partition(".parametrizations.")
    return layer if parametrized else parameter.rpartition(".")[0]


@contextlib.contextmanager
def explained(module: nn.Module, inputs: Tensor) -> Iterator[None]:
    """Turn a module's error into one line where examples have another number format than its weights.

    Raises:
        ValueError: If that is so and the module fails.
    """
    try:
        yield
    except RuntimeError as error:
        weights = next((p.dtype for p in module.parameters() if p.is_floating_point() or p.is_complex()), None)
        out_of_memory = isinstance(error, torch.OutOfMemoryError)
        if weights in (None, inputs.dtype) or not inputs.is_floating_point() or out_of_memory:
            raise
        message = str(error).partition("\n")[0]
        raise ValueError(
            f"examples must have the number format of the module's weights, {weights}, got {inputs.dtype}; "
            f"convert one of them; the module's error was: {message}"
        ) from error


@contextlib.contextmanager
def second_derivatives_explained() -> Iterator[None]:
    """Turn torch's error for an autograd function without a second derivative into one that says what to do.

    Raises:
        ValueError: If there is such a function.
    """
    try:
        yield
    except RuntimeError as error:
        if "once_differentiable" not in str(error):
            raise
        raise ValueError(
            "the module must be differentiated twice, and calls an autograd function that is marked with "
            "once_differentiable; take first_order, let the head alone adapt, or give it another backward"
        ) from error


def as_outputs(outputs: Any) -> Tensor:
    """The outputs of a module.

    Raises:
        TypeError: If they are not a tensor.
    """
    if not isinstance(outputs, Tensor):
        raise TypeError(
            f"the module must return one tensor [row, ...], got {type(outputs).__name__}; wrap it in a module "
            "that returns the part to learn by"
        )
    return outputs


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Have all layers of a module in evaluation; each is then as its owner left it."""
    training = {layer: layer.training for layer in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for layer, mode in training.items():
            layer.training = mode


def described(name: str, layer: nn.Module) -> str:
    """The layer's name and kind, for messages."""
    return (
        f"the layer {name!r} ({type(layer).__name__})" if name else f"the module itself ({type(layer).__name__})"
    )


def results_left(module: nn.Module) -> dict[int, Any]:
    """Results of their last call that weight and spectral norm leave behind, for the memo of copy.deepcopy.

    They are not leaves of the graph, which are all that can be copied.
    """
    values = (value for layer in module.modules() for value in vars(layer).values())
    return {id(x): x.detach() for x in values if isinstance(x, Tensor) and not x.is_leaf}


def shared_copy(module: nn.Module) -> nn.Module:
    """A copy of a module that shares its parameters and buffers.

    Raises:
        ValueError: if it cannot be copied.
    """
    memo = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    memo |= results_left(module)
    try:
        return copy.deepcopy(module, memo)
    except (TypeError, RuntimeError, AttributeError) as error:
        raise ValueError(
            f"{type(module).__name__} must be a module that copy.deepcopy copies, got the error: {error}"
        ) from error


@contextlib.contextmanager
def without_traces(module: nn.Module, *, first: bool, on_cuda: bool) -> Iterator[None]:
    """Turn what a first call leaves in buffers, and a warning that it is slow, into an error and undo it."""
    if not first:
        yield
        return
    state = torch.get_rng_state()  # a resumed run tries again, and has to draw what the run draws that goes on
    cuda_state = torch.cuda.get_rng_state() if on_cuda else None
    before = [
        (layer, name, buffer, buffer.clone(), buffer._version)
        for layer in module.modules()
        for name, buffer in layer._buffers.items()
        if buffer is not None
    ]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="There is a performance drop because")
            yield
        if any(
            layer._buffers[name] is not old or old._version != version for layer, name, old, _, version in before
        ):
            raise RuntimeError("the module writes buffers, which every task has to do by itself")
    except Exception:
        torch.set_rng_state(state)
        if cuda_state is not None:
            torch.cuda.set_rng_state(cuda_state)
        for layer, name, old, value, _ in before:
            layer._buffers[name] = old
            with torch.no_grad():
                old.copy_(value)
        raise
