"""A perceptual hash for all eight flips and right-angle rotations at once, and the search over all pairs of it.

The hash is the signs of the lowest frequencies of the two-dimensional discrete cosine transform (DCT-II) of the grey
thumbnail, as in pHash (Zauner 2010, "Implementation and benchmarking of perceptual image hash functions") but without
its median. Mirroring a picture multiplies its coefficient (u, v) by (−1)^v, turning it upside down by (−1)^u, and
transposing the picture transposes them. So one DCT gives the hashes of all eight variants of a photo.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hcoatnet.data.audit.pixels import SIDE
from hcoatnet.data.manifest import Progress

FREQUENCIES = 8
"""Coefficients (u, v) with both below this make the hash, all but (0, 0): 63 bits."""

VARIANTS = 8
"""Flips and right-angle rotations of a square; number 0 leaves it as it is. See `turn`."""

NEIGHBOURS = 32
"""Pairs kept of one photo at most, the nearest; beyond that the hash says nothing about this photo."""

_RED_GREEN_BLUE = np.array([299.0, 587.0, 114.0])  # thousandths, ITU-R BT.601
_SCALE = 1 << 10
_BLOCK = 1024
_THUMBNAILS = 512


@dataclass(frozen=True, eq=False)
class HashPairs:
    """Pairs of photos whose hashes are near, each once, with the first index below the second; sorted.

    Attributes:
        pairs: Indices, (m, 2).
        distances: Bits that differ in the nearest variant, (m,).
        crowded: Photos, by index, of which more than `NEIGHBOURS` pairs were near; only the nearest were kept.
    """

    pairs: NDArray[np.int64]
    distances: NDArray[np.int64]
    crowded: NDArray[np.int64]


def grey_of(thumbnails: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Luma in thousandths, whole numbers: array (..., S, S) of (..., S, S, 3)."""
    return np.asarray(thumbnails.astype(np.float64) @ _RED_GREEN_BLUE)


def coefficients_of(grey: NDArray[np.float64]) -> NDArray[np.float64]:
    """The lowest DCT-II coefficients of grey thumbnails, up to a common factor.

    The cosines are rounded to 1 / 1024 and all sums are of integers below 2⁵³, so that the coefficients of a flipped
    thumbnail are exactly those of the thumbnail with signs changed, and not only up to rounding.

    Args:
        grey: Whole numbers, at most 255,000; array (n, 64, 64).

    Returns:
        Array (n, 8, 8).
    """
    basis = _basis()
    return np.asarray(basis @ grey @ basis.T)


