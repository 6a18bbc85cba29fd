"""Residual networks and weights from files: shapes, sizes, numbers by hand, DropBlock, and what is refused."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn import functional

from metarl.experiments.cli import main
from metarl.fewshot.backbones import BackboneConfig, NetworkSpec, OwnBackbone, check_network
from metarl.fewshot.data.classes import ClassData, ClassEpisodes
from metarl.fewshot.learners.prototypical import Prototypical, PrototypicalConfig
from metarl.fewshot.pretrained import load_weights, read_weights
from metarl.fewshot.residual import (
    ORESHKIN_WIDTHS,
    CompactBackbone,
    DropBlock,
    ResidualBackbone,
    ResNet12,
    ResNet18,
)

CPU = torch.device("cpu")
SMALL = ResidualBackbone(widths=(4, 4, 6, 8))
COMPACT = CompactBackbone((4, 6, 8))
FEATURES = NetworkSpec((1, 28, 28), "features")


def _random() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("backbone", [SMALL, ResidualBackbone(18), COMPACT], ids=["12", "18", "compact"])
@pytest.mark.parametrize(("output", "num_outputs"), [("features", 0), ("outputs", 5), ("maps", 0)])
def test_a_network_is_what_a_learner_asks_for(backbone: BackboneConfig, output: Any, num_outputs: int) -> None:
    spec = NetworkSpec((3, 28, 28), output, num_outputs)
    network = backbone.make(spec, _random())
    check_network(network, spec, CPU)
    again = backbone.make(spec, _random())
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))


def test_sizes_are_the_published_ones() -> None:
    def count(network: nn.Module) -> int:
        return sum(p.numel() for p in network.parameters())

    assert count(ResNet18(3)) == 11_689_512 - 513 * 1000  # torchvision's resnet18 without its classifier

    def by_hand(widths: tuple[int, ...]) -> int:
        pairs = zip((3, *widths[:-1]), widths, strict=True)
        return sum(9 * a * b + 2 * 9 * b * b + a * b + 4 * 2 * b for a, b in pairs)

    assert count(ResNet12(3)) == by_hand((64, 160, 320, 640)) == 12_424_320
    assert count(ResNet12(3, ORESHKIN_WIDTHS)) == by_hand(ORESHKIN_WIDTHS)


def test_a_compact_network_by_hand() -> None:
    network = COMPACT.make(NetworkSpec((2, 17, 17), "features"), _random()).eval()
    w, x = network.state_dict(), torch.randn(3, 2, 17, 17, generator=_random())

    def normed(maps: torch.Tensor, name: str) -> torch.Tensor:
        parts = (w[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return nn.functional.batch_norm(maps, *parts)

    maps = nn.functional.max_pool2d(normed(nn.functional.conv2d(x, w["conv1.weight"], padding=1), "bn1").relu(), 2)
    for block in ("block1", "block2"):
        inner = normed(nn.functional.conv2d(maps, w[f"{block}.conv1.weight"], padding=1), f"{block}.bn1").relu()
        inner = normed(nn.functional.conv2d(inner, w[f"{block}.conv2.weight"], padding=1), f"{block}.bn2")
        beside = nn.functional.conv2d(maps, w[f"{block}.downsample.0.weight"])
        maps = nn.functional.max_pool2d((inner + normed(beside, f"{block}.downsample.1")).relu(), 2)
    assert maps.shape == (3, 8, 2, 2)
    first, second = network(x)[:2]
    # Squared distances are ten times the mean over features, so that places do not make them larger.
    expected = 10 * (maps[0] - maps[1]).square().mean()
    torch.testing.assert_close((first - second).square().sum(), expected)
    torch.testing.assert_close(network(x), maps.flatten(1) * (10 / 32) ** 0.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CompactBackbone((4, 4)), "widths must be three numbers of filters, got 2"),
        (lambda: CompactBackbone((4, 4, 0)), "widths"),
        (lambda: COMPACT.make(NetworkSpec((1, 7, 7), "features"), _random()), "8 x 8 or more"),
        (lambda: COMPACT.make(NetworkSpec((30,), "features"), _random()), r"inputs of shape \(30,\)"),
        (lambda: COMPACT.make(NetworkSpec((1, 28, 28), "outputs", 5, num_context=3), _random()), "a context"),
    ],
)
def test_a_compact_network_that_cannot_be_made_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_block_of_resnet_12_by_hand() -> None:
    network = ResNet12(2, (3, 4, 5, 6)).eval()
    w, x = network.state_dict(), torch.randn(2, 2, 16, 16, generator=_random())

    def norm(maps: torch.Tensor, name: str) -> torch.Tensor:
        parts = (w[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(maps, *parts)

    for layer in range(1, 5):
        at, inner = f"layer{layer}.0", x
        for place in (1, 2, 3):
            inner = norm(functional.conv2d(inner, w[f"{at}.conv{place}.weight"], padding=1), f"{at}.bn{place}")
            inner = functional.leaky_relu(inner, 0.1) if place < 3 else inner
        beside = norm(functional.conv2d(x, w[f"{at}.downsample.0.weight"]), f"{at}.downsample.1")
        x = functional.max_pool2d(functional.leaky_relu(inner + beside, 0.1), 2)
    assert x.shape[-1] == 1
    assert torch.allclose(network(torch.randn(2, 2, 16, 16, generator=_random())), x.mean((2, 3)), atol=1e-6)


def test_drop_block_drops_squares_in_training_alone() -> None:
    torch.manual_seed(0)
    layer, maps = DropBlock(0.2, 3), torch.ones(50, 8, 10, 10)
    assert torch.equal(layer.eval()(maps), maps)
    dropped = layer.train()(maps)
    assert dropped.mean((1, 2, 3)).allclose(torch.ones(50), atol=1e-5)  # what is left is so much larger
    gone = dropped == 0
    assert 0.1 < float(gone.float().mean()) < 0.2  # squares overlap, so a little less than the rate
    squares = functional.conv2d(gone.float().flatten(0, 1).unsqueeze(1), torch.ones(1, 1, 3, 3)) == 9
    cover = functional.max_pool2d(functional.pad(squares.float(), (2, 2, 2, 2)), 3, stride=1) > 0
    assert torch.equal(cover.squeeze(1), gone.flatten(0, 1))  # every place that is gone lies in a square that is
    assert torch.equal(DropBlock(0.0, 3).train()(maps), maps)
    assert DropBlock(0.3, 5).train()(torch.ones(3, 2, 1, 1)).shape == (3, 2, 1, 1)  # maps smaller than a square


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("wrapped", ["plain", "nested", "prefixed"])
def test_weights_of_a_file_are_the_networks(
    tmp_path: Path, suffix: str, wrapped: str, caplog: pytest.LogCaptureFixture
) -> None:
    source = SMALL.make(FEATURES, torch.Generator().manual_seed(5))
    weights: dict[str, Any] = {**source.state_dict(), "fc.weight": torch.zeros(64, 8), "fc.bias": torch.zeros(64)}
    if wrapped == "prefixed":
        weights = {f"module.{name}": value for name, value in weights.items()}
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        safetensors.torch.save_file(weights, path)
    else:
        torch.save({"state_dict": weights, "epoch": 3} if wrapped == "nested" else weights, path)
    with caplog.at_level(logging.WARNING):
        loaded = ResidualBackbone(widths=SMALL.widths, weights=str(path)).make(FEATURES, _random())
    assert "left out the classifier: fc.bias, fc.weight" in caplog.text
    fresh = SMALL.make(FEATURES, _random()).state_dict()
    assert not torch.equal(fresh["layer1.0.conv1.weight"], source.state_dict()["layer1.0.conv1.weight"])
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in source.state_dict().items())


def test_a_network_of_ones_own_takes_weights_and_keeps_its_own_head(tmp_path: Path) -> None:
    class Own(nn.Module):
        def __init__(self, num_outputs: int) -> None:
            super().__init__()
            self.body, self.fc = nn.Linear(6, 4), nn.Linear(4, num_outputs)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            outputs: torch.Tensor = self.fc(self.body(inputs).relu())
            return outputs

    source = Own(1000)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    backbone = OwnBackbone(lambda spec, generator: Own(spec.num_outputs), weights=str(tmp_path / "w.pth"))
    made = backbone.make(NetworkSpec((6,), "outputs", 5), _random())
    assert torch.equal(made.get_parameter("body.weight"), source.body.weight)
    assert made.get_parameter("fc.weight").shape == (5, 4)


class _Code:
    """What runs when it is unpickled."""

    def __reduce__(self) -> Any:
        return (print, ("executed",))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("missing", "no file of weights at"),
        ("damaged", "is damaged or holds more than tensors"),
        ("code", "is damaged or holds more than tensors"),
        ("list", "must hold tensors by name, a state dict, got list"),
        ("strange", "has 'extra.weight', which the network lacks: expected the weights of this very network"),
        ("lacking", "lacks 'layer1.0.conv1.weight'"),
        ("wider", "'layer1.0.conv1.weight' is of shape (8, 1, 3, 3), expected (4, 1, 3, 3)"),
    ],
)
def test_weights_that_do_not_fit_are_one_line(
    tmp_path: Path, content: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path, weights = tmp_path / "w.pt", SMALL.make(FEATURES, _random()).state_dict()
    if content == "strange":
        weights["extra.weight"] = torch.zeros(2)
    elif content == "lacking":
        del weights["layer1.0.conv1.weight"]
    elif content == "wider":
        weights = ResidualBackbone(widths=(8, 4, 6, 8)).make(FEATURES, _random()).state_dict()
    if content == "damaged":
        path.write_bytes(b"weights")
    elif content != "missing":
        torch.save({"code": _Code(), "list": [1]}.get(content, weights), path)
    with pytest.raises(ValueError, match=r".") as error:
        load_weights(SMALL.make(FEATURES, _random()), path)
    assert expected in str(error.value)
    assert "executed" not in capsys.readouterr().out
    assert "\n" not in str(error.value)


def test_a_checkpoint_names_its_tensors(tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.ones(2)}}, tmp_path / "m.pt")
    assert read_weights(tmp_path / "m.pt")["model.a"].tolist() == [1, 1]


def test_what_is_no_image_or_needs_a_context_is_refused() -> None:
    with pytest.raises(ValueError, match=r"takes images .* got inputs of shape \(4,\)"):
        SMALL.make(NetworkSpec((4,), "features"), _random())
    with pytest.raises(ValueError, match="no context, got a context"):
        SMALL.make(NetworkSpec((1, 28, 28), "outputs", 5, 10), _random())
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"widths": (4, 4)}, "widths"),
        ({"drop_rate": 1.0}, "drop_rate"),
        ({"depth": 18, "widths": (4, 4, 4, 4)}, "widths"),
    ]
    for fields, named in wrong:
        with pytest.raises(ValueError, match=named):
            ResidualBackbone(**fields)


@pytest.mark.thorough
def test_a_residual_network_learns_drawn_classes() -> None:
    generator = _random()
    patterns = torch.rand(12, 1, 1, 16, 16, generator=generator)
    images = (patterns + 0.2 * torch.rand(12, 8, 1, 16, 16, generator=generator)).flatten(0, 1)
    data = ClassData.of(images, torch.arange(12).repeat_interleave(8))
    episodes = ClassEpisodes(data, num_ways=4, num_shots=1, num_queries=2)
    network = ResidualBackbone(widths=(4, 4, 6, 8), drop_rate=0.1, block_size=2).make(
        NetworkSpec((1, 16, 16), "features"), generator
    )
    learner = Prototypical(network, PrototypicalConfig())
    rng = np.random.default_rng(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)  # DropBlock draws from torch's own stream
        losses = [learner.update(episodes.sample(2, rng), rng)["loss/outer"] for _ in range(80)]
    assert np.mean(losses[-30:]) < 0.8 * np.mean(losses[:10])


@pytest.mark.thorough
def test_a_residual_network_trains_from_the_command_line(omniglot_archive: Path, tmp_path: Path) -> None:
    small = [
        *("--training.iterations", "1", "--training.updates-per-iteration", "1", "--training.evaluate-every", "0"),
        *(
            "--training.meta-batch-size",
            "1",
            "--evaluation.num-tasks",
            "2",
            "--data.folder",
            str(omniglot_archive),
        ),
        *("--data.episodes.num-ways", "3", "--data.episodes.num-queries", "2", "--data.episodes.train-ways", "3"),
        *("--data.episodes.train-queries", "2", "--backbone.widths", "4", "4", "6", "8"),
    ]
    assert main(["train", "omniglot-ridge-resnet12", *small, "--out", str(tmp_path / "run")]) == 0
    assert main(["evaluate", str(tmp_path / "run"), "--num-tasks", "2"]) == 0
