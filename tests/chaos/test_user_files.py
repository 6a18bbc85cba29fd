"""Family files in YAML and task files in JSON, sensible, changed and hostile: each is read or refused in one line.

`pytest -m chaos -n 0 -s tests/chaos`. Half of the files are written by a grammar, half are
sensible files with damage.
"""

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chaos.damage import EVIL_VALUES, damaged_bytes, damaged_json, damaged_tree
from tests.chaos.families import train_words, words
from tests.chaos.forked import check_one_line, command, fork, run_all, run_command

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore")]

NUM_FILES = 150
_PATIENCE_S = 5.0
HOSTILE = (
    *("9" * 400, "!!bool x", "!!int ''", "!!timestamp x", "&a [*a]", "[" * 100_000, "{" * 100_000, "- " * 100_000),
    *("null", "\x00", "1e400", "!!python/object/apply:os.system [ls]", "{a: &x {b: *x}}", '"\\ud800"', "-" * 50),
    *(
        "{}",
        "~",
        ".nan",
        "NaN",
        "Infinity",
        "a: b: c",
        "? [a, b]\n: c",
        "%YAML 9.9\n---\na",
        "--- a\n--- b",
        "\t- x",
    ),
    *(
        "!!binary x",
        "!!set {a}",
        "0o17",
        "0x1F",
        "1:30",
        "2001-12-14",
        "yes",
        "'",
        '"',
        "|",
        ">",
        "@",
        "`",
        "*x",
        "&x",
    ),
    "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]",
    '{"a": ' * 5000,
    "name: mine\nname: mine",
    "<<: {a: 1}",
    "é\u202e\ufeff",
)
_FIELDS = {
    "mass": ["torso", "bthigh"],
    "density": ["torso", "ffoot"],
    "strength": ["bthigh", "ffoot"],
    "damping": ["bthigh"],
    "gravity": None,
    "delay": None,
}
_YAML = {
    "name": "mine",
    "robot": "half-cheetah",
    "horizon": 5,
    "reward": {"forward_weight": 1, "ctrl_weight": 0.1},
    "ranges": [
        {"field": "density", "targets": ["torso"], "low": 0.5, "high": 2, "scale": "log", "ring": 0.25},
        {"field": "delay", "low": 0, "high": 2},
    ],
    "change": {"first_step": 1, "last_step": 3, "ranges": [{"field": "gravity", "low": 0.9, "high": 1.1}]},
}
_TRAIN = words(
    training__iterations=1,
    training__meta_batch_size=1,
    evaluation__num_tasks=1,
    evaluation__num_episodes=1,
    evaluation__num_steps=1,
    agent__num_episodes=1,
    agent__policy__memory_size=4,
    num_threads=1,
    device="cpu",
)


def _number(rng: random.Random, sensible: Sequence[Any]) -> Any:
    return rng.choice(sensible) if rng.random() < 0.95 else rng.choice(EVIL_VALUES)


def _range(rng: random.Random) -> dict[str, Any]:
    field = rng.choice(list(_FIELDS))
    entry: dict[str, Any] = {"field": _number(rng, [field])}
    entry |= {"low": _number(rng, [1]), "high": _number(rng, [2, 3])}
    if _FIELDS[field] is not None:
        entry["targets"] = _number(rng, [[name] for name in _FIELDS[field] or ()])
    if rng.random() < 0.4 and field != "delay":
        entry["scale"] = _number(rng, ["log", "uniform"])
    if rng.random() < 0.4 and field != "delay":
        entry["ring"] = _number(rng, [0.1, 0.2])
    return entry


def _family(rng: random.Random) -> dict[str, Any]:
    """A family by the grammar of family files, whose values are mostly sensible."""
    data: dict[str, Any] = {"name": _number(rng, ["mine", "other"])}
    data["robot" if rng.random() < 0.95 else "model"] = _number(rng, ["half-cheetah"])
    data["ranges"] = [_range(rng) for _ in range(rng.randrange(1, 3))]
    if rng.random() < 0.5:
        data["horizon"] = _number(rng, [2, 5])
    if rng.random() < 0.3:
        data["physics"] = _number(rng, ["physical", "literature"])
    if rng.random() < 0.3:
        data["reward"] = _number(rng, [{"forward_weight": 1}, {"ctrl_weight": 0.1}])
    if rng.random() < 0.3:
        steps = {"first_step": _number(rng, [1, 2]), "last_step": _number(rng, [3, 4])}
        data["change"] = _number(rng, [steps | {"ranges": [_range(rng)]}])
    if rng.random() < 0.2:
        data["healthy"] = _number(rng, [[{"term": "height", "of": "torso", "low": -9, "high": 9}]])
    return data


