"""Small pictures of photos inside a page, where the photos are still there."""

import base64
from io import BytesIO
from pathlib import Path

from hcoatnet.data.images import PhotoError, open_photo

SIDE = 128


def thumbnail(path: Path, side: int = SIDE) -> str | None:
    """A photo as a small JPEG in a data URI, at most ``side`` pixels a side; None where it cannot be opened."""
    try:
        photo = open_photo(path)
    except PhotoError:
        return None
    buffer = BytesIO()
    photo.thumbnail((side, side))
    photo.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
