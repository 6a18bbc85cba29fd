"""Data of tokens, whole numbers that an embedding looks up, in experiments and with every command."""

import json
from pathlib import Path

import numpy as np
import pytest

import metarl
from metarl.experiments.cli import main
from tests.fewshot.conftest import write_file

FILE = """
from dataclasses import dataclass
import torch
from torch import nn
from metarl.fewshot.data.classes import ClassData, ClassEpisodes
from metarl.fewshot.sources import DataConfig, Sources, TaskSpec


@dataclass(frozen=True)
class Texts(DataConfig):
    integers: bool = True
    dtype: str = "int64"

    @property
    def tasks(self):
        return TaskSpec("classification", (6,), 3, input_dtype=torch.int64 if self.integers else torch.float32)

    def make(self, device):
        tokens = torch.randint(50, (12, 8, 6), generator=torch.Generator().manual_seed(0))
        tokens[:, :, :3] = 50 + torch.arange(12)[:, None, None]  # the class's own word
        data = ClassData.join({f"class{c}": x.to(getattr(torch, self.dtype)) for c, x in enumerate(tokens)})
        episodes = ClassEpisodes(data, num_ways=3, num_shots=2, num_queries=4)
        return Sources(episodes, {"test": episodes})


class Bag(nn.Module):
    def __init__(self, num_outputs):
        super().__init__()
        self.words, self.head = nn.Embedding(62, 8), nn.Linear(8, num_outputs)

    def forward(self, tokens):
        return self.head(self.words(tokens).mean(1))


class Recurrent(Bag):
    def __init__(self, num_outputs):
        super().__init__(num_outputs)
        self.memory = nn.GRU(8, 8, batch_first=True)

    def forward(self, tokens):
        return self.head(self.memory(self.words(tokens))[0][:, -1])


def bag(spec, generator):
    return Bag(spec.num_outputs or 8)


def recurrent(spec, generator):
    return Recurrent(spec.num_outputs or 8)


class Scaled(nn.Linear):
    def __init__(self):
        super().__init__(6, 8)

    def forward(self, tokens):
        return super().forward(tokens.float() / 50)
"""
TINY = [
    "--training.updates-per-iteration", "10",
    "--training.meta-batch-size", "2",
    "--training.evaluate-every", "0",
    "--evaluation.num-tasks", "20",
    "--evaluation.num-steps", "1",
    "--loggers", "csv",
    "--device", "cpu",
]  # fmt: skip


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A user's file in the present folder."""
    monkeypatch.chdir(tmp_path)
    return write_file(tmp_path, "texts", FILE)


def _train(file: str, learner: str, network: str | None, iterations: int = 1, *more: str) -> int:
    backbone = [] if network is None else ["--backbone", f"{file}:{network}"]
    own = ["--benchmark", f"{file}:Texts", *backbone, "--training.iterations", str(iterations)]
    return main(["train", learner, *own, *TINY, "--out", "run", *more])


def test_tokens_are_learned_and_judged_by_the_commands(file: str, tmp_path: Path) -> None:
    assert _train(file, "protonet", "bag", 10, "--learner.outer.outer-lr", "0.03") == 0
    result = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert result["adaptation"][0]["accuracy_mean"] > 0.9  # of a third by chance
    own = ["--benchmark", f"{file}:Texts", "--backbone", f"{file}:bag"]
    assert main(["diagnose", "run", *own, "--num-tasks", "2"]) == 0
    assert main(["resume", "run", *own, "--iterations", "11"]) == 0
    tokens = np.repeat(np.arange(50, 54), 6).reshape(4, 6)  # four classes by their own words alone
    np.savez(tmp_path / "known.npz", inputs=tokens, targets=np.array(["a", "b", "c", "d"]))
    np.save(tmp_path / "new.npy", tokens[::-1])
    predictions = metarl.open_run("run", benchmark=own[1], backbone=own[3]).predict("known.npz", "new.npy")
    assert [each.label for each in predictions] == ["d", "c", "b", "a"]
    assert main(["predict", "run", *own, "--support", "known.npz", "--query", "new.npy"]) == 0


@pytest.mark.parametrize(("learner", "network"), [("maml", "bag"), ("anil", "recurrent"), ("ridge", "recurrent")])
def test_learners_of_all_kinds_take_tokens(learner: str, network: str, file: str) -> None:
    assert _train(file, learner, network) == 0


def test_a_network_that_makes_numbers_of_them_needs_no_word(file: str) -> None:
    assert _train(file, "protonet", "Scaled", 1, "--data.integers", "False") == 0


@pytest.mark.parametrize(
    ("words", "network", "message"),
    [
        (["protonet"], None, "StandardBackbone takes numbers, got inputs of torch.int64; give"),
        (["protonet", "--data.integers", "False"], "bag", "say TaskSpec(..., input_dtype=torch.int64)"),
        (["protonet", "--data.dtype", "uint8"], "bag", "must have inputs of torch.int64, as its property"),
        (["cavia"], "bag", "the backbone must take inputs [row, 6] of torch.int64 and a context [row, 100]"),
    ],
)
def test_what_does_not_fit_tokens_is_one_line(
    words: list[str], network: str | None, message: str, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _train(file, words[0], network, 1, *words[1:]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
