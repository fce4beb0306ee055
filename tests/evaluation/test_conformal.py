"""Thresholds and sets equal MAPIE's and crepes'; groups count, not photos; coverage is kept where the units exchange."""

import math
from collections import defaultdict

import numpy as np
import pytest
from crepes import ConformalClassifier
from hypothesis import given, settings
from hypothesis import strategies as st
from mapie.classification import SplitConformalClassifier
from scipy.special import softmax
from simulated import labelled, simulated, simulated_arm
from sklearn.base import BaseEstimator, ClassifierMixin
from statsmodels.stats.proportion import proportion_confint

from hcoatnet.errors import EvidenceError, PredictionsError
from hcoatnet.evaluation.calibration import calibrated_arm
from hcoatnet.evaluation.conformal import LEVELS, conformal_out_of_fold, coverage, fit_thresholds, least_n
from hcoatnet.evaluation.prediction_sets import METHODS, Thresholds, aps_scores, lac_scores, prediction_sets
from hcoatnet.evaluation.resampling import resample

SEEDS = st.integers(0, 10_000)
OPTIONS = [(method, level, conditional) for method in METHODS for level in LEVELS for conditional in (False, True)]


class Stated(ClassifierMixin, BaseEstimator):
    """A classifier whose input is its probabilities."""

    def fit(self, x, y):
        self.classes_ = np.arange(x.shape[1])
        self.is_fitted_ = True
        return self

    def predict_proba(self, x):
        return x

    def predict(self, x):
        return x.argmax(axis=1)


class NoChance(np.random.RandomState):
    """Takes the randomisation out of MAPIE's APS scores."""

    def uniform(self, low=0.0, high=1.0, size=None):
        return np.zeros(size)


def arrays(seed, n=200, photos_a_group=1, classes=5):
    table = simulated(seed, n, classes, photos_a_group=photos_a_group)
    return table.probabilities, table.labels, table.groups


class TestScores:
    def test_by_hand(self):
        probabilities = np.array([[0.5, 0.1, 0.4], [0.2, 0.6, 0.2]])
        np.testing.assert_allclose(lac_scores(probabilities), [[0.5, 0.9, 0.6], [0.8, 0.4, 0.8]])
        np.testing.assert_allclose(aps_scores(probabilities), [[0.5, 1.0, 0.9], [1.0, 0.6, 1.0]])

    @settings(max_examples=50, deadline=None)
    @given(seed=SEEDS, classes=st.integers(2, 5), equal=st.booleans())
    def test_aps_is_the_mass_of_what_is_as_likely(self, seed, classes, equal):
        probabilities, _, _ = arrays(seed, 20, classes=classes)
        if equal:
            probabilities = np.round(4 * probabilities) + 1
            probabilities /= probabilities.sum(axis=1, keepdims=True)
        for row, scores in zip(probabilities, aps_scores(probabilities), strict=True):
            expected = [row[row >= p].sum() for p in row]
            assert scores == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("shape", [(4,), (2, 3), (2, 4, 1), (1, 2, 4)])
def test_sets_need_a_table_of_as_many_classes(shape):
    thresholds = Thresholds("lac", 0.9, False, (0.5,) * 4, 20, 20)
    with pytest.raises(EvidenceError, match=rf"for 4 classes; the probabilities have shape \({shape[0]},"):
        prediction_sets(np.full(shape, 0.25), thresholds)


class TestAgainstMapie:
    @pytest.mark.parametrize("level", LEVELS)
    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("seed", range(4))
    def test_thresholds_and_sets(self, seed, method, level):
        probabilities, labels, groups = arrays(seed)
        new, new_labels, _ = arrays(seed + 100)
        oracle = SplitConformalClassifier(
            Stated().fit(probabilities, labels), level, method, prefit=True, random_state=NoChance()
        ).conformalize(probabilities, labels)
        options = {"include_last_label": False} if method == "aps" else None
        thresholds = fit_thresholds(probabilities, labels, groups, level, method)
        expected = oracle.predict_set(new, conformity_score_params=options)[1][:, :, 0]
        quantile = oracle._mapie_classifier.conformity_score_function_.quantiles_[0]
        assert thresholds.values == pytest.approx((quantile,) * 5, abs=1e-12)
        np.testing.assert_array_equal(prediction_sets(new, thresholds), expected)
        assert (thresholds.photos, thresholds.groups) == (200, 200)
        assert 0.8 < prediction_sets(new, thresholds)[np.arange(200), new_labels].mean() <= 1


