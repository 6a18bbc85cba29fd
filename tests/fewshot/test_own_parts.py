"""Data and networks of a user's own, alone, by FILE.py:NAME on the command line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import metarl
from metarl.experiments.cli import main
from metarl.experiments.fewshot.configuration import FewshotExperiment
from metarl.experiments.loading import load_agent
from metarl.experiments.outside import load_object
from metarl.experiments.prepared import experiment, planned
from metarl.fewshot.backbones import NetworkSpec, OwnBackbone, StandardBackbone
from metarl.fewshot.learners.maml import MamlConfig
from metarl.fewshot.residual import CompactBackbone
from tests.fewshot.conftest import write_file

TINY = [
    "--training.iterations", "1",
    "--training.updates-per-iteration", "2",
    "--training.meta-batch-size", "2",
    "--training.evaluate-every", "0",
    "--evaluation.num-tasks", "2",
    "--loggers", "csv",
    "--device", "cpu",
]  # fmt: skip

FILE = """
from dataclasses import dataclass
import torch
from torch import nn
from metarl.fewshot import StandardBackbone
from metarl.fewshot.data.class_tasks import EpisodesConfig
from metarl.fewshot.data.classes import ClassData, ClassEpisodes
from metarl.fewshot.data.images import ClassFolderData
from metarl.fewshot.data.sinusoids import SinusoidData
from metarl.fewshot.sources import DataConfig, Sources, TaskSpec


@dataclass(frozen=True)
class Blobs(DataConfig):
    num_ways: int = 3

    @property
    def tasks(self):
        return TaskSpec("classification", (5,), self.num_ways)

    def make(self, device):
        examples = torch.randn(12, 8, 5, generator=torch.Generator().manual_seed(0))
        data = ClassData.join({f"class{c}": x for c, x in enumerate(examples + 2 * examples[:, :1])})
        episodes = ClassEpisodes(data, num_ways=self.num_ways, num_shots=2, num_queries=4)
        return Sources(episodes, {"test": episodes})


def four():
    return Blobs(num_ways=4)


class Net(nn.Sequential):
    def __init__(self, num_outputs=6):
        super().__init__(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, num_outputs))


def network(spec, generator):
    return Net(spec.num_outputs or 6)


def from_shape(shape):
    return Net()


def nothing():
    pass


MODULE = Net()
SMALL = StandardBackbone(hidden_sizes=(7,))
WAVES = SinusoidData()
PICTURES = ClassFolderData(episodes=EpisodesConfig(num_ways=3))
NUMBER = 3
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A user's file in the present folder."""
    monkeypatch.chdir(tmp_path)
    return write_file(tmp_path, "parts", FILE)


