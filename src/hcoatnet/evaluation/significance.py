"""Tests of a difference between two models, and Holm's correction for several of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom, chi2
from scipy.stats import t as student

from hcoatnet.evaluation.intervals import TIE
from hcoatnet.evaluation.predictions import Floats

Booleans = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]


@dataclass(frozen=True)
class CorrectedT:
    """Nadeau and Bengio's corrected resampled t test (see :func:`corrected_t`).

    Attributes:
        mean: Mean difference over the cells, model − reference.
        standard_error: Corrected for the overlap of the training sets.
        t: mean / standard_error; infinite where all cells show the same difference.
        df: Degrees of freedom, cells − 1.
        p: Two-sided.
        p_holm: ``p`` after Holm's correction over the comparison.
    """

    mean: float
    standard_error: float
    t: float
    df: int
    p: float
    p_holm: float


@dataclass(frozen=True)
class McNemar:
    """McNemar's tests of one pair of models (see :func:`mcnemar`). They assume independent photos.

    Attributes:
        both_right: Photos that both name rightly.
        only_model: Photos that only the model names rightly.
        only_reference: Photos that only the reference names rightly.
        both_wrong: Photos that both name wrongly.
        exact_p: Two-sided exact binomial p.
        corrected_chi2: Continuity-corrected χ² with one degree of freedom.
        corrected_p: Its p.
        exact_p_holm: ``exact_p`` after Holm's correction over the comparison.
        corrected_p_holm: ``corrected_p`` after Holm's correction over the comparison.
    """

    both_right: int
    only_model: int
    only_reference: int
    both_wrong: int
    exact_p: float
    corrected_chi2: float
    corrected_p: float
    exact_p_holm: float
    corrected_p_holm: float


def bootstrap_p(draws: Floats) -> float:
    """Two-sided bootstrap p of "the difference is 0": 2·(min(#{Δ ≤ 0}, #{Δ ≥ 0}) + 1)/(B + 1), at most 1.

    It inverts the percentile interval (Davison and Hinkley 1997, section 4.4, with their + 1): p < 0.05 where the 95 %
    percentile interval leaves out 0. The least value that B draws can give is 2/(B + 1).

    Args:
        draws: Paired differences, shape (B,), none undefined.
    """
    tail = min(int((draws <= TIE).sum()), int((draws >= -TIE).sum()))
    return min(1.0, 2 * (tail + 1) / (len(draws) + 1))


def correction_factor(cells: int, ratio: float) -> float:
    """√(1 + J·n_test/n_train): what the naive standard error of J cells is multiplied by (Nadeau and Bengio 2003)."""
    return float(np.sqrt(1 + cells * ratio))


def corrected_t(differences: Floats, ratio: float) -> CorrectedT:
    """Corrected resampled t test of the mean difference over the folds of a (repeated) cross-validation.

    The variance of Nadeau and Bengio (2003, equation 8): (1/J + n_test/n_train)·s², as the training sets of different
    folds share photos and their differences are not independent; with J − 1 degrees of freedom, as Bouckaert and Frank
    (2004) use it for repeated cross-validation. ``p_holm`` is left equal to ``p``.

    Args:
        differences: Model − reference in each of J ≥ 2 cells (repeat and fold), shape (J,).
        ratio: Test photos over training photos of a cell.
    """
    cells = len(differences)
    mean = float(differences.mean())
    error = float(differences.std(ddof=1) / np.sqrt(cells)) * correction_factor(cells, ratio)
    if error <= TIE:
        same = abs(mean) <= TIE
        value, p = (0.0, 1.0) if same else (float(np.copysign(np.inf, mean)), 0.0)
    else:
        value = mean / error
        p = float(2 * student.sf(abs(value), cells - 1))
    return CorrectedT(mean, error, value, cells - 1, p, p)


def mcnemar(model_right: Booleans, reference_right: Booleans) -> McNemar:
    """Exact and continuity-corrected McNemar test of "both name equally many photos rightly" (McNemar 1947).

    Only the b + c discordant photos count. Exact: 2·P(X ≤ min(b, c)), X binomial with b + c trials and chance ½, at
    most 1. Corrected: χ² = max(|b − c| − 1, 0)²/(b + c) with one degree of freedom (Edwards 1948). Without a discordant
    photo both p are 1. The Holm fields are left equal to their p.

    Args:
        model_right: Whether the model is right, shape (n,).
        reference_right: The same for the reference and the same photos.
    """
    only_model = int((model_right & ~reference_right).sum())
    only_reference = int((~model_right & reference_right).sum())
    discordant = only_model + only_reference
    exact = min(1.0, 2 * float(binom.cdf(min(only_model, only_reference), discordant, 0.5)))
    statistic = max(abs(only_model - only_reference) - 1, 0) ** 2 / max(discordant, 1)
    corrected = float(chi2.sf(statistic, 1))
    return McNemar(
        both_right=int((model_right & reference_right).sum()),
        only_model=only_model,
        only_reference=only_reference,
        both_wrong=int((~model_right & ~reference_right).sum()),
        exact_p=exact,
        corrected_chi2=statistic,
        corrected_p=corrected,
        exact_p_holm=exact,
        corrected_p_holm=corrected,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values (Holm 1979), in the order given.

    The i-th smallest becomes max over j ≤ i of (m − j + 1)·p₍ⱼ₎, at most 1. They hold the chance of any false
    "different" over the whole family at the level, however the tests depend on each other.
    """
    order = np.argsort(p_values, kind="stable")
    count = len(p_values)
    scaled = np.array(p_values, dtype=np.float64)[order] * (count - np.arange(count))
    adjusted = np.empty(count)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return [float(value) for value in adjusted]
