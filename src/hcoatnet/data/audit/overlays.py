"""Overlays: logos, watermarks, borders and rulers that stand at one place in many photos.

Two things betray them in the thumbnails of photos that otherwise have nothing in common. An opaque overlay has the same
colour at the same place in photo after photo; and its edges, also those of a watermark that lets the photo through,
point the same way at the same place. What photos show by themselves does neither: lesions stand in the middle of many
photos, but without an edge at one place.

Places are relative to the photo, so an overlay of fixed size in pixels is found among photos of equal size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage, stats

from hcoatnet.data.manifest import Manifest

FEWEST_PHOTOS = 20
"""Photos, of as many groups, that a class, a source or a size needs to be searched by itself."""

_SAME_COLOUR = 10  # levels of 255
_SHARE_OF_SAME_COLOUR = 0.8  # of photos, or of cells
_EDGE_STRENGTH = 3.0  # mean height of an edge, levels of 255
_SUSPECTED, _CERTAIN = 0.6, 1.5  # |mean| / deviation of an edge: among all photos, among those that seem to carry it
_SMALLEST_AREA = 6  # cells of the 64 × 64
_MATCH = 0.55  # correlation of a photo's edges with the overlay's
_SAME_REGION = 0.5  # overlap of two regions over their union
_GROUPS_AT_MOST = 2000  # photos that one search looks at

Cells = NDArray[np.bool_]
Grey = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Overlay:
    """One overlay, and the photos that carry it.

    Attributes:
        mask: Where it stands, (64, 64), in relative coordinates of the upright photo.
        found_in: What was searched when it was found: ``all photos``, or such as ``label red``.
        carriers: For each photo of the manifest, whether it carries the overlay.
        by: For ``label`` and each source column, the carriers and photos of every value.
        p: For each of these, p of the G-test that carrying and value are independent, over groups.
    """

    mask: Cells
    found_in: str
    carriers: Cells
    by: Mapping[str, Mapping[str, tuple[int, int]]]
    p: Mapping[str, float]

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the region, as shares of width and height."""
        rows, columns = np.nonzero(self.mask)
        side = self.mask.shape[0]
        return (
            float(columns.min() / side),
            float(rows.min() / side),
            float((columns.max() + 1) / side),
            float((rows.max() + 1) / side),
        )

    def goes_with(self, column: str) -> bool:
        """Whether some values of the column carry it clearly more often than others: a possible shortcut."""
        shares = [carriers / photos for carriers, photos in self.by[column].values() if photos]
        return len(shares) > 1 and max(shares) - min(shares) >= 0.1 and self.p[column] < 0.01


def find_overlays(
    photos: Manifest, thumbnails: NDArray[np.uint8], sources: Sequence[str] = ()
) -> tuple[tuple[Overlay, ...], dict[str, Cells]]:
    """Search all photos, each class, each source and each frequent photo size for overlays.

    Args:
        photos: The photos.
        thumbnails: Array (n, 64, 64, 3), each photo stretched to a square, in the order of the manifest.
        sources: Columns of the manifest that say where a photo comes from.

    Returns:
        The overlays, largest number of carriers first, and for every photo that carries some a mask (64, 64) of them.
    """
    grey = _grey(thumbnails)
    edges = _high_pass(grey)
    groups = photos.table["group"].to_numpy(dtype=object)
    overlays: list[Overlay] = []
    for name, rows in _partitions(photos.table, sources):
        sample = _one_a_group(rows, groups)
        if len(sample) < FEWEST_PHOTOS:
            continue
        for suspected in _regions(thumbnails[sample], edges[sample], _SUSPECTED):
            likely = _one_a_group(np.flatnonzero(_carriers(suspected, thumbnails, edges, sample)), groups)
            if len(likely) < FEWEST_PHOTOS // 2:
                continue
            mask = np.zeros_like(suspected)
            for region in _regions(thumbnails[likely], edges[likely], _CERTAIN):
                if (region & ndimage.binary_dilation(suspected, iterations=2)).any():
                    mask |= region
            if not mask.any() or any(_overlap(mask, known.mask) > _SAME_REGION for known in overlays):
                continue
            carriers = _carriers(mask, thumbnails, edges, likely)
            if len(set(groups[carriers])) >= FEWEST_PHOTOS // 2:
                overlays.append(_described(mask, name, carriers, photos.table, sources))
    overlays.sort(key=lambda overlay: (-int(overlay.carriers.sum()), overlay.box))
    masks: dict[str, Cells] = {}
    for overlay in overlays:
        wide = ndimage.binary_dilation(overlay.mask)
        for path in photos.table["path"][overlay.carriers]:
            masks[path] = masks[path] | wide if path in masks else wide
    return tuple(overlays), masks