class TestAgainstCrepes:
    @pytest.mark.parametrize("level", LEVELS)
    @pytest.mark.parametrize("conditional", [False, True])
    @pytest.mark.parametrize("seed", range(4))
    def test_lac_sets(self, seed, conditional, level):
        probabilities, labels, groups = arrays(seed, 400)
        new, _, _ = arrays(seed + 100, 100)
        own = lac_scores(probabilities)[np.arange(400), labels]
        thresholds = fit_thresholds(probabilities, labels, groups, level, "lac", conditional)
        found = prediction_sets(new, thresholds)
        for index in range(5):
            bins = {"bins": labels} if conditional else {}
            new_bins = {"bins": np.full(100, index)} if conditional else {}
            oracle = ConformalClassifier().fit(own, **bins)
            # crepes keeps p = α, which the quantile of index ⌈(n + 1)(1 − α)⌉ leaves out: ask for a hair less.
            confidence = level - 1e-9
            sets = oracle.predict_set(lac_scores(new)[:, [index]], confidence=confidence, smoothing=False, **new_bins)
            np.testing.assert_array_equal(found[:, index], sets[:, 0].astype(bool))


class TestThresholds:
    @pytest.mark.parametrize("method", METHODS)
    @settings(max_examples=40, deadline=None)
    @given(seed=SEEDS, n=st.integers(19, 80), level=st.sampled_from(LEVELS))
    def test_one_photo_a_group_takes_the_order_statistic(self, method, seed, n, level):
        probabilities, labels, groups = arrays(seed, n)
        scores = {"lac": lac_scores, "aps": aps_scores}[method](probabilities)[np.arange(n), labels]
        rank = math.ceil(round((n + 1) * level, 9))
        expected = np.sort(scores)[rank - 1]
        assert fit_thresholds(probabilities, labels, groups, level, method).values == (expected,) * 5

    def test_the_rank_of_few_photos_is_exact(self):
        scores = np.linspace(0.05, 0.95, 19)
        probabilities = np.column_stack([1 - scores, scores])
        labels, groups = np.zeros(19, dtype=int), np.array([str(number) for number in range(19)], dtype=object)
        assert fit_thresholds(probabilities, labels, groups, 0.95, "lac").values[0] == pytest.approx(0.95)
        assert fit_thresholds(probabilities, labels, groups, 0.90, "lac").values[0] == pytest.approx(scores[17])
        assert fit_thresholds(probabilities[:9], labels[:9], groups[:9], 0.9, "lac").values[0] == pytest.approx(
            scores[8]
        )

    @pytest.mark.parametrize("conditional", [False, True])
    @settings(max_examples=10, deadline=None)
    @given(seed=SEEDS)
    def test_every_group_weighs_the_same(self, conditional, seed):
        """Against a plain reading: the smallest score whose groups' shares at or below it sum to level · (G + 1)."""
        rng = np.random.default_rng(seed)
        probabilities, labels, _ = arrays(seed, 160, classes=3)
        groups = np.array([str(number) for number in rng.integers(0, 70, 160)], dtype=object)
        own = lac_scores(probabilities)[np.arange(160), labels]
        thresholds = fit_thresholds(probabilities, labels, groups, 0.9, "lac", conditional)
        for index in range(3):
            part = labels == index if conditional else np.ones(160, dtype=bool)
            by_group = defaultdict(list)
            for group, score in zip(groups[part], own[part], strict=True):
                by_group[group].append(score)
            candidates = sorted(own[part])
            shares = (sum(np.mean(np.array(scores) <= one) for scores in by_group.values()) for one in candidates)
            wanted = 0.9 * (len(by_group) + 1) - 1e-9
            expected = next(one for one, share in zip(candidates, shares, strict=True) if share >= wanted)
            assert thresholds.values[index] == expected

    def test_copies_of_a_photo_within_its_group_change_nothing(self):
        probabilities, labels, groups = arrays(1, 60)
        copies = np.random.default_rng(0).integers(1, 6, 60)
        before = fit_thresholds(probabilities, labels, groups, 0.9, "lac")
        after = fit_thresholds(*(np.repeat(values, copies, axis=0) for values in (probabilities, labels, groups)), 0.9, "lac")  # fmt: skip
        assert after.values == before.values
        assert after.photos == copies.sum()
        assert after.groups == before.groups == 60

    @settings(max_examples=40, deadline=None)
    @given(seed=SEEDS, option=st.sampled_from(OPTIONS), equal=st.booleans())
    def test_relabelling_and_reordering_change_nothing(self, seed, option, equal):
        method, level, conditional = option
        probabilities, labels, groups = arrays(seed, 500, photos_a_group=2)
        if equal:
            probabilities = np.round(4 * probabilities) + 1
            probabilities /= probabilities.sum(axis=1, keepdims=True)
        rng = np.random.default_rng(seed)
        order, names = rng.permutation(500), rng.permutation(5)
        before = fit_thresholds(probabilities, labels, groups, level, method, conditional)
        rows = fit_thresholds(probabilities[order], labels[order], groups[order], level, method, conditional)
        assert rows == before
        renamed = probabilities[:, names]
        after = fit_thresholds(renamed, np.argsort(names)[labels], groups, level, method, conditional)
        assert after.values == tuple(before.values[name] for name in names)
        np.testing.assert_array_equal(prediction_sets(renamed, after), prediction_sets(probabilities, before)[:, names])


