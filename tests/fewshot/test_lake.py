"""Lake's one-shot classification: the reader, the baseline, the command, and episodes within an alphabet."""

import json
import math
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from metarl.experiments.cli import main
from metarl.fewshot.backbones import conv4
from metarl.fewshot.data.class_tasks import EpisodesConfig
from metarl.fewshot.data.classes import ClassData, ClassEpisodes
from metarl.fewshot.data.groups import Groups
from metarl.fewshot.data.omniglot import OmniglotData, read_omniglot
from metarl.fewshot.lake import hausdorff_error, learner_error, modified_hausdorff, read_lake_runs
from metarl.fewshot.learners.maml import Maml, MamlConfig
from metarl.fewshot.learners.prototypical import Prototypical, PrototypicalConfig
from tests.fewshot.conftest import draw_character

NUM_CLASSES = 6
CPU = torch.device("cpu")


def _files(num_runs: int = 3) -> dict[str, bytes]:
    """Runs in the form of Omniglot's archive; the test images are in another order than the training images."""
    files: dict[str, bytes] = {}
    for number in range(1, num_runs + 1):
        run, lines = f"run{number:02}", []
        for place in range(NUM_CLASSES):
            seed = 100 * number + place
            files[f"{run}/training/class{place + 1:02}.png"] = draw_character(seed, 0)
            item = (place * 5 + 2) % NUM_CLASSES + 1
            files[f"{run}/test/item{item:02}.png"] = draw_character(seed, 1)
            lines.append(f"{run}/test/item{item:02}.png {run}/training/class{place + 1:02}.png")
        files[f"{run}/class_labels.txt"] = "\n".join(sorted(lines)).encode() + b"\n"
    return files


def _archive(path: Path, files: dict[str, bytes], top: str = "all_runs/") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"{top}{name}", content)
    return path


