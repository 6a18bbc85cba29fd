"""Random command lines, of words that the help names: each works or is one line; `pytest -m chaos -n 0 -s`.

Options and the kinds of their values are read from the help. Values are sensible or absurd; what would train for
hours is interrupted as by Ctrl-C, and must end in good order.
"""

import random
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.families import FAMILIES, train_words, words
from tests.chaos.forked import check_one_line, command, fork, run_all, run_command

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore")]

NUM_PARTS, PART = 10, 50
_PATIENCE_S = 3.0
Options = dict[str, str]
"""The kind of value of every option, as the help shows it."""

_ABSURD = (
    *(
        "",
        "0",
        "-1",
        "1e400",
        "nan",
        "inf",
        "-inf",
        "9" * 400,
        "x" * 3000,
        "../..",
        "é\u202e",
        "[",
        "None",
        "True",
    ),
    *("1.5", "-", "--", "1e-400", "1000000000", "1000000001", "99999999999999999999", "0x10", "1_000", " 3", "\\"),
    *("/dev/null", "/dev/zero", "/", "~", "a\nb", "{}", "null", "=", "'", "%s%n", "$(ls)", "1,2", "१२"),
)
_SENSIBLE = {"INT": ("1", "2", "3", "8"), "FLOAT": ("0.01", "0.1", "0.5", "0.9", "1.0"), "STR": ("data", "x")}
_TINY_STUDY = words(num_tasks=2, num_episodes=20, num_trials=1, num_threads=1)
_OTHER_BENCHMARKS = (
    "point",
    "half-cheetah-dir",
    "half-cheetah-dynamics",
    "gridnavi",
    "bernoulli-bandit-10",
    "ml1-reach",
)


def _options(help_text: str) -> Options:
    lines = (line.strip("│ ") for line in help_text.splitlines())
    return {found[1]: found[2].strip() for line in lines if (found := re.match(r"(--[a-z][\w.-]*) (\S.*)$", line))}


def _help_of(command_words: list[str], place: Path) -> Options:
    log = place / "help.log"
    log.unlink(missing_ok=True)
    assert fork(lambda: command([*command_words, "--help"]), log).wait(60) == 0, log.read_text()
    options = _options(log.read_text())
    assert options, log.read_text()
    return options


def _value(kind: str, rng: random.Random) -> list[str]:
    """The value of an option: mostly one of its kind."""
    if rng.random() < 0.25:
        return [rng.choice(_ABSURD)]
    if kind.startswith("[") and rng.random() < 0.8:
        return [word for _ in range(rng.randrange(1, 3)) for word in _value(kind.strip("[").split("[")[0], rng)]
    choices = [choice for part in re.findall(r"\{([^}]*)\}", kind) for choice in part.split(",")]
    for name, values in _SENSIBLE.items():
        if re.search(rf"\b{name}\b", kind):
            choices += values
    return [rng.choice(choices or ["run", "out.json", "x"])]


def _some(options: Options, rng: random.Random, most: int) -> dict[str, list[str]]:
    names = rng.sample(sorted(options), min(len(options), rng.randrange(most + 1)))
    return {name: _value(options[name], rng) for name in names}


