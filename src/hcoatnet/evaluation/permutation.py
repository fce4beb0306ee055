"""The permutation test of a gap between subgroups, over whole groups."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hcoatnet.evaluation.intervals import TIE
from hcoatnet.evaluation.predictions import Floats, Integers, Predictions
from hcoatnet.evaluation.resampling import BLOCK, Groups


@dataclass(frozen=True, eq=False)
class Outcome:
    """What is compared between the values of a column.

    Attributes:
        right: Share of the seeds and repeats that name each photo rightly, shape (n,).
        labels: Index of the true class, shape (n,).
        values: Index of the value, shape (n,).
        count: Number of values.
        compared: Those that take part.
    """

    right: Floats
    labels: Integers
    values: Integers
    count: int
    compared: tuple[int, ...]


@dataclass(frozen=True)
class TestedGap:
    """A gap between two values and its permutation p.

    Attributes:
        size: Largest minus smallest.
        best: Value with the largest metric.
        worst: Value with the smallest metric.
        p: (1 + permutations with a gap at least as large) / (1 + permutations).
    """

    size: float
    best: int
    worst: int
    p: float


def exchangeable_groups(groups: Groups, predictions: Predictions) -> list[Integers]:
    """Photos of the groups that may exchange their values, by stratum and number of photos.

    Returns:
        For each stratum and number of photos with at least two groups, the rows of their photos, shape (groups,
        photos of each), each group's sorted by path.
    """
    paths = predictions.table["path"].to_numpy(dtype=str)
    rows = np.lexsort((paths, groups.of_photo))
    sizes = np.bincount(groups.of_photo)
    photos_of_group = np.split(rows, np.cumsum(sizes)[:-1])
    cells = []
    for stratum, size in sorted(set(zip(groups.strata.tolist(), sizes.tolist(), strict=True))):
        members = np.flatnonzero((groups.strata == stratum) & (sizes == size))
        if len(members) > 1:
            cells.append(np.stack([photos_of_group[group] for group in members]))
    return cells


def permute_gaps(outcome: Outcome, cells: Sequence[Integers], permutations: int, seed: int) -> list[TestedGap]:
    """Largest gap in accuracy and in balanced accuracy, each with its permutation p.

    The null hypothesis: within a stratum and number of photos, which group has which values has nothing to do with its
    outcomes. The p is never too small for it, at any number of permutations (Phipson and Smyth 2010).

    Args:
        outcome: The photos.
        cells: From :func:`exchangeable_groups`.
        permutations: Number of random permutations.
        seed: Their seed.
    """
    rng = np.random.default_rng(seed)
    observed = _metrics(outcome, outcome.values[None])[:, 0]
    sizes = observed.max(axis=1) - observed.min(axis=1)
    as_large = np.zeros(len(observed), dtype=np.int64)
    for start in range(0, permutations, BLOCK):
        values = _permute(outcome.values, cells, min(BLOCK, permutations - start), rng)
        metrics = _metrics(outcome, values)
        as_large += (metrics.max(axis=2) - metrics.min(axis=2) >= sizes[:, None] - TIE).sum(axis=1)
    return [
        TestedGap(
            size=float(size),
            best=outcome.compared[int(metric.argmax())],
            worst=outcome.compared[int(metric.argmin())],
            p=float((1 + count) / (1 + permutations)),
        )
        for size, metric, count in zip(sizes, observed, as_large, strict=True)
    ]


def _permute(values: Integers, cells: Sequence[Integers], times: int, rng: np.random.Generator) -> Integers:
    """Values after ``times`` permutations, shape (times, n)."""
    permuted = np.tile(values, (times, 1))
    for cell in cells:
        order = rng.permuted(np.tile(np.arange(len(cell)), (times, 1)), axis=1)
        permuted[:, cell.ravel()] = values[cell][order].reshape(times, -1)
    return permuted


def _metrics(outcome: Outcome, values: Integers) -> Floats:
    """Accuracy and balanced accuracy of the compared values, shape (2, times, compared)."""
    times, classes = len(values), int(outcome.labels.max()) + 1
    places = ((np.arange(times)[:, None] * outcome.count + values) * classes + outcome.labels).ravel()
    shape = (times, outcome.count, classes)
    length = times * outcome.count * classes
    right = np.bincount(places, weights=np.tile(outcome.right, times), minlength=length).reshape(shape)
    photos = np.bincount(places, minlength=length).reshape(shape)
    accuracy = right.sum(axis=2) / photos.sum(axis=2)
    balanced = (right / np.maximum(photos, 1)).sum(axis=2) / (photos > 0).sum(axis=2)
    return np.stack([accuracy, balanced])[:, :, list(outcome.compared)]
