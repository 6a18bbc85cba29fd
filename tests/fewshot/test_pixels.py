"""Pixels on ImageNet's scale, chosen by name in the data."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import metarl
from metarl.experiments.cli import main
from metarl.experiments.fewshot.configuration import FewshotExperiment, make_learner
from metarl.fewshot.backbones import OwnBackbone
from metarl.fewshot.data.class_tasks import EpisodesConfig
from metarl.fewshot.data.images import ClassFolderData
from metarl.fewshot.data.mixed import MixedData
from metarl.fewshot.learners.prototypical import Prototypical, PrototypicalConfig

TINY = [
    "--data.folder", "cards",
    "--data.split-file", "none",
    "--data.size", "16",
    "--data.shares", "0.5", "0", "0.5",
    "--data.episodes.num-ways", "2",
    "--data.episodes.train-ways", "2",
    "--data.episodes.num-queries", "1",
    "--data.pixel-scale", "imagenet",
    "--training.iterations", "1",
    "--training.updates-per-iteration", "1",
    "--training.meta-batch-size", "2",
    "--training.evaluate-every", "0",
    "--evaluation.num-tasks", "2",
    "--evaluation.num-steps", "1",
    "--backbone.num-filters", "4",
    "--loggers", "csv",
    "--device", "cpu",
]  # fmt: skip


class Corner(nn.Module):
    """Puts out the three numbers of the first pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.scale * images[:, :, 0, 0]


def test_the_network_sees_the_scale_of_imagenet() -> None:
    data = ClassFolderData(episodes=EpisodesConfig(num_ways=2), size=2, pixel_scale="imagenet")
    experiment = FewshotExperiment(data, PrototypicalConfig(), OwnBackbone(Corner()))
    learner = make_learner(experiment, torch.device("cpu"))
    assert isinstance(learner, Prototypical)
    images = torch.tensor([0, 128, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 2, 2)
    # (0 - 0.485) / 0.229, (128 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225
    expected = torch.tensor([-2.11790, 0.20518, 2.64]).expand(2, 3)
    assert torch.allclose(learner.features(images), expected, atol=1e-4)


@pytest.mark.parametrize("learner", ["protonet", "anil", "ridge"])
def test_it_is_chosen_by_name(learner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for place, colour in enumerate(["red", "green", "blue", "brown"]):
        for number in range(3):
            path = Path("cards", colour, f"{number}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16 + number, 16), (60 * place, 80, 10 * number)).save(path)
    assert main(["train", learner, "--benchmark", "class-folders", *TINY, "--out", "run"]) == 0
    assert main(["evaluate", "run", "--num-tasks", "2"]) == 0
    if learner == "protonet":
        assert {each.label for each in metarl.open_run("run").predict("cards", "cards")} <= {
            *("red", "green", "blue", "brown")
        }


def test_what_has_no_such_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="pixel_scale imagenet is of three channels, got colour False"):
        ClassFolderData(colour=False, pixel_scale="imagenet")
    with pytest.raises(ValueError, match="pixel_scale"):
        ClassFolderData(pixel_scale="mnist")  # type: ignore[arg-type]
    mixed = MixedData((ClassFolderData(), ClassFolderData(pixel_scale="imagenet")))
    with pytest.raises(ValueError, match="mixed data must have one pixel_scale"):
        mixed.tasks  # noqa: B018