def _line(rng: random.Random, helps: dict[str, Options]) -> list[str]:
    """A command line, most of whose words the help names."""
    chosen = rng.random()
    if chosen < 0.5:
        name = rng.choice(sorted(FAMILIES))
        tiny = train_words(name, iterations=1)[2:]
        asked = dict(zip(tiny[::2], ([value] for value in tiny[1::2]), strict=True)) | {"--out": ["new"]}
        asked |= _some(helps[name], rng, 4)
        if rng.random() < 0.1 and name != "few-shot":
            asked["--benchmark"] = [rng.choice([*_OTHER_BENCHMARKS, "no-such", "no-such.yaml", "file.py:NAME"])]
        line = ["train", FAMILIES[name][0]]
    elif chosen < 0.85:
        word = rng.choice(["evaluate", "evaluate", "resume"])
        asked = _some(helps[word], rng, 3)
        if rng.random() < 0.3:
            asked["--checkpoint"] = [rng.choice(["checkpoint.previous.pt", "checkpoint.best.pt", "checkpoint.pt"])]
        line = [word, f"run-{rng.choice(sorted(FAMILIES))}"]
    elif chosen < 0.91:
        studied = dict(zip(_TINY_STUDY[::2], ([value] for value in _TINY_STUDY[1::2]), strict=True))
        asked = studied | _some(helps["study"], rng, 2)
        line = ["study", "quick"]
    elif chosen < 0.95:
        asked, line = (
            {},
            ["list", rng.choice(["experiments", "benchmarks", "studies", "point", ""]), rng.choice(_ABSURD)],
        )
    else:
        asked = {"--repeats": [rng.choice(["1", *_ABSURD])]} | _some(helps["bench"], rng, 1)
        line = ["bench", rng.choice(["rl2", "rollout", "meta-gradient", "no-such"])]
    for name, values in asked.items():
        line += [f"{name}={values[0]}"] if rng.random() < 0.1 else [name, *values]
    return _mistyped(line, rng) if rng.random() < 0.15 else line


def _mistyped(line: list[str], rng: random.Random) -> list[str]:
    """The line with a word lost, doubled, changed or added."""
    place, kind = rng.randrange(len(line)), rng.randrange(4)
    if kind == 0:
        return line[:place] + line[place + 1 :]
    if kind == 1:
        return [*line[:place], line[place], *line[place:]]
    if kind == 2:
        return [*line[:place], line[place][:-1] + rng.choice("xz-."), *line[place + 1 :]]
    return [*line, rng.choice(["--no-such-option", "extra", "--help", "-h", rng.choice(_ABSURD)])]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run of every family."""
    place = tmp_path_factory.mktemp("runs")
    for name in FAMILIES:
        log = place / f"{name}.log"
        train = [*train_words(name, iterations=3), "--out", str(place / f"run-{name}")]
        assert fork(lambda train=train: command(train), log).wait(120) == 0, log.read_text()
    return place


@pytest.fixture(scope="module")
def helps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Options]:
    """The options of every command, as its help names them."""
    place = tmp_path_factory.mktemp("helps")
    options = {name: _help_of(["train", experiment[0]], place) for name, experiment in FAMILIES.items()}
    options |= {name: _help_of([name], place) for name in ("evaluate", "resume", "bench")}
    return options | {"study": _help_of(["study", "quick"], place)}


@pytest.mark.parametrize("part", range(NUM_PARTS))
def test_random_command_lines_are_one_line_or_work(
    part: int, runs: Path, helps: dict[str, Options], tmp_path: Path
) -> None:
    def run(number: int) -> list[int]:
        rng = random.Random(f"line {number}")
        line = _line(rng, helps)
        folder = tmp_path / str(number)
        folder.mkdir()
        for word in dict.fromkeys(line):
            if word.startswith("run-") and (runs / word).is_dir():
                shutil.copytree(runs / word, folder / word)
        ended = run_command(line, folder, patience_s=_PATIENCE_S, limit_s=60)
        check_one_line(ended, line)
        made = [path.name for path in folder.iterdir() if path.name.startswith(".new")]
        assert not made, (line, made)  # a run folder is made whole or not at all
        shutil.rmtree(folder)
        return [ended.status, int(ended.parsed)]

    done: list[Any] = run_all([lambda n=n: run(n) for n in range(part * PART, (part + 1) * PART)], limit_s=120)
    statuses, parsed = [one[0] for one in done], sum(one[1] for one in done)
    counts = {status: statuses.count(status) for status in sorted(set(statuses))}
    print(f"\n{len(done)} command lines: {parsed} reached a command; by exit status {counts}")
    assert parsed >= PART / 3
    assert counts[0] >= PART / 10
