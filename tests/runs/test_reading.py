"""Files that people write are read as plain values or refused with one line, whatever they hold."""

import os
import random
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metarl.envs.dynamics.files import load_family
from metarl.fewshot.data.division import read_split
from metarl.runs import reading
from metarl.runs.reading import read_json, read_yaml, shorten
from metarl.tasks import Parameter, TaskEnv, TaskFamily, load_tasks

DEEP = 100_000
NINES = "9" * 400

NOT_JSON = {
    "NaN": "numbers must be finite, got nan",
    '{"x": [Infinity]}': "numbers must be finite, got inf",
    "-Infinity": "numbers must be finite, got -inf",
    "1e999": "numbers must be finite, got inf",
    '{"x": [{"y": 1, "a": [1, 1e999]}]}': "x[0].a[1]: numbers must be finite, got inf",
    NINES: "numbers must be finite, got an integer of 400 digits",
    f"[{NINES}]": "numbers must be finite, got an integer of 400 digits",
    "9" * 5000: "numbers must be finite, got an integer of 5000 digits",
    "[" * DEEP: "nested too deeply",
    '{"a": ' * DEEP: "nested too deeply",
    "[" * 60 + "]" * 60: "nested too deeply, expected at most 50 levels",
    '{"a": {"b": 1, "b": 1}}': "a key stands twice in one object, 'b'",
    '"\\ud800"': "text has half a character, '\\ud800'",
    "{'a': 1}": "is not JSON",
    "": "is not JSON",
    "\0": "is not JSON",
}

NOT_YAML = {
    "x: !!bool x": "line 1 has the tag 'tag:yaml.org,2002:bool'",
    "!!int ''": "has the tag",
    "- 1\n- !!timestamp x": "line 2 has the tag",
    "x: !!binary '='": "has the tag",
    "x: !!python/object/apply:os.system [true]": "has the tag",
    "!!set {a, b}": "has the tag",
    "! 3": "has the tag",
    "!a b": "has the tag",
    "a: &a [1]\nb: *a": "line 2 has the alias *a; write the value out",
    "&a [*a]": "has the alias *a",
    "a: &a {b: 1}\nc: {<<: *a}": "has the alias",
    "a: 1\na: 2": "a is given twice in line 1 and after",
    "1: 2": "keys must be text, got 1",
    "{a: 1}: 2": "keys must be text, got a list or a mapping in line 1",
    "null: 2": "keys must be text, got None",
    ".nan": "numbers must be finite, got nan",
    "-.inf": "numbers must be finite, got -inf",
    "1e999": "numbers must be finite, got inf",
    NINES: "an integer of 400 digits",
    "9" * 100_000: "an integer of 100000 digits",
    "[" * DEEP: "nested too deeply",
    "- " * 5000 + "1": "nested too deeply",
    "a: [": "is not YAML",
    "\0": "is not YAML",
    "--- 1\n--- 2": "is not YAML",
    "%YAML 9.9\n--- 1": "is not YAML",
}


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        *((read_json, content, message) for content, message in NOT_JSON.items()),
        *((read_yaml, content, message) for content, message in NOT_YAML.items()),
    ],
    ids=lambda value: value.__name__ if callable(value) else ascii(value[:20]),
)
def test_what_is_no_plain_value_is_one_line(
    tmp_path: Path, read: Callable[[Path, str], Any], content: str, message: str
) -> None:
    path = tmp_path / "file"
    path.write_text(content)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read(path, "task file")
    line = str(caught.value)
    assert f"the task file {path}" in line
    assert "\n" not in line
    assert len(line) < 400 + len(str(path))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("read", [read_json, read_yaml])
def test_a_byte_order_mark_says_how_text_is_encoded(
    tmp_path: Path, read: Callable[[Path, str], Any], encoding: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes('{"a": ["é", 1, 2.5, true, null, {}]}'.encode(encoding))
    assert read(path, "task file") == {"a": ["é", 1, 2.5, True, None, {}]}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("-.5", -0.5),
        ("010", 10),
        ("+3", 3),
        ("1:30", "1:30"),
        ("2020-13-45", "2020-13-45"),
        ("no", "no"),
        ("0x_", "0x_"),
        ("=", "="),
        ("'1'", "1"),
        ("True", True),
        ("~", None),
        ("", None),
    ],
)
def test_plain_words_are_read_as_yaml_1_2_reads_them(tmp_path: Path, text: str, value: object) -> None:
    (tmp_path / "file").write_text(text)
    result = read_yaml(tmp_path / "file", "family file")
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize("read", [read_json, read_yaml])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, read: Callable[[Path, str], Any]) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "link")
    for path, message in (
        (tmp_path / "pipe", "it is not a regular file"),
        (tmp_path, "it is not a regular file"),
        (Path("/dev/zero"), "it is not a regular file"),
        (tmp_path / "link", "cannot read"),
        (tmp_path / "none", "No such file"),
        (tmp_path / "a\0b", "null"),
        (tmp_path / ("x" * 5000), "name too long"),
    ):
        raised: list[str] = []

        def attempt(path: Path = path, raised: list[str] = raised) -> None:
            try:
                read(path, "task file")
            except ValueError as error:
                raised.append(str(error))

        thread = threading.Thread(target=attempt, daemon=True)
        thread.start()
        thread.join(5)
        assert not thread.is_alive(), f"reading {path} blocks"
        assert message in raised[0]
        assert "\n" not in raised[0]


