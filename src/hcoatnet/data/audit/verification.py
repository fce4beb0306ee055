"""The geometric check: whether one photo is a flipped, turned, cropped or recoloured copy of another.

Local features (SIFT: Lowe 2004, "Distinctive image features from scale-invariant keypoints") of both are matched, an
affine map is fitted to the matches by RANSAC, and the photos are compared where the map lays them over each other. The
last step is what tells a copy from another photo with the same ruler, logo or surroundings.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hcoatnet.errors import DataError

VERIFICATION_VERSION = "1"
"""Changes whenever `extract_local` or `align` would give other values."""

LONGEST_SIDE = 160
"""Photos are scaled down to this before features are looked for, in pixels."""

SMOOTHING = 1.0
"""Standard deviation of the Gaussian blur before that, in pixels: it takes away what blur, noise and JPEG change."""

MOST_POINTS = 200

LEAST_INLIERS = 8
LEAST_SHARE = 0.25
LEAST_SPREAD = 0.08
LEAST_OVERLAP = 0.3
LEAST_CORRELATION = 0.9
LEAST_AGREEING = 0.75

_RATIO = 0.9
_TOLERANCE = 3.0
_SCALES = (0.4, 2.5)
_STRETCH = 2.0
_BACKGROUND = 15.0
_FINE = 1.2
_TILES = 6
_LEAST_TILE_PIXELS = 40
_FLAT = 1.5
_DARK, _BRIGHT = 12, 250
_RIM = 3


@dataclass(frozen=True, eq=False)
class LocalFeatures:
    """A photo as the geometric check sees it.

    Attributes:
        grey: Luma of the photo, scaled down and smoothed, (h, w) uint8.
        visible: Where it is neither masked nor filled up, as the corners of a turned photo are, (h, w) bool.
        points: Places x, y of the features in ``grey``, (k, 2) float32.
        descriptors: SIFT descriptors, (k, 128) uint8.
    """

    grey: NDArray[np.uint8]
    visible: NDArray[np.bool_]
    points: NDArray[np.float32]
    descriptors: NDArray[np.uint8]


@dataclass(frozen=True)
class Alignment:
    """How well one photo can be laid over another.

    Attributes:
        inliers: Matches that agree with the map.
        share: Their share of all matches.
        spread: How far they are spread over the overlap: the shorter half-axis (one standard deviation) of their cloud
            as a share of the square root of the overlap's area; 0.29 if they fill a square evenly.
        overlap: Area in which both photos are seen, as a share of the smaller one.
        correlation: Pearson correlation of the two over the overlap, slow changes of brightness taken out.
        agreeing: Share of the tiles with any structure in which the two correlate by more than 0.5.
    """

    inliers: int
    share: float
    spread: float
    overlap: float
    correlation: float
    agreeing: float

    @property
    def is_copy(self) -> bool:
        """Whether all of it together proves a copy. The limits were tuned on half of PAD-UFES-20 by patient."""
        return (
            self.inliers >= LEAST_INLIERS
            and self.share >= LEAST_SHARE
            and self.spread >= LEAST_SPREAD
            and self.overlap >= LEAST_OVERLAP
            and self.correlation >= LEAST_CORRELATION
            and self.agreeing >= LEAST_AGREEING
        )


NO_ALIGNMENT = Alignment(0, 0.0, 0.0, 0.0, 0.0, 0.0)


def opencv_is_installed() -> bool:
    """Whether the geometric check can be made."""
    try:
        _cv2()
    except DataError:
        return False
    return True


def extract_local(photo: Image.Image, mask: NDArray[np.bool_] | None = None) -> LocalFeatures:
    """Local features of a photo.

    Args:
        photo: Upright RGB photo.
        mask: Parts to leave out, such as a logo: True in an array of any size, stretched over the photo.

    Raises:
        DataError: If OpenCV is not installed.
    """
    cv2 = _cv2()
    pixels = np.asarray(photo)
    height, width = pixels.shape[:2]
    scale = min(1.0, LONGEST_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if scale < 1:
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    sharp = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    return _local_of(cv2, sharp, _where_seen(cv2, sharp, mask))


def local_of_grey(grey: NDArray[np.uint8]) -> LocalFeatures:
    """As `extract_local`, of a grey picture that is small enough already."""
    return _local_of(_cv2(), grey, np.ones(grey.shape, bool))


def mirror_descriptors(descriptors: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Descriptors of the same points in the mirrored photo.

    A SIFT descriptor is a histogram over 4 × 4 places and 8 directions, relative to the point's own direction: in a
    mirror the places change sides and the directions change sign.
    """
    return descriptors[:, _mirror_order()]


