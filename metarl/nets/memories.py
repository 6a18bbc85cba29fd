"""Memories: recurrent networks and transformers that read a trial, at once in training, by steps in acting.

A memory maps inputs to outputs of its own size and carries what it needs from one step to the next as a `Carry`, a
tuple of tensors whose axis 0 is the batch. `unroll` reads many steps; `step` reads one and can hold still where an
episode has ended. Both give the same numbers, and an empty carry is what a new trial starts from.
"""

import math
from typing import Protocol, cast

import torch
from torch import Tensor, nn

Carry = tuple[Tensor, ...]


class Memory(Protocol):
    """A memory, as a policy uses it.

    Attributes:
        output_size: Number of output features.
    """

    output_size: int

    def start(self, batch_size: int) -> Carry:
        """The carry of a new trial."""

    def unroll(self, inputs: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        """Read inputs [time, batch, in]; outputs [time, batch, out] and the carry after the last step."""

    def step(self, inputs: Tensor, carry: Carry, alive: Tensor) -> tuple[Tensor, Carry]:
        """Read one step's inputs [batch, in]; the carry of rows that are not alive [batch] stays as it is."""


class RecurrentMemory(nn.Module):
    """One layer of GRU or LSTM; orthogonal recurrent weights, Xavier input weights, zero biases.

    Args:
        kind: Kind of recurrent cell: "gru" (Duan et al. 2016) or "lstm", whose forget gates start open (bias 1).
        input_size: Number of input features.
        hidden_size: Number of output features.
        generator: Source of the weights.
        span: Number of steps, at most, for which units remember before training: their gates are drawn for 2 to
            this many steps (chrono initialisation, Tallec & Ollivier 2018, arXiv:1804.11188, section 2.2). None
            for gates that start as above, half open in a GRU, which remembers for two steps.
    """

    def __init__(
        self, kind: str, input_size: int, hidden_size: int, *, generator: torch.Generator, span: int | None = None
    ) -> None:
        super().__init__()
        self.output_size = hidden_size
        self._lstm = kind == "lstm"
        self.cell = (nn.LSTM if self._lstm else nn.GRU)(input_size, hidden_size)
        for name, weight in self.cell.named_parameters():
            if "bias" in name:
                nn.init.zeros_(weight)
                continue
            initialise = nn.init.orthogonal_ if "_hh_" in name else nn.init.xavier_uniform_
            for gate in torch.split(weight.data, hidden_size):
                initialise(gate, generator=generator)
        if self._lstm:
            self.cell.get_parameter("bias_ih_l0").data[hidden_size : 2 * hidden_size] = 1.0
        if span is not None:
            self._remember_for(span, generator)

    def _remember_for(self, span: int, generator: torch.Generator) -> None:
        """Set the gates' biases to log(u), u uniform in [1, span - 1]; an LSTM's input gates get the opposite."""
        size = self.output_size
        keep = (1 + max(0, span - 2) * torch.rand(size, generator=generator)).log()
        bias = self.cell.get_parameter("bias_ih_l0").data
        bias[size : 2 * size] = keep  # a GRU's update gate or an LSTM's forget gate
        if self._lstm:
            bias[:size] = -keep

    def start(self, batch_size: int) -> Carry:
        """The zero state of so many trials."""
        weight = self.cell.get_parameter("weight_hh_l0")
        zeros = weight.new_zeros(batch_size, self.output_size)
        return (zeros, zeros.clone()) if self._lstm else (zeros,)

    def unroll(self, inputs: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        """Read inputs [time, batch, in]; outputs [time, batch, out] and the carry after the last step."""
        state = tuple(part.unsqueeze(0) for part in carry)
        outputs, after = self.cell(inputs, state if self._lstm else state[0])
        return outputs, tuple(part.squeeze(0) for part in (after if self._lstm else (after,)))

    def step(self, inputs: Tensor, carry: Carry, alive: Tensor) -> tuple[Tensor, Carry]:
        """Read one step's inputs [batch, in]; the carry of rows that are not alive stays as it is."""
        outputs, after = self.unroll(inputs.unsqueeze(0), carry)
        if torch.compiler.is_exporting() or not alive.all():
            after = tuple(torch.where(alive.unsqueeze(1), new, old) for new, old in zip(after, carry, strict=True))
        return outputs.squeeze(0), after


class SplitMemory(nn.Module):
    """A GRU half of whose outputs are their greatest values since the trial began.

    SplAgger (Beck et al. 2024, arXiv:2403.03020): the first half of the outputs depends on the order of what was
    read, the other does not. What a step has put into the greatest values stays there however long the trial
    goes on, and its gradient comes back in one step. The carry is (state of the GRU, greatest values).

    Args:
        input_size: Number of input features.
        hidden_size: Number of output features.
        generator: Source of the weights.
        span: Number of steps, at most, for which the GRU remembers before training; see `RecurrentMemory`.
    """

    def __init__(
        self, input_size: int, hidden_size: int, *, generator: torch.Generator, span: int | None = None
    ) -> None:
        super().__init__()
        self.output_size = hidden_size
        self._num_ordered = hidden_size - hidden_size // 2
        self.recurrent = RecurrentMemory("gru", input_size, hidden_size, generator=generator, span=span)

    def start(self, batch_size: int) -> Carry:
        """The zero state of so many trials, and -1, below which no output of a GRU lies."""
        (state,) = self.recurrent.start(batch_size)
        return state, state.new_full((batch_size, self.output_size - self._num_ordered), -1.0)

    def unroll(self, inputs: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        """Read inputs [time, batch, in]; outputs [time, batch, out] and the carry after the last step."""
        outputs, (state,) = self.recurrent.unroll(inputs, carry[:1])
        rest = torch.cat((carry[1].unsqueeze(0), outputs[..., self._num_ordered :]))
        greatest = rest.cummax(0).values[1:]
        return torch.cat((outputs[..., : self._num_ordered], greatest), -1), (state, greatest[-1])

    def step(self, inputs: Tensor, carry: Carry, alive: Tensor) -> tuple[Tensor, Carry]:
        """Read one step's inputs [batch, in]; the carry of rows that are not alive stays as it is."""
        outputs, (state,) = self.recurrent.step(inputs, carry[:1], alive)
        greatest = torch.maximum(carry[1], outputs[..., self._num_ordered :])
        after = torch.where(alive.unsqueeze(1), greatest, carry[1])
        return torch.cat((outputs[..., : self._num_ordered], greatest), -1), (state, after)


class TransformerMemory(nn.Module):
    """A causal transformer over the whole trial, instead of SNAIL's attention (Mishra et al. 2018).

    Pre-normalised blocks of attention and a two-layer network of four times the width; sinusoidal positions
    (Vaswani et al. 2017), so that a trial may be longer than those trained on. The carry is (keys and values of
    the past [batch, past, layers * 2 * width], number of steps read [batch]).

    Args:
        input_size: Number of input features.
        width: Number of output features, and of every layer's.
        num_layers: Number of blocks.
        num_heads: Number of heads in each attention; twice this number must divide the width.
        generator: Source of the weights.
    """

    def __init__(
        self, input_size: int, width: int, *, num_layers: int, num_heads: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        if width % (2 * num_heads):
            raise ValueError(f"width must be a multiple of twice num_heads, got {width} and {num_heads}")
        self.output_size = width
        self._num_heads = num_heads
        self.embed = nn.Linear(input_size, width)
        self.blocks = nn.ModuleList(_Block(width, num_heads) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                nn.init.zeros_(module.bias)

    def start(self, batch_size: int) -> Carry:
        """The carry of so many trials without a past."""
        weight = self.embed.weight
        past = weight.new_zeros(batch_size, 0, len(self.blocks) * 2 * self.output_size)
        return past, torch.zeros(batch_size, dtype=torch.int64, device=weight.device)

    def _layers(self, past: Tensor) -> list[tuple["_Block", Tensor]]:
        """Every block with its part of the past."""
        parts = past.chunk(len(self.blocks), -1)
        return [(cast(_Block, block), part) for block, part in zip(self.blocks, parts, strict=True)]

    def unroll(self, inputs: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        """Read inputs [time, batch, in]; all rows have read equally many steps before."""
        past, count = carry
        steps, read = inputs.shape[0], past.shape[1]
        query = torch.arange(read, read + steps, device=inputs.device)
        key = torch.arange(read + steps, device=inputs.device)
        # Without a past the mask is the plain causal one, which attention computes faster than one that is passed.
        visible = (key[None] <= query[:, None])[None, None] if read else None  # [1, 1, time, past + time]
        hidden = self.embed(inputs.transpose(0, 1)) + _positions(query, self.output_size)
        after = []
        for block, part in self._layers(past):
            after.append(torch.cat((part, block.remember(hidden)), 1))
            hidden = block(hidden, after[-1], visible)
        return self.norm(hidden).transpose(0, 1), (torch.cat(after, -1), count + steps)

    def step(self, inputs: Tensor, carry: Carry, alive: Tensor) -> tuple[Tensor, Carry]:
        """Read one step's inputs [batch, in]. A row that is not alive writes where its next step will.

        An exported step, whose rows are all alive, makes the past longer by one.
        """
        if torch.compiler.is_exporting():
            outputs, after = self.unroll(inputs.unsqueeze(0), carry)
            return outputs.squeeze(0), after
        past, count = carry
        if int(count.max()) == past.shape[1]:  # doubled now and then, not copied at every step
            room = past.new_zeros(past.shape[0], max(32, past.shape[1]), past.shape[2])
            past = torch.cat((past, room), 1)
        rows = torch.arange(len(count), device=count.device)
        key = torch.arange(past.shape[1], device=count.device)
        visible = (key[None] <= count[:, None])[:, None, None]  # [batch, 1, 1, past]
        hidden = (self.embed(inputs) + _positions(count, self.output_size)).unsqueeze(1)
        for block, part in self._layers(past):
            part[rows, count] = block.remember(hidden).squeeze(1)
            hidden = block(hidden, part, visible)
        return self.norm(hidden).squeeze(1), (past, count + alive)


class _Block(nn.Module):
    """Attention, then a two-layer network, each on normalised inputs and added to them."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self._num_heads = num_heads
        self.attention_norm, self.network_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)
        self.network = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def remember(self, hidden: Tensor) -> Tensor:
        """Keys and values [batch, time, 2 * width] of a block's inputs."""
        memory: Tensor = self.key_value(self.attention_norm(hidden))
        return memory

    def forward(self, hidden: Tensor, memory: Tensor, visible: Tensor | None) -> Tensor:
        """Outputs [batch, time, width], attending to the visible [batch, 1, time, past] of a memory.

        None stands for as many steps in memory as in the inputs, each seeing itself and those before.
        """
        keys, values = memory.chunk(2, -1)
        queries = self._heads(self.query(self.attention_norm(hidden)))
        attended = nn.functional.scaled_dot_product_attention(
            queries, self._heads(keys), self._heads(values), attn_mask=visible, is_causal=visible is None
        )
        hidden = hidden + self.output(attended.transpose(1, 2).flatten(2))
        outputs: Tensor = hidden + self.network(self.network_norm(hidden))
        return outputs

    def _heads(self, values: Tensor) -> Tensor:
        return values.view(*values.shape[:2], self._num_heads, -1).transpose(1, 2)


def _positions(steps: Tensor, width: int) -> Tensor:
    """Sinusoidal embeddings of step numbers [...], shape [..., width]."""
    rates = torch.exp(torch.arange(0, width, 2, device=steps.device) * (-math.log(10_000.0) / width))
    angles = steps.unsqueeze(-1) * rates
    return torch.cat((angles.sin(), angles.cos()), -1)


class NoMemory(nn.Module):
    """No memory: its outputs are its inputs, to measure what memory is worth.

    Args:
        input_size: Number of input and of output features.
    """

    def __init__(self, input_size: int) -> None:
        super().__init__()
        self.output_size = input_size

    def start(self, batch_size: int) -> Carry:
        """The carry of a policy without memory, which is empty."""
        return ()

    def unroll(self, inputs: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        """The inputs themselves, and the empty carry."""
        return inputs, ()

    def step(self, inputs: Tensor, carry: Carry, alive: Tensor) -> tuple[Tensor, Carry]:
        """The inputs themselves, and the empty carry."""
        return inputs, ()
