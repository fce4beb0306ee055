"""Intervals: from bootstrap draws over groups, and Wilson's for a count of photos.

The bootstrap knows nothing of models or metrics here: it gets a statistic's value on the sample, on every draw, and
with every group left out once (see ``resampling.py``).
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from hcoatnet.evaluation.predictions import Floats, Integers

LEAST_DEFINED = 0.9
"""Share of draws that must be defined for an interval to be given."""
TIE = 1e-12
"""Values this close are equal: sums of the same numbers in another order."""


@dataclass(frozen=True)
class Interval:
    """A two-sided confidence interval, low ≤ high."""

    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """A statistic and how sure it is.

    Attributes:
        value: On the sample; None where it is undefined.
        percentile: Percentile bootstrap interval; None where undefined, and where the statistic is the same on every
            draw (a class whose photos are all right, a single group): the draws then say nothing about its error.
        bca: Bias-corrected and accelerated bootstrap interval. None where there is no percentile interval, and where
            all draws lie on one side of the value, so that no correction can be computed, or it would mislead.
        standard_error: Standard deviation over the draws; None where undefined.
    """

    value: float | None
    percentile: Interval | None
    bca: Interval | None
    standard_error: float | None

    @property
    def interval(self) -> Interval | None:
        """The interval to show: BCa, or percentile where that cannot be computed."""
        return self.bca or self.percentile


@dataclass(frozen=True, eq=False)
class Resampled:
    """One statistic of a sample of groups, NaN wherever it is undefined.

    Attributes:
        value: On the sample.
        draws: On each bootstrap draw, shape (draws,).
        without: On the sample without one group, for each group, shape (groups,).
        strata: Stratum of each group, shape (groups,).
    """

    value: float
    draws: Floats
    without: Floats
    strata: Integers

    def __sub__(self, other: "Resampled") -> "Resampled":
        """The paired difference; both must come from the same draws."""
        return Resampled(self.value - other.value, self.draws - other.draws, self.without - other.without, self.strata)


def estimate(statistic: Resampled, level: float = 0.95, *, bca: bool = True) -> Estimate:
    """Percentile and BCa intervals and the standard error of a statistic.

    Percentile interval: the quantiles (1 ∓ level)/2 of the draws. BCa (Efron 1987; Davison and Hinkley 1997, section
    5.3, for several strata): the same quantiles, moved by the bias correction z₀, the normal quantile of the share of
    draws under the value (ties counted half), and by the acceleration, from the jackknife over groups.

    Draws on which the statistic is undefined are left out; an interval is given only if at least 90 % are defined,
    because the rest would describe another, luckier sample.

    Without ``bca`` there is no BCa interval: for the expected calibration error, which chance alone makes larger in the
    draws than in the sample, the correction overshoots and can leave the value out.
    """
    if np.isnan(statistic.value):
        return Estimate(None, None, None, None)
    draws = statistic.draws[~np.isnan(statistic.draws)]
    if len(draws) < max(2, LEAST_DEFINED * len(statistic.draws)):
        return Estimate(statistic.value, None, None, None)
    if np.ptp(draws) <= TIE:
        return Estimate(statistic.value, None, None, 0.0)
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    corrected = _corrected_tails(statistic, draws, tails) if bca else None
    return Estimate(
        value=statistic.value,
        percentile=_quantiles(draws, tails),
        bca=None if corrected is None else _quantiles(draws, corrected),
        standard_error=float(draws.std(ddof=1)),
    )


def acceleration(without: Floats, strata: Integers) -> float:
    """Acceleration a of the BCa interval: Σ u³ / (6 (Σ u²)^1.5), from statistics without one group.

    u = (n_s − 1)/n_s · (mean over the stratum − value without the group), n_s groups in the stratum: Davison and
    Hinkley (1997), equation 5.26, with jackknife influence values. A group without which the statistic is undefined
    counts as average. 0 where no group has any influence.
    """
    defined = ~np.isnan(without)
    sizes = np.bincount(strata)
    known = np.bincount(strata, weights=defined)
    sums = np.bincount(strata, weights=np.where(defined, without, 0.0))
    means = (sums / np.maximum(known, 1))[strata]
    influence = np.where(defined, means - without, 0.0) * ((sizes - 1) / np.maximum(sizes, 1))[strata]
    spread = float((influence**2).sum())
    return float((influence**3).sum()) / (6 * spread**1.5) if spread > TIE**2 else 0.0


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927), which assumes independent photos.

    Args:
        successes: Between 0 and ``n``.
        n: At least 1.
        level: Between 0 and 1.
    """
    z = float(ndtri((1 + level) / 2))
    share = successes / n
    centre = share + z**2 / (2 * n)
    reach = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    scale = 1 + z**2 / n
    return Interval(max(0.0, float((centre - reach) / scale)), min(1.0, float((centre + reach) / scale)))


def _corrected_tails(statistic: Resampled, draws: Floats, tails: Floats) -> Floats | None:
    ties = np.abs(draws - statistic.value) <= TIE
    under = ((draws < statistic.value) & ~ties).mean() + 0.5 * ties.mean()
    if not 0 < under < 1:
        return None
    bias = ndtri(under)
    reach = bias + ndtri(tails)
    slack = 1 - acceleration(statistic.without, statistic.strata) * reach
    # Beyond slack 0 the transformation turns round; only tiny samples with one dominant group come there.
    if (slack <= 0).any():
        return None
    corrected: Floats = ndtr(bias + reach / slack)
    return corrected


def _quantiles(draws: Floats, tails: Floats) -> Interval:
    low, high = np.quantile(draws, tails)
    return Interval(float(low), float(high))