def align(one: LocalFeatures, other: LocalFeatures) -> Alignment:
    """Lay ``other``, as it is or mirrored, over ``one``, and compare them. The result is the same on every run."""
    cv2 = _cv2()
    best: tuple[int, int, bool, Any, Any] = (0, 1, False, None, None)
    for mirrored in (False, True):
        points, descriptors = other.points, other.descriptors
        if mirrored:
            points = points * np.array([-1, 1], np.float32) + np.array([other.grey.shape[1] - 1, 0], np.float32)
            descriptors = mirror_descriptors(descriptors)
        first, second = _matches(one.descriptors, descriptors)
        if len(first) < LEAST_INLIERS:
            continue
        affine, inside = cv2.estimateAffine2D(
            points[second], one.points[first], method=cv2.RANSAC, ransacReprojThreshold=_TOLERANCE,
            maxIters=1000, confidence=0.999,
        )  # fmt: skip
        if affine is None or not _is_plausible(affine):
            continue
        chosen = inside[:, 0] > 0
        if int(chosen.sum()) > best[0]:
            best = int(chosen.sum()), len(first), mirrored, affine, one.points[first][chosen]
    inliers, matches, mirrored, affine, places = best
    if inliers < LEAST_INLIERS:
        return NO_ALIGNMENT
    return _compare(cv2, one, other, mirrored, affine, places, inliers / matches)


