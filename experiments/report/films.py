"""Films of a run folder inside a page, as data in its text."""

import base64
from collections.abc import Sequence
from pathlib import Path

from metarl.experiments.report.page import Node, Section, node, paragraph
from metarl.experiments.video import FOLDER

_TYPES = {".mp4": "video/mp4", ".gif": "image/gif"}
_MOST_BYTES = 20 * 2**20


def films(folders: Sequence[Path]) -> Section:
    """The films that lie in the folders `videos` of runs; those that are too large are named."""
    section = Section("Videos")
    for folder in folders:
        inside = sorted((folder / FOLDER).glob("*")) if (folder / FOLDER).is_dir() else []
        for path in inside:
            if path.suffix not in _TYPES or not path.is_file():
                continue
            if path.stat().st_size > _MOST_BYTES:
                section.content.append(
                    paragraph(f"{path} is left out: it has {path.stat().st_size / 2**20:,.0f} MiB.")
                )
            else:
                section.content.append(_film(path, folder))
    return section


def _film(path: Path, folder: Path) -> Node:
    what = f"Film {path.name} of {folder}: a task before adaptation and after each step of it, side by side"
    source = f"data:{_TYPES[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
    if path.suffix == ".gif":
        shown = node("img", {"src": source, "alt": what})
    else:
        attributes = {"controls": "", "loop": "", "muted": "", "playsinline": "", "preload": "metadata"}
        shown = node("video", {**attributes, "aria-label": what, "src": source})
    return node("figure", {"class": "film"}, shown, node("figcaption", None, f"{what}."))
