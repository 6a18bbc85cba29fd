"""The networks of the few-shot literature, what learners ask of a network, and how a configuration makes one."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from metarl.fewshot.factories import made_by, name_of
from metarl.fewshot.layers import evaluating
from metarl.fewshot.pretrained import load_weights
from metarl.nets.networks import Mlp
from metarl.runs.configs import MOST_UNITS, Configuration, check_counts, check_sizes

_LOOK_UP = (nn.Embedding, nn.EmbeddingBag)
Downsampling = Literal["pool", "stride"]
Output = Literal["outputs", "features", "maps"]


class NetworkSpec(NamedTuple):
    """The network that a learner asks for.

    Attributes:
        input_shape: Shape of one example.
        output: Form of the network's output for every row: "outputs" is num_outputs numbers, one per class or
            predicted number; "features" a vector of any length; "maps" feature maps [channel, height, width].
        num_outputs: Size of the last layer; 0 unless output is "outputs".
        num_context: Numbers of a context [row, context] that is the network's second argument; 0 for none.
        exact: Whether float32 is needed, because the learner differentiates through gradients.
        input_dtype: Number format of the inputs.
    """

    input_shape: tuple[int, ...]
    output: Output
    num_outputs: int = 0
    num_context: int = 0
    exact: bool = True
    input_dtype: torch.dtype = torch.float32


class BackboneConfig(Configuration, ABC):
    """The network of an experiment: a frozen dataclass that makes it as a learner asks for it."""

    @abstractmethod
    def make(self, spec: NetworkSpec, generator: torch.Generator) -> nn.Module:
        """A network that maps [row, *input], and the rows' context if there is one, to what the spec says.

        Raises:
            ValueError: if such a network cannot be made.
        """


@dataclass(frozen=True)
class StandardBackbone(BackboneConfig):
    """The literature's network: a perceptron for numbers, Conv4 for images.

    Attributes:
        hidden_sizes: Units of each hidden layer of the perceptron.
        num_features: Features that the perceptron puts out for learners that compare features.
        num_filters: Filters of every convolution.
        downsampling: Halving of images, by pooling or, with a quarter of the work, by strides.
        rectified: Whether features end with a ReLU, as published. Without it cosines range from -1 to 1.
        precision: Number format of the convolutions; bfloat16 is for learners that compare images, and takes two
            thirds of the time where the processor computes in it, more where it does not.
    """

    hidden_sizes: tuple[int, ...] = (40, 40)
    num_features: int = 40
    num_filters: int = 64
    downsampling: Downsampling = "pool"
    rectified: bool = True
    precision: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        check_counts(self, "num_features", "num_filters", most=MOST_UNITS)
        check_sizes(self, "hidden_sizes")

    def make(self, spec: NetworkSpec, generator: torch.Generator) -> nn.Module:
        """A perceptron for inputs [number], Conv4 for square images [channel, height, width]."""
        images = len(spec.input_shape) == 3 and spec.input_shape[1] == spec.input_shape[2]
        if not images and len(spec.input_shape) != 1:
            raise ValueError(
                f"{type(self).__name__} takes numbers [number] or square images [channel, height, width], got "
                f"inputs of shape {spec.input_shape}; give a network of your own"
            )
        if self.precision != "float32" and (spec.exact or not images):
            raise ValueError(
                f"precision must be float32 for learners that do not compare images, got {self.precision}"
            )
        try:
            network = self._conv4(spec, generator) if images else self._perceptron(spec, generator)
        except (RuntimeError, TypeError) as error:  # what torch says of sizes that no memory holds
            raise ValueError(
                f"no network of these sizes can be made: {self}, for {spec.num_outputs} outputs"
            ) from error
        return network if self.precision == "float32" else Autocast(network)

    def _perceptron(self, spec: NetworkSpec, generator: torch.Generator) -> nn.Module:
        network = regression_mlp(
            spec.input_shape[0] + spec.num_context,
            spec.num_outputs or self.num_features,
            hidden_sizes=self.hidden_sizes,
            generator=generator,
        )
        return ContextAsInput(network) if spec.num_context else network

    def _conv4(self, spec: NetworkSpec, generator: torch.Generator) -> nn.Module:
        num_channels, _, image_size = spec.input_shape
        if spec.num_context:
            return FilmConv4(
                spec.num_outputs,
                spec.num_context,
                num_channels=num_channels,
                num_filters=self.num_filters,
                image_size=image_size,
                downsampling=self.downsampling,
                rectified=self.rectified,
                generator=generator,
            )
        network = conv4(
            spec.num_outputs or None,
            num_channels=num_channels,
            num_filters=self.num_filters,
            image_size=image_size,
            downsampling=self.downsampling,
            num_halvings=3 if spec.output == "maps" else 4,
            rectified=self.rectified,
            generator=generator,
        )
        return network[:-1] if spec.output == "maps" else network


@dataclass(frozen=True)
class OwnBackbone(BackboneConfig):
    """A network of one's own.

    Attributes:
        network: A module, of which every learner gets a copy as it is, or a function or class that makes one
            from a `NetworkSpec` and a random stream, or without arguments; torch's own stream follows from the
            run's seed while it is called.
        weights: File of weights to start from, .safetensors or a state dict of torch.save; None for the network's.
        weights_prefix: Beginning of the names of this network's weights in that file, such as encoder_q or
            teacher.backbone; None to find out.
    """

    # A module is called, too. An annotation that names modules would have the command line make one of its words.
    network: Callable[..., object]
    weights: str | None = None
    weights_prefix: str | None = None

    def make(self, spec: NetworkSpec, generator: torch.Generator) -> nn.Module:
        """The network, which must be what the spec says."""
        network = self._made(spec, generator)
        if self.weights is not None:
            load_weights(network, Path(self.weights), self.weights_prefix)
        return network

    def _made(self, spec: NetworkSpec, generator: torch.Generator) -> nn.Module:
        if isinstance(self.network, nn.Module):
            return copy.deepcopy(self.network)
        with torch.random.fork_rng():
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            network = made_by(self.network, spec, generator)
        if not isinstance(network, nn.Module):
            name, kind = name_of(self.network), type(network).__name__
            raise ValueError(f"{name} of the backbone must return a torch.nn.Module, got {kind}")
        return network


@torch.no_grad()
def output_shape(
    network: nn.Module,
    input_shape: tuple[int, ...],
    device: torch.device,
    num_context: int = 0,
    dtype: torch.dtype = torch.float32,
) -> tuple[int, ...]:
    """The shape of what a network puts out for one row."""
    inputs = [torch.zeros(2, *input_shape, dtype=dtype, device=device)]
    if num_context:
        inputs.append(torch.zeros(2, num_context, device=device))
    with evaluating(network):
        outputs: Tensor = network(*inputs)
    if not isinstance(outputs, Tensor):
        raise TypeError(f"it returns {type(outputs).__name__}, not a tensor")
    return tuple(outputs.shape[1:])


def check_network(network: nn.Module, spec: NetworkSpec, device: torch.device) -> None:
    """Raise a ValueError unless a network puts out what was asked for."""
    try:
        shape = output_shape(network, spec.input_shape, device, spec.num_context, spec.input_dtype)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        arguments = f"inputs [row, {', '.join(map(str, spec.input_shape))}]"
        arguments += "" if spec.input_dtype.is_floating_point else f" of {spec.input_dtype}"
        context = f" and a context [row, {spec.num_context}]" if spec.num_context else ""
        message = " ".join(str(error).split())
        if spec.input_dtype.is_floating_point and any(isinstance(layer, _LOOK_UP) for layer in network.modules()):
            message += "; data of tokens say TaskSpec(..., input_dtype=torch.int64)"
        raise ValueError(f"the backbone must take {arguments}{context}, got the error: {message}") from error
    if spec.output == "outputs" and shape != (spec.num_outputs,):
        raise ValueError(
            f"the backbone must put out {spec.num_outputs} numbers for every row, got shape {('row', *shape)}; "
            "change its last layer"
        )
    if spec.output == "features" and len(shape) != 1:
        raise ValueError(
            f"the backbone must put out a vector for every row, got shape {('row', *shape)}; end it with "
            "torch.nn.Flatten()"
        )
    if spec.output == "maps" and (len(shape) != 3 or shape[1] != shape[2]):
        raise ValueError(
            "the backbone must put out square feature maps, shape [row, channel, height, width], got "
            f"{('row', *shape)}; leave torch.nn.Flatten() out"
        )


def conv4(
    num_outputs: int | None,
    *,
    num_channels: int = 1,
    num_filters: int = 64,
    image_size: int = 28,
    downsampling: Downsampling = "pool",
    num_halvings: int = 4,
    rectified: bool = True,
    generator: torch.Generator,
) -> nn.Sequential:
    """Four blocks of 3 x 3 convolution, batch norm and ReLU that halve the image, and a linear layer or none.

    Args:
        num_outputs: Size of the linear layer; None for the features themselves.
        num_channels: Channels of the images.
        num_filters: Filters of every convolution.
        image_size: Width of the square images, in pixels; what remains must be at least 1.
        downsampling: Halving of images: "pool" after the convolution (Vinyals et al. 2016), or its "stride"
            with a mean over the remaining places (Finn et al. 2017 on Omniglot), which is a quarter of the work.
        num_halvings: Number of blocks that halve the image, the first ones.
        rectified: Whether the last block ends with its ReLU. Without it features have signs, and their cosines
            the whole range from -1 to 1.
        generator: Random stream of the initial weights.
    """
    layers: list[nn.Module] = []
    inputs, size = num_channels, image_size
    for index in range(4):
        halves = index < num_halvings
        stride = 2 if halves and downsampling == "stride" else 1
        convolution = nn.Conv2d(inputs, num_filters, 3, stride=stride, padding=1, bias=False)
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu", generator=generator)
        block: list[nn.Module] = [convolution, nn.BatchNorm2d(num_filters)]
        if halves and downsampling == "pool":
            block.append(nn.MaxPool2d(2))
        if index < 3 or rectified:
            block.append(nn.ReLU())  # a quarter of the places, after the pooling, and the same numbers
        layers.append(nn.Sequential(*block))
        inputs = num_filters
        if halves:
            size = size // 2 if downsampling == "pool" else (size + 1) // 2
    if size < 1:
        raise ValueError(
            f"image_size must be at least {2**num_halvings} for {num_halvings} halvings, got {image_size}"
        )
    if downsampling == "stride":
        layers.append(nn.AdaptiveAvgPool2d(1))
        size = 1
    layers.append(nn.Flatten())
    if num_outputs is not None:
        layers.append(linear(num_filters * size * size, num_outputs, generator))
    return nn.Sequential(*layers)


def linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer with Xavier weights and biases of zero."""
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def regression_mlp(
    num_inputs: int, num_outputs: int, *, hidden_sizes: tuple[int, ...] = (40, 40), generator: torch.Generator
) -> Mlp:
    """The network of the sinusoid experiments (Finn et al. 2017, section 5.1)."""
    return Mlp(num_inputs, hidden_sizes, num_outputs, activation="relu", generator=generator)


