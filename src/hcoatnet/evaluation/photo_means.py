"""Means over photos whose groups carry weights, for many sets of weights at once."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hcoatnet.evaluation.predictions import Floats, Integers


@dataclass(frozen=True, eq=False)
class PhotoMeans:
    """Quantities of the photos of one set, summed within groups, ready for any weights of the groups.

    Attributes:
        sums: Sum of each quantity over the photos of each group in each part of the set, shape (parts, groups).
        counts: Photos of each group in each part, shape (parts, groups).
    """

    sums: Mapping[str, Floats]
    counts: Floats

    def on(self, weights: Floats) -> dict[str, Floats]:
        """Mean of each quantity over each part, shape (parts, m), for weights of shape (groups, m); NaN where empty."""
        photos = self.counts @ weights
        return {
            name: np.divide(sums @ weights, photos, out=np.full(photos.shape, np.nan), where=photos > 0)
            for name, sums in self.sums.items()
        }


def photo_means(values: Mapping[str, Floats], parts: np.ndarray, group_of_photo: Integers) -> PhotoMeans:
    """Prepare quantities of photos for weights of their groups.

    Args:
        values: Each quantity's value for every photo, shape (n,).
        parts: Which photos each part of the set holds, boolean, shape (parts, n).
        group_of_photo: Index of each photo's group, shape (n,).
    """
    groups = int(group_of_photo.max()) + 1
    members = np.zeros((len(group_of_photo), groups))
    members[np.arange(len(group_of_photo)), group_of_photo] = 1
    return PhotoMeans({name: (parts * value) @ members for name, value in values.items()}, parts @ members)
