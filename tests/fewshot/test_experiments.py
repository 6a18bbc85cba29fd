"""Few-shot experiments from the command line: runs, resumption to the bit, evaluation, and wrong arguments."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from metarl.experiments.cli import main
from metarl.experiments.fewshot.configuration import decode, encode, make_learner
from metarl.experiments.presets.table import FEWSHOT_PRESETS
from metarl.fewshot.data.class_tasks import EpisodesConfig
from metarl.fewshot.data.classes import ClassData, ClassEpisodes
from metarl.fewshot.data.omniglot import OmniglotData
from metarl.fewshot.data.tables import TableData
from metarl.fewshot.episodes import Episodes, Examples
from metarl.fewshot.evaluation import summarise
from metarl.fewshot.learner import Predictor
from metarl.fewshot.learners.maml import Maml, MamlConfig
from metarl.fewshot.learners.reptile import Reptile, ReptileConfig
from metarl.fewshot.outer import OuterConfig
from metarl.fewshot.sources import Sources
from metarl.fewshot.training import FewshotEvaluationConfig, FewshotTrainingConfig, train
from metarl.intervals import Sampling
from metarl.runs.checkpoint import CHECKPOINT, load_checkpoint
from metarl.runs.metrics import CsvLogger

TINY = [
    "--training.iterations", "2",
    "--training.updates-per-iteration", "2",
    "--training.meta-batch-size", "2",
    "--training.evaluate-every", "0",
    "--evaluation.num-tasks", "4",
    "--evaluation.num-steps", "2",
]  # fmt: skip
TINY_IMAGES = [
    *TINY,
    "--data.episodes.num-ways", "3",
    "--data.episodes.num-queries", "2",
    "--data.episodes.train-queries", "2",
    "--backbone.num-filters", "4",
]  # fmt: skip


def _error(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    """Run a command that must fail with status 2 and one line on standard error; return the line."""
    capsys.readouterr()
    assert main(words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.fixture(scope="module")
def protonet(tmp_path_factory: pytest.TempPathFactory, omniglot_archive: Path) -> Path:
    """A run folder of a prototypical network, trained for two tiny iterations."""
    folder = tmp_path_factory.mktemp("runs") / "protonet"
    words = ["train", "omniglot-protonet", "--out", str(folder), "--data.folder", str(omniglot_archive)]
    assert main([*words, *TINY_IMAGES, "--data.episodes.train-ways", "6", "--data.augmentation", "classes"]) == 0
    return folder


def test_train_leaves_a_whole_run_folder(protonet: Path) -> None:
    names = {path.name for path in protonet.iterdir()}
    assert {"config.json", "metrics.csv", "evaluation.json", "tensorboard", CHECKPOINT} <= names
    with (protonet / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["tasks"] for row in rows] == ["4", "8"]
    assert all(0 <= float(row["train/accuracy_post"]) <= 1 for row in rows)


def test_evaluate_takes_other_ways_and_shots_and_shows_every_split_and_the_batch_norm(
    protonet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "result.json"
    words = ["evaluate", str(protonet), "--num-ways", "4", "--num-shots", "2", "--num-tasks", "5"]
    assert main([*words, "--json", str(out)]) == 0
    shown = " ".join(capsys.readouterr().out.split())  # the title is as wide as the table
    assert "batch norm: running" in shown
    assert all(split in shown for split in ("train", "validation", "test", "untrained"))
    result = json.loads(out.read_text())
    assert result["episodes"] == "4 ways, 2 shots, 2 queries"
    assert result["normalisation"] == "running"
    assert set(result["splits"]) == {"train", "validation"}
    for rows in (result["adaptation"], result["splits"]["train"], result["baselines"]["untrained"]):
        assert [row["step"] for row in rows] == [0]
        low, high = rows[0]["accuracy_ci95"]
        assert low <= rows[0]["accuracy_mean"] <= high
    again = tmp_path / "again.json"
    assert main([*words, "--json", str(again)]) == 0
    assert json.loads(again.read_text()) == result


@pytest.mark.thorough
def test_a_gradient_learner_is_evaluated_by_step(tmp_path: Path, omniglot_folder: Path) -> None:
    folder = tmp_path / "run"
    words = ["train", "omniglot-maml", "--out", str(folder), "--data.folder", str(omniglot_folder), *TINY_IMAGES]
    assert main(words) == 0
    result = json.loads((folder / "evaluation.json").read_text())
    assert [row["step"] for row in result["adaptation"]] == [0, 1, 2]
    assert result["normalisation"] == "transductive"


def test_sinusoids_train_resume_and_evaluate(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert main(["train", "sinusoid-cavia", "--out", str(folder), *TINY]) == 0
    assert main(["resume", str(folder), "--iterations", "3"]) == 0
    assert load_checkpoint(folder / CHECKPOINT)["progress"]["iteration"] == 3
    assert main(["evaluate", str(folder), "--num-shots", "5", "--num-tasks", "3"]) == 0
    result = json.loads((folder / "evaluation.json").read_text())
    assert set(result["adaptation"][0]) == {"step", "mse_mean", "mse_ci95"}
    assert result["normalisation"] is None


@pytest.mark.parametrize("name", sorted(FEWSHOT_PRESETS))
def test_every_preset_survives_json_and_makes_a_learner(name: str, tmp_path: Path) -> None:
    experiment = FEWSHOT_PRESETS[name].configuration
    assert decode(json.loads(json.dumps(encode(experiment)))) == experiment
    if isinstance(experiment.data, TableData):  # whose columns say what the network reads
        (tmp_path / "t.csv").write_text("a,b,label\n1,2,x\n")
        experiment = replace(experiment, data=replace(experiment.data, file=str(tmp_path / "t.csv")))
    make_learner(experiment, torch.device("cpu"))


def _module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 3))


def _sources() -> Sources:
    generator = torch.Generator().manual_seed(0)
    data = ClassData.of(torch.randn(40, 4, generator=generator), torch.arange(40) // 5)
    episodes = ClassEpisodes(data, num_ways=3, num_shots=2, num_queries=2)
    return Sources(episodes, {"validation": episodes, "test": episodes})


LEARNERS: dict[str, Callable[[], Maml | Reptile]] = {
    "maml": lambda: Maml(
        _module(),
        MamlConfig(
            rates="per_entry",
            adapted="head",  # running averages serve a head alone
            normalisation="running",
            first_order_updates=3,
            outer=OuterConfig(final_outer_lr=1e-5, annealing_updates=8),
        ),
    ),
    "reptile": lambda: Reptile(_module(), ReptileConfig(annealing_updates=20)),
}


def _train(name: str, folder: Path, stop_at: int | None = None) -> None:
    calls: list[int] = []

    def stop() -> bool:
        calls.append(0)
        return len(calls) == stop_at

    folder.mkdir(exist_ok=True)
    train(
        LEARNERS[name](),
        _sources(),
        FewshotTrainingConfig(
            iterations=4, updates_per_iteration=2, meta_batch_size=3, checkpoint_every=2, evaluate_every=2
        ),
        FewshotEvaluationConfig(num_tasks=4, num_steps=1, training_tasks=4),
        folder=folder,
        seed=0,
        identity=name,
        loggers=[CsvLogger(folder, axis="tasks")],
        report=lambda progress, metrics: None,
        stop=stop,
    )


def _tensors(tree: Any) -> list[Any]:
    if isinstance(tree, dict):
        return [x for name, v in tree.items() if name != "elapsed_s" for x in _tensors(v)]
    if isinstance(tree, list | tuple):
        return [x for v in tree for x in _tensors(v)]
    return [tree]


@pytest.mark.parametrize("name", sorted(LEARNERS))
def test_stopped_and_resumed_equals_uninterrupted(name: str, tmp_path: Path) -> None:
    _train(name, tmp_path / "whole")
    _train(name, tmp_path / "parts", stop_at=3)
    torch.rand(7)  # what torch's own generator does outside must not matter
    _train(name, tmp_path / "parts")
    a, b = (_tensors(load_checkpoint(tmp_path / part / CHECKPOINT)) for part in ("whole", "parts"))
    assert len(a) == len(b) > 10
    assert all(torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in zip(a, b, strict=True))
    first, second = ((tmp_path / part / "metrics.csv").read_text() for part in ("whole", "parts"))
    assert first == second
    assert "validation/accuracy_after_1" in first


class _Drawing:
    """Counts its updates, and draws from torch's own generator as a dropout does."""

    num_steps = 4
    normalisation = None

    def __init__(self) -> None:
        self.drawn: list[float] = []

    def update(self, episodes: Episodes, rng: np.random.Generator) -> dict[str, float]:
        self.drawn.append(float(torch.rand(())))
        return {"loss/outer": float(len(self.drawn))}

    def adapt(self, support: Examples, num_steps: int) -> list[Predictor]:
        def predictor(step: int) -> Predictor:
            return lambda inputs: nn.functional.one_hot(torch.full(inputs.shape[:2], step % 3), 3).float()

        return [predictor(step) for step in range(num_steps + 1)]

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def _drawn(folder: Path, global_seed: int) -> tuple[list[float], list[dict[str, str]]]:
    learner = _Drawing()
    torch.manual_seed(global_seed)
    folder.mkdir()
    train(
        learner,
        _sources(),
        FewshotTrainingConfig(iterations=2, updates_per_iteration=3, meta_batch_size=4, evaluate_every=2),
        FewshotEvaluationConfig(num_steps=4, training_tasks=4, score_every=2),
        folder=folder,
        seed=0,
        identity="drawing",
        loggers=[CsvLogger(folder, axis="tasks")],
        report=lambda progress, metrics: None,
        stop=lambda: False,
    )
    with (folder / "metrics.csv").open(newline="") as file:
        return learner.drawn, list(csv.DictReader(file))


