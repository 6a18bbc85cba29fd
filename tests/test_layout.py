"""The house is as planned: packages, links, and imports that point down."""

import ast
import functools
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINKS = ("envs", "agents", "experiments")
SOURCES = sorted(
    path
    for folder in ("metarl", *LINKS)
    for path in (ROOT / folder).rglob("*.py")
    if not any(part.is_symlink() for part in path.parents)
)


def _module(path: Path) -> str:
    relative = path.relative_to(ROOT)
    parts = list(relative.with_suffix("").parts)
    if parts[0] in LINKS:
        parts.insert(0, "metarl")
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def _nodes(path: Path) -> tuple[ast.AST, ...]:
    """The imports and calls of a file."""
    wanted = (ast.Import, ast.ImportFrom, ast.Call)
    return tuple(node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, wanted))


@functools.cache
def _imports(path: Path) -> set[str]:
    found = set()
    for node in _nodes(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


MODULES = {_module(path): path for path in SOURCES}


@functools.cache
def _graph() -> dict[str, set[str]]:
    """The modules of this package that each of them imports."""
    return {
        module: {name for name in _imports(path) if name in MODULES and name != module}
        for module, path in MODULES.items()
    }


def test_links_are_the_root_folders() -> None:
    for name in LINKS:
        link = ROOT / "metarl" / name
        assert link.is_symlink()
        assert link.resolve() == ROOT / name


def test_every_package_on_disk_is_listed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    on_disk = {module for module, path in MODULES.items() if path.name == "__init__.py"}
    assert set(listed) == on_disk


def _layer(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in (*LINKS, "fewshot") else "core"


ALLOWED = {
    "core": {"core"},
    "fewshot": {"core", "fewshot"},
    "envs": {"core", "envs"},
    "agents": {"core", "agents"},
    "experiments": {"core", "fewshot", "envs", "agents", "experiments"},
}


def test_imports_point_down() -> None:
    for module, imports in _graph().items():
        assert not {name for name in imports if _layer(name) not in ALLOWED[_layer(module)]}, module


def test_no_files_import_each_other() -> None:
    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        front = set(_graph()[start])
        while front:
            seen |= front
            front = {name for module in front for name in _graph()[module]} - seen
        return seen

    # A package's __init__ re-exports its files, so only files are compared.
    files = {module for module, path in MODULES.items() if path.name != "__init__.py"}
    assert not {module for module in files if module in reachable(module)}


def test_only_the_environments_import_simulators() -> None:
    for module, path in MODULES.items():
        if _layer(module) in ("core", "agents", "fewshot"):
            assert not {name for name in _imports(path) if name.split(".")[0] in ("mujoco", "metaworld")}, module


def test_few_shot_learning_imports_no_reinforcement_learning() -> None:
    """Only these files of the core know neither environments nor trajectories."""
    shared = [
        "deploy.models",
        "intervals",
        "learning.bilevel",
        "learning.trust_region",
        "loop",
        "nets.dense",
        "nets.networks",
        "runs",
        "runs.checkpoint",
        "runs.configs",
        "runs.cores",
        "runs.files",
        "runs.lock",
        "runs.loggers",
        "runs.metrics",
        "runs.parallel",
        "runs.pending",
        "runs.reading",
        "runs.seeding",
        "states",
    ]
    allowed = {f"metarl.{name}" for name in shared}
    for module, imports in _graph().items():
        if _layer(module) == "fewshot" or module in allowed:
            wrong = {name for name in imports if _layer(name) != "fewshot"} - allowed
            assert not wrong, module


def test_print_is_the_command_lines_alone() -> None:
    for module, path in MODULES.items():
        if _layer(module) != "experiments":
            calls = [node for node in _nodes(path) if isinstance(node, ast.Call)]
            assert not [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"], module
