"""Devices by name: every kind is accepted, and one that is not there is refused in one line."""

from pathlib import Path

import pytest
import torch

from metarl.experiments.cli import main
from metarl.nets.devices import check_device, make_device, widest_float


@pytest.mark.parametrize("name", ["auto", "cpu", "cuda", "cuda:0", "cuda:12", "mps"])
def test_names_of_devices(name: str) -> None:
    check_device(name)


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:-1", "cuda:x", "cpu:0", "mps:1", "", "cuda:0 "])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"^device must be auto, cpu, cuda, cuda:N or mps, got '"):
        make_device(name)


def test_auto_is_cuda_only_where_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert make_device("auto") == make_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert make_device("auto") == torch.device("cuda")


def test_a_numbered_device_becomes_the_present_one(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert make_device("cuda:1") == torch.device("cuda:1")
    assert chosen == [torch.device("cuda:1")]
    with pytest.raises(ValueError, match=r"^device cuda:2 was asked for and the last of 2 is cuda:1; use that"):
        make_device("cuda:2")


@pytest.mark.parametrize("experiment", ["point-promp", "sinusoid-maml"])
@pytest.mark.parametrize("name", ["cuda", "cuda:3", "mps"])
def test_a_device_that_is_not_there_is_one_line(
    experiment: str,
    name: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert main(["train", experiment, "--out", str(tmp_path / "run"), "--device", name]) == 2
    assert capsys.readouterr().err == (
        f"metarl: error: device {name} was asked for and is not available; use --device cpu or auto\n"
    )
    assert not (tmp_path / "run").exists()


def test_apples_devices_have_no_float64() -> None:
    assert widest_float(torch.device("mps")) == torch.float32
    assert widest_float(torch.device("cpu")) == torch.float64
