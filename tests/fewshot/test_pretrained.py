"""Weights of files whose names begin with what wrappers and checkpoints leave."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metarl.fewshot.backbones import NetworkSpec, OwnBackbone
from metarl.fewshot.pretrained import load_weights


class Net(nn.Module):
    def __init__(self, num_outputs: int = 3) -> None:
        super().__init__()
        self.stem, self.body, self.fc = nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, num_outputs)


def _state(value: float, num_outputs: int = 3) -> dict[str, Tensor]:
    return {name: torch.full_like(tensor, value) for name, tensor in Net(num_outputs).state_dict().items()}


def _behind(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


OPTIMISER = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
EXTRA = {"projector.0.weight": torch.zeros(2, 2), "queue": torch.zeros(4)}


@pytest.mark.parametrize(
    "content",
    [
        _state(2.0),
        _behind("module.", _state(2.0)),
        _behind("model.backbone.", _state(2.0)) | EXTRA,
        _behind("encoder.", _state(2.0)) | {"head.weight": torch.zeros(9, 5)},
        {"state_dict": _behind("module.encoder.", _state(2.0)) | EXTRA, "optimizer": OPTIMISER, "epoch": 3},
        {"model": _state(2.0), "model_ema": _state(3.0), "optimizer": OPTIMISER},
        {"state_dict": _state(2.0), "state_dict_ema": _state(3.0)},
        {"state_dict_ema": _state(2.0)},
        {"student": _behind("backbone.", _state(2.0)), "loss": torch.zeros(())},
    ],
)
def test_the_beginning_of_names_is_what_all_weights_are_behind(content: dict[str, Any], tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pt")
    network = Net()
    load_weights(network, tmp_path / "w.pt")
    assert all(bool((tensor == 2).all()) for tensor in network.state_dict().values())


def test_a_classifier_outside_of_the_wrapper_is_taken_too(tmp_path: Path) -> None:
    state = _state(2.0)
    head = {name: state.pop(name) for name in list(state) if name.startswith("fc.")}
    torch.save(_behind("backbone.", state) | head, tmp_path / "w.pt")
    network = Net()
    load_weights(network, tmp_path / "w.pt")
    assert bool((network.fc.weight == 2).all())


TWICE = {"state_dict": _behind("module.encoder_q.", _state(2.0)) | _behind("module.encoder_k.", _state(3.0))}


def test_weights_that_are_there_several_times_are_asked_for(tmp_path: Path) -> None:
    torch.save(TWICE, tmp_path / "w.pt")
    starts = "state_dict.module.encoder_q., state_dict.module.encoder_k."
    with pytest.raises(ValueError, match=f"2 times, behind {starts}; say which with --backbone.weights-prefix"):
        load_weights(Net(), tmp_path / "w.pt")
    for prefix in ("state_dict.module.encoder_k", "state_dict.module.encoder_k."):
        backbone = OwnBackbone(Net(), str(tmp_path / "w.pt"), prefix)
        network = backbone.make(NetworkSpec((4,), "features"), torch.Generator())
        assert all(bool((tensor == 3).all()) for tensor in network.state_dict().values())


def test_the_log_says_what_was_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save(_behind("backbone.", _state(2.0)) | EXTRA, tmp_path / "w.pt")
    with caplog.at_level(logging.WARNING):
        load_weights(Net(), tmp_path / "w.pt")
    assert "left out projector.0.weight, queue; taken were the names behind backbone." in caplog.text
    caplog.clear()
    many = {f"projector.{n}.weight": torch.zeros(2) for n in range(9)}
    torch.save(_state(2.0, num_outputs=7) | {"state": OPTIMISER["state"]}, tmp_path / "w.pt")
    with caplog.at_level(logging.WARNING), pytest.raises(ValueError, match="which the network lacks"):
        load_weights(Net(), tmp_path / "w.pt")
    torch.save(_behind("backbone.", _state(2.0, num_outputs=7)) | many, tmp_path / "w.pt")
    with caplog.at_level(logging.WARNING):
        load_weights(Net(), tmp_path / "w.pt")
    assert "left out 2 of fc.*, 9 of projector.*; taken were the names behind backbone." in caplog.text


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ("teacher", "no name begins with 'teacher.'; names begin with net., queue"),
        (
            None,
            "lacks 'body.weight': expected the weights of this very network; check its kind and widths; behind",
        ),
    ],
)
def test_a_file_of_another_network_is_one_line(prefix: str | None, message: str, tmp_path: Path) -> None:
    state = _behind("net.", _state(2.0)) | {"queue": torch.zeros(1)}
    del state["net.body.weight"]
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r".") as error:
        load_weights(Net(), tmp_path / "w.pt", prefix)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