def hashes_of(thumbnails: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Hashes of thumbnails in each variant.

    Args:
        thumbnails: Array (n, 64, 64, 3).

    Returns:
        Array (n, 8): column v is the hash of ``turn(thumbnail, v)``.
    """
    found = np.empty((len(thumbnails), VARIANTS), np.uint64)
    for start in range(0, len(thumbnails), _THUMBNAILS):
        block = slice(start, start + _THUMBNAILS)
        coefficients = coefficients_of(grey_of(thumbnails[block]))
        for variant in range(VARIANTS):
            found[block, variant] = _signs(_turn_coefficients(coefficients, variant))
    return found


def turn(picture: NDArray[np.generic], variant: int) -> NDArray[np.generic]:
    """One of the eight variants of a picture (S, S, ...): transposed (4), then upside down (2), then mirrored (1)."""
    if variant & 4:
        picture = picture.swapaxes(0, 1)
    return picture[:: -1 if variant & 2 else 1, :: -1 if variant & 1 else 1]


def nearest_variant(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Distance in bits between each photo as it is and each variant of another: (n, 8) of two arrays (n, 8)."""
    return np.asarray(np.bitwise_count(one[:, :1] ^ other), np.int64)


def near_pairs(hashes: NDArray[np.uint64], most: int, progress: Progress | None = None) -> HashPairs:
    """All pairs whose hashes differ in at most ``most`` bits in some variant, by exhaustive search in blocks.

    Comparing one photo as it is with the eight variants of the other covers all 64 combinations, as the variants are
    a group. Memory is bounded by the blocks and by `NEIGHBOURS` pairs a photo.

    Args:
        hashes: As `hashes_of` gives them, (n, 8).
        most: Largest distance, in bits of 63.
        progress: Called with the photos done and all.
    """
    count = len(hashes)
    starts = range(0, count, _BLOCK)
    found = []
    with ThreadPoolExecutor() as pool:
        for start, block in zip(starts, pool.map(lambda start: _near_block(hashes, start, most), starts), strict=True):
            found.append(block)
            if progress is not None:
                progress(min(start + _BLOCK, count), count)
    rows = np.concatenate(found) if found else np.zeros((0, 3), np.int64)
    return _nearest_of_each(rows, count)


def _near_block(hashes: NDArray[np.uint64], start: int, most: int) -> NDArray[np.int64]:
    """Rows (first, second, distance) with the first photo in one block; at most `NEIGHBOURS` + 1 of each first."""
    own = np.ascontiguousarray(hashes[start : start + _BLOCK, 0])
    kept = [np.zeros((0, 3), np.int64)]
    for other in range(start, len(hashes), _BLOCK):
        block = hashes[other : other + _BLOCK]
        distance = np.full((len(own), len(block)), 64, np.uint8)
        for variant in range(VARIANTS):
            np.minimum(distance, np.bitwise_count(own[:, None] ^ block[None, :, variant]), out=distance)
        first, second = np.nonzero(distance <= most)
        rows = np.stack([first + start, second + other, distance[first, second]], axis=1).astype(np.int64)
        kept.append(rows[rows[:, 0] < rows[:, 1]])
        if sum(map(len, kept)) > 4 * NEIGHBOURS * _BLOCK:
            kept = [_first_of_each(np.concatenate(kept), 0)]
    return _first_of_each(np.concatenate(kept), 0)


def _first_of_each(rows: NDArray[np.int64], column: int, most: int = NEIGHBOURS + 1) -> NDArray[np.int64]:
    """The nearest rows of each photo in a column; of equal distance, those of lower indices."""
    rows = rows[np.lexsort((rows[:, 1 - column], rows[:, 2], rows[:, column]))]
    return rows[_rank_within(rows[:, column]) < most]


def _rank_within(ordered: NDArray[np.int64]) -> NDArray[np.int64]:
    """Place of every element among the equal ones before it, in an ordered array."""
    if not len(ordered):
        return ordered
    begins = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    lengths = np.diff(np.r_[begins, len(ordered)])
    return np.arange(len(ordered)) - np.repeat(begins, lengths)


def _nearest_of_each(rows: NDArray[np.int64], count: int) -> HashPairs:
    both = np.concatenate([rows, rows[:, [1, 0, 2]]])
    counts = np.bincount(both[:, 0], minlength=count)
    both = _first_of_each(both, 0, NEIGHBOURS)
    both[:, :2] = np.sort(both[:, :2], axis=1)
    pairs = np.unique(both, axis=0)
    return HashPairs(pairs[:, :2], pairs[:, 2], np.flatnonzero(counts > NEIGHBOURS))


@lru_cache(maxsize=1)
def _basis() -> NDArray[np.float64]:
    """Rows of the DCT-II, rounded, and exactly even or odd: (8, 64)."""
    frequency = np.arange(FREQUENCIES)[:, None]
    place = np.arange(SIDE // 2)[None, :]
    half = np.rint(_SCALE * np.cos(np.pi * (2 * place + 1) * frequency / (2 * SIDE)))
    return np.concatenate([half, (-1.0) ** frequency * half[:, ::-1]], axis=1)


def _turn_coefficients(coefficients: NDArray[np.float64], variant: int) -> NDArray[np.float64]:
    signs = (-1.0) ** np.arange(FREQUENCIES)
    if variant & 4:
        coefficients = coefficients.swapaxes(-1, -2)
    if variant & 2:
        coefficients = coefficients * signs[:, None]
    return coefficients * signs if variant & 1 else coefficients


def _signs(coefficients: NDArray[np.float64]) -> NDArray[np.uint64]:
    """One bit a coefficient, 1 where it is positive, all but (0, 0)."""
    bits = (coefficients > 0).reshape(len(coefficients), -1)
    bits[:, 0] = False
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]