def _error(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("metarl: error: ")
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize("network", ["Net", "network", "MODULE"])
def test_a_registered_learner_takes_data_and_a_network_of_a_file_and_again(
    network: str, file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ["--benchmark", f"{file}:Blobs", "--backbone", f"{file}:{network}"]
    assert main(["train", "protonet", *own, *TINY, "--out", "run"]) == 0
    assert f"metarl evaluate run {' '.join(own)}\n" in capsys.readouterr().out
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["name"].endswith("-blobs-protonet")
    assert {part: origin["source"] for part, origin in config["sources"].items()} == {
        "benchmark": f"{file}:Blobs",
        "backbone": f"{file}:{network}",
    }
    assert f"add {' '.join(own)}" in _error(["evaluate", "run"], capsys)
    for command in ("evaluate", "diagnose"):
        assert main([command, "run", *own, "--num-tasks", "2"]) == 0
    assert main(["resume", "run", *own, "--iterations", "2"]) == 0
    learner = load_agent("run", benchmark=f"{file}:Blobs", backbone=f"{file}:{network}")
    assert type(learner).__name__ == "Prototypical"
    (tmp_path / file).write_text(FILE + "\n# changed\n")
    capsys.readouterr()
    assert main(["evaluate", "run", *own, "--num-tasks", "2"]) == 0
    assert capsys.readouterr().err.count("has changed since the run was made") == 2


def test_one_part_alone_leaves_the_rest_of_an_experiment_as_it_is(file: str) -> None:
    before = experiment("table-maml")
    assert isinstance(before, FewshotExperiment)
    data = experiment("table-maml", "--benchmark", f"{file}:Blobs", "--data.num-ways", "4")
    assert isinstance(data, FewshotExperiment)
    assert data.data.tasks.num_outputs == 4
    assert replace(data, data=before.data) == before
    network = experiment("table-maml", "--backbone", f"{file}:SMALL", "--backbone.num-features", "9")
    assert network == replace(before, backbone=StandardBackbone(hidden_sizes=(7,), num_features=9))
    assert experiment("table-maml", "--backbone", "compact") == replace(before, backbone=CompactBackbone())
    assert experiment("table-maml", "--backbone", "standard") == before


def test_settings_follow_from_the_kind_of_ones_own_data(file: str) -> None:
    like = {"Blobs": ("table", "maml"), "WAVES": ("sinusoids", "maml"), "PICTURES": ("class-folders", "baseline")}
    for name, (data, learner) in like.items():
        known, own = experiment(learner, "--benchmark", data), experiment(learner, "--benchmark", f"{file}:{name}")
        assert isinstance(known, FewshotExperiment)
        assert isinstance(own, FewshotExperiment)
        assert replace(own, data=known.data) == known
    assert own.data.episodes.num_ways == 3  # type: ignore[attr-defined]
    assert own.data.tasks.train_labels == "class"  # which the baseline needs
    four = experiment("protonet", "--benchmark", f"{file}:four")
    assert isinstance(four, FewshotExperiment)
    assert four.data.tasks.num_outputs == 4


def test_runs_in_other_processes_load_the_parts_again(file: str) -> None:
    words = ["protonet", "--benchmark", f"{file}:Blobs", "--backbone", f"{file}:Net", *TINY, "--seeds", "2"]
    assert [each.own.options for each in planned(words)] == [
        f" --benchmark {file}:Blobs --backbone {file}:Net",
    ] * 2


def test_a_function_or_class_makes_a_network_with_a_spec_or_without() -> None:
    def of_spec(spec: NetworkSpec, generator: torch.Generator, width: int = 3) -> nn.Module:
        return nn.Linear(spec.input_shape[0], width)

    def of_anything(*words: object) -> nn.Module:
        return of_spec(*words)  # type: ignore[arg-type]

    class Plain(nn.Linear):
        def __init__(self, num_inputs: int = 5, num_outputs: int = 3) -> None:
            super().__init__(num_inputs, num_outputs)

    for made_by in (of_spec, of_anything, Plain):
        made = OwnBackbone(made_by).make(NetworkSpec((5,), "features"), torch.Generator().manual_seed(3))
        again = OwnBackbone(made_by).make(NetworkSpec((5,), "features"), torch.Generator().manual_seed(3))
        assert isinstance(made, nn.Linear)
        assert isinstance(again, nn.Linear)
        assert made.weight.shape == (3, 5)
        assert torch.equal(made.weight, again.weight)


@pytest.mark.parametrize("name", ["TRAINED", "BARE"])
def test_a_module_of_an_experiment_is_trained_as_it_is(name: str, file: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(
        FILE
        + """
from metarl.experiments.fewshot.configuration import FewshotExperiment
from metarl.fewshot import OwnBackbone, PrototypicalConfig


class Wide(nn.Linear):
    def __init__(self, num_outputs: int = 6):
        super().__init__(5, num_outputs)


TRAINED = FewshotExperiment(Blobs(), PrototypicalConfig(), OwnBackbone(Wide(7)))
BARE = FewshotExperiment(Blobs(), PrototypicalConfig(), OwnBackbone(nn.Identity()))
"""
    )
    whole, _ = load_object(f"{file}:{name}")
    network = whole.backbone.network
    made = experiment(f"{file}:{name}", "--seed", "3")
    assert isinstance(made, FewshotExperiment)
    assert isinstance(made.backbone, OwnBackbone)
    assert made.backbone.network is network


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["protonet", "--benchmark", "FILE:NUMBER"], "must be a Benchmark, a GymnasiumFamily or the DataConfig"),
        (["protonet", "--backbone", "FILE:NUMBER", "--benchmark", "FILE:Blobs"], "must be a torch.nn.Module, "),
        (["protonet", "--backbone", "FILE:Blobs", "--benchmark", "FILE:Blobs"], "got the class Blobs"),
        (
            ["protonet", "--backbone", "FILE:from_shape", "--benchmark", "FILE:Blobs"],
            "from_shape of the backbone must take a NetworkSpec and a random stream, or no arguments, got "
            "from_shape(shape)",
        ),
        (
            ["protonet", "--backbone", "FILE:nothing", "--benchmark", "FILE:Blobs"],
            "nothing of the backbone must return a torch.nn.Module, got NoneType",
        ),
        (["relation", "--benchmark", "FILE:Blobs"], "relation cannot be trained on tasks of classification"),
        (
            ["pearl", "--benchmark", "FILE:Blobs"],
            "is data of few-shot learners, such as protonet; got the",
        ),
        (["point-promp", "--benchmark", "FILE:Blobs"], "is few-shot data, got the meta-RL experiment point-promp"),
        (["point-promp", "--backbone", "FILE:Net"], "--backbone is of few-shot experiments, got the meta-RL"),
        (["sinusoid-maml", "--benchmark", "omniglot"], "must be FILE.py:NAME of data of your own, got 'omniglot'"),
        (
            ["sinusoid-maml", "--backbone", "dense"],
            "unknown backbone 'dense'; known: standard, residual, compact",
        ),
        (["FILE:WAVES"], "is few-shot data, expected an experiment; give it as --benchmark"),
        (["FILE:MODULE"], "is a network, expected an experiment; give it to one, such as"),
    ],
)
def test_what_cannot_be_a_part_is_one_line(
    words: list[str], message: str, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in _error(["train", *(word.replace("FILE", file) for word in words)], capsys)


def test_a_run_is_not_opened_with_parts_of_another_kind(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "maml", "--benchmark", f"{file}:WAVES", *TINY, "--out", "run"]) == 0
    run = metarl.open_run("run")  # data of a built-in class are written whole
    assert type(run.experiment.learner) is MamlConfig
    capsys.readouterr()
    (Path(file)).write_text(FILE + 'BENCHMARK = __import__("metarl.envs").envs.make_benchmark("point")\n')
    assert main(["evaluate", "run", "--benchmark", f"{file}:BENCHMARK"]) == 2
    assert "got an experiment or a part of the other kind; give its own" in capsys.readouterr().err
