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
from hcoatnet.report import drawing


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure on a page.

    Attributes:
        name: Stem of its files.
        figure: What is drawn.
        text: The same in words, for who cannot see it.
        caption: What a reader must know to read it.
        narrow: Whether it is drawn for half of the page's width.
    """

    name: str
    figure: Figure
    text: str
    caption: str
    narrow: bool = False

    @cached_property
    def source(self) -> str:
        """An image element's source. As an image, an SVG keeps its ids to itself."""
        return f"data:image/svg+xml;base64,{base64.b64encode(drawing.svg(self.figure)).decode()}"


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
        drawing.save_for_print(picture.figure, folder / picture.name)
