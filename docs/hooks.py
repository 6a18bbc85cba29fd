"""Pages that are made when the site is built: the API's, one per package, examples, and the measured results."""

import ast
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "experiments" / "results"
RESULT_PAGES = {"results.md": "README.md", "findings.md": "findings.md"}
"""Made pages, and the files that they are made from."""
EXAMPLES = ROOT / "experiments" / "examples"
FIRST_EXAMPLES = ("adapt_a_point", "cartpole", "image_folders", "exported_policy", "compare_agents")
PACKAGES = {
    "metarl": "The front door, and the files of the core",
    "metarl.agents": "Agents",
    "metarl.envs": "Task families and environments",
    "metarl.fewshot": "Few-shot learning",
    "metarl.learning": "Parts of learning: the bi-level core, losses, advantages, replay",
    "metarl.nets": "Networks, memories, distributions",
    "metarl.deploy": "Adapting to one environment",
    "metarl.executors": "Places where environments are simulated",
    "metarl.runs": "Run folders, files, threads, seeds",
    "metarl.experiments": "Experiments, presets, commands",
}


def on_files(files: Files, config: Any) -> Files:
    """Add the made pages to those that lie in the folder."""
    for package, title in PACKAGES.items():
        files.append(File.generated(config, f"api/{package}.md", content=_api_page(package, title)))
    index = "".join(f"- [`{package}`]({package}.md): {title}\n" for package, title in PACKAGES.items())
    files.append(File.generated(config, "api/index.md", content=f"# API\n\n{index}"))
    for page, content in _example_pages().items():
        files.append(File.generated(config, f"examples/{page}.md", content=content))
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


def _example_pages() -> dict[str, str]:
    """Pages of the scripts by name, and the page that lists them."""
    others = sorted({path.stem for path in EXAMPLES.glob("*.py")} - set(FIRST_EXAMPLES))
    pages, lines = {}, []
    for name in (*FIRST_EXAMPLES, *others):
        source = (EXAMPLES / f"{name}.py").read_text()
        tree = ast.parse(source)
        text, last = ast.get_docstring(tree) or "", tree.body[0].end_lineno
        code = "\n".join(source.splitlines()[last:]).strip()
        summary, *body = text.split("\n\n")
        words = [f"```sh\n{part}\n```" if part.startswith(("python ", "metarl ")) else part for part in body]
        pages[name] = "\n\n".join([f"# {name}.py", summary, *words, f"```python\n{code}\n```\n"])
        lines.append(f"- [`{name}.py`]({name}.md): {summary}")
        if name == FIRST_EXAMPLES[-1]:
            lines.append("\nFurther ones, which the guides speak of:\n")
    intro = "Scripts in `experiments/examples`, each run by the tests. The first five take a minute or so each."
    return {"index": "\n".join(["# Examples\n", f"{intro}\n", *lines, ""]), **pages}


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