@pytest.fixture(scope="module")
def all_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small all_runs.zip of three runs of six classes."""
    return _archive(tmp_path_factory.mktemp("lake") / "all_runs.zip", _files())


def test_runs_are_read_alike_from_an_archive_and_from_its_folder(all_runs: Path, tmp_path: Path) -> None:
    runs = read_lake_runs(all_runs, size=20)
    assert [run.name for run in runs] == ["run01", "run02", "run03"]
    assert runs[0].training.shape == runs[0].test.shape == (NUM_CLASSES, 1, 20, 20)
    for run in runs:
        items = [(place * 5 + 2) % NUM_CLASSES for place in range(NUM_CLASSES)]
        assert items != list(range(NUM_CLASSES))  # test images are in another order
        assert run.labels.tolist() == [items.index(item) for item in range(NUM_CLASSES)]
    with zipfile.ZipFile(all_runs) as archive:
        archive.extractall(tmp_path)
    shutil.copy(all_runs, tmp_path / "inner.zip")
    _archive(tmp_path / "flat.zip", _files(), top="")
    for place in (tmp_path / "all_runs", all_runs.parent, tmp_path / "flat.zip"):
        for run, again in zip(runs, read_lake_runs(place, size=20), strict=True):
            assert all(torch.equal(*pair) for pair in zip(run[1:], again[1:], strict=True))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (
            "run02/class_labels.txt",
            b"run02/test/item01.png\n",
            "expected lines of a test image and a training image",
        ),
        (
            "run02/class_labels.txt",
            b"run02/test/item99.png run02/training/class01.png",
            r"class_labels\.txt names 'test/item99\.png', which is not among the run's images",
        ),
        ("run02/class_labels.txt", b"", "run02 has 0 test and 6 training images; expected run01"),
        ("run02/test/item01.png", b"no image", r"run02/test/item01\.png is damaged or not an image"),
    ],
)
def test_a_damaged_run_is_named(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    path = _archive(tmp_path / "all_runs.zip", _files() | {name: content})
    with pytest.raises(ValueError, match=expected):
        read_lake_runs(path)


def test_a_run_without_labels_and_an_image_without_a_label_are_named(tmp_path: Path) -> None:
    files = _files()
    first, *others = files["run02/class_labels.txt"].decode().splitlines()
    _archive(tmp_path / "one.zip", files | {"run02/class_labels.txt": "\n".join(others).encode()})
    with pytest.raises(ValueError, match=r"run02/class_labels\.txt does not name 'test/item01\.png'"):
        read_lake_runs(tmp_path / "one.zip")
    assert "test/item01.png" in first
    del files["run02/class_labels.txt"]
    with pytest.raises(ValueError, match=r"run02 has images and no class_labels\.txt"):
        read_lake_runs(_archive(tmp_path / "two.zip", files))


def test_files_that_belong_there_are_not_said_to_be_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read_lake_runs(_archive(tmp_path / "all_runs.zip", _files()))
    assert not caplog.text
    read_lake_runs(_archive(tmp_path / "more.zip", _files() | {"run01/notes.txt": b"x"}))
    assert "skipped 1 of" in caplog.text


def test_what_holds_no_runs_says_what_was_expected(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere.zip"):
        with pytest.raises(ValueError, match=r"no one-shot runs .* expected run01, run02, \.\.\. with training/"):
            read_lake_runs(place)
    (tmp_path / "bad.zip").write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match=r"bad\.zip is damaged or not a zip archive"):
        read_lake_runs(tmp_path / "bad.zip")


def test_modified_hausdorff_is_the_larger_mean_distance_to_the_nearest_point() -> None:
    first = torch.tensor([[0.0, 0.0], [3.0, 0.0]])
    second = torch.tensor([[0.0, 4.0]])
    # from the first set: 4 and 5, mean 4.5; from the second: 4
    assert modified_hausdorff(first, second) == pytest.approx(4.5)
    assert modified_hausdorff(second, first) == pytest.approx(4.5)
    assert modified_hausdorff(first, first) == 0


def test_the_distance_ignores_where_an_image_lies_and_finds_the_same_character(all_runs: Path) -> None:
    run = read_lake_runs(all_runs, size=105, resize="nearest")[0]
    assert hausdorff_error(run) == 0  # the same strokes, moved by a few pixels
    same = run._replace(test=run.training.roll((3, -4), (2, 3)), labels=torch.arange(NUM_CLASSES))
    assert hausdorff_error(same) == 0
    wrong = same._replace(labels=same.labels.roll(1))
    assert hausdorff_error(wrong) == 1


def test_the_error_of_a_learner_is_that_of_its_predictions(all_runs: Path) -> None:
    run = read_lake_runs(all_runs)[0]
    embedding = conv4(None, num_filters=4, generator=torch.Generator().manual_seed(0))
    for normalisation in ("running", "support"):
        learner = Prototypical(embedding, PrototypicalConfig(normalisation=normalisation))
        same = run._replace(test=run.training, labels=torch.arange(NUM_CLASSES))
        assert learner_error(learner, same, views=1, num_steps=0, device=CPU) == 0
        shifted = same._replace(labels=same.labels.roll(1))
        assert learner_error(learner, shifted, views=1, num_steps=0, device=CPU) == 1
    with pytest.raises(ValueError, match="views must be 1 for Prototypical, got 3"):
        learner_error(learner, run, views=3, num_steps=0, device=CPU)
    network = conv4(5, num_filters=4, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="run01: expected as many classes as the learner has outputs, 5, got 6"):
        learner_error(Maml(network, MamlConfig(inner_lr=1e-9)), run, views=1, num_steps=0, device=CPU)


def _grouped(num_ways: int) -> ClassEpisodes:
    data = ClassData.join(
        {f"{a}/{i}": torch.full((3, 1), 10.0 * g + i) for g, a in enumerate("abc") for i in range(g + 2)}
    )
    return ClassEpisodes(data, num_ways=num_ways, num_shots=1, num_queries=1, groups=Groups.by_name(data.names))


def test_episodes_within_groups_never_mix_them_and_draw_every_class_equally_often() -> None:
    episodes = _grouped(3).sample(3000, np.random.default_rng(0))
    groups = episodes.support.inputs[..., 0].div(10, rounding_mode="floor")
    assert (groups == groups[:, :1]).all()
    assert set(groups.unique().tolist()) == {1, 2}  # the first group has two classes only
    # groups of 3 and 4 classes are drawn 3 and 4 times of 7
    assert float((groups[:, 0] == 1).double().mean()) == pytest.approx(3 / 7, abs=5 * math.sqrt(0.25 / 3000))
    assert all(len(row.unique()) == 3 for row in episodes.support.inputs[..., 0])
    with pytest.raises(ValueError, match=r"5-way episodes within a group .* the largest is 'c' with 4"):
        _grouped(5)


def test_one_archive_alone_is_trained_on_whole(omniglot_archive: Path, tmp_path: Path) -> None:
    archive = omniglot_archive / "images_background_small1.zip"
    for place in (omniglot_archive, archive):
        splits = read_omniglot(place, "first_archive")
        assert [len(part.names) for part in splits] == [25, 0, 0]
    shutil.copy(archive, tmp_path)
    with zipfile.ZipFile(tmp_path / "images_background_small2.zip", "w") as other:
        for example in range(4):
            other.writestr(f"small2/Hebrew/character01/{example}.png", draw_character(0, example))
            other.writestr(f"small2/Greek/character01/{example}.png", draw_character(7, example))
    first, second = (read_omniglot(tmp_path, split) for split in ("first_archive", "second_archive"))
    assert first.test.names == ("Hebrew/character01",)
    assert second.train.names == ("Greek/character01", "Hebrew/character01")
    assert {name.split("/")[0] for name in second.test.names} == {
        *("Balinese", "Early_Aramaic", "Japanese_(katakana)", "Korean", "Latin", "Sanskrit", "Tagalog")
    }
    with pytest.raises(ValueError, match="the split second_archive needs two archives, got 1"):
        read_omniglot(omniglot_archive, "second_archive")


def test_an_alphabet_too_small_for_held_out_tasks_is_left_out(omniglot_archive: Path) -> None:
    episodes = EpisodesConfig(3, 1, 2, within_groups="held_out")
    held_out = OmniglotData(folder=str(omniglot_archive), episodes=episodes).make(CPU).held_out["train"]
    assert isinstance(held_out, ClassEpisodes)
    korean = held_out.data.select([name for name in held_out.data.names if name.startswith("Korean/")])
    assert len(korean.names) == 2  # fewer than the ways of a task
    drawn = held_out.sample(20, np.random.default_rng(0)).support.inputs.flatten(0, 1)
    assert not any((image == one).all() for image in drawn for one in korean.examples.float() / 255)


@pytest.mark.thorough
def test_the_command_measures_the_baseline_and_trained_runs(
    all_runs: Path, omniglot_archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "run", tmp_path / "errors.json"
    words = [
        *("--training.iterations", "1", "--training.updates-per-iteration", "2", "--training.evaluate-every", "1"),
        *("--evaluation.num-tasks", "4", "--evaluation.training-tasks", "2", "--evaluation.views", "2"),
        *("--data.episodes.num-ways", "3", "--data.episodes.num-queries", "2", "--data.episodes.train-ways", "3"),
        *("--data.episodes.train-queries", "2", "--backbone.widths", "4", "4", "4"),
    ]
    archive = omniglot_archive / "images_background_small1.zip"
    assert main(["train", "omniglot-lake", "--out", str(folder), "--data.folder", str(archive), *words]) == 0
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert evaluation["judged"] == "train"  # one archive leaves no alphabet to hold out
    capsys.readouterr()
    assert main(["lake", str(all_runs), str(folder), "--json", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "3 runs within an alphabet" in shown
    errors = json.loads(out.read_text())["errors"]
    assert errors["Modified Hausdorff distance"] == {"run01": 0.0, "run02": 0.0, "run03": 0.0}
    assert set(errors[str(folder)]) == {"run01", "run02", "run03"}
    assert main(["lake", str(tmp_path / "none.zip")]) == 2
    assert "no one-shot runs at" in capsys.readouterr().err