def _compare(
    cv2: Any, one: LocalFeatures, other: LocalFeatures, mirrored: bool, affine: Any, places: Any, share: float
) -> Alignment:
    grey, visible = other.grey, other.visible.astype(np.uint8)
    if mirrored:
        grey, visible = np.ascontiguousarray(grey[:, ::-1]), np.ascontiguousarray(visible[:, ::-1])
    height, width = one.grey.shape
    laid = cv2.warpAffine(grey, affine, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    both = (cv2.warpAffine(visible, affine, (width, height), flags=cv2.INTER_NEAREST) > 0) & one.visible
    area = int(both.sum())
    scale = abs(np.linalg.det(affine[:, :2]))
    smaller = min(one.visible.sum(), visible.sum() * scale)
    if area < _LEAST_TILE_PIXELS or smaller <= 0:
        return NO_ALIGNMENT
    axes = np.linalg.eigvalsh(np.cov(places.T))
    spread = float(np.sqrt(max(axes[0], 0.0) / area))
    first, second = _detail(cv2, one.grey, both), _detail(cv2, laid, both)
    overlap = min(1.0, area / smaller)
    agreeing = _agreeing_tiles(first, second, both)
    return Alignment(len(places), share, spread, overlap, _correlation(first[both], second[both]), agreeing)


def _matches(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Mutual nearest neighbours that are clearly nearer than the second nearest (Lowe's ratio test), by RootSIFT."""
    if len(one) < 2 or len(other) < 2:
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    similarity = root_sift(one) @ root_sift(other).T
    nearest = similarity.argmax(axis=1)
    rows = np.arange(len(one))
    top_two = np.partition(similarity, -2, axis=1)[:, -2:]
    distance = np.sqrt(np.maximum(2 - 2 * top_two, 0))  # (second nearest, nearest)
    good = (distance[:, 1] < _RATIO * distance[:, 0]) & (similarity.argmax(axis=0)[nearest] == rows)
    return np.flatnonzero(good), nearest[good]


def root_sift(descriptors: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Square roots of the descriptors' shares (Arandjelović and Zisserman 2012): rows of length 1."""
    values = descriptors.astype(np.float32)
    return np.asarray(np.sqrt(values / np.maximum(values.sum(axis=1, keepdims=True), 1)))


def _is_plausible(affine: NDArray[np.float64]) -> bool:
    """Whether a map neither scales nor stretches more than stored copies do; a mirror is handled before."""
    small, large = sorted(np.linalg.svd(affine[:, :2], compute_uv=False))
    inside = _SCALES[0] <= small and large <= _SCALES[1]
    return bool(inside and large <= _STRETCH * small and np.linalg.det(affine[:, :2]) > 0)


def _detail(cv2: Any, grey: NDArray[np.uint8], where: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The picture without what blur takes away, and without the slow changes that unrelated photos of skin share."""
    weight = where.astype(np.float32)
    fine = cv2.GaussianBlur(grey, (0, 0), _FINE)
    slow = cv2.GaussianBlur(grey * weight, (0, 0), _BACKGROUND)
    slow /= np.maximum(cv2.GaussianBlur(weight, (0, 0), _BACKGROUND), 1e-3)
    return np.asarray(fine - slow, np.float32)


def _correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    one, other = one - one.mean(), other - other.mean()
    norm = float(np.sqrt((one * one).sum() * (other * other).sum()))
    return float((one * other).sum() / norm) if norm > 0 else 0.0


def _agreeing_tiles(one: NDArray[np.float32], other: NDArray[np.float32], both: NDArray[np.bool_]) -> float:
    """Share of tiles of a 6 × 6 grid that correlate by more than 0.5; tiles flat in both photos are left out."""
    agree = structured = 0
    for rows in np.array_split(np.arange(both.shape[0]), _TILES):
        for columns in np.array_split(np.arange(both.shape[1]), _TILES):
            if not (len(rows) and len(columns)):
                continue
            tile = np.ix_(rows, columns)
            here = both[tile]
            first, second = one[tile][here], other[tile][here]
            if here.sum() < _LEAST_TILE_PIXELS or max(first.std(), second.std()) < _FLAT:
                continue
            structured += 1
            agree += _correlation(first, second) > 0.5
    return agree / structured if structured else 0.0


def _local_of(cv2: Any, sharp: NDArray[np.uint8], visible: NDArray[np.bool_]) -> LocalFeatures:
    grey = cv2.GaussianBlur(sharp, (0, 0), SMOOTHING)
    points, descriptors = _sift().detectAndCompute(grey, None)
    places = np.array([point.pt for point in points], np.float32).reshape(-1, 2)
    if not len(places):
        return LocalFeatures(grey, visible, places, np.zeros((0, 128), np.uint8))
    across = np.clip(np.rint(places[:, 0]).astype(int), 0, grey.shape[1] - 1)
    down = np.clip(np.rint(places[:, 1]).astype(int), 0, grey.shape[0] - 1)
    kept = np.flatnonzero(visible[down, across])[:MOST_POINTS]
    return LocalFeatures(grey, visible, places[kept], np.rint(descriptors[kept]).astype(np.uint8))


def _where_seen(cv2: Any, grey: NDArray[np.uint8], mask: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """Pixels that are neither masked nor near a black or white area at the photo's edge."""
    filled = np.zeros(grey.shape, np.uint8)
    for level in (grey < _DARK, grey > _BRIGHT):
        _, areas = cv2.connectedComponents(level.astype(np.uint8))
        edge = np.unique(np.concatenate([areas[0], areas[-1], areas[:, 0], areas[:, -1]]))
        filled |= np.isin(areas, edge[edge > 0]).astype(np.uint8)
    seen = cv2.dilate(filled, np.ones((2 * _RIM + 1, 2 * _RIM + 1), np.uint8)) == 0
    if not seen.any():
        seen[:] = True
    if mask is not None:
        stretched = cv2.resize(mask.astype(np.uint8), grey.shape[::-1], interpolation=cv2.INTER_NEAREST)
        seen &= stretched == 0
    return np.asarray(seen)


@lru_cache(maxsize=1)
def _mirror_order() -> NDArray[np.intp]:
    places = np.arange(128).reshape(4, 4, 8)
    return places[::-1][..., -np.arange(8) % 8].reshape(-1)


def _sift() -> Any:
    return _cv2().SIFT_create(
        nfeatures=MOST_POINTS, contrastThreshold=0.003, edgeThreshold=15, enable_precise_upscale=True
    )


def _cv2() -> Any:
    try:
        import cv2
    except ImportError as error:
        message = "The geometric check needs OpenCV. Install it with `pip install 'hcoatnet[audit]'`."
        raise DataError(message) from error
    return cv2