class Autocast(nn.Module):
    """A module whose convolutions and products are computed in bfloat16; parameters and outputs are float32.

    Batch norm's statistics are kept in float32 too.

    Args:
        module: The module, which maps a tensor to a tensor.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: Tensor) -> Tensor:
        """The module's outputs, up to the eight bits of its intermediate results."""
        with torch.autocast(inputs.device.type, dtype=torch.bfloat16):
            outputs: Tensor = self.module(inputs)
        return outputs.float()


class ContextAsInput(nn.Module):
    """A network that takes a context as further inputs.

    Batch norm right behind the first layer would take out what is the same in all rows of a task, the context.

    Args:
        network: The network inside, which maps [row, input + context] to [row, out].
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor, context: Tensor) -> Tensor:
        """Map inputs [row, input] and their context [row, context] to [row, out]."""
        outputs: Tensor = self.network(torch.cat([inputs, context], -1))
        return outputs


class FilmConv4(nn.Module):
    """Conv4 whose third block's channels a context scales and shifts, before the ReLU (Zintgraf et al. 2019).

    Args:
        num_outputs: Size of the linear layer.
        num_context: Numbers in the context.
        num_channels: Channels of the images.
        num_filters: Filters of every convolution.
        image_size: Width of the square images, in pixels.
        downsampling: Halving of images, see `conv4`.
        rectified: Whether features end with a ReLU, see `conv4`.
        generator: Random stream of the initial weights.
    """

    def __init__(
        self,
        num_outputs: int,
        num_context: int,
        *,
        num_channels: int = 1,
        num_filters: int = 64,
        image_size: int = 28,
        downsampling: Downsampling = "pool",
        rectified: bool = True,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        layers = conv4(
            num_outputs,
            num_channels=num_channels,
            num_filters=num_filters,
            image_size=image_size,
            downsampling=downsampling,
            rectified=rectified,
            generator=generator,
        )
        first, second, third, *rest = layers.children()
        unrectified = [layer for layer in third.children() if not isinstance(layer, nn.ReLU)]
        self.before = nn.Sequential(first, second, *unrectified)
        self.after = nn.Sequential(nn.ReLU(), *rest)
        self.film = linear(num_context, 2 * num_filters, generator)
        with torch.no_grad():
            self.film.bias[:num_filters] = 1.0  # an unadapted context changes nothing

    def forward(self, inputs: Tensor, context: Tensor) -> Tensor:
        """Map images [row, channel, height, width] and their context [row, context] to [row, out]."""
        scale, shift = self.film(context)[:, :, None, None].chunk(2, 1)
        outputs: Tensor = self.after(self.before(inputs) * scale + shift)
        return outputs
