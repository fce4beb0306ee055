"""Descriptors that say which photos may show the same picture, so that not every pair has to be laid over each other.

The descriptor of a photo is a VLAD (Jégou et al. 2010, "Aggregating local descriptors into a compact image
representation") of its SIFT features: for each word of a codebook the sum of the differences to it, made unit length.
It needs no training on photos: words and axes are found once, from drawn noise with the spectrum of natural pictures
(amplitude 1 / f^a), so they are the same for every set of photos and descriptors can be kept from run to run.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hcoatnet.data.audit.verification import LocalFeatures, local_of_grey, mirror_descriptors, root_sift
from hcoatnet.data.manifest import Progress

DESCRIPTOR_VERSION = "1"
"""Changes whenever `describe` would give other values."""

WORDS = 64
AXES = 16

_DRAWN_PICTURES = 48
_DRAWN_SIDE = 160
_BLOCK_CELLS = 1 << 22
_first_makes_it = threading.Lock()


@dataclass(frozen=True, eq=False)
class Codebook:
    """Axes of the descriptor space and the words in it.

    Attributes:
        mean: Mean RootSIFT descriptor, (128,).
        axes: Leading principal axes, (128, 16).
        words: Centres in these axes, (64, 16).
    """

    mean: NDArray[np.float32]
    axes: NDArray[np.float32]
    words: NDArray[np.float32]


def describe(local: LocalFeatures) -> NDArray[np.float16]:
    """Descriptor of a photo, the same for all its flips and rotations but for rounding.

    SIFT is relative to each point's direction, so a rotation changes nothing; the descriptors of the photo and of its
    mirror image are added.

    Returns:
        Array (1024,) of length 1; zeros for a photo without features.
    """
    both = _vlad(local.descriptors) + _vlad(mirror_descriptors(local.descriptors))
    return np.asarray(both / max(float(np.linalg.norm(both)), 1e-9), np.float16)


def nearest_pairs(
    described: NDArray[np.float16], neighbours: int, progress: Progress | None = None
) -> NDArray[np.int64]:
    """Pairs in which one photo is among the nearest of the other, by cosine; exhaustive, in blocks.

    Args:
        described: Descriptors of length 1 or 0, (n, d).
        neighbours: Nearest photos kept of each.
        progress: Called with the photos done and all.

    Returns:
        Indices (m, 2), each pair once, the lower first; sorted.
    """
    count = len(described)
    values = described.astype(np.float32)
    step = max(1, _BLOCK_CELLS // max(count, 1))
    starts = range(0, count, step)
    found = []
    with ThreadPoolExecutor() as pool:
        blocks = pool.map(lambda start: _nearest_block(values, start, step, neighbours), starts)
        for start, pairs in zip(starts, blocks, strict=True):
            found.append(pairs)
            if progress is not None:
                progress(min(start + step, count), count)
    pairs = np.concatenate(found) if found else np.zeros((0, 2), np.int64)
    return np.unique(np.sort(pairs, axis=1), axis=0)


def _nearest_block(values: NDArray[np.float32], start: int, step: int, neighbours: int) -> NDArray[np.int64]:
    block = values[start : start + step]
    cosine = block @ values.T
    rows = np.arange(len(block))
    cosine[rows, rows + start] = -2
    most = min(neighbours, len(values) - 1)
    if most < 1:
        return np.zeros((0, 2), np.int64)
    nearest = np.argpartition(-cosine, most - 1, axis=1)[:, :most]
    near = np.take_along_axis(cosine, nearest, axis=1) > 0
    return np.stack([np.repeat(rows + start, most)[near.ravel()], nearest[near]], axis=1)


def _vlad(descriptors: NDArray[np.uint8]) -> NDArray[np.float32]:
    book = codebook()
    total = np.zeros((WORDS, AXES), np.float32)
    if len(descriptors):
        reduced = (root_sift(descriptors) - book.mean) @ book.axes
        nearest = (reduced @ book.words.T - 0.5 * (book.words**2).sum(axis=1)).argmax(axis=1)
        np.add.at(total, nearest, reduced - book.words[nearest])
        total /= np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-9)
    return np.asarray(total.ravel() / max(float(np.linalg.norm(total)), 1e-9))


def codebook() -> Codebook:
    """The codebook: the same on every run, as the pictures are drawn from fixed seeds."""
    with _first_makes_it:
        return _make_codebook()


@lru_cache(maxsize=1)
def _make_codebook() -> Codebook:
    from sklearn.cluster import KMeans

    drawn = root_sift(np.concatenate([local_of_grey(_noise(seed)).descriptors for seed in range(_DRAWN_PICTURES)]))
    mean = drawn.mean(axis=0)
    axes = np.linalg.eigh(np.cov(drawn.T))[1][:, : -AXES - 1 : -1].astype(np.float32)
    words = KMeans(WORDS, n_init=1, max_iter=30, random_state=0).fit((drawn - mean) @ axes).cluster_centers_
    return Codebook(mean, np.ascontiguousarray(axes), words.astype(np.float32))


def _noise(seed: int) -> NDArray[np.uint8]:
    """Grey noise whose amplitude falls with frequency as 1 / f^a, a between 1 and 2, as in natural pictures."""
    draws = np.random.default_rng(seed)
    spectrum = np.fft.rfft2(draws.normal(size=(_DRAWN_SIDE, _DRAWN_SIDE)))
    frequency = np.hypot(np.fft.fftfreq(_DRAWN_SIDE)[:, None], np.fft.rfftfreq(_DRAWN_SIDE)[None, :])
    frequency[0, 0] = np.inf
    grey = np.fft.irfft2(spectrum / frequency ** draws.uniform(1, 2))
    return np.asarray(np.rint(255 * (grey - grey.min()) / (grey.max() - grey.min())), np.uint8)