def test_a_file_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("[" + " " * 2**20 + "]")
    assert read_json(tmp_path / "file", "task file") == []
    with pytest.raises(ValueError, match="file: expected at most 1 MiB"):
        read_yaml(tmp_path / "file", "family file")
    monkeypatch.setattr(reading, "MAX_JSON_BYTES", 2**20)
    with pytest.raises(ValueError, match="file: expected at most 1 MiB"):
        read_json(tmp_path / "file", "task file")


def test_a_value_in_an_error_is_short() -> None:
    nested: list[Any] = []
    for _ in range(10_000):
        nested = [nested]
    for value in ("x" * 10**6, 10**5000, nested, "a\nb", [{"a": "\n"}]):
        assert len(shorten(value)) <= 80
        assert "\n" not in shorten(value)
    assert shorten([1, "a"]) == "[1, 'a']"


class Walk(TaskFamily):
    """A family that is never simulated."""

    name = "walk"
    parameters = (Parameter("goal", 2, -1, 1), Parameter("speed", low=0.0, high=3.0))
    horizon = 3

    def make_env(self, num_envs: int, *, horizon: int | None = None, num_threads: int | None = None) -> TaskEnv:
        raise NotImplementedError


TASKS = b'[{"family": "walk", "params": {"goal": [0.5, -0.5], "speed": 1.5}}]'
SPLIT = b'{"train": ["crow", "gull"], "validation": [], "test": ["owl"]}'
FAMILY = b"""name: mine
robot: half-cheetah
horizon: 50
reward: {ctrl_weight: 0.1}
ranges:
  - {field: mass, targets: [torso], low: 0.5, high: 2, scale: log, each: true}
change:
  first_step: 10
  last_step: 40
  ranges: [{field: strength, low: 0.3, high: 0.7}]
"""
ABSURD = (
    *(
        "null",
        "true",
        "[]",
        "{}",
        '""',
        '"\\u0000"',
        "-1",
        "1e308",
        "1e999",
        NINES,
        "NaN",
        "Infinity",
        "[[[]]]",
        "[1]",
    ),
    *(
        "!!int ''",
        "!!bool x",
        "!!timestamp x",
        "*a",
        "&a [*a]",
        "'",
        '"',
        "\0",
        "\ufeff",
        "é",
        "1e5",
        "x" * 10_000,
    ),
    *("{a: b}", '{"a": 1}', "0x_", "1:30", "2020-99-99", "<<", "=", ".inf", "- - -", "|\n", "%", "\t", "\\"),
)


def _changed(content: bytes, rng: random.Random) -> bytes:
    """The content with a word replaced, repeated or dropped, a piece cut out, or a byte flipped."""
    kind, words = rng.random(), list(re.finditer(rb"[^ ,:{}\[\]\n\"]+", content))
    word = rng.choice(words)
    if kind < 0.2:
        place = rng.randrange(len(content))
        return content[:place] + rng.randbytes(1) + content[place + 1 :]
    if kind < 0.4:
        start, stop = sorted(rng.choices(range(len(content)), k=2))
        return content[:start] + content[stop:]
    piece = rng.choice((b"", word[0] * 2, rng.choice(words)[0], *(text.encode() for text in ABSURD)))
    return content[: word.start()] + piece + content[word.end() :]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("read", "content"),
    [(lambda path: load_tasks(path, Walk()), TASKS), (read_split, SPLIT), (load_family, FAMILY)],
    ids=["tasks", "split", "family"],
)
def test_changed_files_are_read_or_refused_with_one_line(
    tmp_path: Path, read: Callable[[Path], object], content: bytes
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    read(path)
    rng, refused = random.Random(0), 0
    for _ in range(200):
        changed = _changed(content, rng)
        path.write_bytes(changed)
        try:
            read(path)
        except ValueError as error:
            refused += 1
            line = str(error)
            assert str(path) in line, (changed, line)
            assert "\n" not in line, (changed, line)
            assert len(line) < 1000, (changed, line)
    assert 50 < refused < 200
