"""Bootstrap intervals equal SciPy's from the same draws; Wilson's equal statsmodels' and the published ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap
from scipy.stats._resampling import BootstrapResult
from statsmodels.stats.proportion import proportion_confint

from hcoatnet.evaluation.intervals import Estimate, Interval, Resampled, acceleration, estimate, wilson

LEVELS = (0.4, 0.8, 0.9, 0.95)


def skewed(seed: int, n: int = 40, draws: int = 500) -> tuple[np.ndarray, Resampled]:
    """The variance of exponential numbers: skewed, so that all corrections matter."""
    rng = np.random.default_rng(seed)
    numbers = rng.exponential(size=n)
    drawn = numbers[rng.integers(n, size=(draws, n))].var(axis=1)
    without = np.array([np.delete(numbers, place).var() for place in range(n)])
    return numbers, Resampled(float(numbers.var()), drawn, without, np.zeros(n, dtype=np.int64))


def scipy_interval(data: tuple[np.ndarray, ...], statistic, draws: np.ndarray, method: str, level: float) -> Interval:
    # SciPy computes its interval from draws that it is given, so both see the same ones.
    given_draws = BootstrapResult(confidence_interval=None, bootstrap_distribution=draws, standard_error=None)
    found = bootstrap(
        data, statistic, n_resamples=0, bootstrap_result=given_draws, method=method, confidence_level=level, axis=-1
    )
    return Interval(*map(float, found.confidence_interval))


def close(interval: Interval | None) -> object:
    assert interval is not None
    return pytest.approx((interval.low, interval.high), rel=1e-9)


class TestAgainstSciPy:
    @pytest.mark.parametrize("level", LEVELS)
    @pytest.mark.parametrize("seed", range(4))
    def test_percentile_and_bca_and_standard_error(self, seed: int, level: float) -> None:
        numbers, statistic = skewed(seed)
        found = estimate(statistic, level)
        for interval, method in ((found.percentile, "percentile"), (found.bca, "BCa")):
            expected = scipy_interval((numbers,), np.var, statistic.draws, method, level)
            assert (expected.low, expected.high) == close(interval), method
        assert found.value == numbers.var()
        assert found.standard_error == pytest.approx(statistic.draws.std(ddof=1))
        assert found.percentile != found.bca

    @pytest.mark.parametrize("seed", range(4))
    def test_bca_of_two_strata(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        one, other = rng.exponential(size=15), rng.exponential(3, size=25)
        drawn = [part[rng.integers(len(part), size=(800, len(part)))].mean(axis=1) for part in (one, other)]
        without = [np.array([np.delete(part, place).mean() for place in range(len(part))]) for part in (one, other)]
        statistic = Resampled(
            value=one.mean() * other.mean(),
            draws=drawn[0] * drawn[1],
            without=np.concatenate([without[0] * other.mean(), one.mean() * without[1]]),
            strata=np.repeat([0, 1], [15, 25]),
        )
        expected = scipy_interval(
            (one, other), lambda a, b, axis: a.mean(axis=axis) * b.mean(axis=axis), statistic.draws, "BCa", 0.95
        )
        assert (expected.low, expected.high) == close(estimate(statistic).bca)

    def test_ties_with_the_value_count_half(self) -> None:
        rng = np.random.default_rng(0)
        answers = (rng.random(30) < 0.7).astype(float)
        drawn = answers[rng.integers(30, size=(400, 30))].mean(axis=1)
        assert (np.abs(drawn - answers.mean()) < 1e-12).mean() > 0.1
        without = np.array([np.delete(answers, place).mean() for place in range(30)])
        # Rounding errors, as sums in another order have them, do not break the ties.
        blurred = drawn + rng.choice([-1, 1], 400) * 1e-15
        statistic = Resampled(float(answers.mean()), blurred, without, np.zeros(30, dtype=np.int64))
        expected = scipy_interval((answers,), np.mean, np.round(drawn * 30) / 30, "BCa", 0.95)
        assert (expected.low, expected.high) == close(estimate(statistic).bca)


class TestUndefined:
    def test_an_undefined_statistic_has_nothing(self) -> None:
        _, statistic = skewed(0)
        undefined = Resampled(np.nan, statistic.draws, statistic.without, statistic.strata)
        assert estimate(undefined) == Estimate(None, None, None, None)

    @pytest.mark.parametrize(("undefined", "has_interval"), [(0, True), (50, True), (51, False), (500, False)])
    def test_nine_draws_in_ten_must_be_defined(self, undefined: int, has_interval: bool) -> None:
        _, statistic = skewed(0)
        draws = np.where(np.arange(500) < undefined, np.nan, statistic.draws)
        found = estimate(Resampled(statistic.value, draws, statistic.without, statistic.strata))
        assert found.value == statistic.value
        assert (found.percentile is not None) == (found.bca is not None) == has_interval
        assert (found.standard_error is not None) == has_interval
        if has_interval:
            kept = np.quantile(draws[undefined:], [0.025, 0.975])
            assert (found.percentile.low, found.percentile.high) == pytest.approx(tuple(kept))

    def test_a_statistic_that_never_varies_has_no_interval(self) -> None:
        constant = Resampled(1.0, np.ones(100), np.ones(10), np.zeros(10, dtype=np.int64))
        assert estimate(constant) == Estimate(1.0, None, None, 0.0)

    def test_no_correction_where_all_draws_lie_on_one_side(self) -> None:
        _, statistic = skewed(0)
        for value in (statistic.draws.min() - 1, statistic.draws.max() + 1):
            for without in (statistic.without, np.zeros_like(statistic.without)):
                found = estimate(Resampled(value, statistic.draws, without, statistic.strata))
                assert found.bca is None
                assert found.percentile is not None

    def test_a_group_without_which_nothing_is_defined_counts_as_average(self) -> None:
        _, statistic = skewed(3, n=20)
        without = statistic.without.copy()
        without[4] = np.nan
        average = without.copy()
        average[4] = np.nanmean(without)
        assert acceleration(without, statistic.strata) == pytest.approx(acceleration(average, statistic.strata))

    def test_the_only_group_without_which_something_is_defined_is_the_average(self) -> None:
        _, statistic = skewed(3, n=20)
        two_more = np.append(statistic.without, [7.0, np.nan])
        strata = np.append(statistic.strata, [1, 1])
        assert acceleration(two_more, strata) == pytest.approx(acceleration(statistic.without, statistic.strata))

    def test_acceleration_has_no_unit_but_rounding_errors_are_no_influence(self) -> None:
        _, statistic = skewed(3, n=20)
        expected = acceleration(statistic.without, statistic.strata)
        assert acceleration(1e-9 * statistic.without, statistic.strata) == pytest.approx(expected)
        assert acceleration(1e-15 * statistic.without, statistic.strata) == 0

    def test_strata_of_one_group_have_no_influence(self) -> None:
        _, statistic = skewed(3, n=20)
        strata = np.append(statistic.strata, 1)
        alone = acceleration(np.append(statistic.without, 100.0), strata)
        assert alone == pytest.approx(acceleration(statistic.without, statistic.strata))
        assert alone != 0
        assert acceleration(np.arange(5.0), np.arange(5)) == 0


class TestDifference:
    @settings(max_examples=20, deadline=None)
    @given(seed=st.integers(0, 1000))
    def test_turning_it_round_turns_the_intervals_round(self, seed: int) -> None:
        _, one = skewed(seed)
        _, other = skewed(seed + 1)
        there, back = estimate(one - other), estimate(other - one)
        for name in ("percentile", "bca"):
            mine, theirs = getattr(there, name), getattr(back, name)
            assert (mine.low, mine.high) == pytest.approx((-theirs.high, -theirs.low)), name


class TestWilson:
    @settings(max_examples=100, deadline=None)
    @given(data=st.data(), n=st.integers(1, 500), level=st.sampled_from(LEVELS))
    def test_equals_statsmodels(self, data: st.DataObject, n: int, level: float) -> None:
        successes = data.draw(st.integers(0, n))
        expected = proportion_confint(successes, n, alpha=1 - level, method="wilson")
        assert expected == pytest.approx(tuple(vars(wilson(successes, n, level)).values()), abs=1e-12)

    @pytest.mark.parametrize(
        ("right", "n", "low", "high"), [(143, 158, 84.9, 94.2), (131, 158, 76.3, 88.0), (8, 13, 35.5, 82.3)]
    )
    def test_published_intervals(self, right: int, n: int, low: float, high: float) -> None:
        found = wilson(right, n)
        assert (round(100 * found.low, 1), round(100 * found.high, 1)) == (low, high)

    @pytest.mark.parametrize("n", [1, 5, 13])
    def test_ends(self, n: int) -> None:
        assert wilson(0, n).low == 0
        assert wilson(n, n).high == 1
        assert 0 < wilson(0, n).high < 1


def test_the_interval_to_show_is_the_corrected_one_where_there_is_one() -> None:
    _, statistic = skewed(0)
    corrected, plain = estimate(statistic), estimate(statistic, bca=False)
    assert corrected.interval == corrected.bca
    assert plain.bca is None
    assert plain.interval == plain.percentile == corrected.percentile
