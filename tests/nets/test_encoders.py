"""Encoders: the features of every kind of observation."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from metarl.nets.encoders import FLAT, EncoderConfig
from metarl.observations import as_arrays
from metarl.trajectories import as_tensors

IMAGE = spaces.Box(0, 255, (7, 7, 3), np.uint8)


def _encoder(space: spaces.Space, config: EncoderConfig = FLAT):  # type: ignore[no-untyped-def]
    return config.make(space, torch.Generator().manual_seed(0))


def _batch(space: spaces.Space):  # type: ignore[no-untyped-def]
    """Observations [2, 3, ...] of a space."""
    space.seed(0)
    samples = [as_tensors(as_arrays(space.sample())) for _ in range(6)]
    if isinstance(samples[0], dict):
        return {name: torch.stack([s[name] for s in samples]).unflatten(0, (2, 3)) for name in samples[0]}
    return torch.stack(samples).unflatten(0, (2, 3))


def test_a_list_of_numbers_stays_what_it_is() -> None:
    space = spaces.Box(-1.0, 1.0, (4,))
    encoder, observations = _encoder(space, EncoderConfig()), _batch(space)
    assert not encoder.learns
    assert torch.equal(encoder(observations), observations)


@pytest.mark.parametrize(
    "shape", [(7, 7, 3), (84, 84, 3), (3, 84, 84), (4, 10, 30), (40, 12, 1), (1, 1, 1)], ids=str
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_convolutions_take_images_of_any_size(shape: tuple[int, ...], dtype: type) -> None:
    space = spaces.Box(0, 255, shape, dtype)
    encoder, observations = _encoder(space, EncoderConfig(image_features=10)), _batch(space)
    features = encoder(observations)
    assert features.shape == (2, 3, encoder.output_size) == (2, 3, 10)
    features.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())
    assert torch.allclose(features[1, 2], encoder(observations[1, 2]), atol=1e-5)


@pytest.mark.parametrize(("sides", "channels"), [((9, 8), 3), ((7, 7), 20)], ids=str)
def test_channels_first_and_last_are_the_same_image(sides: tuple[int, int], channels: int) -> None:
    """Planes may be more than a square image has pixels in a row."""
    last = spaces.Box(0, 255, (*sides, channels), np.uint8)
    first = spaces.Box(0, 255, (channels, *sides), np.uint8)
    observations = _batch(last)
    encoder = _encoder(last, EncoderConfig())
    assert encoder.parts[0].convolutions[0].in_channels == channels
    features = encoder(observations)
    assert torch.allclose(features, _encoder(first, EncoderConfig())(observations.movedim(-1, -3)), atol=1e-6)


def test_images_may_be_dense_or_flat() -> None:
    observations = _batch(IMAGE)
    dense, flat = _encoder(IMAGE, EncoderConfig(images="mlp", image_features=5)), _encoder(IMAGE)
    assert dense(observations).shape == (2, 3, 5)
    assert (dense.learns, flat.learns) == (True, False)
    assert torch.allclose(flat(observations), observations.flatten(2) / 255)


def test_choices_are_one_hot_and_others_are_zeros() -> None:
    encoder = _encoder(spaces.Discrete(3, start=2))
    assert encoder(torch.tensor([2, 4, 0])).tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]
    several = _encoder(spaces.MultiDiscrete([[2], [3]], start=[[0], [1]]))
    assert several(torch.tensor([[1], [3]])).tolist() == [0, 1, 0, 0, 1]


def test_a_dictionary_is_encoded_part_by_part() -> None:
    space = spaces.Dict(
        image=IMAGE,
        inner=spaces.Tuple((spaces.Discrete(3), spaces.MultiBinary(2))),
        vector=spaces.Box(-1.0, 1.0, (2,)),
    )
    encoder, observations = _encoder(space, EncoderConfig(image_features=8)), _batch(space)
    assert sorted(observations) == ["image", "inner.0", "inner.1", "vector"]
    features = encoder(observations)
    assert features.shape == (2, 3, 8 + 3 + 2 + 2)
    assert torch.equal(features[..., 13:], observations["vector"])
    assert torch.equal(features[..., 11:13], observations["inner.1"].float())


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="channels must be 1 to 1000 sizes, got 0"):
        EncoderConfig(channels=())
    with pytest.raises(ValueError, match="each of channels must be at least 1, got 0"):
        EncoderConfig(channels=(8, 0))
    with pytest.raises(ValueError, match="image_features must be at least 1, got 0"):
        EncoderConfig(image_features=0)