def _grey(thumbnails: NDArray[np.uint8]) -> Grey:
    weights = np.array([0.299, 0.587, 0.114], dtype=np.float32)
    grey = np.empty(thumbnails.shape[:3], dtype=np.float32)
    for start in range(0, len(grey), 1024):  # in blocks, to keep the memory of large sets small
        grey[start : start + 1024] = thumbnails[start : start + 1024].astype(np.float32) @ weights
    return grey


def _high_pass(grey: Grey) -> Grey:
    """Each cell less the mean of the 5 × 5 around it."""
    return np.asarray(grey - ndimage.uniform_filter(grey, size=(0, 5, 5), mode="nearest"), dtype=np.float32)


def _partitions(table: pd.DataFrame, sources: Sequence[str]) -> list[tuple[str, NDArray[np.intp]]]:
    """What is searched: a name, and the rows of its photos."""
    parts = [("all photos", np.arange(len(table)))]
    sizes = table["width"].astype(str) + " × " + table["height"].astype(str)
    for column, values in {"label": table["label"], **{name: table[name] for name in sources}, "size": sizes}.items():
        counts = values.value_counts()
        if len(counts) > 1:
            frequent = sorted(str(value) for value in counts.index[counts >= FEWEST_PHOTOS])
            parts += [(f"{column} {value}", np.flatnonzero(values.to_numpy() == value)) for value in frequent]
    return parts


def _one_a_group(rows: NDArray[np.intp], groups: NDArray[np.object_]) -> NDArray[np.intp]:
    """The first photo of each group: photos of one patient share a background by themselves."""
    _, first = np.unique(groups[rows].astype(str), return_index=True)
    chosen = np.sort(first)
    if len(chosen) > _GROUPS_AT_MOST:
        chosen = chosen[np.linspace(0, len(chosen) - 1, _GROUPS_AT_MOST).astype(int)]
    return rows[chosen]


def _regions(thumbnails: NDArray[np.uint8], edges: Grey, consistency: float) -> list[Cells]:
    median = np.median(thumbnails, axis=0)
    same = np.zeros(thumbnails.shape[1:3])
    for thumbnail in thumbnails:
        same += (np.abs(thumbnail - median) <= _SAME_COLOUR).all(axis=-1)
    opaque = same >= _SHARE_OF_SAME_COLOUR * len(thumbnails)
    mean, deviation = edges.mean(axis=0), edges.std(axis=0)
    aligned = (np.abs(mean) >= _EDGE_STRENGTH) & (np.abs(mean) >= consistency * deviation)
    joined, count = ndimage.label(ndimage.binary_closing(np.pad(opaque | aligned, 2), np.ones((3, 3)))[2:-2, 2:-2])
    regions = [joined == number for number in range(1, count + 1)]
    return [region for region in regions if region.sum() >= _SMALLEST_AREA]


def _overlap(one: Cells, other: Cells) -> float:
    """Cells in both over cells in either."""
    return float((one & other).sum() / (one | other).sum())


def _carriers(mask: Cells, thumbnails: NDArray[np.uint8], edges: Grey, sample: NDArray[np.intp]) -> Cells:
    """Photos that look, within the region, as the median photo of the sample does: same edges, or same flat colour."""
    template = np.median(thumbnails[:, mask][sample], axis=0)
    distance = np.abs(thumbnails[:, mask] - template).max(axis=2)
    same_colour = (distance <= 2 * _SAME_COLOUR).mean(axis=1) >= _SHARE_OF_SAME_COLOUR
    around = ndimage.binary_dilation(mask)
    pattern = edges[:, around]
    expected = pattern[sample].mean(axis=0)
    if np.abs(expected).max() < _EDGE_STRENGTH:  # flat to its rim, which is the photo's: colour alone tells
        return np.asarray(same_colour)
    norms = np.linalg.norm(pattern, axis=1) * np.linalg.norm(expected)
    correlation = pattern @ expected / np.maximum(norms, 1e-9)
    strength = pattern @ expected / (expected @ expected)  # a watermark at half its strength still counts
    return np.asarray(((correlation >= _MATCH) & (strength >= 0.5)) | same_colour)


def _described(mask: Cells, found_in: str, carriers: Cells, table: pd.DataFrame, sources: Sequence[str]) -> Overlay:
    by: dict[str, dict[str, tuple[int, int]]] = {}
    p: dict[str, float] = {}
    per_group = table.assign(carries=carriers).drop_duplicates("group")
    for column in ("label", *sources):
        values = table[column]
        by[column] = {
            str(value): (int(carriers[rows].sum()), len(rows))
            for value, rows in ((value, np.flatnonzero(values == value)) for value in sorted(set(values)))
        }
        counts = pd.crosstab(per_group[column], per_group["carries"]).to_numpy()
        varies = min(counts.shape) > 1
        p[column] = float(stats.chi2_contingency(counts, lambda_="log-likelihood").pvalue) if varies else 1.0
    return Overlay(mask, found_in, carriers, by, p)
