"""What the README and the documentation show works: every Python block runs, every command line is understood."""

import contextlib
import importlib
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import metarl
from metarl.experiments.arguments import parse
from metarl.experiments.cli import _COMMANDS, main
from metarl.experiments.commands import train
from metarl.experiments.configuration import ALGORITHMS
from metarl.experiments.fewshot_settings import LEARNERS
from metarl.experiments.options import EvaluationOptions
from metarl.experiments.outside import OwnWords
from metarl.experiments.presets.table import FEWSHOT_PRESETS, RL_FAMILIES

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MINUS = "\N{MINUS SIGN}"
_INTERVAL = re.compile(r"-?\d[\d.,]* \[-?[\d.,]+, -?[\d.,]+\]")
_TINY = shlex.split("--training.iterations 1 --training.meta-batch-size 2 --evaluation.num-tasks 2 --horizon 10")
_OWN_FILE = re.compile(r"\w+\.(py|yaml)\b")


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in _FENCE.findall(page.read_text()) if kind == language]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def in_code(text: str, pattern: str) -> list[str]:
    """What the inline code of a page has of a pattern."""
    return [
        each for span in re.findall(r"`([^`\n]+)`", _FENCE.sub("", text)) for each in re.findall(pattern, span)
    ]


def command_lines() -> list[str]:
    """Distinct `metarl` lines of all pages' shell blocks, without comments, and those within their text."""
    lines = [line for page in PAGES for text in blocks(page, "sh") for line in text.splitlines()]
    within = [line for page in PAGES for line in in_code(page.read_text(), r"^metarl \w+ .+")]
    lines += [line for line in within if not re.search(r"\.\.\.|NAME\b", line)]
    return sorted({line.partition("  #")[0].strip() for line in lines if line.strip().startswith("metarl ")})


PYTHON = [page for page in PAGES if blocks(page, "python")]


@pytest.mark.slow
@pytest.mark.parametrize("page", PYTHON, ids=name)
def test_the_python_blocks_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after another, in one namespace; a page whose code starts worker processes is a script of its own."""
    monkeypatch.chdir(tmp_path)
    text = "\n".join(blocks(page, "python"))
    for preset in re.findall(r'open_run\("runs/([\w-]+)-seed0"\)', text):  # trained by a command of the page
        assert f"metarl train {preset}\n" in "".join(blocks(page, "sh"))
        metarl.train(metarl.experiment(preset, *_TINY), out=tmp_path / "runs" / f"{preset}-seed0")
    if "__main__" in text:
        (tmp_path / "page.py").write_text(text)
        done = subprocess.run(
            [sys.executable, "page.py"], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
    else:
        module = ModuleType("page")
        monkeypatch.setitem(sys.modules, "page", module)  # dataclasses look their module up
        exec(compile(text, name(page), "exec"), module.__dict__)


def test_there_are_pages_and_command_lines() -> None:
    assert len(PYTHON) > 5
    assert len(command_lines()) > 20


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=name)
def test_links_of_a_front_page_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_front_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 900


@cache
def help_of(*words: str) -> str:
    """What `metarl WORDS --help` prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        try:
            status = main([*words, "--help"])
        except SystemExit as stopped:
            status = int(stopped.code or 0)
    assert status == 0, words
    return printed.getvalue()


def options(configuration: Any, prefix: str = "--") -> Iterator[str]:
    """The command line's options of a configuration, and the groups that they are in."""
    for each in fields(configuration):
        value, option = getattr(configuration, each.name), prefix + each.name.replace("_", "-")
        yield option
        if is_dataclass(value):
            yield from options(value, f"{option}.")


@cache
def fewshot_options(preset: str) -> frozenset[str]:
    return frozenset(options(FEWSHOT_PRESETS[preset].configuration))


@cache
def experiment_options() -> frozenset[str]:
    """The options of all experiments."""
    presets = [preset.configuration for family in RL_FAMILIES.values() for preset in family.values()]
    agents = [option for agent in ALGORITHMS.values() for option in options(agent(), "--agent.")]
    return frozenset(agents).union(*map(options, presets), *map(fewshot_options, FEWSHOT_PRESETS))


def learner_pages() -> list[Path]:
    """The pages of learners, which the two overviews list."""
    folder, overviews = ROOT / "docs" / "few-shot", {"gradient", "comparing"}
    text = "".join((folder / f"{overview}.md").read_text() for overview in overviews)
    return [folder / f"{page}.md" for page in sorted(set(re.findall(r"\]\(([\w-]+)\.md\)", text)) - overviews)]


def known_options(page: Path) -> frozenset[str]:
    """The options of all experiments; a learner's page may name those of its own presets alone."""
    presets = [word for text in blocks(page, "sh") for word in text.split() if word in FEWSHOT_PRESETS]
    if page in learner_pages():
        assert presets, f"{name(page)} trains no preset"
        return frozenset().union(*map(fewshot_options, presets))
    return experiment_options()