class TestSets:
    def test_by_hand(self):
        probabilities = np.array([[0.5, 0.1, 0.4], [0.34, 0.33, 0.33], [0.96, 0.03, 0.01]])

        def sets(method, *values):
            return prediction_sets(probabilities, Thresholds(method, 0.9, True, values, 9, 9)).astype(int).tolist()

        assert sets("lac", 0.6, 0.6, 0.6) == [[1, 0, 1], [0, 0, 0], [1, 0, 0]]
        assert sets("lac", 0.1, 0.95, 0.6) == [[0, 1, 1], [0, 1, 0], [1, 0, 0]]
        assert sets("aps", 0.9, 0.9, 0.9) == [[1, 0, 1], [1, 0, 0], [1, 0, 0]]
        assert sets("aps", 0.4, 0.4, 0.4) == [[1, 0, 0], [1, 0, 0], [1, 0, 0]]
        assert sets("aps", 1.0, 0.99, 0.2) == [[1, 0, 0], [1, 0, 0], [1, 1, 0]]

    @settings(max_examples=40, deadline=None)
    @given(seed=SEEDS, option=st.sampled_from(OPTIONS))
    def test_they_cover_the_calibration_groups_and_aps_is_never_empty(self, seed, option):
        method, level, conditional = option
        probabilities, labels, groups = arrays(seed, 500)
        sets = prediction_sets(probabilities, fit_thresholds(probabilities, labels, groups, level, method, conditional))
        covered = sets[np.arange(500), labels]
        parts = [labels == index for index in range(5)] if conditional else [labels >= 0]
        assert all(covered[part].mean() >= level for part in parts)
        assert method == "lac" or sets.any(axis=1).all()

    @settings(max_examples=30, deadline=None)
    @given(seed=SEEDS, method=st.sampled_from(METHODS), conditional=st.booleans())
    def test_a_higher_level_gives_larger_sets(self, seed, method, conditional):
        probabilities, labels, groups = arrays(seed, 500)
        new, _, _ = arrays(seed + 1, 50)
        low, high = (
            prediction_sets(new, fit_thresholds(probabilities, labels, groups, level, method, conditional))
            for level in LEVELS
        )
        assert (low <= high).all()

    @pytest.mark.parametrize("method", METHODS)
    def test_the_promise_holds_for_new_groups_of_unequal_size(self, method):
        """Large groups are the easy ones: a quantile over photos would promise too much for a random new group."""
        rng = np.random.default_rng(11)
        covered = []
        for _ in range(300):
            sizes = rng.choice([1, 2, 12], size=41)
            group = np.repeat(np.arange(41), sizes)
            margin = (rng.normal(size=41) + 3.0 * (sizes == 12))[group]
            labels = rng.integers(0, 3, len(group))
            probabilities = softmax(rng.normal(size=(len(group), 3)) + margin[:, None] * np.eye(3)[labels], axis=1)
            old, new, names = group < 40, group == 40, group.astype(str).astype(object)
            thresholds = fit_thresholds(probabilities[old], labels[old], names[old], 0.9, method)
            sets = prediction_sets(probabilities[new], thresholds)
            covered.append(sets[np.arange(new.sum()), labels[new]].mean())
        error = np.std(covered) / np.sqrt(len(covered))
        assert 0.9 - 3 * error < np.mean(covered)
        # APS always holds the most probable class, which alone is right more often than 90 % here.
        assert method == "aps" or np.mean(covered) < 0.9 + 1 / 41 + 3 * error


