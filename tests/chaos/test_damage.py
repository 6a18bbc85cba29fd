"""Damaged files: each is one clear line or has no effect; `pytest -m chaos -n 0 -s tests/chaos`."""

import json
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from metarl.deploy.adapting import adapt_to_recording
from metarl.deploy.recordings import Recording, load_recording, save_recording
from metarl.experiments.loading import load_agent
from metarl.experiments.presets.preset import Preset
from metarl.experiments.study.command import run_study
from metarl.runs.checkpoint import BEST, CHECKPOINT, PREVIOUS
from tests.chaos.damage import damaged_bytes, damaged_checkpoint, damaged_csv, damaged_json
from tests.chaos.families import check_same_checkpoint, result, tiny_study, train_words, words
from tests.chaos.forked import Ended, check_one_line, command, fork, run_all, run_command

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore")]

NUM_DAMAGES = 60
_PATIENCE_S = 20.0
_ITERATIONS = 4

Damage = Callable[[bytes, random.Random], bytes]


class Kind(NamedTuple):
    """A kind of file and what reads it.

    Attributes:
        file: Place below the folder; a pattern that one file fits.
        commands: Commands that read it, with RUN for the folder.
        damage: Damage of its content that leaves its form, for every second one; None for bytes alone.
        exact: A command that ends well had the result that it has without the damage of bytes.
    """

    file: str
    commands: tuple[tuple[str, ...], ...]
    damage: Damage | None = None
    exact: bool = False


_END = ("resume", "RUN")
_MORE = ("resume", "RUN", "--iterations", str(_ITERATIONS + 1))
_BACK = ("resume", "RUN", "--checkpoint", PREVIOUS)
_MEASURE = ("evaluate", "RUN", "--json", "out.json")
_MEASURE_PREVIOUS = (*_MEASURE, "--checkpoint", PREVIOUS)
_MEASURE_BEST = (*_MEASURE, "--checkpoint", BEST)
RUN_FILES = {
    "config": Kind("config.json", (_END, _MORE, _MEASURE), damaged_json),
    "checkpoint": Kind(CHECKPOINT, (_END, _MORE, _MEASURE), damaged_checkpoint, exact=True),
    "previous checkpoint": Kind(PREVIOUS, (_BACK, _MEASURE_PREVIOUS, _MORE), damaged_checkpoint, exact=True),
    "best checkpoint": Kind(BEST, (_MEASURE_BEST, _MORE), damaged_checkpoint, exact=True),
    "metrics": Kind("metrics.csv", (_END, _MORE, _MEASURE), damaged_csv),
    "evaluation": Kind("evaluation.json", (_END, _MEASURE), damaged_json, exact=True),
    "events": Kind("tensorboard/*", (_END, _MORE), exact=True),
}
AGENT_FILES = {
    "test tasks": Kind("test_tasks.json", (_END, _MEASURE), damaged_json),
    "replay": Kind("replay.bin", (_MORE, _MORE, _MEASURE), exact=True),
}
_STUDY = (("study",),)
STUDY_FILES = {
    "study": Kind("study.json", _STUDY, damaged_json),
    "held-out tasks": Kind("tasks/interpolation.json", _STUDY, damaged_json, exact=True),
    "evaluation": Kind("evaluations/oracle.json", _STUDY, damaged_json),
    "results": Kind("results.json", _STUDY, damaged_json, exact=True),
    "run": Kind("runs/oracle/config.json", _STUDY, damaged_json),
    "checkpoint": Kind(f"runs/oracle/{CHECKPOINT}", _STUDY, damaged_checkpoint, exact=True),
    "PPO's checkpoint": Kind(f"stable/{CHECKPOINT}", _STUDY, damaged_checkpoint, exact=True),
    "PPO's time": Kind("stable/took.json", _STUDY, damaged_json),
}
_IMAGES = words(
    backbone__hidden_channels=4,
    data__size=8,
    data__num_ways=2,
    data__num_queries=1,
    training__iterations=1,
    training__updates_per_iteration=1,
    training__meta_batch_size=1,
    evaluation__num_tasks=1,
    evaluation__training_tasks=1,
    device="cpu",
)


def _run(family: str, place: Path) -> Path:
    folder, log = place / "run", place / "log"
    train = [*train_words(family, iterations=_ITERATIONS), "--training.evaluate-every", "1", "--out", str(folder)]
    assert fork(lambda: command(train), log).wait(120) == 0, log.read_text()
    return folder


@pytest.fixture(scope="module")
def pearl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of PEARL, whose folder has every kind of file that an agent's run has."""
    return _run("pearl", tmp_path_factory.mktemp("pearl"))


@pytest.fixture(scope="module")
def fewshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished few-shot run."""
    return _run("few-shot", tmp_path_factory.mktemp("few-shot"))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study, whose learner `oracle` and PPO are still to be measured."""
    folder = tmp_path_factory.mktemp("study") / "study"
    log = folder.with_suffix(".log")
    assert fork(lambda: run_study("tiny", tiny_study(), folder, {}), log).wait(120) == 0, log.read_text()
    return folder


