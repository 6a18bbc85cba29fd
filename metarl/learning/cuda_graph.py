"""A function of tensors as a CUDA graph: one launch instead of hundreds of small kernels."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_WARMUP_CALLS = 3


class CudaGraph:
    """Runs a function eagerly at first, then captures it and replays the graph.

    The function must work on the device alone: nothing is copied to the CPU, no shape depends on a value, and what
    it reads and writes besides its inputs (parameters, Adam's moments, a replay's store) stays where it is in
    memory. Random numbers are among its inputs. The first calls do real work too, on the stream that will be
    captured: libraries and optimisers set themselves up in them, which they could not while capturing.

    Args:
        function: Function of a sequence of tensors that returns one tensor.
    """

    def __init__(self, function: Callable[[Sequence[Tensor]], Tensor]) -> None:
        self._function = function
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[Tensor] = []
        self._output = torch.empty(0)

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        """The function's result for inputs whose shapes never change; overwritten by the next call."""
        self._calls += 1
        if self._calls <= _WARMUP_CALLS:
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                output = self._function(inputs)
            torch.cuda.current_stream().wait_stream(self._stream)
            return output
        if self._graph is None:
            self._inputs = [value.clone() for value in inputs]
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=self._stream):
                self._output = self._function(self._inputs)
        for captured, value in zip(self._inputs, inputs, strict=True):
            captured.copy_(value)
        self._graph.replay()
        return self._output