def test_metrics_are_means_over_an_iterations_updates_and_scores_are_named_by_step(tmp_path: Path) -> None:
    rows = _drawn(tmp_path / "run", 0)[1]
    assert [float(row["loss/outer"]) for row in rows] == [(1 + 2 + 3) / 3, (4 + 5 + 6) / 3]
    assert [row["tasks"] for row in rows] == ["12", "24"]
    names = {name for name in rows[1] if "accuracy_after" in name}
    assert names == {f"validation/accuracy_after_{step}" for step in (0, 2, 4)}


def test_what_a_module_draws_from_torchs_own_generator_follows_from_the_seed(tmp_path: Path) -> None:
    first, second = (_drawn(tmp_path / str(seed), seed)[0] for seed in (1, 2))
    assert first == second
    assert len(set(first)) == 6


def test_training_leaves_torchs_own_generator_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    _sources()  # and the module's weights, which the test draws itself, come before
    _train("reptile", tmp_path / "run")
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), expected)


def test_intervals_end_where_scores_do() -> None:
    scores = np.array([[0.2, 0.6]])
    free = Sampling.independent(2).mean_intervals(scores.T)[0]
    assert free is not None
    assert free[0] < 0
    assert free[1] > 1
    assert summarise("accuracy", scores)[0]["accuracy_ci95"] == [0, 1]
    assert summarise("mse", scores)[0]["mse_ci95"] == [0, free[1]]
    assert summarise("own", scores)[0]["own_ci95"] == free


