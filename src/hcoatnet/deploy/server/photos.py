"""From uploaded bytes to what a model reads. Headers are read first; what is too large is not decoded."""

import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hcoatnet.data.images import PhotoError, decoded_size, open_photo, preprocess, read_header
from hcoatnet.deploy.server.limits import Limits
from hcoatnet.deploy.server.problems import Refusal
from hcoatnet.deploy.server.uploads import Upload
from hcoatnet.errors import Problem

OVERLAY_SIDE = 512
"""Longer side of an overlay, in pixels."""

PLAIN_MODES = frozenset({"1", "L", "P", "RGB", "CMYK", "YCbCr"})
"""Colour modes that Pillow holds in up to four bytes a pixel; the others need several times that on the way to RGB."""

_large_one = threading.Lock()
"""Held while a photo is decoded that has more than a quarter of the pixels let in: it can take a gigabyte."""

STATUS_OF_RULE = {"not an image": 415, "too many pixels": 413}
TITLES = {413: "Too large", 415: "Not a photo", 422: "Damaged photo"}


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo that was decoded.

    Attributes:
        name: How answers call it.
        width: Pixels across, upright.
        height: Pixels down, upright.
        pixels: What the model reads, shape (3, S, S).
        small: The photo, at most `OVERLAY_SIDE` wide and high; None where no overlay is wanted.
    """

    name: str
    width: int
    height: int
    pixels: NDArray[np.float32]
    small: Image.Image | None


def read_photos(uploads: Sequence[Upload], size: int, limits: Limits, keep_small: bool) -> list[Photo]:
    """Decode the photos of a request one after the other, as `hcoatnet predict` does.

    Args:
        uploads: As they came.
        size: Side S of what the model reads.
        limits: What is let in.
        keep_small: Whether a small copy of each is kept for overlays.

    Raises:
        Refusal: A photo is none, too large or damaged; it names all such photos.
    """
    areas, problems = [], []
    for upload in uploads:
        try:
            areas.append(_check_header(upload, limits))
        except PhotoError as error:
            problems.append(error.problem)
    _raise_any(problems)
    photos = []
    for upload, area in zip(uploads, areas, strict=True):
        try:
            with _large_one if area > limits.pixels // 4 else nullcontext():
                photos.append(_read_photo(upload, size, keep_small))
        except PhotoError as error:
            problems.append(error.problem)
    _raise_any(problems)
    return photos


def _read_photo(upload: Upload, size: int, keep_small: bool) -> Photo:
    image = open_photo(upload.content, upload.name)
    width, height = image.size
    pixels = preprocess(image, size)
    if keep_small:
        image.thumbnail((OVERLAY_SIDE, OVERLAY_SIDE))
    return Photo(upload.name, width, height, pixels, image if keep_small else None)


def _check_header(upload: Upload, limits: Limits) -> int:
    """The photo's pixels, after its header was found to be within the limits.

    Raises:
        PhotoError: It is not, or there is none.
    """
    header = read_header(upload.content, upload.name)
    plain = header.mode in PLAIN_MODES and "transparency" not in header.info
    most = limits.pixels if plain else limits.pixels // 4
    width, height = decoded_size(header)
    if width * height > most:
        found, expected = f"{width:,} × {height:,} pixels", f"at most {most:,} pixels in colour mode {header.mode}"
        raise PhotoError(Problem(upload.name, "too many pixels", found, expected, "Scale the photo down."))
    return width * height


def _raise_any(problems: Sequence[Problem]) -> None:
    """Refuse a request that has problems; the status is that of the gravest."""
    if not problems:
        return
    status = min(STATUS_OF_RULE.get(problem.rule, 422) for problem in problems)
    which = "The photo" if len(problems) == 1 else f"{len(problems)} photos"
    raise Refusal(status, TITLES[status], f"{which} cannot be answered; nothing was computed.", problems)
