"""Metrics of photos whose groups carry weights, for many sets of weights at once.

A bootstrap draw is a set of weights: how often each group was drawn. Everything additive over photos (confusion matrix,
Brier score, log loss, calibration bins) is summed within groups first, so that all draws are one matrix product; AUROC
and average precision sort the photos once. With unit weights every value equals that of ``metrics.summarise``, whose
conventions for what is undefined hold here too; with any weights, scikit-learn's with ``sample_weight``.
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from hcoatnet.evaluation.metrics import CALIBRATION_BINS, PHOTOS_PER_BIN, equal_mass_bins
from hcoatnet.evaluation.predictions import Floats, Integers, Predictions

METRICS = (
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "weighted_f1",
    "matthews_correlation",
    "macro_auroc",
    "macro_average_precision",
    "brier",
    "log_loss",
    "expected_calibration_error",
)
PER_CLASS = ("recall", "precision", "f1", "auroc", "average_precision")
DEFINITIONS = {
    "accuracy": "Share of photos whose most probable class is the true one.",
    "balanced_accuracy": "Mean recall over the classes that have photos.",
    "macro_f1": "Mean F1 over all classes, each counting the same.",
    "weighted_f1": "Mean F1, each class weighted by its photos.",
    "matthews_correlation": "Correlation between true and predicted class, −1 to 1; 0 where undefined.",
    "macro_auroc": "Mean over the classes of the area under the ROC curve of the class against the others.",
    "macro_average_precision": "Mean over the classes of the average precision of the class against the others.",
    "brier": "Mean squared distance between probabilities and truth, 0 (best) to 2.",
    "log_loss": "Mean of −log probability of the true class, in nats, from 0 (best) up.",
    "expected_calibration_error": "Mean gap between confidence and accuracy over bins of equally many photos, 0 "
    "(best) to 1. The bins are fixed on the whole set. Chance alone makes it larger than 0, in draws more than in the "
    "set, so its intervals lie high.",
    "recall": "Share of the class's photos that are named rightly.",
    "precision": "Share of the photos named as the class that are of it.",
    "f1": "Harmonic mean of precision and recall.",
    "auroc": "Chance that a photo of the class has a larger probability for it than another photo; ties count half.",
    "average_precision": "Mean precision over the class's photos, taken in the order of its probability.",
}

_SMALL = 1e-300


@dataclass(frozen=True, eq=False)
class Ranking:
    """Photos in the order of the probability of one class, largest first, cut where a photo of the class stands.

    The photos fall into 2k + 1 segments: k with the photos of equal probability among which one or more are of the
    class, and those before, between and after.

    Attributes:
        segments: Photos of each group in each segment, shape (2k + 1, groups).
        positives: Photos of the class of each group in each of the k segments, shape (k, groups).
    """

    segments: csr_array
    positives: csr_array

    def on(self, weights: Floats) -> tuple[Floats, Floats]:
        """AUROC and average precision for weights of shape (groups, m), each of shape (m,); NaN where undefined.

        AUROC needs photos of the class and of others, average precision (Σ ΔR·P, without interpolation) photos of the
        class.
        """
        if not self.positives.shape[0]:
            undefined = np.full(weights.shape[1], np.nan)
            return undefined, undefined
        mass: Floats = self.segments @ weights
        positive: Floats = self.positives @ weights
        upto = np.cumsum(mass, axis=0)
        found = np.cumsum(positive, axis=0)
        total = found[-1]
        others = upto[-1] - total
        ends = upto[1::2]
        precision = found / np.maximum(ends, _SMALL)
        # Of the other photos, those after the segment count whole, those within it half.
        beaten = others - ends + found + 0.5 * (mass[1::2] - positive)
        return (
            _ratio(np.einsum("km,km->m", positive, beaten), total * others),
            _ratio(np.einsum("km,km->m", positive, precision), total),
        )


@dataclass(frozen=True, eq=False)
class PhotoMetrics:
    """One model's answers to the photos of one set, ready for any weights of the groups.

    Attributes:
        classes: Number of classes.
        sums: Additive quantities of each group, shape (classes² + 2 + bins, groups): the confusion matrix (row by row,
            rows the true classes), squared distances, log losses, and right − confidence in each calibration bin.
        rankings: One for each class; empty if AUROC and average precision are not wanted.
    """

    classes: int
    sums: Floats
    rankings: tuple[Ranking, ...]

    def on(self, weights: Floats) -> dict[str, Floats]:
        """All metrics for weights of shape (groups, m).

        Returns:
            ``METRICS`` with the shape (m,), ``PER_CLASS`` with the shape (classes, m); those of the rankings only if
            there are any. Undefined values are NaN.
        """
        sums = self.sums @ weights
        cells = self.classes**2
        matrix = sums[:cells].reshape(self.classes, self.classes, -1)
        photos = sums[:cells].sum(axis=0)
        values = _of_confusion(matrix)
        values["brier"] = _ratio(sums[cells], photos)
        values["log_loss"] = _ratio(sums[cells + 1], photos)
        values["expected_calibration_error"] = _ratio(np.abs(sums[cells + 2 :]).sum(axis=0), photos)
        if self.rankings:
            auroc, average_precision = zip(*(ranking.on(weights) for ranking in self.rankings), strict=True)
            values |= {"auroc": np.stack(auroc), "average_precision": np.stack(average_precision)}
            values["macro_auroc"] = _mean_of_defined(values["auroc"])
            values["macro_average_precision"] = _mean_of_defined(values["average_precision"])
        return values


def photo_metrics(predictions: Predictions, group_of_photo: Integers, *, ranked: bool = True) -> PhotoMetrics:
    """Prepare a predictions table for weights of its groups.

    Args:
        predictions: The table.
        group_of_photo: Index of each photo's group, shape (n,), every index from 0 up in use.
        ranked: Whether AUROC and average precision are wanted.
    """
    classes = len(predictions.classes)
    labels, predicted, probabilities = predictions.labels, predictions.predicted, predictions.probabilities
    confidence = probabilities.max(axis=1)
    bins = max(1, min(CALIBRATION_BINS, len(labels) // PHOTOS_PER_BIN))
    rows = np.arange(len(labels))
    log_shares = predictions.logits - np.logaddexp.reduce(predictions.logits, axis=1, keepdims=True)
    truth = np.eye(classes)[labels]
    additive = np.concatenate(
        [
            np.eye(classes**2)[labels * classes + predicted],
            ((probabilities - truth) ** 2).sum(axis=1, keepdims=True),
            -log_shares[rows, labels][:, None],
            np.eye(bins)[equal_mass_bins(confidence, bins)] * ((predicted == labels) - confidence)[:, None],
        ],
        axis=1,
    )
    sums: Floats = _members(group_of_photo) @ additive
    rankings = [_rank(labels == index, probabilities[:, index], group_of_photo) for index in range(classes) if ranked]
    return PhotoMetrics(classes, np.ascontiguousarray(sums.T), tuple(rankings))


def mean_f1(f1: Floats) -> Floats:
    """Mean over the classes of F1, shape (classes, m): a class with neither photos nor predictions counts as 0."""
    mean: Floats = np.nan_to_num(f1, nan=0.0).mean(axis=0)
    return mean


def _members(group_of_photo: Integers) -> csr_array:
    """Shape (groups, photos), 1 where the photo is of the group."""
    number = len(group_of_photo)
    return csr_array((np.ones(number), (group_of_photo, np.arange(number))))


def _rank(is_class: np.ndarray, probability: Floats, group_of_photo: Integers) -> Ranking:
    groups = int(group_of_photo.max()) + 1
    values, block_of_photo = np.unique(-probability, return_inverse=True)
    holds_class = np.bincount(block_of_photo, weights=is_class, minlength=len(values)) > 0
    found = np.cumsum(holds_class)
    segment_of_photo = (2 * found - holds_class)[block_of_photo]
    count = int(found[-1])
    ones = np.ones(len(probability))
    return Ranking(
        csr_array((ones, (segment_of_photo, group_of_photo)), shape=(2 * count + 1, groups)),
        csr_array((ones[is_class], (segment_of_photo[is_class] // 2, group_of_photo[is_class])), shape=(count, groups)),
    )


def _of_confusion(matrix: Floats) -> dict[str, Floats]:
    """Metrics of confusion matrices of shape (classes, classes, m), rows the true classes."""
    right = np.einsum("ccm->cm", matrix)
    true, predicted = matrix.sum(axis=1), matrix.sum(axis=0)
    photos = true.sum(axis=0)
    recall, precision = _ratio(right, true), _ratio(right, predicted)
    f1 = _ratio(2 * right, true + predicted)
    correct = right.sum(axis=0)
    # Gorodkin (2004): the covariance of truth and answer over the roots of their variances.
    spread = (photos**2 - (true**2).sum(axis=0)) * (photos**2 - (predicted**2).sum(axis=0))
    correlation = _ratio(correct * photos - (true * predicted).sum(axis=0), np.sqrt(np.maximum(spread, 0)))
    return {
        "accuracy": _ratio(correct, photos),
        "balanced_accuracy": _mean_of_defined(recall),
        "macro_f1": mean_f1(f1),
        "weighted_f1": _ratio((true * np.nan_to_num(f1, nan=0.0)).sum(axis=0), photos),
        "matthews_correlation": np.nan_to_num(correlation, nan=0.0),
        "recall": recall,
        "precision": precision,
        "f1": f1,
    }


def _ratio(above: Floats, below: Floats) -> Floats:
    """Above / below, NaN where below is 0."""
    quotient: Floats = np.full(np.broadcast_shapes(above.shape, below.shape), np.nan)
    return np.divide(above, below, out=quotient, where=below > 0)


def _mean_of_defined(values: Floats) -> Floats:
    """Mean over the first axis of what is not NaN; NaN where nothing is defined."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0.0).sum(axis=0), defined.sum(axis=0).astype(np.float64))
