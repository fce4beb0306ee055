"""A class-activation map over its photo."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hcoatnet.explain.token_maps import ANCHORS

OPACITY = 0.55
EDGE = 0.5
"""The white line runs where the map has this share of its largest value."""

Map = NDArray[np.floating[Any]]


def relative(signed: Map) -> NDArray[np.float32]:
    """Grad-CAM's map max(signed, 0) as shares of its largest value; all 0 where no place speaks for the class."""
    rectified = np.maximum(signed, 0).astype(np.float32)
    top = rectified.max()
    shares: NDArray[np.float32] = rectified / top if top > 0 else rectified
    return shares


def upsample(shares: Map, width: int, height: int) -> NDArray[np.float32]:
    """A map stretched over a photo, bilinear between the centres of its places; shape (height, width)."""
    image = Image.fromarray(np.asarray(shares, dtype=np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def draw_activation(photo: Image.Image, shares: Map) -> Image.Image:
    """The photo in grey under the map's colours, with a white line around what has at least half of the largest value.

    Args:
        photo: RGB, upright.
        shares: Map in [0, 1], of any size; it covers the whole photo.

    Returns:
        A new RGB picture of the photo's size.
    """
    fine = upsample(shares, photo.width, photo.height)
    grey = np.asarray(photo.convert("L"), dtype=np.float32)[..., None]
    blended = (1 - OPACITY) * grey + OPACITY * colours_of(fine)
    inside = fine >= EDGE
    blended[_border(inside, thickness=max(1, round(min(photo.size) / 150)))] = 255
    return Image.fromarray(blended.round().astype(np.uint8))


def colours_of(shares: Map) -> NDArray[np.float32]:
    """Colours (…, 3), 0–255, of shares in [0, 1], on the scale of :data:`~hcoatnet.explain.token_maps.ANCHORS`."""
    places = np.linspace(0, 1, len(ANCHORS))
    channels = [np.interp(shares, places, channel) for channel in zip(*ANCHORS, strict=True)]
    return np.stack(channels, axis=-1).astype(np.float32)


def describe_activation(shares: Map, label: str) -> str:
    """What :func:`draw_activation` shows, in words."""
    if not shares.any():
        return f"No place of the photo speaks for {label}: the map is 0 everywhere."
    rows, columns = shares.shape
    row, column = np.unravel_index(int(np.argmax(shares)), shares.shape)
    high = float((upsample(shares, 64, 64) >= EDGE).mean())
    return (
        f"Class-activation map for {label}: highest in row {row + 1} of {rows}, column {column + 1} of {columns}; "
        f"{high:.0%} of the photo has at least half of that value."
    )


def _border(inside: NDArray[np.bool_], thickness: int) -> NDArray[np.bool_]:
    """Pixels inside with a pixel outside at most ``thickness`` pixels away; the photo's rim is no border."""
    core = inside
    for _ in range(thickness):
        padded = np.pad(core, 1, constant_values=True)
        core = core & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inside & ~core
