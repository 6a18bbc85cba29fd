"""Tasks of several sources, mixed by weight."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import metarl
from metarl.experiments.cli import main
from metarl.experiments.fewshot.configuration import FewshotExperiment, decode, encode, make_learner
from metarl.fewshot import (
    ClassData,
    ClassEpisodes,
    Examples,
    Maml,
    MamlConfig,
    Prototypical,
    PrototypicalConfig,
    Sinusoids,
    StandardBackbone,
)
from metarl.fewshot.data.class_tasks import EpisodesConfig
from metarl.fewshot.data.images import ClassFolderData
from metarl.fewshot.data.mixed import MixedData, MixedEpisodes
from metarl.fewshot.data.omniglot import OmniglotData
from metarl.fewshot.data.sinusoids import HarmonicData, SinusoidData
from metarl.fewshot.episodes import Episodes, EpisodeSource, together
from metarl.fewshot.evaluation import adaptation_scores
from metarl.fewshot.objectives import IGNORED
from metarl.fewshot.sources import OtherSizes
from metarl.fewshot.training import FewshotEvaluationConfig, FewshotTrainingConfig

CPU = torch.device("cpu")


def _source(value: float, *, num_ways: int = 3, num_shots: int = 1, num_queries: int = 2) -> ClassEpisodes:
    """Classes whose examples all begin with a value that tells the source."""
    examples = torch.randn(60, 3, generator=torch.Generator().manual_seed(0)) + torch.arange(6).repeat(10)[:, None]
    examples[:, 0] = value
    data = ClassData.of(examples, torch.arange(6).repeat(10))
    return ClassEpisodes(data, num_ways=num_ways, num_shots=num_shots, num_queries=num_queries)


def _origins(episodes: Episodes) -> torch.Tensor:
    """The source of every row, [task, row]."""
    return torch.cat([part.inputs[..., 0] for part in episodes], 1)


def test_every_task_is_of_one_source_and_sources_come_up_by_weight() -> None:
    mixture = MixedEpisodes([_source(1.0), _source(2.0), _source(3.0)], weights=[1.0, 2.0, 5.0])
    origins = _origins(mixture.sample(4000, np.random.default_rng(0)))
    assert (origins == origins[:, :1]).all()
    shares = [float((origins[:, 0] == value).float().mean()) for value in (1.0, 2.0, 3.0)]
    assert shares == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.025)  # three standard errors are 0.023
    alike = _origins(MixedEpisodes([_source(1.0), _source(2.0)]).sample(2000, np.random.default_rng(0)))
    assert float((alike[:, 0] == 1.0).float().mean()) == pytest.approx(0.5, abs=0.035)


def test_the_tasks_of_a_source_are_its_own_draws_in_their_order() -> None:
    first, second = _source(1.0), _source(2.0)
    mixed = MixedEpisodes([first, second]).sample(20, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    drawn = rng.choice(2, 20, p=[0.5, 0.5])
    assert 0 < drawn.sum() < 20
    assert (_origins(mixed)[:, 0] == torch.from_numpy(drawn) + 1.0).all()
    for number, source in enumerate((first, second)):
        alone = source.sample(int((drawn == number).sum()), rng)
        places = torch.from_numpy(np.flatnonzero(drawn == number))
        for part, own in zip(mixed, alone, strict=True):
            assert torch.equal(part.inputs[places], own.inputs)
            assert torch.equal(part.targets[places], own.targets)


def test_tasks_of_other_ways_or_shots_are_padded_and_taken_apart_again() -> None:
    tasks = [
        _source(1.0, num_ways=n, num_shots=k).sample(1, np.random.default_rng(n)) for n, k in ((2, 3), (3, 2))
    ]
    assert [task.support.targets.shape for task in tasks] == [(1, 6), (1, 6)]  # as many rows, of other classes
    batch = together(tasks)
    assert batch.is_ragged
    assert batch.support.targets.tolist() == [[0, 0, 0, 1, 1, 1, IGNORED], [0, 0, 1, 1, 2, 2, IGNORED]]
    for alone, task in zip(batch.alone(), tasks, strict=True):
        for part, own in zip(alone, task, strict=True):
            assert torch.equal(part.inputs, own.inputs)
            assert torch.equal(part.targets, own.targets)
    same = together([tasks[0], tasks[0]])
    assert not same.is_ragged
    assert same.support.targets.shape == (2, 6)


def test_a_learner_is_trained_and_evaluated_on_a_mixture() -> None:
    torch.manual_seed(0)
    mixture = MixedEpisodes([_source(0.0), _source(0.0, num_ways=4, num_shots=2)])
    learner, rng = Prototypical(nn.Linear(3, 4), PrototypicalConfig()), np.random.default_rng(0)
    assert mixture.sample(6, np.random.default_rng(0)).is_ragged
    assert np.isfinite(learner.update(mixture.sample(6, rng), rng)["loss/outer"])
    sizes = {"num_tasks": 30, "num_steps": 0, "tasks_at_once": 8}
    name, scores = adaptation_scores(learner, mixture, np.random.default_rng(1), **sizes)  # type: ignore[arg-type]
    rng, expected = np.random.default_rng(1), []  # without features that are computed once
    for task in mixture.sample(30, rng).alone():
        outputs = learner.adapt(task.support, 0)[0](task.query.inputs)
        expected.append(float((outputs.argmax(-1) == task.query.targets).float().mean()))
    assert name == "accuracy"
    assert scores[0] == pytest.approx(expected)


def test_mixtures_of_numbers_have_tasks_of_one_size() -> None:
    rng = np.random.default_rng(0)
    episodes = MixedEpisodes([Sinusoids(5, 4), Sinusoids(5, 4)]).sample(5, rng)
    assert episodes.support.inputs.shape == (5, 5, 1)
    assert np.isfinite(Maml(nn.Linear(1, 1), MamlConfig()).update(episodes, rng)["loss/outer"])
    with pytest.raises(ValueError, match="as many rows"):
        MixedEpisodes([Sinusoids(5, 4), Sinusoids(6, 4)]).sample(20, rng)


def test_what_cannot_be_mixed_is_refused() -> None:
    sources: list[EpisodeSource] = [_source(1.0), _source(2.0)]
    for weights in ([1.0], [1.0, 0.0], [1.0, -1.0], [1.0, float("nan")]):
        with pytest.raises(ValueError, match="2 positive weights"):
            MixedEpisodes(sources, weights)
    with pytest.raises(ValueError, match="at least one source"):
        MixedEpisodes([])
    other = Examples(torch.zeros(1, 2, 4), torch.tensor([[0, 1]]))
    with pytest.raises(ValueError, match=r"one shape, got \(3,\) and \(4,\)"):
        together([_source(1.0).sample(1, np.random.default_rng(0)), Episodes(other, other)])
    with pytest.raises(ValueError, match="one input_shape"):
        MixedData((OmniglotData(), ClassFolderData()))
    with pytest.raises(ValueError, match="one kind, got classification, regression"):
        MixedData((OmniglotData(), SinusoidData()))
    with pytest.raises(ValueError, match="labels by task"):
        MixedData((OmniglotData(episodes=EpisodesConfig(train_labels="class")),))
    with pytest.raises(ValueError, match="2 places, got one folder"):
        MixedData((SinusoidData(), HarmonicData())).resized(OtherSizes(folder="elsewhere"))


def _data(folder: Path) -> MixedData:
    few = OmniglotData(str(folder), EpisodesConfig(2, 1, 2), size=8, rotations="none")
    more = OmniglotData(str(folder), EpisodesConfig(3, 1, 2), size=8, rotations="all", train_on_validation=True)
    return MixedData((few, more), weights=(1.0, 3.0))


def test_ways_that_differ_are_said_before_data_are_read() -> None:
    data = _data(Path("nowhere"))
    assert (data.tasks.num_outputs, data.tasks.equal_ways) == (3, False)
    with pytest.raises(ValueError, match="ways differ"):
        make_learner(FewshotExperiment(data, MamlConfig()), CPU)
    assert data.describe() == "2 ways, 1 shots, 2 queries or 3 ways, 1 shots, 2 queries"
    assert data.resized(OtherSizes(num_ways=2)).describe() == "2 ways, 1 shots, 2 queries"
    alike = MixedData((data.sources[0], data.sources[0]))
    assert (alike.tasks.num_outputs, alike.tasks.train_ways, alike.tasks.equal_ways) == (2, 2, True)


def test_every_split_is_mixed_of_the_data_that_have_it(omniglot_archive: Path) -> None:
    sources = _data(omniglot_archive).make(CPU)
    assert set(sources.held_out) == {"train", "validation", "test", "test, source 0", "test, source 1"}
    validation, test = sources.held_out["validation"], sources.held_out["test"]
    assert isinstance(validation, MixedEpisodes)
    assert isinstance(test, MixedEpisodes)
    assert (len(validation.sources), validation.weights) == (1, (1.0,))
    assert (len(test.sources), test.weights) == (2, (1.0, 3.0))
    assert test.sources == tuple(sources.held_out[f"test, source {number}"] for number in (0, 1))


def test_mixed_data_are_written_and_read(tmp_path: Path) -> None:
    experiment = FewshotExperiment(_data(tmp_path), PrototypicalConfig())
    data = json.loads(json.dumps(encode(experiment)))
    assert data["data"]["kind"] == "mixed"
    assert [each["kind"] for each in data["data"]["sources"]] == ["omniglot", "omniglot"]
    assert decode(data) == experiment
    data["data"]["sources"][1]["size"] = "large"
    with pytest.raises(ValueError, match=r"data\.sources\.1\.size must be int"):
        decode(data)
    with pytest.raises(ValueError, match=r"data\.sources must be a list"):
        decode(data | {"data": data["data"] | {"sources": data["data"]["sources"][0]}})


@pytest.mark.thorough
def test_a_mixture_is_trained_and_evaluated_from_a_file(
    omniglot_archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mix.py"
    file.write_text(
        "from metarl.experiments.fewshot.configuration import FewshotExperiment\n"
        "from metarl.fewshot import PrototypicalConfig, StandardBackbone\n"
        "from metarl.fewshot.data.class_tasks import EpisodesConfig\n"
        "from metarl.fewshot.data.mixed import MixedData\n"
        "from metarl.fewshot.data.omniglot import OmniglotData\n"
        "PARTS = [OmniglotData(episodes=EpisodesConfig(n, 1, 2), size=16) for n in (2, 3)]\n"
        "MIX = FewshotExperiment(MixedData(tuple(PARTS)), PrototypicalConfig(), StandardBackbone(num_filters=4))\n"
    )
    folders = [f"--data.sources.{number}.folder={omniglot_archive}" for number in (0, 1)]
    words = [*folders, "--data.weights", "3", "1", "--training.iterations", "1", "--evaluation.num-tasks", "4"]
    words += ["--training.updates-per-iteration", "1", "--evaluation.num-steps", "0", "--loggers", "csv"]
    assert main(["train", f"{file}:MIX", *words, "--out", str(tmp_path / "run")]) == 0
    result = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert set(result["splits"]) == {"train", "validation", "test, source 0", "test, source 1"}
    assert result["judged"] == "test"
    run = metarl.open_run(tmp_path / "run")
    assert run.encode()["data"]["weights"] == [3.0, 1.0]
    folder, words = str(tmp_path / "run"), ["--num-tasks", "3", "--shots", "1"]
    assert main(["diagnose", folder]) == 2
    assert "has no test classes; choose one of the data that it mixes, --data-source 0 to 1" in _said(capsys)
    assert main(["diagnose", folder, "--data-source", "2"]) == 2
    assert "expected one of the data 0 to 1 that are mixed, got 2" in _said(capsys)
    assert main(["diagnose", folder, "--data-source", "1", *words, "--json", str(tmp_path / "d.json")]) == 0
    assert np.sum(json.loads((tmp_path / "d.json").read_text())["confusion"]) == 3 * 3 * 2  # tasks, ways, queries


@pytest.mark.thorough
def test_a_trained_mixture_is_judged_and_used_on_one_of_its_data(
    omniglot_archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = MixedData(tuple(OmniglotData(str(omniglot_archive), EpisodesConfig(n, 1, 2), size=16) for n in (2, 3)))
    training = FewshotTrainingConfig(iterations=1, updates_per_iteration=1)
    evaluation = FewshotEvaluationConfig(num_tasks=4, num_steps=0, training_tasks=1)
    experiment = FewshotExperiment(
        data, PrototypicalConfig(), StandardBackbone(num_filters=4), training=training, evaluation=evaluation
    )
    run = metarl.train(experiment, out=tmp_path / "run")
    assert set(run.evaluate(data_source=1)["splits"]) == {"train", "validation"}  # beside the judged one
    assert run.evaluate(data_source=1)["episodes"] == "3 ways, 1 shots, 2 queries"
    assert run.evaluate(data_source=1, num_ways=2)["episodes"] == "2 ways, 1 shots, 2 queries"

    tasks, folder = tmp_path / "tasks.json", str(run.folder)
    assert main(["episodes", folder, "--out", str(tasks), "--data-source", "1", "--num-tasks", "5"]) == 0
    assert {len(task) for task in json.loads(tasks.read_text())["episodes"]} == {3}
    with pytest.raises(ValueError, match="lists episodes of classes; choose one of the data that it mixes"):
        run.evaluate(tasks=tasks)
    assert run.evaluate(tasks=tasks, data_source=0)["num_tasks"] == 5

    for name in ("support", "query"):
        for place, character in enumerate(("a", "b")):
            image = np.zeros((16, 16), np.uint8)
            image[:, 4 * place : 4 * place + 8] = 255
            (tmp_path / name / character).mkdir(parents=True)
            Image.fromarray(image).save(tmp_path / name / character / "1.png")
    words = ["--support", str(tmp_path / "support"), "--query", str(tmp_path / "query")]
    capsys.readouterr()
    assert main(["predict", folder, *words]) == 2
    assert "choose one of the data that it mixes, --data-source 0 to 1" in _said(capsys)
    assert main(["predict", folder, *words, "--data-source", "0"]) == 0
    alone = metarl.train(replace(experiment, data=data.sources[0]), out=tmp_path / "alone")
    with pytest.raises(ValueError, match="--data-source chooses one of several data that are mixed"):
        alone.evaluate(data_source=0)


def _said(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed to standard error, in one line."""
    return " ".join(capsys.readouterr().err.split())
