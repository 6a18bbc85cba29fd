"""Pages that are made when the site is built: the API's, one per package, and the measured results."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "metarl": "The front door, and the seven files that are the machine",
    "metarl.agents": "Agents",
    "metarl.envs": "Task families and environments",
    "metarl.fewshot": "Few-shot learning",
    "metarl.learning": "Parts of learning: the bi-level core, losses, advantages, replay",
    "metarl.nets": "Networks, memories, distributions",
    "metarl.deploy": "Adapting to one environment",
    "metarl.runs": "Run folders, files, threads, seeds",
    "metarl.experiments": "Experiments, presets, commands",
}


def on_files(files: Files, config: Any) -> Files:
    """Add the made pages to those that lie in the folder."""
    for package, title in PACKAGES.items():
        files.append(File.generated(config, f"api/{package}.md", content=_api_page(package, title)))
    index = "".join(f"- [`{package}`]({package}.md): {title}\n" for package, title in PACKAGES.items())
    files.append(File.generated(config, "api/index.md", content=f"# API\n\n{index}"))
    files.append(File.generated(config, "results.md", content=_results()))
    return files


def _api_page(package: str, title: str) -> str:
    folder = ROOT.joinpath(*package.split("."))
    depth = 1 if package == "metarl" else 3
    names = [package]
    for path in sorted(folder.resolve().rglob("*.py")):
        parts = path.relative_to(folder.resolve()).with_suffix("").parts
        if (
            len(parts) <= depth
            and path.name != "__init__.py"
            and "results" not in parts
            and "examples" not in parts
        ):
            names.append(".".join((package, *parts)))
    directives = "\n\n".join(f"::: {name}" for name in names)
    return f"# {title}\n\n{directives}\n"


def _results() -> str:
    """The page of results, whose links to files beside it name the files instead."""
    text = (ROOT / "experiments" / "results" / "README.md").read_text()
    return re.sub(r"\[([^\]]+)\]\((?!https?:)[^)]*\)", r"`\1`", text)
