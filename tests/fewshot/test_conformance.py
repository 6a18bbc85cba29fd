"""Mistakes in data, networks and learners of one's own: one line that says what is wrong, and where."""

from pathlib import Path

import pytest

from metarl.experiments.cli import main

FILE = """
from dataclasses import dataclass
import torch
from torch import nn
from metarl.experiments.fewshot.configuration import FewshotExperiment
from metarl.fewshot import OwnBackbone, PrototypicalConfig
from metarl.fewshot.data.classes import ClassData, ClassEpisodes
from metarl.fewshot.learner import LearnerConfig
from metarl.fewshot.sources import DataConfig, Sources, TaskSpec
from metarl.fewshot.training import FewshotEvaluationConfig, FewshotTrainingConfig


class Empty:
    def sample(self, num_tasks, rng):
        pass


NONE = Empty()


class Learner:
    num_steps, normalisation = 0, None

    def update(self, episodes, rng):
        return {"loss/outer": 1.0}

    def adapt(self, support, num_steps):
        return [lambda inputs: torch.zeros(*inputs.shape[:2], 3)]

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


@dataclass(frozen=True)
class Config(LearnerConfig):
    def make(self, setup):
        return Learner()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 4)

    def forward(self, inputs):
        return self.layer(inputs)


def episodes():
    examples = torch.randn(12, 8, 5, generator=torch.Generator().manual_seed(0))
    data = ClassData.join({f"class{c}": x for c, x in enumerate(examples)})
    return ClassEpisodes(data, num_ways=3, num_shots=2, num_queries=4)


@dataclass(frozen=True)
class Blobs(DataConfig):
    @property
    def tasks(self):
        return TaskSpec("classification", (5,), 3)

    def make(self, device):
        return Sources(episodes(), {"test": episodes()})


def experiment():
    return FewshotExperiment(
        Blobs(),
        PrototypicalConfig(),
        OwnBackbone(Net()),
        training=FewshotTrainingConfig(iterations=1, updates_per_iteration=1, meta_batch_size=2, evaluate_every=0),
        evaluation=FewshotEvaluationConfig(num_tasks=2, num_steps=0),
        device="cpu",
        loggers=("csv",),
    )
"""
OWN_LEARNER = ("PrototypicalConfig(),", "Config(),")
RETURNED = 'return Sources(episodes(), {"test": episodes()})'


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for a user's file, by a name that no other test has loaded."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / f"mine_{tmp_path.name.replace('-', '_')}.py"


def _train(path: Path, *changes: tuple[str, str]) -> int:
    text = FILE
    for before, after in changes:
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    path.write_text(text)
    return main(["train", f"{path.name}:experiment", "--out", "run"])


@pytest.mark.parametrize("changes", [(), (OWN_LEARNER,)])
def test_what_conforms_is_trained(changes: tuple[tuple[str, str], ...], path: Path) -> None:
    assert _train(path, *changes) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        # raised in the file itself: its own line
        ([(RETURNED, "first, second = (1, 2, 3)")], "LINE: ValueError: too many values to unpack (expected 2)"),
        ([(RETURNED, "raise ValueError('no blobs')")], "LINE: ValueError: no blobs"),
        ([(RETURNED, "return missing")], "LINE: NameError: name 'missing' is not defined"),
        ([("super().__init__()", "nn.Linear('5', 4)")], "LINE: TypeError"),
        ([("return self.layer(inputs)", "return self.lair(inputs)")], "LINE: AttributeError"),
        ([OWN_LEARNER, ('return {"loss/outer": 1.0}', "return 1 / 0")], "LINE: ZeroDivisionError"),
        # refused by ours: the reason, and the line that it comes from
        (
            [("Blobs(),", "3,")],
            "TypeError: data must be an instance of DataConfig, got int",
        ),
        ([("Blobs(),", "Blobs,")], "data must be an instance of DataConfig, got the class Blobs"),
        ([("PrototypicalConfig(),", "PrototypicalConfig,")], "got the class PrototypicalConfig"),
        (
            [("OwnBackbone(Net())", "Net()")],
            "backbone must be an instance of BackboneConfig, got Net",
        ),
        (
            [("@dataclass(frozen=True)\nclass Blobs", "class Blobs")],
            "data must be a dataclass: write @dataclass(frozen=True) above class Blobs",
        ),
        (
            [("return self.layer(inputs)", "return self.layer(inputs[:, :3])")],
            "the backbone must take inputs [row, 5], got the error: mat1 and mat2",
        ),
        ([("return self.layer(inputs)", "return self.layer(inputs[:, :3])")], ", LINE)"),
        # returned, and something else than was expected
        ([(RETURNED, "return None")], 'Blobs.make must return Sources(train, {"test": ...}), got NoneType'),
        ([(RETURNED, "return Sources(episodes(), episodes())")], "got ClassEpisodes for what is held out"),
        ([(RETURNED, 'return Sources(3, {"test": episodes()})')], "of objects with a method sample, got int for"),
        ([('return TaskSpec("classification", (5,), 3)', "return 5")], "Blobs.tasks must be a TaskSpec(kind, "),
        (
            [('TaskSpec("classification"', 'TaskSpec("classes"')],
            "must be classification or regression, got 'classes'",
        ),
        (
            [("(5,), 3)", "(6,), 3)"), ("nn.Linear(5, 4)", "nn.Linear(6, 4)")],
            "the test tasks of Blobs must have inputs of shape ('task', 'row', 6), as its property tasks says",
        ),
        (
            [('TaskSpec("classification", (5,), 3)', 'TaskSpec("regression", (5,), 1)')],
            "the test tasks of Blobs are of regression: targets must be floating-point numbers, got torch.",
        ),
        (
            [(RETURNED, 'return Sources(NONE, {"test": NONE})')],
            "must be Episodes(support, query) of Examples(inputs, targets), got NoneType from Empty.sa",
        ),
        ([OWN_LEARNER, ("return Learner()", "pass")], "Config.make must return a learner with update, adapt, "),
        (
            [OWN_LEARNER, ('return {"loss/outer": 1.0}', "pass")],
            "Learner.update must return metrics, numbers by name",
        ),
        (
            [OWN_LEARNER, ("return [lambda", "return []\n        [lambda")],
            "must return a list of predictors, after 0",
        ),
        (
            [OWN_LEARNER, ("torch.zeros(*inputs.shape[:2], 3)", "torch.zeros(3)")],
            "predictors of Learner.adapt must return outputs of shape (1, 12, 'out'), got (3,)",
        ),
    ],
)
def test_a_mistake_is_one_line(
    changes: list[tuple[str, str]], message: str, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _train(path, *changes) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    text = path.read_text()
    line = text[: text.index(changes[-1][1])].count("\n") + 1
    message = message.replace("LINE", f"line {line}")
    assert message in error
    if message.startswith("line"):
        assert error.startswith(f"metarl: error: {path}, {message}")
