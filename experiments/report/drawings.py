"""Figures of matplotlib as SVG inside a page: texts stay texts, and black is the colour of the page's texts."""

import io
import re
from collections.abc import Sequence
from xml.etree import ElementTree

from metarl.experiments.comparison.figures import COLOURS, Drawing, save
from metarl.experiments.report.page import Content, Node, Row, clean, folded, node, table

_REFERENCE = re.compile(r"(url\(#|^#)")


def figure(
    name: str,
    draw: Drawing,
    *,
    alternative: str,
    caption: Sequence[Content],
    num_labels: int = 1,
    numbers: tuple[Sequence[str], Sequence[Row]] | None = None,
) -> Node:
    """A figure with a text alternative, a caption, and the numbers that it shows.

    Args:
        name: Name that no other figure of the page has, of letters, digits and dashes.
        draw: Function that draws on matplotlib's axes.
        alternative: Text that says what the figure shows to those who cannot see it.
        caption: Texts and elements below the figure.
        num_labels: Number of entries of the legend.
        numbers: Columns and rows of a table that opens below the caption; None for none.
    """
    parts = [_svg(name, draw, alternative, num_labels), node("figcaption", None, *caption)]
    if numbers is not None:
        parts.append(folded("Numbers of this figure", table(f"Numbers of the figure: {caption[0]}", *numbers)))
    return node("figure", None, *parts)


def _svg(name: str, draw: Drawing, alternative: str, num_labels: int) -> Node:
    file = io.BytesIO()
    save(file, "svg", draw, num_labels=num_labels)
    drawn = ElementTree.fromstring(clean(file.getvalue().decode()))
    for element in drawn.iter():
        element.tag = _local(element.tag)
        attributes = {_local(key): _own(_local(key), value, name) for key, value in element.attrib.items()}
        element.attrib = attributes
    for parent in list(drawn.iter()):
        for child in list(parent):
            # What they say is in the page; matplotlib's style would hold for all of it.
            if child.tag in ("metadata", "style"):
                parent.remove(child)
    drawn.attrib = {"viewBox": drawn.attrib["viewBox"], "role": "img", "aria-label": clean(alternative)}
    return drawn


def _own(key: str, value: str, name: str) -> str:
    """An attribute with names that are this figure's own, and with the page's colours of texts and of blue."""
    value = f"{name}-{value}" if key == "id" else _REFERENCE.sub(rf"\g<1>{name}-", value)
    return value.replace("#000000", "currentColor").replace(COLOURS[0], "var(--blue)")


def _local(name: str) -> str:
    """A name without its XML namespace, which HTML does not need."""
    return name.rpartition("}")[2]
