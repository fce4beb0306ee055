"""Metrics of a predictions table.

Conventions for what is undefined. A class without photos has no recall, a class that is never predicted no precision,
and a class that is neither has no F1: the per-class table says null, and the macro averages, which run over all classes
of the table, count them as 0 (scikit-learn's ``zero_division=0``). Balanced accuracy runs over the classes that have
photos. AUROC needs photos of the class and of others, specificity photos of others, Cohen's kappa more than one class:
else null. Matthews' correlation is 0 where it is undefined, as in scikit-learn.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax
from sklearn.metrics import (
    cohen_kappa_score,
    confusion_matrix,
    matthews_corrcoef,
    precision_recall_fscore_support,
    roc_auc_score,
)

from hcoatnet.evaluation.predictions import Floats, Integers, Predictions

CALIBRATION_BINS = 15
PHOTOS_PER_BIN = 10


@dataclass(frozen=True)
class Scores:
    """The few figures that training follows at each epoch, each between 0 and 1.

    Attributes:
        accuracy: Share of photos whose most probable class is the true one.
        balanced_accuracy: Mean recall over the classes that have photos.
        macro_f1: Mean F1 over all classes; a class with neither photos nor predictions counts as 0.
    """

    accuracy: float
    balanced_accuracy: float
    macro_f1: float


def score(labels: npt.NDArray[np.integer[Any]], logits: npt.NDArray[np.floating[Any]]) -> Scores:
    """Scores of at least one photo.

    Args:
        labels: Index of the true class, shape (n,).
        logits: Shape (n, classes).
    """
    matrix = confusion_matrix(labels, logits.argmax(axis=1), labels=range(logits.shape[1]))
    right, true, predicted = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    present = true > 0
    return Scores(
        accuracy=float(right.sum() / matrix.sum()),
        balanced_accuracy=float((right[present] / true[present]).mean()),
        macro_f1=float((2 * right / np.maximum(true + predicted, 1)).mean()),
    )


def summarise(predictions: Predictions) -> dict[str, Any]:
    """All metrics of a table, ready for JSON.

    Returns:
        ``n`` photos, ``groups``, one ``{"value", "n"}`` a metric, ``per_class`` (support and groups count the photos
        and groups whose true class it is) and ``confusion_matrix``, whose rows are the true and whose columns the
        predicted classes. Undefined values are None; see the module's text.
    """
    labels, predicted, n = predictions.labels, predictions.predicted, len(predictions)
    indices = range(len(predictions.classes))
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=indices, zero_division=np.nan
    )
    scores = score(labels, predictions.logits)
    one_class = len(np.union1d(labels, predicted)) == 1
    values = {
        "accuracy": scores.accuracy,
        "balanced_accuracy": scores.balanced_accuracy,
        "macro_precision": np.nan_to_num(precision).mean(),
        "macro_recall": np.nan_to_num(recall).mean(),
        "macro_f1": scores.macro_f1,
        "weighted_f1": (np.nan_to_num(f1) * support).sum() / n,
        "cohen_kappa": np.nan if one_class else cohen_kappa_score(labels, predicted),
        "matthews_correlation": 0.0 if one_class else matthews_corrcoef(labels, predicted),
        "log_loss": log_loss(labels, predictions.logits),
        "brier": brier_score(labels, predictions.probabilities),
        "expected_calibration_error": expected_calibration_error(labels, predictions.probabilities),
    }
    matrix = confusion_matrix(labels, predicted, labels=indices)
    columns = {
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "specificity": _specificity(matrix),
        "auroc": [_auroc(labels == index, predictions.probabilities[:, index]) for index in indices],
    }
    return {
        "n": n,
        "groups": _count(predictions.groups),
        **{name: {"value": _defined(value), "n": n} for name, value in values.items()},
        "per_class": {
            name: {column: _defined(column_values[index]) for column, column_values in columns.items()}
            | {"support": int(support[index]), "groups": _count(predictions.groups[labels == index])}
            for index, name in enumerate(predictions.classes)
        },
        "confusion_matrix": matrix.tolist(),
    }


def log_loss(labels: Integers, logits: Floats) -> float:
    """Mean of −log softmax(logits) at the true class, in nats, from 0 up; nothing is clipped."""
    return float(-np.take_along_axis(log_softmax(logits, axis=1), labels[:, None], axis=1).mean())


def brier_score(labels: Integers, probabilities: Floats) -> float:
    """Mean over photos of Σ_c (p_c − y_c)², y one-hot: 0 (sure and right) to 2 (sure and wrong), as Brier (1950)."""
    truth = np.eye(probabilities.shape[1])[labels]
    return float(((probabilities - truth) ** 2).sum(axis=1).mean())


def expected_calibration_error(labels: Integers, probabilities: Floats) -> float:
    """How far confidence and accuracy lie apart, 0 to 1: Σ_b n_b/n · |accuracy_b − mean confidence_b|.

    Confidence is the largest probability (Naeini et al. 2015, Guo et al. 2017). The bins hold equally many photos, as
    in the adaptive error of Nixon et al. (2019): 15 of them, or fewer so that each holds at least ten photos. Photos of
    equal confidence share a bin, so the order of the rows does not matter.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = max(1, min(CALIBRATION_BINS, len(labels) // PHOTOS_PER_BIN))
    gaps = np.bincount(equal_mass_bins(confidence, bins), weights=right - confidence)
    return float(np.abs(gaps).sum() / len(labels))


def equal_mass_bins(values: Floats, bins: int) -> Integers:
    """Bin of each value, shape (n,): as equally many in each of at most ``bins`` bins as equal values allow.

    Equal values share a bin, so the order of the rows does not matter. The bins are numbered from 0, in the order of
    the values; none is empty.
    """
    starts = np.unique([part[0] for part in np.array_split(np.sort(values), min(bins, len(values)))])
    position: Integers = np.searchsorted(starts, values, side="right") - 1
    return position


def _specificity(matrix: npt.NDArray[np.int64]) -> Floats:
    others = matrix.sum() - matrix.sum(axis=1)
    wrongly_named = matrix.sum(axis=0) - np.diag(matrix)
    specificity: Floats = np.full(len(matrix), np.nan)
    np.divide(others - wrongly_named, others, out=specificity, where=others > 0)
    return specificity


def _auroc(is_class: npt.NDArray[np.bool_], probability: Floats) -> float:
    if is_class.all() or not is_class.any():
        return np.nan
    return float(roc_auc_score(is_class, probability))


def _count(groups: Iterable[str]) -> int:
    return len(set(groups))


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
