"""What the search for duplicates keeps of a photo: a hash of its pixels and a thumbnail."""

import hashlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FEATURES_VERSION = "1"
"""Changes whenever `features_of` would give other values, so that cached ones are not mixed with them."""

SIDE = 64
"""Side of a thumbnail, in pixels."""


def features_of(photo: Image.Image) -> dict[str, NDArray[np.uint8]]:
    """Features of one photo, from its decoded pixels.

    Args:
        photo: Upright RGB photo, as `hcoatnet.data.images.open_photo` gives it.

    Returns:
        ``pixel_sha256``, (32,): SHA-256 of width, height and pixels, which is the same for one picture stored in two
        lossless formats. ``thumbnail``, (64, 64, 3): see `thumbnail_of`.
    """
    header = f"{photo.width}x{photo.height} RGB ".encode()
    digest = hashlib.sha256(header + photo.tobytes()).digest()
    return {"pixel_sha256": np.frombuffer(digest, np.uint8), "thumbnail": thumbnail_of(photo)}


def thumbnail_of(photo: Image.Image) -> NDArray[np.uint8]:
    """The whole photo stretched to a square: exact area means, rounded once.

    All sums are of integers below 2⁵³, so they do not depend on the order of summation: the thumbnail of a flipped or
    right-angle-rotated photo is the flipped or rotated thumbnail, to the bit.

    Returns:
        Array (64, 64, 3), values 0–255.
    """
    pixels = np.asarray(photo)
    height, width = pixels.shape[:2]
    rows, columns = _area_weights(height), _area_weights(width)
    sums = np.stack([rows @ pixels[..., channel].astype(np.float64) @ columns.T for channel in range(3)], axis=-1)
    return np.asarray(np.rint(sums / (height * width)), np.uint8)


@lru_cache(maxsize=64)
def _area_weights(length: int) -> NDArray[np.float64]:
    """How far each of the 64 cells of a side overlaps each pixel, in 64ths of a pixel: array (64, length)."""
    starts = np.arange(SIDE)[:, None] * length
    pixels = np.arange(length)[None, :] * SIDE
    overlap = np.minimum(starts + length, pixels + SIDE) - np.maximum(starts, pixels)
    return np.asarray(np.maximum(overlap, 0), np.float64)