class TestGuard:
    def test_least_numbers(self):
        assert [least_n(level) for level in (0.5, 0.8, 0.9, 0.95, 0.99)] == [1, 4, 9, 19, 99]

    @given(level=st.floats(0.01, 0.995))
    def test_it_is_the_first_that_satisfies_the_definition(self, level):
        enough = [n for n in range(1, 250) if math.ceil((n + 1) * level - 1e-7) <= n]
        assert least_n(level) == enough[0]

    @pytest.mark.parametrize("level", [0.0, 1.0, -0.1, 90])
    def test_levels_out_of_range(self, level):
        with pytest.raises(EvidenceError, match="above 0 and below 1"):
            least_n(level)

    @pytest.mark.parametrize(("level", "needed"), [(0.9, 9), (0.95, 19)])
    def test_groups_are_counted_not_photos(self, level, needed):
        probabilities, labels, groups = arrays(2, 10 * needed, photos_a_group=10)
        assert fit_thresholds(probabilities, labels, groups, level, "lac").groups == needed
        cut = slice(0, 10 * (needed - 1))
        with pytest.raises(
            EvidenceError, match=f"at least {needed} groups of calibration photos; there are {needed - 1}"
        ):
            fit_thresholds(probabilities[cut], labels[cut], groups[cut], level, "lac")

    def test_class_conditional_names_the_classes(self):
        labels = np.repeat([0, 1, 2], (30, 9, 8))
        table = labelled(labels, np.eye(3)[labels])
        arguments = table.probabilities, labels, table.groups
        with pytest.raises(EvidenceError, match=r"at least 9 groups .* too few: Netherton 8\. "):
            fit_thresholds(*arguments, 0.9, "aps", True, ("healthy", "lamellar", "Netherton"))
        with pytest.raises(EvidenceError, match=r"at least 19 groups .* too few: class 1 9, class 2 8\. "):
            fit_thresholds(*arguments, 0.95, "aps", True)
        keep = labels < 2
        fit_thresholds(table.probabilities[keep][:, :2] / table.probabilities[keep][:, :2].sum(1, keepdims=True), labels[keep], table.groups[keep], 0.9, "aps", True)  # fmt: skip

    def test_a_class_without_photos(self):
        labels = np.repeat([0, 1], (30, 30))
        table = labelled(labels, np.eye(3)[labels])
        with pytest.raises(EvidenceError, match="too few: class 2 0"):
            fit_thresholds(table.probabilities, labels, table.groups, 0.9, "lac", True)

    def test_bad_input(self):
        probabilities, labels, groups = arrays(0, 30)
        with pytest.raises(EvidenceError, match=r"one of lac, aps\. Got 'raps'"):
            fit_thresholds(probabilities, labels, groups, 0.9, "raps")
        with pytest.raises(PredictionsError, match=r"need groups of shape \(30,\)"):
            fit_thresholds(probabilities, labels, groups[:-1], 0.9, "lac")
        with pytest.raises(PredictionsError, match="do not sum to 1"):
            fit_thresholds(2 * probabilities, labels, groups, 0.9, "lac")
        with pytest.raises(EvidenceError, match="for 5 classes"):
            prediction_sets(probabilities[:, :4], fit_thresholds(probabilities, labels, groups, 0.9, "lac"))


