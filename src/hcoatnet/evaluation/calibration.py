"""Calibration: whether photos answered with a confidence of 80 % are right in 80 % of the cases, and how to mend it.

One temperature a model, after Guo et al. (2017): softmax(logits / T). It is fitted on photos that the model was not
trained on and never on those it is then measured on. It changes no answer, only how sure it sounds.
"""

from dataclasses import astuple, dataclass, replace

import numpy as np
from scipy.optimize import brentq
from scipy.special import softmax

from hcoatnet.errors import PredictionsError
from hcoatnet.evaluation.evidence import Arm, Cell
from hcoatnet.evaluation.intervals import Estimate, estimate, wilson
from hcoatnet.evaluation.metrics import equal_mass_bins
from hcoatnet.evaluation.predictions import Floats, Integers, Predictions, check_probabilities, with_logits
from hcoatnet.evaluation.resampling import Resampling, resample
from hcoatnet.evaluation.weighted_metrics import photo_metrics

LOWEST_TEMPERATURE = 0.05
HIGHEST_TEMPERATURE = 100.0
RELIABILITY_BINS = 10
DRAWS = 2000


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: photos in bins of equally many, by confidence, the largest probability.

    Attributes:
        count: Photos in each bin.
        confidence: Mean confidence of each bin.
        accuracy: Share of right answers in each bin.
        low: Lower end of the Wilson 95 % interval of the accuracy, which assumes independent photos.
        high: Upper end.
    """

    count: tuple[int, ...]
    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class BrierParts:
    """The Brier score as reliability − resolution + uncertainty + within_bin, exactly.

    Attributes:
        reliability: How far stated and observed frequencies of the bins lie apart; 0 is best.
        resolution: How far the observed frequencies of the bins lie from the overall one; larger is better.
        uncertainty: The score of always stating the overall frequencies.
        within_bin: What the bins hide: spread of the probabilities inside a bin, less twice their covariance with the
            outcome. Near 0 where the bins are narrow.
    """

    reliability: float
    resolution: float
    uncertainty: float
    within_bin: float


@dataclass(frozen=True)
class CalibrationFigures:
    """How good the probabilities of an arm's out-of-fold test predictions are.

    Attributes:
        log_loss: In nats; mean over seeds and repeats, as the next two.
        brier: 0 to 2.
        ece: Expected calibration error with equal-mass bins, 0 to 1.
        reliability: Diagram of the first seed and repeat: each photo once.
        parts: Parts of ``brier``, mean over seeds and repeats.
    """

    log_loss: Estimate
    brier: Estimate
    ece: Estimate
    reliability: Reliability
    parts: BrierParts


@dataclass(frozen=True)
class CalibrationResult:
    """Before and after temperature scaling.

    Attributes:
        temperatures: One a cell, in the order of the cells.
        at_bound: Number of temperatures that ended at a bound (see :func:`fit_temperature`).
        before: With the probabilities as they are.
        after: With each cell's own temperature.
    """

    temperatures: tuple[float, ...]
    at_bound: int
    before: CalibrationFigures
    after: CalibrationFigures


def fit_temperature(logits: Floats, labels: Integers) -> float:
    """The temperature T that minimises the mean of −log softmax(logits / T) at the true class (Guo et al. 2017, 4.2).

    In 1/T this loss is convex, and its slope is mean(Σ_c p_c z_c − z_y); the root is bracketed between the bounds
    ``LOWEST_TEMPERATURE`` and ``HIGHEST_TEMPERATURE``, one of which is the answer where there is no root between them:
    the lowest where every photo is answered rightly (the loss falls for ever as T → 0), the highest where the logits
    say less than nothing about the classes. Where all logits of each photo are equal, T has no effect and is 1.

    Args:
        logits: Shape (n, classes), of validation or out-of-fold photos.
        labels: Index of the true class, shape (n,).

    Raises:
        PredictionsError: The shapes do not fit, there is no photo, or a logit is NaN or infinite.
    """
    exact = np.asarray(logits, dtype=np.float64)
    if not np.isfinite(exact).all():
        raise PredictionsError("Logits must be finite numbers; these hold NaN or infinity.")
    check_probabilities(softmax(np.atleast_2d(exact), axis=1), labels)
    centred = exact - exact.max(axis=1, keepdims=True)
    if not centred.any():
        return 1.0
    true = np.take_along_axis(centred, labels[:, None], axis=1)[:, 0]

    def slope(inverse: float) -> float:
        return float(((softmax(inverse * centred, axis=1) * centred).sum(axis=1) - true).mean())

    coolest, hottest = 1 / LOWEST_TEMPERATURE, 1 / HIGHEST_TEMPERATURE
    if slope(coolest) <= 0:
        return LOWEST_TEMPERATURE
    if slope(hottest) >= 0:
        return HIGHEST_TEMPERATURE
    return float(1 / brentq(slope, hottest, coolest, xtol=1e-12, rtol=1e-12))


def at_bound(temperature: float) -> bool:
    """Whether a temperature ended at one of its bounds: the photos could not tell it."""
    return temperature in (LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE)


def calibrated(predictions: Predictions, temperature: float) -> Predictions:
    """The same photos with logits / T and the probabilities that belong to them."""
    return with_logits(predictions, predictions.logits / temperature)


def calibrated_cell(cell: Cell) -> Cell:
    """A cell with validation and test predictions scaled by the temperature of its own validation photos."""
    temperature = fit_temperature(cell.val.logits, cell.val.labels)
    return replace(cell, val=calibrated(cell.val, temperature), test=calibrated(cell.test, temperature))


def calibrated_arm(arm: Arm) -> Arm:
    """An arm whose cells are scaled each by its own temperature: nothing is fitted on what is then measured."""
    return Arm(arm.name, arm.init, tuple(calibrated_cell(cell) for cell in arm.cells))


def reliability(labels: Integers, probabilities: Floats, bins: int = RELIABILITY_BINS) -> Reliability:
    """Reliability diagram with equal-mass bins (DeGroot and Fienberg 1983; Guo et al. 2017).

    Args:
        labels: Index of the true class, shape (n,).
        probabilities: Shape (n, classes).
        bins: At most so many; photos of equal confidence share one.

    Raises:
        PredictionsError: The arrays do not fit together.
    """
    check_probabilities(probabilities, labels)
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    position = equal_mass_bins(confidence, bins)
    count = np.bincount(position)
    hits = np.bincount(position, weights=right).astype(int)
    intervals = [wilson(int(successes), int(n)) for successes, n in zip(hits, count, strict=True)]
    return Reliability(
        count=tuple(count.tolist()),
        confidence=tuple((np.bincount(position, weights=confidence) / count).tolist()),
        accuracy=tuple((hits / count).tolist()),
        low=tuple(interval.low for interval in intervals),
        high=tuple(interval.high for interval in intervals),
    )


def brier_parts(labels: Integers, probabilities: Floats, bins: int = RELIABILITY_BINS) -> BrierParts:
    """Decompose the Brier score after Murphy (1973), with a term for what lies within the bins.

    Several classes are read one against the rest: each class's own probability is cut into equal-mass bins, the parts
    of its two-class decomposition are computed, and the parts are summed over the classes. As the Brier score here is
    the sum over the classes too, the parts add up to it. The fourth part is the within-bin variance less twice the
    within-bin covariance of Stephenson, Coelho and Jolliffe (2008).

    Args:
        labels: Index of the true class, shape (n,).
        probabilities: Shape (n, classes).
        bins: At most so many for each class; equal probabilities share one.

    Raises:
        PredictionsError: The arrays do not fit together.
    """
    check_probabilities(probabilities, labels)
    parts = np.zeros(4)
    for index, stated in enumerate(probabilities.T):
        happened = (labels == index).astype(np.float64)
        position = equal_mass_bins(stated, bins)
        count = np.bincount(position)
        mean_stated = np.bincount(position, weights=stated) / count
        mean_happened = np.bincount(position, weights=happened) / count
        share, overall = count / len(labels), happened.mean()
        around = stated - mean_stated[position]
        parts += (
            share @ (mean_stated - mean_happened) ** 2,
            share @ (mean_happened - overall) ** 2,
            overall * (1 - overall),
            (around**2).mean() - 2 * (around * (happened - mean_happened[position])).mean(),
        )
    return BrierParts(*(float(part) for part in parts))


def calibrate_out_of_fold(arm: Arm, *, draws: int = DRAWS, seed: int = 0, level: float = 0.95) -> CalibrationResult:
    """Quality of an arm's probabilities before and after temperature scaling, on its pooled test folds.

    Each cell's temperature is fitted on its own validation photos and applied to its test fold. Groups are drawn once
    for both.

    Args:
        arm: The arm.
        draws: Bootstrap draws.
        seed: Seed of the draws.
        level: Level of the intervals.
    """
    temperatures = tuple(fit_temperature(cell.val.logits, cell.val.labels) for cell in arm.cells)
    resampling = resample(arm.replicates[0].predictions, draws, seed)
    return CalibrationResult(
        temperatures=temperatures,
        at_bound=sum(map(at_bound, temperatures)),
        before=_figures(arm, resampling, level),
        after=_figures(calibrated_arm(arm), resampling, level),
    )


def _figures(arm: Arm, resampling: Resampling, level: float) -> CalibrationFigures:
    tables = [replicate.predictions for replicate in arm.replicates]
    values = resampling.mean_of([photo_metrics(table, resampling.groups.of_photo, ranked=False) for table in tables])
    parts = [astuple(brier_parts(table.labels, table.probabilities)) for table in tables]
    return CalibrationFigures(
        log_loss=estimate(resampling.statistic(values["log_loss"]), level),
        brier=estimate(resampling.statistic(values["brier"]), level),
        ece=estimate(resampling.statistic(values["expected_calibration_error"]), level, bca=False),
        reliability=reliability(tables[0].labels, tables[0].probabilities),
        parts=BrierParts(*np.mean(parts, axis=0).tolist()),
    )
