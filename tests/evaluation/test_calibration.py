"""Temperatures equal scikit-learn's and known ones; diagram and Brier parts equal closed forms."""

from dataclasses import astuple, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from simulated import labelled, simulated, simulated_arm
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV, calibration_curve
from sklearn.frozen import FrozenEstimator
from statsmodels.stats.proportion import proportion_confint

from hcoatnet.errors import PredictionsError
from hcoatnet.evaluation.calibration import (
    HIGHEST_TEMPERATURE,
    LOWEST_TEMPERATURE,
    at_bound,
    brier_parts,
    calibrate_out_of_fold,
    calibrated,
    calibrated_arm,
    fit_temperature,
    reliability,
)
from hcoatnet.evaluation.evidence import Arm
from hcoatnet.evaluation.metrics import brier_score, expected_calibration_error, log_loss

SEEDS = st.integers(0, 10_000)


class Stated(ClassifierMixin, BaseEstimator):
    """A classifier whose input is its logits."""

    def fit(self, x, y):
        self.classes_ = np.arange(x.shape[1])
        return self

    def decision_function(self, x):
        return x

    def predict(self, x):
        return x.argmax(axis=1)


def arrays(seed, n=150, classes=5, scale=1.0):
    table = simulated(seed, n, classes, scale=scale)
    return table.logits, table.labels


