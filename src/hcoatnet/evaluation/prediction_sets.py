"""From probabilities to prediction sets: the scores of conformal prediction, and where they meet a threshold.

The thresholds come from :mod:`hcoatnet.evaluation.conformal`. What is here needs NumPy alone, so that a server that
applies them needs nothing else.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from hcoatnet.errors import EvidenceError

Method = Literal["lac", "aps"]
Floats = npt.NDArray[np.float64]
Sets = npt.NDArray[np.bool_]

METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True)
class Thresholds:
    """What turns probabilities into sets.

    Attributes:
        method: The score.
        level: The coverage that is aimed at, 1 − α.
        class_conditional: Whether each class has a threshold of its own, so that the level is aimed at in each.
        values: Threshold of each class, in the order of the probabilities; all equal unless class-conditional.
        photos: Number of calibration photos.
        groups: Number of their groups.
    """

    method: Method
    level: float
    class_conditional: bool
    values: tuple[float, ...]
    photos: int
    groups: int


def lac_scores(probabilities: Floats) -> Floats:
    """1 − p of each class, shape (n, classes): small where the class is likely (Sadinle et al. 2019)."""
    return 1 - probabilities


def aps_scores(probabilities: Floats) -> Floats:
    """Sum of the probabilities that are at least as large as that of the class, shape (n, classes).

    Romano et al. (2020), without the random term. Classes of equal probability share a score, so that the order
    of the classes does not matter.
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ranked = np.take_along_axis(probabilities, order, axis=1)
    # Summed from the largest down, so that no sum depends on the order of the classes, down to the last bit.
    sums = np.minimum(np.cumsum(ranked, axis=1), 1.0)
    for rank in range(ranked.shape[1] - 2, -1, -1):
        equal = ranked[:, rank] == ranked[:, rank + 1]
        sums[equal, rank] = sums[equal, rank + 1]
    scores = np.empty_like(sums)
    np.put_along_axis(scores, order, sums, axis=1)
    return scores


def prediction_sets(probabilities: Floats, thresholds: Thresholds) -> Sets:
    """Which classes are in the set of each photo, shape (n, classes).

    The classes whose score is at most the threshold. A LAC set can be empty, which says that no class is likely enough.
    An APS set always holds the most probable class: without that, the photos the model is surest of would get none.

    Raises:
        EvidenceError: The thresholds are for another number of classes.
    """
    values = np.array(thresholds.values)
    if probabilities.ndim != 2 or probabilities.shape[1] != len(values):
        raise EvidenceError(
            f"The thresholds are for {len(values)} classes; the probabilities have shape {probabilities.shape}. "
            "Use the calibration of the same model."
        )
    if thresholds.method == "lac":
        sets: Sets = lac_scores(probabilities) <= values
        return sets
    sets = aps_scores(probabilities) <= values
    sets |= probabilities == probabilities.max(axis=1, keepdims=True)
    return sets
