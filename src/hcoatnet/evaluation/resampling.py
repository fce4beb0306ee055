"""The stratified bootstrap over groups: which groups each draw holds.

Photos of one patient resemble each other, so the group is what is drawn, with all its photos. Groups are drawn with
replacement within strata, so that no draw lacks the rarest class. One :class:`Resampling` serves all models, seeds and
metrics of a comparison; that is what makes differences paired.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from hcoatnet.evaluation.intervals import Resampled
from hcoatnet.evaluation.predictions import Floats, Integers, Predictions

BLOCK = 256
"""Resamples that are computed at once: bounds the memory, whatever the number of draws."""


class Weighable(Protocol):
    """What can be computed from weights of the groups, such as ``PhotoMetrics``."""

    def on(self, weights: Floats) -> dict[str, Floats]:
        """Figures for weights of shape (groups, m): each has m as its last axis."""
        ...


@dataclass(frozen=True, eq=False)
class Groups:
    """The groups of a set of photos.

    Groups and strata are numbered by what they hold, not by their names or by the order of the rows, so that the same
    photos give the same draws under any naming of groups and classes.

    Attributes:
        of_photo: Group of each photo, shape (n,), numbered in the order of each group's first path.
        strata: Stratum of each group, shape (groups,): its rarest label, the rarest label of the set being 0.
    """

    of_photo: Integers
    strata: Integers


@dataclass(frozen=True, eq=False)
class Resampling:
    """A sample of groups, its bootstrap draws, and the sample without each group in turn.

    Attributes:
        groups: The groups.
        counts: How often each draw holds each group, shape (draws, groups).
    """

    groups: Groups
    counts: npt.NDArray[np.uint16]

    def values_of(self, metrics: Weighable) -> dict[str, Floats]:
        """Every value on the sample, on every draw, and without each group: the last axis, 1 + draws + groups long."""
        blocks = [metrics.on(weights) for weights in self._weights()]
        return {name: np.concatenate([block[name] for block in blocks], axis=-1) for name in blocks[0]}

    def statistic(self, values: Floats) -> Resampled:
        """One value of :meth:`values_of`, shape (1 + draws + groups,), cut into its three parts."""
        draws = len(self.counts)
        return Resampled(float(values[0]), values[1 : 1 + draws], values[1 + draws :], self.groups.strata)

    def mean_of(self, replicates: Sequence[Weighable]) -> dict[str, Floats]:
        """Mean over replicates (at least one) of all that :meth:`values_of` gives; NaN where one of them is."""
        total = self.values_of(replicates[0])
        for metrics in replicates[1:]:
            for name, values in self.values_of(metrics).items():
                total[name] += values
        return {name: values / len(replicates) for name, values in total.items()}

    def _weights(self) -> Iterator[Floats]:
        """Blocks of columns of weights of the groups, shape (groups, ≤ BLOCK)."""
        number = len(self.groups.strata)
        yield np.ones((number, 1))
        for start in range(0, len(self.counts), BLOCK):
            yield np.ascontiguousarray(self.counts[start : start + BLOCK].T, dtype=np.float64)
        for start in range(0, number, BLOCK):
            left_out = np.arange(start, min(start + BLOCK, number))
            weights = np.ones((number, len(left_out)))
            weights[left_out, np.arange(len(left_out))] = 0
            yield weights


def resample(predictions: Predictions, draws: int, seed: int) -> Resampling:
    """Draw the groups of a table, with replacement within strata, ``draws`` times.

    A stratum holds the groups with the same rarest label: the one with the fewest photos in the whole table (then the
    fewest groups, then the first path). Every draw holds as many groups of each stratum as the table. A stratum of one
    group is always drawn whole: nothing can be said of how such photos vary.
    """
    groups = find_groups(predictions)
    rng = np.random.default_rng(seed)
    number = len(groups.strata)
    members = [np.flatnonzero(groups.strata == stratum) for stratum in np.unique(groups.strata)]
    counts = np.empty((draws, number), dtype=np.uint16)
    for start in range(0, draws, BLOCK):
        size = min(BLOCK, draws - start)
        drawn = np.concatenate([of[rng.integers(len(of), size=(size, len(of)))] for of in members], axis=1)
        places = drawn + number * np.arange(size)[:, None]
        counts[start : start + size] = np.bincount(places.ravel(), minlength=size * number).reshape(size, number)
    return Resampling(groups, counts)


def find_groups(predictions: Predictions) -> Groups:
    """Groups and strata of a table (see :func:`resample`)."""
    paths = predictions.table["path"].to_numpy(dtype=str)
    place = np.argsort(np.argsort(paths, kind="stable"))
    of_photo = _number_by_first(predictions.groups, place)
    labels = predictions.labels
    classes = len(predictions.classes)
    photos = np.bincount(labels, minlength=classes)
    pairs = np.unique(np.stack([labels, of_photo]), axis=1)
    in_groups = np.bincount(pairs[0], minlength=classes)
    first = np.full(classes, len(labels))
    np.minimum.at(first, labels, place)
    rarity = np.empty(classes, dtype=np.int64)
    rarity[np.lexsort((first, in_groups, photos))] = np.arange(classes)
    strata = np.full(int(of_photo.max()) + 1, classes)
    np.minimum.at(strata, of_photo, rarity[labels])
    return Groups(of_photo, strata)


def _number_by_first(names: npt.NDArray[np.object_], place: Integers) -> Integers:
    """Number the names in the order of their first place, whatever they are."""
    _, index = np.unique(names.astype(str), return_inverse=True)
    first = np.full(int(index.max()) + 1, len(names))
    np.minimum.at(first, index, place)
    numbers: Integers = np.argsort(np.argsort(first))[index]
    return numbers