def _outcome(asked: tuple[str, ...], place: Path) -> tuple[Ended, Any]:
    """How a command ended, and what it made, times apart."""
    if asked == ("study",):
        log = place / "study.log"
        status = fork(lambda: _study_command(place / "run"), log).wait(60)
        return Ended(status, True, log.read_text()), result(place / "run" / "results.json") if not status else None
    ended = run_command([word.replace("RUN", "run") for word in asked], place, patience_s=_PATIENCE_S)
    if ended.status:
        return ended, None
    made = place / "out.json"
    return ended, result(made if made.exists() else place / "run" / "evaluation.json")


def _study_command(folder: Path) -> int:
    """The study in a folder, with errors shown as `metarl` shows them."""
    from metarl.experiments.study import command as study_command

    study_command.STUDIES["tiny"] = Preset(tiny_study(), "a test")
    return command(["study", "tiny", "--out", str(folder)])


def _damage_file(name: str, kind: Kind, whole: Path, place: Path) -> None:
    """Damage a file of copies of a folder, each in another way, and run commands that read it."""
    file = next(whole.glob(kind.file)).relative_to(whole)
    missing = _unmeasured(file) if kind.commands == _STUDY else ()

    def copied(folder: Path) -> Path:
        shutil.copytree(whole, folder / "run")
        for other in missing:
            (folder / "run" / other).unlink()
        return folder

    expected = {}
    for asked in dict.fromkeys(kind.commands):
        reference = copied(place / f"whole-{len(expected)}")
        ended, made = _outcome(asked, reference)
        assert ended.status == 0, ended.log
        expected[asked] = reference, made

    def run(number: int) -> int:
        rng, folder = random.Random(f"{name} {number}"), copied(place / str(number))
        formal = kind.damage is not None and number % 2 == 1
        change = kind.damage if formal and kind.damage is not None else damaged_bytes
        (folder / "run" / file).write_bytes(change((whole / file).read_bytes(), rng))
        asked = kind.commands[number // 2 % len(kind.commands)]
        ended, made = _outcome(asked, folder)
        check_one_line(ended, [name, str(number), *asked])
        if kind.exact and not formal and ended.status == 0:
            reference, whole_made = expected[asked]
            assert made == whole_made, (name, number)
            check_same_checkpoint(*(next((p / "run").rglob(CHECKPOINT)) for p in (reference, folder)))
        shutil.rmtree(folder)
        return ended.status

    _report(name, run_all([lambda n=n: run(n) for n in range(NUM_DAMAGES)], limit_s=180))


def _unmeasured(file: Path) -> tuple[str, ...]:
    """The files of a study that must be missing so that a file is read."""
    if file.parts[0] == "runs":
        return ("evaluations/oracle.json",)
    return ("evaluations/sb3-scratch.json", "evaluations/sb3-fine-tuned.json") if file.parts[0] == "stable" else ()


def _report(name: str, statuses: list[int]) -> None:
    assert len(statuses) >= NUM_DAMAGES
    well, stopped = statuses.count(0), statuses.count(130)
    refused = len(statuses) - well - stopped
    print(
        f"\n{name}: {len(statuses)} damages, {refused} refused in one line, {well} without, {stopped} trained on"
    )


def _check_covered(folder: Path, kinds: dict[str, Kind]) -> None:
    """Raise an AssertionError unless every file of a folder is damaged by some test."""
    covered = {path for kind in kinds.values() for path in folder.glob(kind.file)}
    assert {path for path in folder.rglob("*") if path.is_file()} == covered


@pytest.mark.parametrize("name", RUN_FILES | AGENT_FILES)
def test_a_damaged_agents_run_is_one_line_or_as_before(name: str, pearl: Path, tmp_path: Path) -> None:
    kinds = RUN_FILES | AGENT_FILES
    _check_covered(pearl, kinds)
    _damage_file(f"agent's {name}", kinds[name], pearl, tmp_path)


@pytest.mark.parametrize("name", RUN_FILES)
def test_a_damaged_few_shot_run_is_one_line_or_as_before(name: str, fewshot: Path, tmp_path: Path) -> None:
    _check_covered(fewshot, RUN_FILES)
    _damage_file(f"learner's {name}", RUN_FILES[name], fewshot, tmp_path)


@pytest.mark.parametrize("name", STUDY_FILES)
def test_a_damaged_study_is_one_line_or_as_before(name: str, study: Path, tmp_path: Path) -> None:
    _damage_file(f"study's {name}", STUDY_FILES[name], study, tmp_path)


def test_a_deleted_pair_of_files_is_one_line_or_as_before(pearl: Path, tmp_path: Path) -> None:
    files = sorted(path.relative_to(pearl) for path in pearl.rglob("*") if path.is_file())
    pairs = [(a, b) for place, a in enumerate(files) for b in files[place:]]
    metrics = (pearl / "metrics.csv").read_text()

    def run(number: int) -> int:
        folder = tmp_path / str(number)
        shutil.copytree(pearl, folder / "run")
        for name in set(pairs[number]):
            (folder / "run" / name).unlink()
        asked = (_MORE, _MEASURE, _BACK)[number % 3]
        ended, _ = _outcome(asked, folder)
        check_one_line(ended, [*map(str, pairs[number]), *asked])
        if asked == _MORE and Path("metrics.csv") not in pairs[number]:  # no row is lost without a word
            assert (folder / "run" / "metrics.csv").read_text().startswith(metrics.rsplit("\n", 2)[0])
        shutil.rmtree(folder)
        return ended.status

    statuses = run_all([lambda n=n: run(n) for n in range(len(pairs))], limit_s=180)
    print(f"\n{len(pairs)} pairs deleted: {statuses.count(0)} went on, {statuses.count(2)} refused in one line")
    assert 0 < statuses.count(2) < len(pairs)


def _image_folder(place: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(6):
        (place / "images" / f"class-{number}").mkdir(parents=True)
        for example in range(3):
            pixels = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / "images" / f"class-{number}" / f"{example}.png")
    names = [f"class-{number}" for number in range(6)]
    (place / "split.json").write_text(
        json.dumps({"train": names[:2], "validation": names[2:4], "test": names[4:]})
    )
    return place


@pytest.mark.parametrize(
    ("file", "damage"), [("split.json", damaged_json), ("images/class-0/0.png", None)], ids=["split", "image"]
)
def test_damaged_class_folders_are_one_line_or_read(file: str, damage: Damage | None, tmp_path: Path) -> None:
    whole = _image_folder(tmp_path / "whole")
    train = ["train", "class-folders-protonet", *_IMAGES, "--data.num-shots", "1", "--out", "run"]
    train += words(data__folder="images", data__split_file="split.json")

    def run(number: int) -> int:
        folder, rng = tmp_path / str(number), random.Random(f"{file} {number}")
        shutil.copytree(whole, folder)
        change = damage if damage is not None and number % 2 else damaged_bytes
        (folder / file).write_bytes(change((whole / file).read_bytes(), rng))
        ended = run_command(train, folder, patience_s=_PATIENCE_S)
        check_one_line(ended, [file, str(number)])
        shutil.rmtree(folder)
        return ended.status

    _report(file, run_all([lambda n=n: run(n) for n in range(NUM_DAMAGES)], limit_s=180))


def test_a_damaged_archive_of_omniglot_is_one_line_or_read(tmp_path: Path) -> None:
    from tests.fewshot.conftest import character_files

    whole = tmp_path / "images_background_small1.zip"
    with zipfile.ZipFile(whole, "w") as archive:
        for name, content in character_files(2).items():
            archive.writestr(f"images_background_small1/{name}", content)
    train = ["train", "omniglot-protonet", *_IMAGES, "--data.num-shots", "1", "--data.folder", ".", "--out", "run"]

    def run(number: int) -> int:
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / whole.name).write_bytes(damaged_bytes(whole.read_bytes(), random.Random(f"archive {number}")))
        ended = run_command(train, folder, patience_s=_PATIENCE_S)
        check_one_line(ended, [whole.name, str(number)])
        shutil.rmtree(folder)
        return ended.status

    _report(whole.name, run_all([lambda n=n: run(n) for n in range(NUM_DAMAGES)], limit_s=180))


