"""Selective prediction: answer the photos the model is sure of, leave the others to a person.

Sure is measured by the confidence, the largest probability. Photos of equal confidence cannot be told apart, so they
are answered together; where a figure needs a part of them, it counts what a random part would give on average. So the
order of the rows never matters.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from hcoatnet.errors import EvidenceError
from hcoatnet.evaluation.calibration import DRAWS, calibrated_arm
from hcoatnet.evaluation.evidence import Arm
from hcoatnet.evaluation.intervals import Estimate, Interval, estimate, wilson
from hcoatnet.evaluation.photo_means import photo_means
from hcoatnet.evaluation.predictions import Floats, Integers, Predictions, check_probabilities
from hcoatnet.evaluation.resampling import Groups, resample

ERROR_RATES = (0.05, 0.10)
COVERAGES = (0.8, 0.9)
ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    """The risk-coverage curve.

    Attributes:
        coverage: Share of photos that are answered, 1/n to 1, shape (n,).
        risk: Share of wrong answers among the most confident photos of that number, shape (n,).
        aurc: Area under the curve: the mean of ``risk`` over all coverages; 0 is best.
    """

    coverage: Floats
    risk: Floats
    aurc: float


@dataclass(frozen=True, eq=False)
class SelectiveResult:
    """Selective prediction with an arm's out-of-fold test predictions, each cell scaled by its own temperature.

    Attributes:
        curve: Of the first seed and repeat: each photo once.
        aurc: Mean over seeds and repeats, as the next.
        accuracy_at: Accuracy among the most confident photos, for each share in ``COVERAGES``.
    """

    curve: RiskCoverage
    aurc: Estimate
    accuracy_at: Mapping[float, Estimate]


@dataclass(frozen=True)
class AbstainThreshold:
    """Answer photos whose confidence is at least ``threshold``.

    Attributes:
        error_rate: Share of wrong answers that was asked for.
        threshold: None where no threshold reaches it.
        reason: Why there is none; None where there is one.
        least_groups: Groups that must be answered for such an error rate to be shown.
        photos: Photos answered; 0 without a threshold.
        groups: Groups with an answered photo.
        coverage: Share of photos answered.
        error: Share of wrong answers among them; None without a threshold.
        interval: Percentile bootstrap interval of ``error`` over groups, the threshold being fixed. None where all
            or none of the answered photos are wrong; ``wilson`` remains.
        wilson: Wilson's interval of ``error``, which assumes independent photos.
    """

    error_rate: float
    threshold: float | None
    reason: str | None
    least_groups: int
    photos: int
    groups: int
    coverage: float
    error: float | None
    interval: Interval | None
    wilson: Interval | None


@dataclass(frozen=True, eq=False)
class RankedAnswers:
    """Answers in blocks of equal confidence, the most confident first, ready for any weights of the groups.

    Attributes:
        photos: Photos of each group in each block, shape (blocks, groups).
        wrong: Wrong answers of each group in each block, shape (blocks, groups).
    """

    photos: csr_array
    wrong: csr_array

    def on(self, weights: Floats) -> dict[str, Floats]:
        """``aurc`` and the accuracy at each of ``COVERAGES`` (named by it), shape (m,).

        Weights are whole numbers, of shape (groups, m): a photo of weight 2 counts as two photos of equal confidence.
        """
        size: Floats = self.photos @ weights
        wrong: Floats = self.wrong @ weights
        answered, errors = _from_zero(np.cumsum(size, axis=0)), _from_zero(np.cumsum(wrong, axis=0))
        rate = np.divide(wrong, size, out=np.zeros_like(size), where=size > 0)
        total = np.where(answered[-1] > 0, answered[-1], np.nan)
        # The j-th photo of a block adds the risk (errors before + rate·j)/(answered before + j); the sum over j is
        # rate·size + (errors before − rate·answered before)·(H(answered after) − H(answered before)), H harmonic.
        table = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, answered.max() + 1))])
        harmonic = table[answered.astype(np.int64)]
        area = rate * size + (errors[:-1] - rate * answered[:-1]) * np.diff(harmonic, axis=0)
        values = {"aurc": area.sum(axis=0) / total}
        columns = np.arange(weights.shape[1])
        for coverage in COVERAGES:
            wanted = np.ceil(coverage * total - ROUNDING)
            block = (answered[1:] < wanted).sum(axis=0)
            missed = errors[block, columns] + rate[block, columns] * (wanted - answered[block, columns])
            values[str(coverage)] = 1 - missed / wanted
        return values


def risk_coverage(labels: Integers, probabilities: Floats) -> RiskCoverage:
    """Risk-coverage curve (El-Yaniv and Wiener 2010) and its area (AURC; Geifman, Uziel and El-Yaniv 2019).

    Args:
        labels: Index of the true class, shape (n,).
        probabilities: Shape (n, classes).

    Raises:
        PredictionsError: The arrays do not fit together.
    """
    confidence, wrong = _answers(labels, probabilities)
    _, block, size = np.unique(-confidence, return_inverse=True, return_counts=True)
    rate = np.bincount(block, weights=wrong) / size
    answered = np.arange(1, len(wrong) + 1)
    risk = np.cumsum(np.repeat(rate, size)) / answered
    return RiskCoverage(answered / len(wrong), risk, float(risk.mean()))


def accuracy_at(labels: Integers, probabilities: Floats, coverage: float) -> float:
    """Accuracy among the ⌈coverage · n⌉ most confident photos.

    Args:
        labels: Index of the true class, shape (n,).
        probabilities: Shape (n, classes).
        coverage: Above 0, at most 1.

    Raises:
        PredictionsError: The arrays do not fit together.
        EvidenceError: The coverage is outside its range.
    """
    if not 0 < coverage <= 1:
        raise EvidenceError(f"A coverage is above 0 and at most 1. Got {coverage} instead.")
    risk = risk_coverage(labels, probabilities).risk
    return 1 - float(risk[math.ceil(coverage * len(risk) - ROUNDING) - 1])


def selective_out_of_fold(arm: Arm, *, draws: int = DRAWS, seed: int = 0, level: float = 0.95) -> SelectiveResult:
    """Risk-coverage figures of an arm, with bootstrap intervals over groups.

    Args:
        arm: Its cells are first scaled by the temperature of their own validation photos, so that the confidences of
            different folds can be ranked together.
        draws: Bootstrap draws.
        seed: Seed of the draws.
        level: Level of the intervals.
    """
    tables = [replicate.predictions for replicate in calibrated_arm(arm).replicates]
    resampling = resample(tables[0], draws, seed)
    ranked = [_ranked(table, resampling.groups) for table in tables]
    values = resampling.mean_of(ranked)
    figures = {name: estimate(resampling.statistic(value), level) for name, value in values.items()}
    return SelectiveResult(
        curve=risk_coverage(tables[0].labels, tables[0].probabilities),
        aurc=figures["aurc"],
        accuracy_at={coverage: figures[str(coverage)] for coverage in COVERAGES},
    )


def abstain_threshold(
    predictions: Predictions, error_rate: float, *, draws: int = DRAWS, seed: int = 0, level: float = 0.95
) -> AbstainThreshold:
    """The lowest confidence from which on at most a share ``error_rate`` of these photos is answered wrongly.

    Photos of at least 1/``error_rate`` groups must be answered: with fewer, the only error that keeps the rate is none
    at all, which the first few photos may reach by chance.

    The threshold is chosen on the very photos that its intervals describe, so the error on new photos tends to be
    higher than ``error``. A guarantee in the manner of Geifman and El-Yaniv (2017) needs independent photos and many
    more of them.

    Args:
        predictions: Photos on which the model was not trained, with the probabilities that the threshold is for.
        error_rate: Above 0, below 1.
        draws: Bootstrap draws.
        seed: Seed of the draws.
        level: Level of both intervals.

    Raises:
        EvidenceError: The error rate is outside its range.
    """
    if not 0 < error_rate < 1:
        raise EvidenceError(f"An error rate is above 0 and below 1, such as 0.05. Got {error_rate} instead.")
    confidence, wrong = _answers(predictions.labels, predictions.probabilities)
    levels, block = np.unique(-confidence, return_inverse=True)
    errors: Floats = np.cumsum(np.bincount(block, weights=wrong), dtype=np.float64)
    answered: Integers = np.cumsum(np.bincount(block), dtype=np.int64)
    resampling = resample(predictions, draws, seed)
    least_groups = math.ceil(1 / error_rate - ROUNDING)
    enough = _groups_answered(block, resampling.groups.of_photo) >= least_groups
    good = np.flatnonzero(enough & (errors <= error_rate * answered + ROUNDING))
    if not len(good):
        reason = _why_none(error_rate, least_groups, errors[enough], answered[enough], len(wrong))
        return AbstainThreshold(error_rate, None, reason, least_groups, 0, 0, 0.0, None, None, None)
    threshold = float(-levels[good[-1]])
    kept = confidence >= threshold
    means = photo_means({"error": wrong}, kept[None], resampling.groups.of_photo)
    error = estimate(resampling.statistic(resampling.values_of(means)["error"][0]), level)
    return AbstainThreshold(
        error_rate=error_rate,
        threshold=threshold,
        reason=None,
        least_groups=least_groups,
        photos=int(kept.sum()),
        groups=len(set(predictions.groups[kept])),
        coverage=float(kept.mean()),
        error=error.value,
        interval=error.percentile,
        wilson=wilson(int(wrong[kept].sum()), int(kept.sum()), level),
    )


def _answers(labels: Integers, probabilities: Floats) -> tuple[Floats, Floats]:
    check_probabilities(probabilities, labels)
    wrong: Floats = (probabilities.argmax(axis=1) != labels).astype(np.float64)
    return probabilities.max(axis=1), wrong


def _groups_answered(block: Integers, group_of_photo: Integers) -> Integers:
    """Groups with a photo in the blocks up to each, shape (blocks,)."""
    first = np.full(int(group_of_photo.max()) + 1, len(block))
    np.minimum.at(first, group_of_photo, block)
    number: Integers = np.cumsum(np.bincount(first, minlength=int(block.max()) + 1))
    return number


def _why_none(error_rate: float, least_groups: int, errors: Floats, answered: Integers, photos: int) -> str:
    if not len(errors):
        return f"An error of {error_rate:.3g} can only be shown with photos of at least {least_groups} groups."
    best = int(np.argmin(errors / answered))
    return (
        f"No threshold that answers photos of {least_groups} groups or more keeps the error at {error_rate:.3g}: the "
        f"lowest is {errors[best] / answered[best]:.3g}, with {answered[best]} of {photos} photos answered."
    )


def _ranked(predictions: Predictions, groups: Groups) -> RankedAnswers:
    confidence, wrong = _answers(predictions.labels, predictions.probabilities)
    levels, block = np.unique(-confidence, return_inverse=True)
    places, shape = (block, groups.of_photo), (len(levels), len(groups.strata))
    return RankedAnswers(csr_array((np.ones(len(wrong)), places), shape), csr_array((wrong, places), shape))


def _from_zero(sums: Floats) -> Floats:
    return np.concatenate([np.zeros((1, sums.shape[1])), sums])