class TestCoverage:
    def test_figures_by_hand(self):
        labels = np.array([0, 0, 0, 0, 1, 1, 1, 2])
        table = labelled(labels, np.zeros((8, 4)), [0, 0, 1, 2, 3, 3, 4, 5])
        sets = np.zeros((8, 4), dtype=bool)
        sets[[0, 1, 2], 0] = sets[[4, 5], 1] = sets[[4, 7], 3] = sets[7, 2] = True
        found = coverage([sets], table, resample(table, 200, 0))
        assert (found.overall.photos, found.overall.groups, found.overall.covered) == (8, 6, 6)
        assert found.overall.coverage.value == pytest.approx(6 / 8)
        assert found.overall.set_size.value == pytest.approx(8 / 8)
        assert found.overall.empty == pytest.approx(2 / 8)
        low, high = proportion_confint(6, 8, method="wilson")
        assert (found.overall.wilson.low, found.overall.wilson.high) == pytest.approx((low, high))
        assert [found.per_class[name].coverage.value for name in "abc"] == pytest.approx([3 / 4, 2 / 3, 1.0])
        assert [found.per_class[name].set_size.value for name in "abc"] == pytest.approx([3 / 4, 1.0, 2.0])
        assert [found.per_class[name].photos for name in "abcd"] == [4, 3, 1, 0]
        assert [found.per_class[name].groups for name in "abcd"] == [3, 2, 1, 0]
        absent = found.per_class["d"]
        assert absent.coverage.value is absent.set_size.value is absent.wilson is absent.empty is None

    def test_the_interval_is_of_groups(self):
        """Ten copies of each photo in one group leave the bootstrap interval as it is; Wilson's shrinks."""
        table = simulated(4, 100, photos_a_group=1)
        thresholds = fit_thresholds(table.probabilities, table.labels, table.groups, 0.9, "lac")
        index = np.repeat(np.arange(100), 10)
        copied = labelled(table.labels[index], table.logits[index], index)
        one, ten = (
            coverage([prediction_sets(each.probabilities, thresholds)], each, resample(each, 500, 0)).overall
            for each in (table, copied)
        )
        assert ten.coverage.percentile.low == pytest.approx(one.coverage.percentile.low, abs=1e-9)
        assert ten.coverage.percentile.high == pytest.approx(one.coverage.percentile.high, abs=1e-9)
        assert ten.wilson.high - ten.wilson.low < (one.wilson.high - one.wilson.low) / 2


class TestOutOfFold:
    def test_sets_are_calibrated_in_each_cell_and_measured_on_its_test_fold(self):
        arm = simulated_arm(seeds=(1, 2), val_n=400)
        scaled = calibrated_arm(arm)
        results = {(one.method, one.level, one.class_conditional): one for one in conformal_out_of_fold(arm, draws=100)}
        assert set(results) == set(OPTIONS)
        for (method, level, conditional), result in results.items():
            covered, sizes = [], []
            for cell in scaled.cells:
                val = cell.val
                thresholds = fit_thresholds(val.probabilities, val.labels, val.groups, level, method, conditional)
                sets = prediction_sets(cell.test.probabilities, thresholds)
                covered += sets[np.arange(len(sets)), cell.test.labels].tolist()
                sizes += sets.sum(axis=1).tolist()
            assert result.refused is None
            overall = result.measured.overall
            assert overall.coverage.value == pytest.approx(np.mean(covered))
            assert overall.set_size.value == pytest.approx(np.mean(sizes))
            assert (overall.photos, overall.groups) == (360, 180)
            assert overall.covered == sum(covered[:360])
            assert overall.coverage.percentile.low < overall.coverage.value < overall.coverage.percentile.high
            assert abs(overall.coverage.value - level) < 0.05

    def test_a_level_that_one_cell_cannot_support_is_refused_for_all(self):
        results = conformal_out_of_fold(simulated_arm(val_n=36), draws=10)
        refused = {(one.level, one.class_conditional) for one in results if one.refused}
        assert refused == {(0.95, False), (0.9, True), (0.95, True)}
        for one in results:
            assert (one.measured is None) == (one.refused is not None)
        message = next(one.refused for one in results if one.level == 0.95 and not one.class_conditional)
        assert "fold 0, seed 1" in message
        assert "at least 19 groups of calibration photos; there are 18" in message
