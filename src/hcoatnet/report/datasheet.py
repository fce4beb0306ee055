"""The page of ``hcoatnet data describe``."""

from pathlib import Path
from typing import Any

from hcoatnet.data.datasheet import describe
from hcoatnet.data.manifest import Manifest
from hcoatnet.files import write_json, write_text
from hcoatnet.report.page import render


def write_datasheet(photos: Manifest, out: Path, title: str) -> dict[str, Any]:
    """Write ``datasheet.json`` and ``datasheet.html`` into a folder.

    Args:
        photos: The photos.
        out: The folder; made if it is not there.
        title: What the page calls them.

    Returns:
        What `hcoatnet.data.datasheet.describe` gives.
    """
    sheet = describe(photos)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "datasheet.json", sheet)
    write_text(out / "datasheet.html", render("datasheet.html.jinja", {"sheet": sheet, "title": title}))
    return sheet