def test_intervals_are_those_of_students_t() -> None:
    rows = summarise("mse", np.array([[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0]]))
    # Variance 5/3 of four values: a standard error of sqrt(5/12), and t of three degrees is 3.182.
    low, high = rows[0]["mse_ci95"]
    assert rows[0]["mse_mean"] == 2.5
    assert (low, high) == pytest.approx((2.5 - 3.182 * (5 / 12) ** 0.5, 2.5 + 3.182 * (5 / 12) ** 0.5), rel=1e-2)
    assert rows[1] == {"step": 1, "mse_mean": 0.0, "mse_ci95": [0.0, 0.0]}
    assert summarise("mse", np.array([[1.0]]))[0]["mse_ci95"] is None
    assert [row["step"] for row in summarise("mse", np.ones((3, 2)), 5)] == [0, 5, 10]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["omniglot-maml", "--data.folder", "nowhere"], "no Omniglot at nowhere: no such folder; expected images"),
        (["omniglot-maml", "--data.episodes.num-ways", "0"], "num_ways must be at least 1, got 0"),
        (["omniglot-maml", "--learner.inner-lr", "0"], "inner_lr must be positive and finite, got 0.0"),
        (["sinusoid-maml", "--learner.normalisation", "none"], "--learner.normalisation"),
        (["sinusoid-maml", "--seed", "-1"], "seed must be at least 0, got -1"),
    ],
)
def test_a_bad_argument_is_one_line_and_status_2(
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in _error(capsys, ["train", *words])
    assert not list(tmp_path.iterdir())


@pytest.mark.thorough
def test_too_many_ways_or_shots_for_the_data_are_one_line(
    omniglot_archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "omniglot-maml", "--data.folder", str(omniglot_archive), "--out", str(tmp_path / "run")]
    assert "5-way episodes need at least" not in _error(capsys, [*words, "--data.episodes.num-ways", "9"])
    line = _error(capsys, [*words, "--data.episodes.num-ways", "3"])
    assert "class 'Balinese/character01' has 4 examples, expected at least 16" in line
    line = _error(capsys, [*words, *TINY_IMAGES, "--data.episodes.train-ways", "4"])
    assert "train_ways must be num_ways, 3, got 4" in line
    line = _error(capsys, [*words, *TINY_IMAGES, "--backbone.precision", "bfloat16"])
    assert "precision must be float32 for learners that do not compare images, got bfloat16" in line
    line = _error(capsys, [*words, *TINY_IMAGES, "--evaluation.views", "2"])
    assert "views must be 1 for Maml, got 2; learners that compare features" in line
    line = _error(capsys, ["train", "sinusoid-kernel-regression", *words[4:], "--backbone.precision", "bfloat16"])
    assert "precision must be float32 for learners that do not compare images, got bfloat16" in line
    assert not (tmp_path / "run").exists()


def test_evaluate_refuses_what_a_run_cannot_do(
    protonet: Path, omniglot_archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = _error(capsys, ["evaluate", str(protonet), "--num-ways", "8"])
    assert "8-way episodes need at least 8 classes" in line
    assert "list of episodes" in _error(capsys, ["evaluate", str(protonet), "--tasks", "t.json"])
    assert "--horizon" in _error(capsys, ["evaluate", str(protonet), "--horizon", "5"])
    config = json.loads((protonet / "config.json").read_text())
    config["experiment"]["learner"]["algorithm"] = "magic"
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "unknown algorithm 'magic'; known: maml" in _error(capsys, ["evaluate", str(tmp_path)])
    maml = FEWSHOT_PRESETS["omniglot-maml"].configuration
    assert isinstance(maml.data, OmniglotData)
    data = replace(maml.data, folder=str(omniglot_archive), episodes=EpisodesConfig(3, 1, 2))
    config["experiment"] = encode(replace(maml, data=data))
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / CHECKPOINT).write_bytes((protonet / CHECKPOINT).read_bytes())
    line = _error(capsys, ["evaluate", str(tmp_path)])
    assert "is a checkpoint of Prototypical on omniglot, expected one of Maml on omniglot" in line


def test_list_names_the_few_shot_experiments(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    for name in ("sinusoid-maml", "sinusoid-cavia", "omniglot-maml", "omniglot-protonet"):
        assert name in shown
