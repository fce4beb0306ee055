"""Comparing photos by their thumbnails: how well they agree in one of the eight flips and right-angle rotations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hcoatnet.data.audit.hashes import VARIANTS, grey_of, turn
from hcoatnet.data.audit.pixels import SIDE

BACKGROUND = 8.0
"""Standard deviation of the Gaussian whose blur is taken out before photos are compared, in pixels of a thumbnail."""

FLAT = 1.0
"""A photo whose detail has a lower standard deviation, in grey levels, shows nothing that could be recognised."""

_CELLS = 32
_BLOCK = 512


@dataclass(frozen=True, eq=False)
class Details:
    """The structure of photos, without the slow changes of brightness that unrelated photos of skin share.

    Attributes:
        values: Grey detail, 0 where masked: (n, 32, 32) float32.
        weights: 1 where seen, 0 where masked: (n, 32, 32) float32, or None where nothing is masked.
        flat: Photos that show nothing, (n,) bool.
    """

    values: NDArray[np.float32]
    weights: NDArray[np.float32] | None
    flat: NDArray[np.bool_]


def mask_array(paths: Sequence[str], masks: Mapping[str, NDArray[np.bool_]] | None) -> NDArray[np.bool_] | None:
    """Masks of all photos, True where to look away: (n, 64, 64), or None if there are none."""
    if not masks or not any(path in masks for path in paths):
        return None
    nothing = np.zeros((SIDE, SIDE), bool)
    return np.stack([masks.get(path, nothing) for path in paths])


def fill_masked(thumbnails: NDArray[np.uint8], masked: NDArray[np.bool_] | None) -> NDArray[np.uint8]:
    """Thumbnails whose masked parts have the mean colour of the rest, so that their content moves no hash."""
    if masked is None:
        return thumbnails
    filled = thumbnails.copy()
    for place in np.flatnonzero(masked.any(axis=(1, 2)) & ~masked.all(axis=(1, 2))):
        hidden = masked[place]
        filled[place, hidden] = np.rint(thumbnails[place, ~hidden].mean(axis=0))
    return filled


def details_of(thumbnails: NDArray[np.uint8], masked: NDArray[np.bool_] | None = None) -> Details:
    """Details of thumbnails (n, 64, 64, 3), with masks (n, 64, 64)."""
    values = np.empty((len(thumbnails), _CELLS, _CELLS), np.float32)
    weights = None if masked is None else np.empty_like(values)
    for start in range(0, len(thumbnails), _BLOCK):
        block = slice(start, start + _BLOCK)
        seen = None if masked is None else (~masked[block]).astype(np.float32)
        values[block] = _detail((grey_of(thumbnails[block]) / 1000).astype(np.float32), seen)
        if weights is not None and seen is not None:
            weights[block] = _halved(seen) > 0.5
            values[block] *= weights[block]
    return Details(values, weights, values.std(axis=(1, 2)) < FLAT)


def compare(details: Details, pairs: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How well the photos of each pair agree in the best of the eight variants, where both are seen.

    Args:
        details: Of all photos.
        pairs: Indices of photos, (m, 2).

    Returns:
        Pearson correlation (m,), and the share (m,) of tiles of a 4 × 4 grid that correlate by more than 0.5, tiles
        that are flat in both photos left out. The share is what two photos behind one frame or vignette lack.
    """
    best, agreeing = np.full(len(pairs), -1.0), np.zeros(len(pairs))
    for start in range(0, len(pairs), _BLOCK):
        block = slice(start, start + _BLOCK)
        one, other = pairs[block].T
        first, second = details.values[one], details.values[other]
        for variant in range(VARIANTS):
            turned = _turn_all(second, variant)
            seen = np.ones_like(first)
            if details.weights is not None:
                seen = details.weights[one] * _turn_all(details.weights[other], variant)
            here = _correlation(first, turned, seen)
            better = here > best[block]
            best[block][better] = here[better]
            agreeing[block][better] = _agreeing_tiles(first[better], turned[better], seen[better])
    return best, agreeing


def _detail(grey: NDArray[np.float32], seen: NDArray[np.float32] | None) -> NDArray[np.float32]:
    from scipy.ndimage import gaussian_filter

    sigma = (0.0, BACKGROUND, BACKGROUND)
    if seen is None:
        slow = gaussian_filter(grey, sigma, mode="reflect", truncate=3)
    else:
        slow = gaussian_filter(grey * seen, sigma, mode="reflect", truncate=3)
        slow /= np.maximum(gaussian_filter(seen, sigma, mode="reflect", truncate=3), 1e-3)
    return _halved(grey - slow)


def _halved(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    step = SIDE // _CELLS
    return np.asarray(pictures.reshape(-1, _CELLS, step, _CELLS, step).mean(axis=(2, 4)))


def _turn_all(pictures: NDArray[np.float32], variant: int) -> NDArray[np.float32]:
    return np.moveaxis(turn(np.moveaxis(pictures, 0, -1), variant), -1, 0).astype(np.float32)


def _correlation(
    one: NDArray[np.float32], other: NDArray[np.float32], seen: NDArray[np.float32]
) -> NDArray[np.float64]:
    first, second = _centred(one, seen), _centred(other, seen)
    norm = np.sqrt((first**2).sum(axis=(1, 2)) * (second**2).sum(axis=(1, 2)))
    return np.asarray(np.where(norm > 0, (first * second).sum(axis=(1, 2)) / np.maximum(norm, 1e-9), 0.0))


def _centred(pictures: NDArray[np.float32], seen: NDArray[np.float32]) -> NDArray[np.float64]:
    """Less the mean over what is seen, and 0 elsewhere."""
    total = np.maximum(seen.sum(axis=(1, 2), dtype=np.float64), 1)
    mean = (pictures * seen).sum(axis=(1, 2), dtype=np.float64) / total
    return np.asarray((pictures - mean[:, None, None]) * seen)


def _agreeing_tiles(
    one: NDArray[np.float32], other: NDArray[np.float32], seen: NDArray[np.float32]
) -> NDArray[np.float64]:
    first, second, visible = (_tiles(pictures) for pictures in (one, other, seen))
    area = np.maximum(visible.sum(axis=(1, 2)), 1)
    structure = np.maximum(
        *(np.sqrt((_centred(tiles, visible) ** 2).sum(axis=(1, 2)) / area) for tiles in (first, second))
    )
    structured = ((structure >= FLAT) & (visible.mean(axis=(1, 2)) >= 0.5)).reshape(len(one), 16)
    agree = (_correlation(first, second, visible) > 0.5).reshape(len(one), 16)
    return np.asarray((agree & structured).sum(axis=1) / np.maximum(structured.sum(axis=1), 1))


def _tiles(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """Tiles of a 4 × 4 grid, one after the other: (16 n, 8, 8) of (n, 32, 32)."""
    side = _CELLS // 4
    return pictures.reshape(-1, 4, side, 4, side).swapaxes(2, 3).reshape(-1, side, side)
