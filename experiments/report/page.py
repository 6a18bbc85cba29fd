"""HTML as a tree of elements, so that every text of a user is escaped, and the page that sections stand on."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

import numpy as np

from metarl.experiments.report.style import CSS

Node = ElementTree.Element
Content = Node | str
Row = Sequence[Content]

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:"
"""Content security policy: nothing is fetched and no script runs, whatever the file holds."""
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")
_MINUS = "\N{MINUS SIGN}"
NONE = "\N{EN DASH}"
"""The content of a cell that has no value."""


@dataclass
class Section:
    """One part of a page, under a heading.

    Attributes:
        title: Heading of the section.
        content: Elements below the heading.
        number: Number of the section, which its anchor is made of; the page sets it.
    """

    title: str
    content: list[Node] = field(default_factory=list)
    number: int = 0


def node(tag: str, attributes: Mapping[str, str] | None = None, *content: Content) -> Node:
    """An element with attributes, and with texts and elements inside."""
    made = ElementTree.Element(tag, {name: clean(value) for name, value in (attributes or {}).items()})
    last: Node | None = None
    for part in content:
        if not isinstance(part, str):
            made.append(part)
            last = part
        elif last is None:
            made.text = (made.text or "") + clean(part)
        else:
            last.tail = (last.tail or "") + clean(part)
    return made


def paragraph(*content: Content) -> Node:
    """A paragraph of texts and elements."""
    return node("p", None, *content)


def heading(text: str) -> Node:
    """A heading inside a section."""
    return node("h3", None, text)


def table(caption: str, columns: Sequence[str], rows: Sequence[Row], *, text_columns: int = 1) -> Node:
    """A table in a frame that the keyboard can scroll where it is wider than the page.

    Args:
        caption: Caption, which also names the frame.
        columns: Headings of the columns.
        rows: Cells by row; the first one of each is the row's heading.
        text_columns: Number of columns that hold text; the others are numbers, aligned on the right.
    """
    kinds = [{} if place < text_columns else {"class": "number"} for place in range(len(columns))]
    head = [node("th", {"scope": "col", **kind}, name) for name, kind in zip(columns, kinds, strict=True)]
    body = []
    for row in rows:
        cells = [node("th", {"scope": "row", **kinds[0]}, row[0])]
        cells += [node("td", kind, cell) for cell, kind in zip(row[1:], kinds[1:], strict=True)]
        body.append(node("tr", None, *cells))
    whole = node(
        "table",
        None,
        node("caption", None, caption),
        node("thead", None, node("tr", None, *head)),
        node("tbody", None, *body),
    )
    return node("div", {"class": "scroll", "role": "region", "aria-label": caption, "tabindex": "0"}, whole)


def definitions(pairs: Sequence[tuple[str, Content]]) -> Node:
    """A list of names and what they are."""
    return node("dl", None, *[node("div", None, node("dt", None, a), node("dd", None, b)) for a, b in pairs])


def folded(summary: str, *content: Node) -> Node:
    """Content that shows when its summary is opened."""
    return node("details", None, node("summary", None, summary), *content)


def code(text: str) -> Node:
    """Lines to be typed, in a frame that the keyboard can scroll."""
    return node("pre", {"tabindex": "0"}, node("code", None, text))


def number(value: float) -> str:
    """A measurement with about four digits."""
    size = abs(value)
    digits = 0 if size >= 1000 else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{value:,.{digits}f}".replace("-", _MINUS)


def interval(bounds: Sequence[float] | None) -> str:
    """A confidence interval in brackets, or a dash where there is none."""
    return NONE if bounds is None else f"[{number(bounds[0])}, {number(bounds[1])}]"


def thinned(rows: Sequence[Any], most: int) -> list[Any]:
    """The rows, or as many as fit, the first and the last among them."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(place)] for place in np.linspace(0, len(rows) - 1, most)]


def page(title: str, summary: Sequence[Node], sections: Sequence[Section], footer: str) -> bytes:
    """The whole file: a header with a summary, contents, a section for each part, a footer.

    Args:
        title: Title of the page.
        summary: Elements below the title.
        sections: Parts in their order; those without content are left out.
        footer: Text of the footer.
    """
    parts = [section for section in sections if section.content]
    for place, section in enumerate(parts, 1):
        section.number = place
    links = [node("li", None, node("a", {"href": f"#section-{s.number}"}, s.title)) for s in parts]
    contents = node("nav", {"aria-labelledby": "contents"}, node("h2", {"id": "contents"}, "Contents"))
    contents.append(node("ol", None, *links))
    whole = node(
        "html",
        {"lang": "en"},
        node(
            "head",
            None,
            node("meta", {"charset": "utf-8"}),
            node("meta", {"http-equiv": "Content-Security-Policy", "content": _POLICY}),
            node("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
            node("meta", {"name": "color-scheme", "content": "light dark"}),
            node("title", None, title),
            node("style", None, CSS),
        ),
        node(
            "body",
            None,
            node("a", {"class": "skip", "href": "#main"}, "Skip to the results"),
            node("header", None, node("h1", None, title), *summary),
            contents,
            node("main", {"id": "main", "tabindex": "-1"}, *map(_section, parts)),
            node("footer", None, node("p", None, footer)),
        ),
    )
    return b"<!doctype html>\n" + ElementTree.tostring(whole, encoding="unicode", method="html").encode() + b"\n"


def _section(section: Section) -> Node:
    name = f"section-{section.number}"
    title = node("h2", {"id": f"{name}-title"}, section.title)
    return node("section", {"id": name, "aria-labelledby": f"{name}-title"}, title, *section.content)


def clean(text: str) -> str:
    """The text without what HTML cannot hold: control characters, and halves of surrogate pairs."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.encode("utf-8", "replace").decode())
