"""How a page is made: templates filled with escaped text, and figures inside it.

A page needs no network, prints well, is readable on a phone and in the dark, and names no absolute path.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

import hcoatnet
from hcoatnet.files import write_bytes, write_text
from hcoatnet.report import drawing
from hcoatnet.report.card import Card
from hcoatnet.report.checklist import Checklist
from hcoatnet.report.tables import Table, write_tables


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure on a page.

    Attributes:
        name: Stem of its files.
        figure: What is drawn.
        text: The same in words, for who cannot see it.
        caption: What a reader must know to read it.
    """

    name: str
    figure: Figure
    text: str
    caption: str

    @property
    def width(self) -> int:
        """Its natural width on a page, in CSS pixels."""
        return round(96 * self.figure.get_figwidth())

    @property
    def least_width(self) -> int:
        """Below this many CSS pixels its words could not be read: the page scrolls it instead."""
        return min(self.width, 540 if self.width > 480 else 340)

    @cached_property
    def svg(self) -> bytes:
        """The figure as an SVG file."""
        return drawing.svg(self.figure)

    @property
    def source(self) -> str:
        """An image element's source. As an image, an SVG keeps its ids to itself."""
        return f"data:image/svg+xml;base64,{base64.b64encode(self.svg).decode()}"


def render(template: str, context: Mapping[str, Any]) -> str:
    """A page from one of the package's templates, with everything in ``context`` escaped."""
    environment = Environment(
        loader=PackageLoader("hcoatnet.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(context, version=hcoatnet.__version__)


def write_pictures(pictures: Sequence[Picture], folder: Path) -> None:
    """Write each picture as ``<name>.png``, ``<name>.svg`` and ``<name>.pdf``."""
    folder.mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        write_bytes(folder / f"{picture.name}.svg", picture.svg)
        write_bytes(folder / f"{picture.name}.png", drawing.png(picture.figure))
        write_bytes(folder / f"{picture.name}.pdf", drawing.pdf(picture.figure))


@dataclass(frozen=True, eq=False)
class Report:
    """All that a report consists of.

    Attributes:
        page: The page, as HTML.
        pictures: Its figures.
        tables: Its tables, and some that are too long for it.
        card: The model card.
        checklist: The reporting checklist.
    """

    page: str
    pictures: tuple[Picture, ...]
    tables: tuple[Table, ...]
    card: Card
    checklist: Checklist


def write_report_files(report: Report, folder: Path) -> Path:
    """Write ``report.html``, ``model_card.md``, ``checklist.md``, ``tables/`` and ``figures/``.

    Returns:
        The page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_pictures(report.pictures, folder / "figures")
    write_tables(report.tables, folder / "tables")
    write_text(folder / "model_card.md", report.card.to_markdown())
    write_text(folder / "checklist.md", report.checklist.to_markdown())
    write_text(folder / "report.html", report.page)
    return folder / "report.html"