@cache
def command_options() -> frozenset[str]:
    """The options of the commands that work on runs, and those that their help speaks of."""
    known: set[str] = set()
    for module in [importlib.import_module(f"metarl.experiments.{_COMMANDS[command]}") for command in _COMMANDS]:
        kinds = [kind for word, kind in vars(module).items() if word.endswith("Arguments") and is_dataclass(kind)]
        for kind in (*kinds, EvaluationOptions, OwnWords):
            known |= {f"--{each.name.replace('_', '-')}" for each in fields(kind)}
        texts = [getattr(module, "HELP", ""), *(str(kind.__doc__) for kind in kinds)]
        known |= set(re.findall(r"--[a-z][\w-]*", " ".join(texts)))
    return frozenset(known)


@pytest.mark.parametrize("page", [page for page in PAGES if "--" in _FENCE.sub("", page.read_text())], ids=name)
def test_the_options_that_a_page_speaks_of_exist(page: Path) -> None:
    text = _FENCE.sub("", page.read_text())
    spans = re.findall(r"`([^`]+)`", text)
    unknown = {option for span in spans for option in re.findall(r"--[a-z][\w.-]*\w", span)} - known_options(page)
    assert unknown <= command_options(), sorted(unknown - command_options())


def test_every_learner_and_agent_has_a_page_that_trains_it() -> None:
    for folder, names in (("few-shot", LEARNERS), ("agents", ALGORITHMS)):
        pages = learner_pages() if folder == "few-shot" else (ROOT / "docs" / folder).glob("*.md")
        text = "\n".join(block for page in pages for block in blocks(page, "sh"))
        assert [each for each in names if not re.search(rf"[ -]{each}\b(?!-)", text)] == []


def test_numbers_with_intervals_are_those_of_the_results() -> None:
    results = "".join(
        (ROOT / "experiments" / "results" / file).read_text() for file in ("README.md", "findings.md")
    )
    pages = {name(page): page.read_text() for page in (ROOT / "docs").rglob("*.md")}
    quoted = [(page, each) for page, text in pages.items() for each in _INTERVAL.findall(text.replace(MINUS, "-"))]
    assert len(quoted) > 50
    measured = set(_INTERVAL.findall(results.replace(MINUS, "-")))
    assert [(page, each) for page, each in quoted if each not in measured] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_modules_and_files_that_a_page_speaks_of_exist(page: Path) -> None:
    text = page.read_text()
    for dotted in in_code(text, r"\bmetarl(?:\.[A-Za-z_]\w*)+"):
        place: Any = metarl
        for at, part in enumerate(parts := dotted.split(".")[1:], start=1):
            if not hasattr(place, part):
                place = importlib.import_module(".".join(("metarl", *parts[:at])))
            else:
                place = getattr(place, part)
    folders = r"(?<![\w/])(?:metarl|experiments|agents|envs|tests|docs)/[\w./-]+\.(?:py|md|yaml)\b"
    assert [file for file in in_code(text, folders) if not (ROOT / file).exists()] == []


def trainings() -> tuple[list[str], list[str], list[str]]:
    """The command lines that train a preset as it is, those that train otherwise, and those that do not train."""
    lines = command_lines()
    training = [line for line in lines if line.split()[1] == "train" and not _OWN_FILE.search(line)]
    plain = [line for line in training if len(line.split()) == 3]
    others = [line for line in lines if line.split()[1] != "train"]
    return plain, [line for line in training if line not in plain], others


PRESETS, TRAININGS, OTHERS = trainings()


def test_presets_that_are_trained_as_they_are_exist() -> None:
    known = {*FEWSHOT_PRESETS, *(preset for family in RL_FAMILIES.values() for preset in family)}
    assert len(PRESETS) > 30
    assert [line for line in PRESETS if line.split()[2] not in known] == []


@pytest.mark.thorough
@pytest.mark.parametrize("line", TRAININGS)
def test_a_training_is_understood(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read as it would be, with its values, up to the work itself."""
    for work in ("_train_one", "_train_group"):
        monkeypatch.setattr(train, work, lambda *given: 0)
    monkeypatch.setattr(train, "placed", contextlib.nullcontext)
    words = shlex.split(line)[1:]
    if words[-1] == "--help":
        help_of(*words[:-1])
    else:
        assert main(words) == 0


@pytest.mark.parametrize("line", OTHERS)
def test_a_command_line_is_understood(line: str) -> None:
    _, command, *words = shlex.split(line)
    if command in ("study", "sweep", "queue", "list"):
        known = command_options() | experiment_options()
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known
    else:
        module = importlib.import_module(f"metarl.experiments.commands.{command}")
        parse(getattr(module, f"{command.title()}Arguments"), words, f"metarl {command}")