def test_a_damaged_recording_is_one_line_or_adapted_to(pearl: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    agent = load_agent(pearl)
    steps = rng.normal(size=(6, 2))
    flags = np.array([False, False, True, False, False, True])
    whole = tmp_path / "whole.npz"
    save_recording(
        whole, Recording(steps, np.tanh(steps), np.arange(6.0), np.zeros(6, dtype=bool), flags, steps + 0.1)
    )
    arrays = load_recording(whole).arrays()

    def run(number: int) -> int:
        path = tmp_path / f"{number}.npz"
        path.write_bytes(damaged_bytes(whole.read_bytes(), random.Random(f"recording {number}")))
        try:
            recording = load_recording(path)
        except ValueError as error:
            return 2 if "\n" not in str(error) and str(path) in str(error) else 1
        assert all(np.array_equal(values, arrays[name]) for name, values in recording.arrays().items())
        adapt_to_recording(agent, recording, agent.actor().interface.action_space)
        return 0

    statuses = run_all([lambda n=n: run(n) for n in range(NUM_DAMAGES)], limit_s=60)
    assert 1 not in statuses, "an error is one line that names the file"
    _report("recording.npz", statuses)


def test_a_damaged_file_of_an_experiment_is_one_line_or_trained(tmp_path: Path) -> None:
    from tests.experiments.test_outside import _FILE

    def run(number: int) -> int:
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "own.py").write_bytes(damaged_bytes(_FILE.encode(), random.Random(f"own.py {number}")))
        ended = run_command(["train", "own.py:OWN", "--out", "run"], folder, patience_s=_PATIENCE_S)
        check_one_line(ended, ["own.py", str(number)])
        shutil.rmtree(folder)
        return ended.status

    _report("own.py", run_all([lambda n=n: run(n) for n in range(NUM_DAMAGES)], limit_s=180))
