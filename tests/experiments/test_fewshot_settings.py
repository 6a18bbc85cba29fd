"""Few-shot learners and data by name: `metarl train protonet --benchmark omniglot`."""

import json
from pathlib import Path

import pytest

from metarl.experiments.cli import main
from metarl.experiments.fewshot_settings import DATA, LEARNERS, fewshot_settings, learners_of
from metarl.experiments.prepared import experiment
from metarl.experiments.presets.table import FEWSHOT_PRESETS

TINY = [
    "--training.iterations", "1",
    "--training.updates-per-iteration", "1",
    "--training.meta-batch-size", "2",
    "--evaluation.num-tasks", "2",
    "--evaluation.training-tasks", "2",
    "--evaluation.num-steps", "1",
]  # fmt: skip


def test_every_preset_is_the_settings_of_its_learner_and_data() -> None:
    by_name = dict(fewshot_settings(learner, data) for data in DATA for learner in learners_of(data))
    assert set(FEWSHOT_PRESETS) <= set(by_name)
    assert all(by_name[name] == preset.configuration for name, preset in FEWSHOT_PRESETS.items())


@pytest.mark.parametrize("data", ["harmonics", "class-folders", "table"])
def test_data_without_presets_of_a_learner_take_those_of_data_like_them(data: str) -> None:
    like = {"harmonics": "sinusoids", "class-folders": "omniglot", "table": "omniglot"}[data]
    not_learners = {"lake", "protonet-mixed"} if like == "omniglot" else set()  # ways to draw Omniglot's tasks
    if data == "table":  # which holds no images
        not_learners |= {"relation", "adml", "matching-full-context", "optimal-transport"}
        not_learners |= {"protonet-augmented", "protonet-compact", "ridge-resnet12"}
    assert set(learners_of(data)) >= set(learners_of(like)) - not_learners
    for learner in set(learners_of(like)) - not_learners:
        _, made = fewshot_settings(learner, data)
        assert type(made.learner) is type(fewshot_settings(learner, like)[1].learner)
        assert type(made.data) is type(fewshot_settings("maml", data)[1].data)


def test_a_learner_keeps_what_it_needs_of_its_tasks_on_other_data() -> None:
    settings = {learner: fewshot_settings(learner, "class-folders")[1] for learner in learners_of("class-folders")}
    for learner in ("baseline", "baseline-plus-plus", "simple-shot", "meta-baseline"):
        assert settings[learner].data.episodes.train_labels == "class"
    comparing, adapting = settings["protonet"], settings["maml"]
    assert comparing.data.episodes.train_ways != adapting.data.episodes.train_ways
    # It is trained by comparing features, though it takes steps at test time.
    assert settings["fine-tuning"].training == comparing.training != adapting.training
    assert settings["fine-tuning"].data.episodes == comparing.data.episodes
    augmented = settings["protonet-augmented"]
    assert (augmented.data.augmentation, augmented.evaluation.views) == ("classes", 9)


def test_a_learner_is_trained_by_name(tmp_path: Path) -> None:
    assert main(["train", "cavia", "--benchmark", "harmonics", *TINY, "--out", str(tmp_path / "run")]) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["name"], config["experiment"]["data"]["kind"]) == ("harmonic-cavia", "harmonics")
    assert config["experiment"]["learner"]["algorithm"] == "cavia"


def test_a_name_of_both_kinds_is_told_apart_by_its_benchmark() -> None:
    assert "reptile" in LEARNERS
    assert type(experiment("reptile", "--benchmark", "point")).__name__ == "Experiment"
    assert experiment("reptile", "--benchmark", "sinusoids") == FEWSHOT_PRESETS["sinusoid-reptile"].configuration


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["protonet"], "`metarl train protonet --benchmark omniglot`; data: omniglot, class-folders, table"),
        (
            ["protonet", "--benchmark", "sinusoids"],
            "protonet cannot be trained on sinusoids; learners of it:",
        ),
        (
            ["protonet", "--benchmark", "point"],
            "protonet is a few-shot learner, of omniglot, class-folders, table; got",
        ),
        (["rl2", "--benchmark", "omniglot"], "rl2 cannot be trained on omniglot; learners of it: "),
    ],
)
def test_mistakes_are_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_help_of_a_learner_needs_no_data(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "protonet", "--help"])
    assert "--data.episodes.train-ways" in capsys.readouterr().out
