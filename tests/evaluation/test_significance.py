"""Tests of differences reproduce published tables, statsmodels and SciPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_1samp
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from hcoatnet.evaluation.significance import (
    McNemar,
    bootstrap_p,
    corrected_t,
    correction_factor,
    holm,
    mcnemar,
)

PUBLISHED = [
    ([[107, 33], [8, 10]], 14.0488, 1.78129e-4),
    ([[129, 11], [14, 4]], 0.16, 0.689157),
    ([[99, 41], [7, 11]], 22.6875, 1.90604e-6),
    ([[123, 17], [13, 5]], 0.3, 0.583882),
    ([[112, 28], [9, 9]], 8.75676, 0.00308456),
    ([[113, 27], [11, 7]], 5.92105, 0.0149610),
]


def from_table(table: list[list[int]]) -> McNemar:
    """Photos in the order both right, only the model, only the reference, both wrong."""
    counts = np.ravel(table)
    return mcnemar(np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts))


class TestMcNemar:
    @pytest.mark.parametrize(("table", "chi2", "p"), PUBLISHED)
    def test_published_tables(self, table: list[list[int]], chi2: float, p: float) -> None:
        found = from_table(table)
        assert [[found.both_right, found.only_model], [found.only_reference, found.both_wrong]] == table
        assert (found.corrected_chi2, found.corrected_p) == pytest.approx((chi2, p), rel=1e-5)

    @settings(max_examples=100, deadline=None)
    @given(table=st.lists(st.lists(st.integers(0, 60), min_size=2, max_size=2), min_size=2, max_size=2))
    def test_equals_statsmodels(self, table: list[list[int]]) -> None:
        found = from_table(table)
        (_, b), (c, _) = table
        assert found.exact_p == pytest.approx(statsmodels_mcnemar(table, exact=True).pvalue if b + c else 1.0)
        if b == c:
            # The correction never makes a difference out of none.
            assert (found.corrected_chi2, found.corrected_p) == (0.0, 1.0)
        else:
            expected = statsmodels_mcnemar(table, exact=False, correction=True)
            assert found.corrected_chi2 == pytest.approx(expected.statistic)
            assert found.corrected_p == pytest.approx(expected.pvalue)

    def test_twenty_discordant_photos_must_split_15_to_5(self) -> None:
        # SPEC: with 158 photos, 20 of them discordant, models must differ by 6.3 points.
        assert from_table([[100, 14], [6, 38]]).exact_p > 0.05
        assert from_table([[100, 15], [5, 38]]).exact_p < 0.05
        assert round(100 * (15 - 5) / 158, 1) == 6.3


class TestCorrectedT:
    @pytest.mark.parametrize(
        ("ratio", "cells", "factor"), [(1 / 4, 5, 1.50), (1 / 4, 25, 2.69), (1 / 3, 5, 1.63), (1 / 3, 25, 3.06)]
    )
    def test_published_factors(self, ratio: float, cells: int, factor: float) -> None:
        assert round(correction_factor(cells, ratio), 2) == factor
        differences = np.random.default_rng(0).normal(size=cells)
        naive = differences.std(ddof=1) / np.sqrt(cells)
        assert corrected_t(differences, ratio).standard_error / naive == pytest.approx(factor, abs=0.005)

    @settings(max_examples=50, deadline=None)
    @given(seed=st.integers(0, 10_000), cells=st.integers(2, 30))
    def test_without_training_photos_shared_it_is_the_ordinary_t_test(self, seed: int, cells: int) -> None:
        differences = np.random.default_rng(seed).normal(0.3, 1, size=cells)
        found, expected = corrected_t(differences, 0.0), ttest_1samp(differences, 0)
        assert (found.t, found.df, found.p) == pytest.approx((expected.statistic, expected.df, expected.pvalue))

    def test_closed_form(self) -> None:
        found = corrected_t(np.array([0.01, 0.03, 0.05]), 0.5)
        assert found.mean == pytest.approx(0.03)
        assert found.standard_error == pytest.approx(0.02 * np.sqrt(1 / 3 + 0.5))
        # With two degrees of freedom, P(|T| > t) = 1 − t/√(2 + t²).
        assert found.p == pytest.approx(1 - found.t / np.sqrt(2 + found.t**2))

    @pytest.mark.parametrize(("difference", "t", "p"), [(0.0, 0.0, 1.0), (0.1, np.inf, 0.0), (-0.1, -np.inf, 0.0)])
    def test_equal_differences(self, difference: float, t: float, p: float) -> None:
        found = corrected_t(np.full(5, difference), 0.25)
        assert (found.t, found.p) == (t, p)


class TestHolm:
    @pytest.mark.parametrize("count", [1, 2, 7, 12])
    def test_equals_statsmodels(self, count: int) -> None:
        # Rounded, so that some are equal.
        p_values = np.round(np.random.default_rng(count).random(count) ** 3, 2).tolist()
        assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])

    def test_by_hand(self) -> None:
        assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
        assert holm([]) == []


class TestBootstrapP:
    @pytest.mark.parametrize(
        ("draws", "p"),
        [
            (np.arange(1, 100), 2 / 100),
            (-np.arange(1, 100), 2 / 100),
            (np.arange(-4, 95), 2 * 6 / 100),
            (np.arange(-49, 50), 1.0),
            (np.zeros(99), 1.0),
            (np.full(99, 1e-15), 1.0),
        ],
    )
    def test_by_hand(self, draws: np.ndarray, p: float) -> None:
        assert bootstrap_p(draws) == pytest.approx(p)

    @settings(max_examples=50, deadline=None)
    @given(seed=st.integers(0, 10_000), shift=st.floats(-3, 3))
    def test_agrees_with_the_percentile_interval(self, seed: int, shift: float) -> None:
        draws = np.random.default_rng(seed).normal(shift, 1, size=999)
        low, high = np.quantile(draws, [0.025, 0.975])
        p = bootstrap_p(draws)
        # Between these, the interval's interpolated end and the + 1 of the p may differ by one draw.
        if not 0.05 <= p <= 0.052:
            assert (p < 0.05) == (low > 0 or high < 0)
