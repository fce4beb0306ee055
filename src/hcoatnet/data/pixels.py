"""The pixels of photos as training and evaluation hold them: at one of two sizes, decoded afresh or from the cache."""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hcoatnet.data.cache import PhotoCache, Pixels, PixelSet
from hcoatnet.data.images import PhotoError, open_photo, resize_photo
from hcoatnet.errors import Problem
from hcoatnet.files import sha256_of_bytes

MARGIN = 1.15
"""Training photos are held at MARGIN times the model's input, which leaves the random crop room."""


@dataclass(frozen=True)
class PhotoFiles:
    """Photos on disk.

    Attributes:
        paths: Where each lies.
        sha256: The digest that the manifest holds of each; None where there is no manifest.
    """

    paths: Sequence[Path]
    sha256: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def open(self, index: int) -> Image.Image:
        """Decode one photo.

        Raises:
            PhotoError: As `open_photo`, and if its bytes are not those that the manifest lists.
        """
        path = self.paths[index]
        if self.sha256 is None:
            return open_photo(path)
        try:
            content = path.read_bytes()
        except OSError:
            return open_photo(path)  # which names the error
        found = sha256_of_bytes(content)
        if found != self.sha256[index]:
            fix = "Restore the photo, or scan the data again with `hcoatnet data scan` and start a new run."
            told = f"changed since the manifest was made (SHA-256 begins with {found[:12]})"
            raise PhotoError(Problem(str(path), "changed", told, f"{self.sha256[index][:12]}…", fix))
        return open_photo(content, str(path))


@dataclass(frozen=True)
class Holding:
    """How photos are held: ``shorter``, resized to a shorter side with the aspect kept, or ``square``.

    Attributes:
        shape: Which of the two.
        side: The shorter side, or the side of the square, in pixels.
    """

    shape: Literal["shorter", "square"]
    side: int

    @classmethod
    def for_training(cls, image_size: int) -> "Holding":
        """Shorter side ⌈`MARGIN` S⌉: what random crops are taken from."""
        return cls("shorter", math.ceil(MARGIN * image_size))

    @classmethod
    def for_evaluation(cls, image_size: int) -> "Holding":
        """S × S: what `hcoatnet.data.images.preprocess` normalises."""
        return cls("square", image_size)

    @property
    def name(self) -> str:
        """Name of the set of cached photos."""
        return f"{self.shape}-{self.side}"

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height at which a photo of this width and height is held."""
        if self.shape == "square":
            return self.side, self.side
        scale = self.side / min(width, height)
        return max(self.side, round(width * scale)), max(self.side, round(height * scale))

    def pixels(self, photo: Image.Image) -> Pixels:
        """The photo at that size, bicubic: (H, W, 3) uint8."""
        if self.shape == "square":
            return resize_photo(photo, self.side)
        return np.array(photo.resize(self.size(*photo.size), Image.Resampling.BICUBIC))


class HeldPhotos:
    """Photos as arrays (H, W, 3) uint8, the same whether they come from the cache or are decoded.

    Args:
        files: The photos.
        holding: The size at which they are held.
        cached: Where cached ones lie; None to decode each time.
    """

    def __init__(self, files: PhotoFiles, holding: Holding, cached: PixelSet | None = None) -> None:
        self.files = files
        self.holding = holding
        self.cached = None if files.sha256 is None else cached
        self.places = None
        if self.cached is not None and files.sha256 is not None:
            self.places = self.cached.find(files.sha256)
            self.cached.forget()

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Pixels:
        if self.cached is None or self.places is None or self.files.sha256 is None:
            return self.holding.pixels(self.files.open(index))
        place = self.places[index]
        pixels = self.cached.read(place)
        if pixels is None:
            pixels = self.holding.pixels(self.files.open(index))
            if place["size"]:  # it was there and is damaged: the next run finds a sound copy
                with contextlib.suppress(OSError):
                    self.cached.append([(self.files.sha256[index], pixels)], again=True)
                self.places[index]["size"] = 0
        return pixels


def hold(
    files: PhotoFiles, holding: Holding, cache: PhotoCache | None, sizes: NDArray[np.int64] | None = None
) -> HeldPhotos:
    """Photos at a size, decoded into the cache first where there is one and they fit into it.

    Args:
        files: The photos.
        holding: The size.
        cache: The cache, or None.
        sizes: (N, 2) width and height of each photo as the manifest lists them; needed for the cache only.

    Raises:
        PhotoError: A photo cannot be read, or is not the one that the manifest lists.
    """
    if cache is None or files.sha256 is None or sizes is None:
        return HeldPhotos(files, holding)
    need = [3 * math.prod(holding.size(int(width), int(height))) for width, height in sizes]
    cached = cache.prepare(holding.name, files.sha256, need, lambda index: holding.pixels(files.open(index)))
    return HeldPhotos(files, holding, cached)