class TestTemperature:
    @pytest.mark.parametrize("scale", [0.4, 1.0, 4.0])
    @pytest.mark.parametrize("seed", range(3))
    def test_equals_scikit_learn(self, seed, scale):
        logits, labels = arrays(seed, scale=scale)
        fitted = FrozenEstimator(Stated().fit(logits, labels))
        oracle = CalibratedClassifierCV(fitted, method="temperature").fit(logits, labels)
        temperature = fit_temperature(logits, labels)
        assert temperature == pytest.approx(1 / oracle.calibrated_classifiers_[0].calibrators[0].beta_, rel=1e-5)
        np.testing.assert_allclose(softmax(logits / temperature, axis=1), oracle.predict_proba(logits), atol=1e-6)

    @pytest.mark.parametrize("seed", range(3))
    def test_minimises_the_log_loss(self, seed):
        logits, labels = arrays(seed, scale=2.5)
        found = minimize_scalar(lambda log_t: log_loss(labels, logits / np.exp(log_t)), bracket=(-1, 1), tol=1e-12)
        assert fit_temperature(logits, labels) == pytest.approx(np.exp(found.x), rel=1e-6)

    @pytest.mark.parametrize("known", [0.5, 1.0, 2.0, 5.0])
    def test_recovers_a_known_temperature(self, known):
        rng = np.random.default_rng(7)
        truth = 2 * rng.normal(size=(20_000, 4))
        labels = (truth + rng.gumbel(size=truth.shape)).argmax(axis=1)  # drawn from softmax(truth)
        assert fit_temperature(known * truth, labels) == pytest.approx(known, rel=0.03)

    def test_two_classes_in_closed_form(self):
        # Three of four right at a margin of 1: softmax gives the accuracy 3/4 where 1/T = log 3.
        logits = np.array([[1.0, 0.0]] * 4)
        assert fit_temperature(logits, np.array([0, 0, 0, 1])) == pytest.approx(1 / np.log(3), rel=1e-9)

    @settings(max_examples=50, deadline=None)
    @given(seed=SEEDS, n=st.integers(5, 60), classes=st.integers(2, 5), shift=st.floats(-1e3, 1e3))
    def test_relabelling_reordering_and_a_constant_change_nothing(self, seed, n, classes, shift):
        logits, labels = arrays(seed, n, classes)
        rng = np.random.default_rng(seed)
        temperature = pytest.approx(fit_temperature(logits, labels), rel=1e-6)
        order, names = rng.permutation(n), rng.permutation(classes)
        assert fit_temperature(logits[order], labels[order]) == temperature
        assert fit_temperature(logits[:, names], np.argsort(names)[labels]) == temperature
        assert fit_temperature(logits + shift * rng.normal(size=(n, 1)), labels) == temperature

    @settings(max_examples=50, deadline=None)
    @given(seed=SEEDS, factor=st.floats(0.2, 5.0))
    def test_scaled_logits_scale_the_temperature(self, seed, factor):
        logits, labels = arrays(seed)
        before = fit_temperature(logits, labels)
        assert not at_bound(before)
        assert fit_temperature(factor * logits, labels) == pytest.approx(factor * before, rel=1e-6)
        assert fit_temperature(logits / before, labels) == pytest.approx(1.0, rel=1e-6)

    @pytest.mark.parametrize("size", [1e-3, 1.0, 1e4])
    def test_all_right_ends_at_the_lowest(self, size):
        labels = np.arange(20) % 4
        temperature = fit_temperature(size * np.eye(4)[labels], labels)
        assert temperature == LOWEST_TEMPERATURE
        assert at_bound(temperature)

    @pytest.mark.parametrize("size", [1e-3, 1.0, 1e4])
    def test_all_wrong_ends_at_the_highest(self, size):
        labels = np.arange(20) % 4
        temperature = fit_temperature(size * np.eye(4)[(labels + 1) % 4], labels)
        assert temperature == HIGHEST_TEMPERATURE
        assert at_bound(temperature)

    def test_no_temperature_is_outside_the_bounds(self):
        rng = np.random.default_rng(1)
        labels = rng.integers(0, 4, size=200)
        logits = rng.normal(size=(200, 4)) + np.eye(4)[labels]
        best = fit_temperature(logits, labels)
        assert (LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE) == (0.05, 100)
        for temperature, expected in ((0.01, 0.05), (0.06, 0.06), (99, 99), (200, 100)):
            assert fit_temperature(logits * temperature / best, labels) == pytest.approx(expected, rel=1e-6)

    def test_logits_that_say_nothing(self):
        temperature = fit_temperature(np.full((6, 3), 2.5), np.array([0, 1, 2, 0, 1, 1]))
        assert temperature == 1.0
        assert not at_bound(temperature)

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_logits_that_are_not_finite_are_refused(self, bad):
        logits, labels = arrays(0)
        logits = logits.copy()
        logits[3, 1] = bad
        with pytest.raises(PredictionsError, match="must be finite"):
            fit_temperature(logits, labels)

    @pytest.mark.parametrize(
        ("logits", "labels", "words"),
        [
            (np.zeros((0, 3)), np.zeros(0, dtype=int), "a photo and two classes"),
            (np.zeros((4, 1)), np.zeros(4, dtype=int), "a photo and two classes"),
            (np.zeros(4), np.zeros(4, dtype=int), r"labels of shape \(1,\); got \(4,\)"),
            (np.zeros((4, 3)), np.zeros(3, dtype=int), r"labels of shape \(4,\); got \(3,\)"),
            (np.zeros((2, 3)), np.array([0, 3]), "0 to 2; got 0 to 3"),
            (np.zeros((2, 3)), np.array([-1, 1]), "0 to 2; got -1 to 1"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, logits, labels, words):
        with pytest.raises(PredictionsError, match=words):
            fit_temperature(logits, labels)


class TestCalibratedTables:
    def test_answers_stay_and_probabilities_change(self):
        table = simulated(3)
        scaled = calibrated(table, 2.0)
        np.testing.assert_array_equal(scaled.predicted, table.predicted)
        np.testing.assert_allclose(scaled.probabilities, softmax(table.logits / 2, axis=1), rtol=1e-12)
        columns = ["path", "group", "label", "subset"]
        assert scaled.table[columns].equals(table.table[columns])

    def test_an_arm_uses_each_cells_own_validation_photos_and_nothing_of_its_test(self):
        arm = simulated_arm(seeds=(1, 2), scale=3.0)
        scaled = calibrated_arm(arm)
        for before, after in zip(arm.cells, scaled.cells, strict=True):
            temperature = fit_temperature(before.val.logits, before.val.labels)
            np.testing.assert_allclose(after.test.logits, before.test.logits / temperature, rtol=1e-12)
        other = tuple(replace(cell, test=_relabelled(cell.test)) for cell in arm.cells)
        changed = calibrated_arm(Arm("other", "scratch", other))
        for one, two in zip(scaled.cells, changed.cells, strict=True):
            np.testing.assert_array_equal(one.test.logits, two.test.logits)


def _relabelled(table):
    labels = (table.labels + 1) % len(table.classes)
    return type(table)(table.table.assign(label=[table.classes[label] for label in labels]), table.classes)


class TestReliability:
    def test_equals_scikit_learn(self):
        table = simulated(5, 500)
        diagram = reliability(table.labels, table.probabilities)
        right, confidence = table.predicted == table.labels, table.probabilities.max(axis=1)
        accuracy, stated = calibration_curve(right, confidence, n_bins=10, strategy="quantile")
        assert diagram.count == (50,) * 10
        np.testing.assert_allclose(diagram.accuracy, accuracy, rtol=1e-12)
        np.testing.assert_allclose(diagram.confidence, stated, rtol=1e-12)
        low, high = proportion_confint(np.array(diagram.accuracy) * 50, 50, method="wilson")
        np.testing.assert_allclose(diagram.low, low, atol=1e-12)
        np.testing.assert_allclose(diagram.high, high, atol=1e-12)

    def test_its_gaps_are_the_calibration_error(self):
        table = simulated(6, 120)
        diagram = reliability(table.labels, table.probabilities, bins=12)
        gaps = np.abs(np.array(diagram.accuracy) - np.array(diagram.confidence)) * diagram.count
        assert gaps.sum() / 120 == pytest.approx(expected_calibration_error(table.labels, table.probabilities))

    def test_equal_confidences_share_a_bin(self):
        probabilities = np.array([[0.8, 0.2]] * 10 + [[0.6, 0.4]] * 30)
        diagram = reliability(np.array([0] * 7 + [1] * 3 + [0] * 15 + [1] * 15), probabilities)
        assert diagram.count == (30, 10)
        assert diagram.accuracy == pytest.approx((0.5, 0.7))
        assert diagram.confidence == pytest.approx((0.6, 0.8))

    def test_fewer_photos_than_bins(self):
        diagram = reliability(np.array([0, 1]), np.array([[0.9, 0.1], [0.7, 0.3]]))
        assert diagram.count == (1, 1)
        assert diagram.accuracy == (0.0, 1.0)

    def test_probabilities_that_are_none_are_refused(self):
        for bad in ([0.5, 0.6], [np.nan, 1.0], [1.5, -0.5]):
            with pytest.raises(PredictionsError, match=r"1 photos \(first: row 1\)"):
                reliability(np.array([0, 1]), np.array([[0.5, 0.5], bad]))


class TestBrierParts:
    @settings(max_examples=60, deadline=None)
    @given(seed=SEEDS, n=st.integers(5, 80), classes=st.integers(2, 5), bins=st.integers(1, 20))
    def test_they_sum_to_the_score(self, seed, n, classes, bins):
        table = simulated(seed, n, classes)
        parts = brier_parts(table.labels, table.probabilities, bins)
        total = parts.reliability - parts.resolution + parts.uncertainty + parts.within_bin
        assert total == pytest.approx(brier_score(table.labels, table.probabilities), abs=1e-12)
        assert parts.reliability >= 0
        assert -1e-12 <= parts.resolution <= parts.uncertainty + 1e-12

    @settings(max_examples=40, deadline=None)
    @given(seed=SEEDS, n=st.integers(5, 60), classes=st.integers(2, 5))
    def test_relabelling_and_reordering_change_nothing(self, seed, n, classes):
        table = simulated(seed, n, classes)
        rng = np.random.default_rng(seed)
        order, names = rng.permutation(n), rng.permutation(classes)
        expected = pytest.approx(astuple(brier_parts(table.labels, table.probabilities)), abs=1e-12)
        labels, probabilities = np.argsort(names)[table.labels], table.probabilities[:, names]
        assert astuple(brier_parts(labels, probabilities)) == expected
        assert astuple(brier_parts(table.labels[order], table.probabilities[order])) == expected

    def test_murphys_example_in_closed_form(self):
        # Rain stated at 0.8 on ten days (8 wet) and at 0.2 on ten (4 wet): overall 12/20. Each class gives the same.
        probabilities = np.array([[0.2, 0.8]] * 10 + [[0.8, 0.2]] * 10)
        labels = np.array([1] * 8 + [0] * 2 + [1] * 4 + [0] * 6)
        parts = brier_parts(labels, probabilities)
        assert parts.reliability == pytest.approx(2 * 0.5 * 0.2**2)
        assert parts.resolution == pytest.approx(2 * (0.5 * 0.2**2 + 0.5 * 0.2**2))
        assert parts.uncertainty == pytest.approx(2 * 0.6 * 0.4)
        assert parts.within_bin == pytest.approx(0, abs=1e-12)

    def test_always_stating_the_frequencies(self):
        labels = np.repeat(np.arange(3), (5, 3, 2))
        parts = brier_parts(labels, np.tile([0.5, 0.3, 0.2], (10, 1)))
        assert astuple(parts) == pytest.approx((0, 0, 1 - 0.25 - 0.09 - 0.04, 0), abs=1e-12)

    def test_a_perfect_model(self):
        labels = np.repeat(np.arange(2), (6, 6))
        parts = brier_parts(labels, np.eye(2)[labels])
        assert astuple(parts) == pytest.approx((0, 0.5, 0.5, 0), abs=1e-12)


class TestOutOfFold:
    def test_figures_are_those_of_the_pooled_test_folds(self):
        arm = simulated_arm(scale=3.0)
        result = calibrate_out_of_fold(arm, draws=50)
        assert result.temperatures == tuple(fit_temperature(cell.val.logits, cell.val.labels) for cell in arm.cells)
        assert result.at_bound == 0
        for figures, tables in ((result.before, arm), (result.after, calibrated_arm(arm))):
            table = tables.replicates[0].predictions
            assert len(table) == 360
            assert figures.log_loss.value == pytest.approx(log_loss(table.labels, table.logits))
            assert figures.brier.value == pytest.approx(brier_score(table.labels, table.probabilities))
            assert figures.ece.value == pytest.approx(expected_calibration_error(table.labels, table.probabilities))
            assert figures.reliability == reliability(table.labels, table.probabilities)
            assert astuple(figures.parts) == pytest.approx(astuple(brier_parts(table.labels, table.probabilities)))
            for one in (figures.log_loss, figures.brier):
                assert one.percentile.low < one.value < one.percentile.high

    def test_an_overconfident_model_is_mended(self):
        result = calibrate_out_of_fold(simulated_arm(scale=4.0, n=200), draws=50)
        assert all(2 < temperature < 8 for temperature in result.temperatures)
        assert result.after.log_loss.percentile.high < result.before.log_loss.percentile.low
        assert result.after.ece.value < result.before.ece.value / 2
        assert result.after.parts.reliability < result.before.parts.reliability / 2

    def test_seeds_are_averaged_and_the_diagram_counts_each_photo_once(self):
        arm = simulated_arm(seeds=(1, 2))
        result = calibrate_out_of_fold(arm, draws=20)
        tables = [one.predictions for one in arm.replicates]
        assert len(result.temperatures) == 6
        assert result.before.brier.value == pytest.approx(
            np.mean([brier_score(table.labels, table.probabilities) for table in tables])
        )
        parts = result.before.parts
        total = parts.reliability - parts.resolution + parts.uncertainty + parts.within_bin
        assert total == pytest.approx(result.before.brier.value)
        assert sum(result.before.reliability.count) == 360
        assert result.before.reliability == reliability(tables[0].labels, tables[0].probabilities)

    def test_temperatures_at_a_bound_are_counted(self):
        arm = simulated_arm()
        right = labelled(arm.cells[0].val.labels, 5 * np.eye(5)[arm.cells[0].val.labels], prefix="v")
        cells = (replace(arm.cells[0], val=right), *arm.cells[1:])
        result = calibrate_out_of_fold(Arm("sure", "scratch", cells), draws=10)
        assert result.at_bound == 1
        assert result.temperatures[0] == LOWEST_TEMPERATURE

    def test_log_softmax_of_scaled_logits_is_what_the_loss_uses(self):
        arm = simulated_arm(folds=2)
        result = calibrate_out_of_fold(arm, draws=10)
        losses = [
            -log_softmax(cell.test.logits / temperature, axis=1)[np.arange(len(cell.test)), cell.test.labels]
            for cell, temperature in zip(arm.cells, result.temperatures, strict=True)
        ]
        assert result.after.log_loss.value == pytest.approx(np.concatenate(losses).mean(), rel=1e-12)
