"""What the README and the documentation show works: every Python block runs, every command line is understood."""

import contextlib
import io
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from metarl.experiments.cli import main

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_OWN_FILE = re.compile(r"\w+\.(py|yaml)\b")


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in _FENCE.findall(page.read_text()) if kind == language]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def command_lines() -> list[str]:
    """Distinct `metarl` lines of all pages' shell blocks, without comments."""
    lines = [line for page in PAGES for text in blocks(page, "sh") for line in text.splitlines()]
    return sorted({line.partition("  #")[0].strip() for line in lines if line.strip().startswith("metarl ")})


PYTHON = [page for page in PAGES if blocks(page, "python")]


@pytest.mark.slow
@pytest.mark.parametrize("page", PYTHON, ids=name)
def test_the_python_blocks_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after another, in one namespace; a page whose code starts worker processes is a script of its own."""
    monkeypatch.chdir(tmp_path)
    text = "\n".join(blocks(page, "python"))
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


@pytest.mark.parametrize("line", command_lines())
def test_a_command_line_is_understood(line: str) -> None:
    _, command, *words = shlex.split(line)
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    values = [word for word in words if not word.startswith("-")]
    if command == "train" and not _OWN_FILE.search(line):
        benchmark = ["--benchmark", words[words.index("--benchmark") + 1]] if "--benchmark" in words else []
        text = help_of(command, values[0], *benchmark) + " --benchmark --seeds --out --init-from --init-without"
        text += help_of(command)
    elif command == "study":
        text = help_of(command, values[0])
    else:
        text = help_of(command) + " --benchmark" * (command == "sweep")
    if not (command == "train" and _OWN_FILE.search(line)):
        for option in options:
            assert re.search(rf"{re.escape(option)}\b", text), f"{option} is not an option of metarl {command}"
