"""Pages that are made when the site is built: the API's, one per package, and the measured results."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "experiments" / "results"
RESULT_PAGES = {"results.md": "README.md", "findings.md": "findings.md"}
"""Made pages, and the files that they are made from."""
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
    for page, source in RESULT_PAGES.items():
        files.append(File.generated(config, page, content=_results_page(RESULTS / source)))
    for picture in sorted(RESULTS.glob("figures/*.svg")) + sorted(RESULTS.glob("*/figure.png")):
        path = picture.relative_to(RESULTS).as_posix()
        files.append(File.generated(config, path, content=picture.read_bytes()))
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


def _results_page(path: Path) -> str:
    """A page of results, in which links to folders and data of the repository name them instead."""

    def link(match: re.Match[str]) -> str:
        mark, text, target = match.groups()
        file, _, anchor = target.partition("#")
        pages = {source: page for page, source in RESULT_PAGES.items()}
        if not file or mark or target.startswith("http"):
            return match[0]
        if file in pages:
            return f"[{text}]({pages[file]}{'#' + anchor if anchor else ''})"
        return text if text.startswith("`") else f"`{text}`"

    return re.sub(r"(!?)\[([^\]]+)\]\(([^)]*)\)", link, path.read_text())
