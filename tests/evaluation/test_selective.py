"""Risk-coverage figures equal plain counting; ties, thresholds and their intervals are as documented."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import labelled, simulated, simulated_arm
from sklearn.metrics import auc
from statsmodels.stats.proportion import proportion_confint

from hcoatnet.errors import EvidenceError, PredictionsError
from hcoatnet.evaluation.calibration import calibrated_arm
from hcoatnet.evaluation.resampling import resample
from hcoatnet.evaluation.selective import (
    COVERAGES,
    ERROR_RATES,
    RankedAnswers,
    abstain_threshold,
    accuracy_at,
    risk_coverage,
    selective_out_of_fold,
)

SEEDS = st.integers(0, 10_000)


def two_classes(confidence, right):
    """Labels and probabilities with these confidences, answered rightly or wrongly."""
    confidence = np.array(confidence, dtype=float)
    return 1 - np.array(right, dtype=int), np.column_stack([confidence, 1 - confidence])


def table_of(confidence, right, groups=None):
    labels, probabilities = two_classes(confidence, right)
    return labelled(labels, np.log(probabilities), groups)


class TestCurve:
    def test_by_hand(self):
        curve = risk_coverage(*two_classes([0.6, 0.9, 0.8, 0.7], [0, 1, 0, 1]))
        np.testing.assert_allclose(curve.coverage, [0.25, 0.5, 0.75, 1])
        np.testing.assert_allclose(curve.risk, [0, 1 / 2, 1 / 3, 1 / 2])
        assert curve.aurc == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)

    @settings(max_examples=50, deadline=None)
    @given(seed=SEEDS, n=st.integers(5, 80), classes=st.integers(2, 5))
    def test_is_counting_where_no_confidences_are_equal(self, seed, n, classes):
        table = simulated(seed, n, classes)
        curve = risk_coverage(table.labels, table.probabilities)
        order = np.argsort(-table.probabilities.max(axis=1))
        wrong = (table.predicted != table.labels)[order]
        expected = [wrong[: k + 1].mean() for k in range(n)]
        np.testing.assert_allclose(curve.risk, expected, atol=1e-12)
        assert curve.aurc == pytest.approx(np.mean(expected))
        assert curve.risk[-1] == pytest.approx((table.predicted != table.labels).mean())

    def test_area_of_many_photos_is_the_trapezoidal_one(self):
        table = simulated(2, 5000)
        curve = risk_coverage(table.labels, table.probabilities)
        assert curve.aurc == pytest.approx(auc(curve.coverage, curve.risk), abs=1e-3)

    def test_ties_count_the_mean_over_all_orders(self):
        right = [1, 0, 0, 1, 1]
        curve = risk_coverage(*two_classes([0.9, 0.7, 0.7, 0.7, 0.6], right))
        orders = [[right[0], *middle, right[4]] for middle in permutations(right[1:4])]
        risks = [1 - np.cumsum(one) / np.arange(1, 6) for one in orders]
        np.testing.assert_allclose(curve.risk, np.mean(risks, axis=0))
        assert curve.aurc == pytest.approx(np.mean(risks))

    @settings(max_examples=50, deadline=None)
    @given(seed=SEEDS, n=st.integers(5, 60), classes=st.integers(2, 5))
    def test_relabelling_and_reordering_change_nothing(self, seed, n, classes):
        rng = np.random.default_rng(seed)
        probabilities = simulated(seed, n, classes).probabilities[rng.integers(0, n, n)]  # some of equal confidence
        labels = rng.integers(0, classes, n)
        order, names = rng.permutation(n), rng.permutation(classes)
        before = risk_coverage(labels, probabilities).risk
        np.testing.assert_allclose(risk_coverage(labels[order], probabilities[order]).risk, before, atol=1e-12)
        after = risk_coverage(np.argsort(names)[labels], probabilities[:, names]).risk
        np.testing.assert_allclose(after, before, atol=1e-12)

    def test_input_that_does_not_fit_is_refused(self):
        with pytest.raises(PredictionsError, match="do not sum to 1"):
            risk_coverage(np.array([0]), np.array([[0.7, 0.7]]))


class TestAccuracyAt:
    def test_by_hand(self):
        photos = two_classes([0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.58, 0.55], [1, 1, 1, 0, 1, 1, 1, 0, 0, 0])
        assert accuracy_at(*photos, 0.3) == pytest.approx(1.0)
        assert accuracy_at(*photos, 0.8) == pytest.approx(6 / 8)
        assert accuracy_at(*photos, 0.81) == pytest.approx(6 / 9)
        assert accuracy_at(*photos, 0.9) == pytest.approx(6 / 9)
        assert accuracy_at(*photos, 1) == pytest.approx(6 / 10)

    @pytest.mark.parametrize("coverage", [0, -0.1, 1.01, 80])
    def test_coverage_out_of_range(self, coverage):
        with pytest.raises(EvidenceError, match="above 0 and at most 1"):
            accuracy_at(*two_classes([0.9], [1]), coverage)


class TestWeightedFigures:
    @settings(max_examples=40, deadline=None)
    @given(seed=SEEDS, n=st.integers(4, 40), distinct=st.integers(1, 40))
    def test_weights_are_copies(self, seed, n, distinct):
        rng = np.random.default_rng(seed)
        confidence = (rng.integers(0, distinct, n) + 1) / (2 * distinct + 2) + 0.5
        right, groups = rng.integers(0, 2, n), rng.integers(0, 5, n)
        groups[:5] = range(min(5, n))
        weights = rng.integers(0, 4, size=(5, 6))
        weights[0] = np.maximum(weights[0], 1)
        levels, block = np.unique(-confidence, return_inverse=True)
        photos, wrong = np.zeros((2, len(levels), 5))
        np.add.at(photos, (block, groups), 1)
        np.add.at(wrong, (block, groups), 1 - right)
        found = RankedAnswers(photos, wrong).on(weights.astype(float))
        for column in range(6):
            copies = weights[groups, column]
            sample = two_classes(np.repeat(confidence, copies), np.repeat(right, copies))
            assert found["aurc"][column] == pytest.approx(risk_coverage(*sample).aurc, abs=1e-12)
            for coverage in COVERAGES:
                assert found[str(coverage)][column] == pytest.approx(accuracy_at(*sample, coverage), abs=1e-12)

    @pytest.mark.filterwarnings("error")
    def test_no_photos_give_nothing(self):
        found = RankedAnswers(np.ones((2, 1)), np.zeros((2, 1))).on(np.zeros((1, 1)))
        assert all(np.isnan(value).all() for value in found.values())


class TestOutOfFold:
    def test_figures_are_those_of_the_calibrated_test_folds(self):
        arm = simulated_arm(seeds=(1, 2), scale=3.0)
        result = selective_out_of_fold(arm, draws=100)
        tables = [one.predictions for one in calibrated_arm(arm).replicates]
        curves = [risk_coverage(table.labels, table.probabilities) for table in tables]
        np.testing.assert_array_equal(result.curve.risk, curves[0].risk)
        assert result.aurc.value == pytest.approx(np.mean([curve.aurc for curve in curves]))
        assert result.aurc.percentile.low < result.aurc.value < result.aurc.percentile.high
        assert set(result.accuracy_at) == set(COVERAGES)
        for coverage, figure in result.accuracy_at.items():
            expected = [accuracy_at(table.labels, table.probabilities, coverage) for table in tables]
            assert figure.value == pytest.approx(np.mean(expected))
            assert figure.percentile.low < figure.value < figure.percentile.high

    def test_one_seed_is_enough(self):
        arm = simulated_arm(seeds=(1,))
        (table,) = (one.predictions for one in calibrated_arm(arm).replicates)
        expected = risk_coverage(table.labels, table.probabilities).aurc
        assert selective_out_of_fold(arm, draws=2).aurc.value == pytest.approx(expected)


def test_what_is_reported_unasked():
    assert (COVERAGES, ERROR_RATES) == ((0.8, 0.9), (0.05, 0.1))


class TestAbstainThreshold:
    confidence = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6)
    right = (1, 1, 1, 0, 1, 1, 0, 0)

    @pytest.mark.parametrize(
        ("error_rate", "threshold", "photos", "errors"),
        [(0.17, 0.7, 6, 1), (0.26, 0.7, 6, 1), (0.3, 0.65, 7, 2), (0.5, 0.6, 8, 3)],
    )
    def test_by_hand(self, error_rate, threshold, photos, errors):
        found = abstain_threshold(table_of(self.confidence, self.right), error_rate, draws=50)
        assert found.threshold == pytest.approx(threshold)
        assert (found.photos, found.groups) == (photos, photos)
        assert found.coverage == pytest.approx(photos / 8)
        assert found.error == pytest.approx(errors / photos)
        assert (found.wilson.low, found.wilson.high) == pytest.approx(
            proportion_confint(errors, photos, method="wilson")
        )
        assert found.reason is None

    @settings(max_examples=60, deadline=None)
    @given(seed=SEEDS, n=st.integers(5, 90), error_rate=st.sampled_from([0.1, 0.2, 0.3, 0.5]))
    def test_it_is_the_lowest_that_keeps_the_rate_with_enough_groups(self, seed, n, error_rate):
        table = simulated(seed, n)
        confidence, wrong = table.probabilities.max(axis=1), table.predicted != table.labels
        good = [
            level
            for level in confidence
            if wrong[confidence >= level].mean() <= error_rate
            and len(set(table.groups[confidence >= level])) >= 1 / error_rate
        ]
        found = abstain_threshold(table, error_rate, draws=2)
        assert found.threshold == (min(good) if good else None)
        assert (found.reason is None) == bool(good)
        order = np.random.default_rng(seed).permutation(n)
        other = type(table)(table.table.iloc[order].reset_index(drop=True), table.classes)
        assert abstain_threshold(other, error_rate, draws=2) == found

    @pytest.mark.parametrize(("error_rate", "least"), [(0.05, 20), (0.1, 10), (0.3, 4), (0.5, 2)])
    def test_too_few_groups_cannot_show_the_rate(self, error_rate, least):
        confidence = np.linspace(0.9, 0.8, 3 * least)
        groups = np.repeat(np.arange(least), 3)
        enough = abstain_threshold(table_of(confidence, [1] * 3 * least, groups), error_rate, draws=2)
        assert (enough.least_groups, enough.groups, enough.photos) == (least, least, 3 * least)
        cut = slice(0, 3 * (least - 1))
        fewer = abstain_threshold(table_of(confidence[cut], [1] * (3 * least - 3), groups[cut]), error_rate, draws=2)
        assert fewer.threshold is None
        assert fewer.reason == f"An error of {error_rate} can only be shown with photos of at least {least} groups."

    def test_photos_of_equal_confidence_are_answered_together(self):
        found = abstain_threshold(table_of([0.9, 0.9, 0.9, 0.9, 0.6], [1, 1, 1, 0, 1]), 0.3, draws=2)
        assert found.threshold == pytest.approx(0.6)
        assert found.error == pytest.approx(1 / 5)
        assert abstain_threshold(table_of([0.9, 0.9, 0.9, 0.9], [1, 1, 0, 0]), 0.3, draws=2).threshold is None

    def test_no_threshold_says_why(self):
        found = abstain_threshold(table_of([0.95, 0.9, 0.8, 0.7], [0, 0, 1, 0]), 0.4)
        assert found.threshold is found.error is found.interval is found.wilson is None
        assert (found.photos, found.groups, found.coverage) == (0, 0, 0.0)
        assert found.reason == (
            "No threshold that answers photos of 3 groups or more keeps the error at 0.4: the lowest is 0.667, with 3 "
            "of 4 photos answered."
        )

    def test_the_interval_draws_groups_at_the_fixed_threshold(self):
        table = simulated(8, 200, photos_a_group=4)
        found = abstain_threshold(table, 0.2, draws=400, seed=3)
        resampling = resample(table, 400, 3)
        kept = table.probabilities.max(axis=1) >= found.threshold
        wrong = (table.predicted != table.labels) & kept
        weights = resampling.counts[:, resampling.groups.of_photo]
        draws = (weights * wrong).sum(axis=1) / (weights * kept).sum(axis=1)
        assert (found.interval.low, found.interval.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])))
        assert found.groups == len(set(table.groups[kept]))

    def test_without_a_wrong_answer_wilson_remains(self):
        found = abstain_threshold(table_of(self.confidence, [1] * 8), 0.2, draws=50)
        assert (found.error, found.interval) == (0.0, None)
        assert found.wilson.high == pytest.approx(proportion_confint(0, 8, method="wilson")[1])

    @pytest.mark.parametrize("rate", [-0.01, 0.0, 1.0, 5])
    def test_rates_out_of_range(self, rate):
        with pytest.raises(EvidenceError, match="above 0 and below 1"):
            abstain_threshold(table_of([0.9], [1]), rate)
