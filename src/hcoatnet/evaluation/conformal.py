"""Conformal prediction sets: several classes for a photo, so that the true one is among them at a chosen rate.

Split conformal prediction (Vovk et al. 2005; Angelopoulos and Bates 2021) with two scores: LAC (least ambiguous
classifier; Sadinle, Lei and Wasserman 2019) and APS (adaptive prediction sets; Romano, Sesia and Candès 2020). Both are
used without randomisation: the same photo always gets the same set.

The promise needs exchangeable units. Photos of one patient are not exchangeable with those of the next, groups are. So
the threshold is the quantile over groups of Lee, Barber and Willett (2023): each group weighs 1, divided evenly among
its photos. Where each group has one photo this is the ordinary quantile of index ⌈(n + 1)(1 − α)⌉. What is promised is
coverage of a photo drawn at random from a new group.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from hcoatnet.errors import EvidenceError
from hcoatnet.evaluation.calibration import DRAWS, calibrated_arm
from hcoatnet.evaluation.evidence import Arm, Cell
from hcoatnet.evaluation.intervals import Estimate, Interval, estimate, wilson
from hcoatnet.evaluation.photo_means import photo_means
from hcoatnet.evaluation.prediction_sets import (
    METHODS,
    Floats,
    Method,
    Sets,
    Thresholds,
    aps_scores,
    lac_scores,
    prediction_sets,
)
from hcoatnet.evaluation.predictions import Integers, Predictions, check_probabilities
from hcoatnet.evaluation.resampling import Resampling, resample

Groups = npt.NDArray[np.object_]

LEVELS = (0.90, 0.95)
ROUNDING = 1e-9


@dataclass(frozen=True)
class SetFigures:
    """How prediction sets did on some test photos.

    Attributes:
        photos: Number of photos.
        groups: Number of their groups.
        coverage: Share of photos whose set holds the true class; mean over seeds and repeats, as the next two.
        set_size: Mean number of classes in a set.
        empty: Share of empty sets.
        covered: Photos covered in the first seed and repeat.
        wilson: Wilson's interval of that coverage, which assumes independent photos; None without photos.
    """

    photos: int
    groups: int
    coverage: Estimate
    set_size: Estimate
    empty: float | None
    covered: int
    wilson: Interval | None


@dataclass(frozen=True)
class Coverage:
    """Figures of prediction sets.

    Attributes:
        overall: Of all photos.
        per_class: Of the photos whose true class it is.
    """

    overall: SetFigures
    per_class: Mapping[str, SetFigures]


@dataclass(frozen=True)
class ConformalResult:
    """Sets calibrated in each cell on its validation photos and measured on its test fold.

    The validation photos also chose the cell's checkpoint and its temperature, so the promise of split conformal
    prediction does not strictly hold: the sets are approximate, and ``measured`` says how they did.

    Attributes:
        method: The score.
        level: The coverage that was aimed at.
        class_conditional: Whether it was aimed at in each class.
        measured: On the pooled out-of-fold test photos; None where refused.
        refused: Why the level was refused; None where it was not.
    """

    method: Method
    level: float
    class_conditional: bool
    measured: Coverage | None
    refused: str | None


def least_n(level: float) -> int:
    """Smallest number of calibration groups that can support a level: ⌈(n + 1)·level⌉ ≤ n.

    Args:
        level: 1 − α, above 0 and below 1.

    Raises:
        EvidenceError: The level is outside that range.
    """
    if not 0 < level < 1:
        raise EvidenceError(f"A level of coverage is above 0 and below 1, such as 0.9. Got {level} instead.")
    return max(1, math.ceil(level / (1 - level) - ROUNDING))


def fit_thresholds(
    probabilities: Floats,
    labels: Integers,
    groups: Groups,
    level: float,
    method: Method,
    class_conditional: bool = False,
    classes: Sequence[str] = (),
) -> Thresholds:
    """Thresholds from labelled photos on which the model was not trained.

    The threshold is the smallest score s for which the weights of the calibration photos with a score of at most s,
    1 over the number of photos in their group, sum to level · (G + 1), G being the number of groups (Lee, Barber
    and Willett 2023). Class-conditional: the same among the photos of each class (Vovk 2012).

    Args:
        probabilities: Shape (n, classes).
        labels: Index of the true class, shape (n,).
        groups: Name of each photo's group, shape (n,).
        level: Coverage aimed at, such as 0.9.
        method: ``lac`` or ``aps``.
        class_conditional: One threshold for each class.
        classes: Names of the classes, for the messages; their numbers by default.

    Raises:
        EvidenceError: There are too few groups for the level, in all or of a class; or the input does not fit together.
    """
    check_probabilities(probabilities, labels, groups)
    if method not in METHODS:
        raise EvidenceError(f"A conformal method is one of {', '.join(METHODS)}. Got {method!r} instead.")
    needed = least_n(level)
    n_classes = probabilities.shape[1]
    names = tuple(classes) or tuple(f"class {index}" for index in range(n_classes))
    parts = [labels == index for index in range(n_classes)] if class_conditional else [labels >= 0]
    counts = [len(set(groups[part])) for part in parts]
    if min(counts) < needed:
        raise EvidenceError(_too_few(level, needed, counts, names if class_conditional else ()))
    scores = lac_scores(probabilities) if method == "lac" else aps_scores(probabilities)
    own = np.take_along_axis(scores, labels[:, None], axis=1)[:, 0]
    values = [_group_quantile(own[part], groups[part], level) for part in parts]
    return Thresholds(
        method=method,
        level=level,
        class_conditional=class_conditional,
        values=tuple(values) if class_conditional else tuple(values * n_classes),
        photos=len(labels),
        groups=len(set(groups)),
    )


def coverage(sets: Sequence[Sets], predictions: Predictions, resampling: Resampling, level: float = 0.95) -> Coverage:
    """Coverage and mean set size on labelled test photos, overall and in each class.

    Args:
        sets: Sets of the photos from each seed and repeat, each of shape (n, classes).
        predictions: The photos, in the same order; only their labels and groups are used.
        resampling: Draws of their groups.
        level: Level of the intervals.
    """
    labels, n_classes = predictions.labels, len(predictions.classes)
    parts = np.concatenate([np.ones((1, len(labels)), dtype=bool), labels == np.arange(n_classes)[:, None]])
    hits = np.stack([one[np.arange(len(labels)), labels] for one in sets]).astype(np.float64)
    sizes = np.stack([one.sum(axis=1) for one in sets]).astype(np.float64)
    means = photo_means(
        {"coverage": hits.mean(axis=0), "set_size": sizes.mean(axis=0)}, parts, resampling.groups.of_photo
    )
    values = resampling.values_of(means)
    figures = [
        SetFigures(
            photos=int(part.sum()),
            groups=len(set(predictions.groups[part])),
            coverage=estimate(resampling.statistic(values["coverage"][row]), level),
            set_size=estimate(resampling.statistic(values["set_size"][row]), level),
            empty=float((sizes[:, part] == 0).mean()) if part.any() else None,
            covered=int(hits[0, part].sum()),
            wilson=wilson(int(hits[0, part].sum()), int(part.sum()), level) if part.any() else None,
        )
        for row, part in enumerate(parts)
    ]
    return Coverage(figures[0], dict(zip(predictions.classes, figures[1:], strict=True)))


def conformal_out_of_fold(
    arm: Arm, *, levels: Sequence[float] = LEVELS, draws: int = DRAWS, seed: int = 0
) -> tuple[ConformalResult, ...]:
    """Both methods, marginal and class-conditional, at each level, measured on photos that had no part in them.

    Each cell's temperature and thresholds come from its validation photos and are applied to its test fold.

    Args:
        arm: The arm.
        levels: Levels of coverage.
        draws: Bootstrap draws for the intervals, which are at 95 %.
        seed: Seed of the draws.
    """
    scaled = calibrated_arm(arm)
    resampling = resample(scaled.replicates[0].predictions, draws, seed)
    results = []
    for method in METHODS:
        for class_conditional in (False, True):
            for level in levels:
                try:
                    sets = _sets_of_arm(scaled, level, method, class_conditional)
                except EvidenceError as error:
                    results.append(ConformalResult(method, level, class_conditional, None, str(error)))
                    continue
                measured = coverage(sets, scaled.replicates[0].predictions, resampling)
                results.append(ConformalResult(method, level, class_conditional, measured, None))
    return tuple(results)


def _sets_of_arm(arm: Arm, level: float, method: Method, class_conditional: bool) -> list[Sets]:
    """Sets of each seed and repeat, in the order of its photos."""
    found = []
    for replicate in arm.replicates:
        cells = [cell for cell in arm.cells if (cell.seed, cell.repeat) == (replicate.seed, replicate.repeat)]
        paths = pd.Index(pd.concat([cell.test.table["path"] for cell in cells]))
        stacked = np.concatenate([_sets_of_cell(cell, level, method, class_conditional) for cell in cells])
        found.append(stacked[paths.get_indexer(pd.Index(replicate.predictions.table["path"]))])
    return found


def _sets_of_cell(cell: Cell, level: float, method: Method, class_conditional: bool) -> Sets:
    val = cell.val
    try:
        thresholds = fit_thresholds(
            val.probabilities, val.labels, val.groups, level, method, class_conditional, val.classes
        )
    except EvidenceError as error:
        raise EvidenceError(f"Repeat {cell.repeat}, fold {cell.fold}, seed {cell.seed}: {error}") from None
    return prediction_sets(cell.test.probabilities, thresholds)


def _too_few(level: float, needed: int, counts: Sequence[int], names: Sequence[str]) -> str:
    if not names:
        return (
            f"Conformal sets at {level:.4g} need at least {needed} groups of calibration photos; there are "
            f"{counts[0]}. Choose a lower level, or calibrate on more groups."
        )
    few = ", ".join(f"{name} {count}" for name, count in zip(names, counts, strict=True) if count < needed)
    return (
        f"Class-conditional conformal sets at {level:.4g} need at least {needed} groups of calibration photos in every "
        f"class; too few: {few}. Choose a lower level, or marginal sets."
    )


def _group_quantile(scores: Floats, groups: Groups, level: float) -> float:
    _, index, counts = np.unique(groups.astype(str), return_inverse=True, return_counts=True)
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum((1 / counts[index])[order])
    wanted = level * (len(counts) + 1) - ROUNDING
    return float(scores[order][np.searchsorted(reached, wanted)])