def _spliced(text: str, rng: random.Random) -> bytes:
    """The text with something hostile in the place of a few characters."""
    place = rng.randrange(len(text))
    return (text[:place] + rng.choice(HOSTILE) + text[place + rng.randrange(4) :]).encode(errors="surrogatepass")


class _Plain(yaml.SafeDumper):  # type: ignore[misc]  # yaml has no types
    """Writes equal values twice instead of an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _yaml_text(data: Any) -> bytes:
    return yaml.dump(data, Dumper=_Plain, allow_unicode=True).encode(errors="surrogatepass")


def _yaml_file(number: int, rng: random.Random) -> bytes:
    text = _yaml_text(_YAML)
    if number < len(HOSTILE):
        return HOSTILE[number].encode(errors="surrogatepass")
    if number % 4 < 2:
        return _yaml_text(_family(rng))
    if number % 4 == 2:
        return _spliced(text.decode(), rng) if rng.random() < 0.5 else damaged_bytes(text, rng)
    return _yaml_text(damaged_tree(_YAML, rng))


def _tasks(rng: random.Random) -> bytes:
    """Tasks of the point by the grammar of task files, whose values are mostly sensible."""
    tasks = [
        {
            "family": _number(rng, ["point"] * 19 + ["half-cheetah-dir"]),
            "params": _number(rng, [{"goal": [_number(rng, [0.1, -0.4, 0]), _number(rng, [0.1, 0.5])]}]),
        }
        for _ in range(rng.randrange(1, 4))
    ]
    return json.dumps(tasks).encode()


def _task_file(number: int, rng: random.Random, whole: bytes) -> bytes:
    if number < len(HOSTILE):
        return HOSTILE[number].encode(errors="surrogatepass")
    if number % 4 < 2:
        return _tasks(rng)
    if number % 4 == 2:
        return _spliced(whole.decode(), rng) if rng.random() < 0.5 else damaged_bytes(whole, rng)
    return damaged_json(whole, rng)


def _report(name: str, statuses: list[int]) -> None:
    print(f"\n{len(statuses)} {name}: {statuses.count(2)} refused in one line, {statuses.count(0)} read")
    assert len(statuses) == NUM_FILES
    assert statuses.count(0) >= NUM_FILES // 20
    assert statuses.count(2) >= NUM_FILES // 3


def test_family_files_are_one_line_or_trained_on(tmp_path: Path) -> None:
    def run(number: int) -> int:
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "family.yaml").write_bytes(_yaml_file(number, random.Random(f"yaml {number}")))
        line = ["train", "half-cheetah-dir-rl2", "--benchmark", "family.yaml", "--out", "run", *_TRAIN]
        ended = run_command(line, folder, patience_s=_PATIENCE_S)
        check_one_line(ended, [f"family file {number}"])
        assert ended.status == 0 or not (folder / "run").exists() or ended.status in (1, 130)
        shutil.rmtree(folder)
        return ended.status

    _report("family files", run_all([lambda n=n: run(n) for n in range(NUM_FILES)], limit_s=120))


def test_task_files_are_one_line_or_evaluated_on(tmp_path: Path) -> None:
    whole, log = tmp_path / "run", tmp_path / "log"
    assert fork(lambda: command([*train_words("promp", iterations=1), "--out", str(whole)]), log).wait(60) == 0
    content = (whole / "test_tasks.json").read_bytes()

    def run(number: int) -> int:
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "tasks.json").write_bytes(_task_file(number, random.Random(f"tasks {number}"), content))
        ended = run_command(
            ["evaluate", str(whole), "--tasks", "tasks.json", "--num-episodes", "1", "--num-steps", "1"],
            folder,
            patience_s=_PATIENCE_S,
        )
        check_one_line(ended, [f"task file {number}"])
        shutil.rmtree(folder)
        return ended.status

    _report("task files", run_all([lambda n=n: run(n) for n in range(NUM_FILES)], limit_s=120))
