"""Docstrings say plainly what things are: they are read one by one, and those of configurations are `--help`."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from docstring_parser import Docstring, DocstringParam, DocstringReturns, DocstringStyle, parse

ROOT = Path(__file__).resolve().parent.parent
SOURCES = {
    path.relative_to(ROOT).as_posix(): path
    for folder in ("metarl", "envs", "agents", "experiments")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if not any(part.is_symlink() for part in path.parents)
}

# A phrase that begins so hangs on a name that the reader may not see.
FRAGMENTS = re.compile(
    r"(of|in|to|for|by|at|on|with|from|into|within|without"
    r"|where|whose|that|which|so|as|what|how|when|if)\b",
    re.IGNORECASE,
)
RIDDLES = re.compile(r"\b(in the place of|led to|is told|what came of)\b", re.IGNORECASE)
EMPTY_NAMES = frozenset(("found", "given", "seen", "told", "kept", "asked"))
CONFIGURATIONS = ("Config", "Arguments", "Experiment", "Data")

Node = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _documented(tree: ast.Module) -> Iterator[tuple[str, Node]]:
    """The module, its public functions and classes, and their public methods, with names for messages."""
    yield "module", tree
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield node.name, node
            for part in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(part, ast.FunctionDef) and not part.name.startswith("_"):
                    yield f"{node.name}.{part.name}", part


def _is_exempt(node: Node) -> bool:
    """Whether the docstring stands elsewhere: at the overridden method, the getter or the implementation."""
    marks = {ast.unparse(mark).split(".")[-1] for mark in getattr(node, "decorator_list", [])}
    return bool(marks & {"override", "overload", "setter"})


def _summary_faults(name: str, docstring: Docstring) -> Iterator[str]:
    summary = docstring.short_description or ""
    words = re.findall(r"[\w'-]+", summary)
    if len(words) <= 3:
        yield f"{name}: {summary!r} is three words or fewer"
    if fragment := FRAGMENTS.match(summary):
        yield f"{name}: {summary!r} begins with {fragment.group()!r}"


def _phrase_faults(name: str, docstring: Docstring) -> Iterator[str]:
    for part in docstring.meta:
        if not isinstance(part, (DocstringParam, DocstringReturns)):
            continue
        text = " ".join((part.description or "").split())
        if isinstance(part, DocstringReturns) and part.type_name:
            text = f"{part.type_name}: {text}"
        entry = f"{name}, {part.args[-1] if isinstance(part, DocstringParam) else 'Returns'}: {text[:60]!r}"
        if not text[:1].isupper():
            yield f"{entry} does not begin with a capital letter"
        if fragment := FRAGMENTS.match(text):
            yield f"{entry} begins with {fragment.group()!r}"
        if not text.endswith("."):
            yield f"{entry} does not end with a full stop"


def _is_configuration(node: Node) -> bool:
    return (
        isinstance(node, ast.ClassDef)
        and node.name.endswith(CONFIGURATIONS)
        and any(
            "dataclass" in ast.unparse(mark) and "frozen=True" in ast.unparse(mark) for mark in node.decorator_list
        )
    )


def _field_faults(name: str, node: ast.ClassDef, docstring: Docstring) -> Iterator[str]:
    fields = {
        part.target.id
        for part in node.body
        if isinstance(part, ast.AnnAssign)
        and isinstance(part.target, ast.Name)
        and not ast.unparse(part.annotation).startswith("ClassVar")
    }
    documented = {part.arg_name for part in docstring.params if part.args[0] == "attribute"}
    for missing in sorted(fields - documented):
        yield f"{name}: the field {missing} has no line in Attributes"


def _name_faults(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in EMPTY_NAMES:
            yield f"line {node.lineno}: the variable {node.id} does not say what it holds"
        if isinstance(node, ast.arg) and node.arg in EMPTY_NAMES:
            yield f"line {node.lineno}: the argument {node.arg} does not say what it holds"


def faults(source: str) -> list[str]:
    """What a file's docstrings, comments and names leave unsaid, one line each."""
    tree = ast.parse(source)
    lines = [
        f"line {number}: {match.group()!r} is a riddle"
        for number, line in enumerate(source.splitlines(), 1)
        for match in RIDDLES.finditer(line)
    ]
    lines += _name_faults(tree)
    for name, node in _documented(tree):
        if _is_exempt(node):
            continue
        docstring = parse(ast.get_docstring(node) or "", style=DocstringStyle.GOOGLE)
        lines += _summary_faults(name, docstring)
        lines += _phrase_faults(name, docstring)
        if isinstance(node, ast.ClassDef) and _is_configuration(node):
            lines += _field_faults(name, node, docstring)
    return lines


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_every_file_speaks_plainly(name: str) -> None:
    assert faults(SOURCES[name].read_text()) == []


def test_each_kind_of_fault_is_noticed() -> None:
    source = '''"""A file with one fault of every kind."""
@dataclass(frozen=True)
class WalkConfig:
    """Settings of a walk through a town.

    Attributes:
        speed: of the walker.
        length: Kilometres of the walk
    """
    speed: float
    length: float
    height: float
    renamed: ClassVar[dict] = {}


def walk(config):
    """Walks.

    Returns:
        From where the walker came.
    """
    found = config  # a value in the place of another
    return found
'''
    expected = (
        "is a riddle",
        "the variable found",
        "'of the walker.' does not begin with a capital letter",
        "'of the walker.' begins with 'of'",
        "'Kilometres of the walk' does not end with a full stop",
        "the field height has no line",
        "'Walks.' is three words or fewer",
        "'From where the walker came.' begins with 'From'",
    )
    noticed = faults(source)
    assert len(noticed) == len(expected), noticed
    for fault in expected:
        assert any(fault in line for line in noticed), fault
