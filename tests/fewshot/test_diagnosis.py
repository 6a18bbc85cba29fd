"""Confusions, accuracy by class and calibration against counts by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metarl.experiments.cli import main
from metarl.fewshot.data.classes import ClassData, ClassEpisodes
from metarl.fewshot.diagnosis import calibration_error, diagnose
from metarl.fewshot.evaluation import adaptation_scores
from metarl.fewshot.learners.prototypical import Prototypical, PrototypicalConfig


class _Same(nn.Module):
    """Features are the inputs themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs


def _episodes() -> ClassEpisodes:
    """Classes at 0, 1, 10 and 20: the examples of the first two lie on either side, the others apart."""
    generator = torch.Generator().manual_seed(0)
    places = torch.tensor([0.0, 1.0, 10.0, 20.0]).repeat_interleave(30).unsqueeze(1)
    labels = torch.arange(4).repeat_interleave(30)
    data = ClassData.of(places + 0.6 * torch.randn(120, 1, generator=generator), labels)
    return ClassEpisodes(data, num_ways=3, num_shots=2, num_queries=4)


def test_what_is_confused_is_what_lies_close() -> None:
    learner, episodes = Prototypical(_Same(), PrototypicalConfig()), _episodes()
    result = diagnose(learner, episodes, np.random.default_rng(0), num_tasks=50, num_steps=0, tasks_at_once=20)
    assert int(result.confusion.sum()) == 50 * 3 * 4
    assert {pair[:2] for pair in result.confused[:2]} == {("0", "1"), ("1", "0")}
    assert [count for *_, count in result.confused] == sorted((c for *_, c in result.confused), reverse=True)
    by_class = result.by_class
    assert list(by_class.values()) == sorted(by_class.values())
    assert by_class["3"] == 1 > by_class["0"]
    scores = adaptation_scores(
        learner, episodes, np.random.default_rng(0), num_tasks=50, num_steps=0, tasks_at_once=20
    )
    assert result.accuracy == pytest.approx(float(scores[1].mean()), abs=1e-6)


def test_rows_of_the_confusion_are_true_classes() -> None:
    learner, episodes = Prototypical(_Same(), PrototypicalConfig()), _episodes()
    result = diagnose(learner, episodes, np.random.default_rng(0), num_tasks=7, num_steps=0, tasks_at_once=7)
    drawn = episodes.with_labels("class").sample(7, np.random.default_rng(0)).query.targets
    assert result.confusion.sum(1).tolist() == torch.bincount(drawn.flatten(), minlength=4).tolist()
    assert result.confusion.sum(0).tolist() != result.confusion.sum(1).tolist()


def test_calibration_by_hand() -> None:
    # Two bins: probabilities 0.2 and 0.4 with none right, too sure, 0.9 and 1.0 with both right, not sure enough.
    probabilities = torch.tensor([0.2, 0.4, 0.9, 1.0])
    right = torch.tensor([False, False, True, True])
    assert calibration_error(probabilities, right, 2) == pytest.approx((2 * 0.3 + 2 * 0.05) / 4)
    assert calibration_error(torch.ones(3), torch.ones(3, dtype=torch.bool)) == 0
    assert calibration_error(torch.ones(3), torch.zeros(3, dtype=torch.bool)) == 1


@pytest.mark.thorough
def test_the_command_shows_a_runs_confusions(
    omniglot_archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    small = [
        *("--training.iterations", "1", "--training.updates-per-iteration", "1", "--training.evaluate-every", "0"),
        *("--training.meta-batch-size", "1", "--evaluation.num-tasks", "2", "--backbone.num-filters", "4"),
        *("--data.episodes.num-ways", "3", "--data.episodes.num-queries", "2", "--data.episodes.train-ways", "3"),
        *("--data.episodes.train-queries", "2", "--data.folder", str(omniglot_archive)),
    ]
    assert main(["train", "omniglot-protonet", *small, "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    words = ["diagnose", str(tmp_path / "run"), "--num-tasks", "20", "--json", str(tmp_path / "d.json")]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "calibration error" in shown
    assert max(map(len, shown.splitlines()[:-1])) <= 80
    result = json.loads((tmp_path / "d.json").read_text())
    assert sum(map(sum, result["confusion"])) == 20 * 3 * 2
    assert len(result["classes"]) == 7  # Sanskrit's and Tagalog's
    assert main(["diagnose", str(tmp_path / "run"), "--split", "nothing"]) == 2
    assert main(["train", "sinusoid-kernel-regression", *small[:8], "--out", str(tmp_path / "numbers")]) == 0
    capsys.readouterr()
    assert main(["diagnose", str(tmp_path / "numbers")]) == 2
    assert "expected a few-shot run on classes" in capsys.readouterr().err
