"""Metrics of weighted photos equal scikit-learn's with sample weights, and the summary's with unit weights."""

import numpy as np
import pytest
import sklearn.metrics as oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_arms import CLASSES, answer, draw_photos

from hcoatnet.evaluation.metrics import equal_mass_bins, summarise
from hcoatnet.evaluation.predictions import Predictions, build_predictions
from hcoatnet.evaluation.resampling import find_groups
from hcoatnet.evaluation.weighted_metrics import DEFINITIONS, METRICS, PER_CLASS, photo_metrics


def coarse(table: Predictions) -> Predictions:
    """The same answers in half steps, so that many probabilities are equal."""
    photos = table.table[["path", "group", "label", "subset"]]
    return build_predictions(photos, np.round(table.logits * 2) / 2, table.classes)


def weighted(table: Predictions, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics for weights of the groups, one column of them."""
    values = photo_metrics(table, find_groups(table).of_photo).on(weights[:, None].astype(float))
    return {name: value[..., 0] for name, value in values.items()}


def scikit_learn(table: Predictions, weights: np.ndarray) -> dict[str, float]:
    y, predicted, p = table.labels, table.predicted, table.probabilities
    every = {"labels": range(len(CLASSES)), "zero_division": 0, "sample_weight": weights}
    present = np.unique(y[weights > 0])
    one_by_one = [(y == index, p[:, index]) for index in present]
    return {
        "accuracy": oracle.accuracy_score(y, predicted, sample_weight=weights),
        "balanced_accuracy": oracle.recall_score(y, predicted, labels=present, average="macro", sample_weight=weights),
        "macro_f1": oracle.f1_score(y, predicted, average="macro", **every),
        "weighted_f1": oracle.f1_score(y, predicted, average="weighted", **every),
        "matthews_correlation": oracle.matthews_corrcoef(y, predicted, sample_weight=weights),
        "macro_auroc": np.mean([oracle.roc_auc_score(one, score, sample_weight=weights) for one, score in one_by_one]),
        "macro_average_precision": np.mean(
            [oracle.average_precision_score(one, score, sample_weight=weights) for one, score in one_by_one]
        ),
        "brier": oracle.brier_score_loss(y, p, labels=range(len(CLASSES)), sample_weight=weights, scale_by_half=False),
        "log_loss": oracle.log_loss(y, p, labels=range(len(CLASSES)), sample_weight=weights),
    }


class TestAgainstScikitLearn:
    @pytest.mark.parametrize("tied", [False, True])
    @pytest.mark.parametrize("seed", range(6))
    def test_every_metric_with_sample_weights(self, seed: int, tied: bool) -> None:
        table = answer(draw_photos(40, seed), seed=seed)
        table = coarse(table) if tied else table
        of_photo = find_groups(table).of_photo
        weights = np.random.default_rng(seed).poisson(1, 40) * (1e-4 if seed % 2 else 1)
        expected, found = scikit_learn(table, weights[of_photo]), weighted(table, weights)
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, rel=1e-9), name
        assert {*expected, "expected_calibration_error"} == set(METRICS)
        for index in range(len(CLASSES)):
            y, named = table.labels == index, table.predicted == index
            score, weight = table.probabilities[:, index], weights[of_photo]
            per_class = {
                "recall": oracle.recall_score(y, named, sample_weight=weight, zero_division=np.nan),
                "precision": oracle.precision_score(y, named, sample_weight=weight, zero_division=np.nan),
                "f1": oracle.f1_score(y, named, sample_weight=weight, zero_division=np.nan),
                "auroc": oracle.roc_auc_score(y, score, sample_weight=weight),
                "average_precision": oracle.average_precision_score(y, score, sample_weight=weight),
            }
            assert set(per_class) == set(PER_CLASS)
            for name, value in per_class.items():
                assert found[name][index] == pytest.approx(value, rel=1e-9, nan_ok=True), (name, index)

    @pytest.mark.parametrize("tied", [False, True])
    @settings(max_examples=15, deadline=None)
    @given(seed=st.integers(0, 10_000))
    def test_weights_are_copies(self, seed: int, tied: bool) -> None:
        table = answer(draw_photos(25, seed), seed=seed)
        table = coarse(table) if tied else table
        of_photo = find_groups(table).of_photo
        weights = np.random.default_rng(seed).integers(0, 4, 25)
        if len(np.unique(table.labels[weights[of_photo] > 0])) != len(CLASSES):
            return
        rows = np.repeat(np.arange(len(table)), weights[of_photo])
        copies = table.table.iloc[rows].assign(path=[f"{place:05}" for place in range(len(rows))])
        copied = Predictions(copies.reset_index(drop=True), table.classes)
        alone = photo_metrics(copied, np.zeros(len(rows), dtype=int)).on(np.ones((1, 1)))
        for name, value in weighted(table, weights).items():
            if name != "expected_calibration_error":  # its bins are fixed on the photos given
                np.testing.assert_allclose(value, alone[name][..., 0], rtol=1e-9, err_msg=name)


class TestAgainstTheSummary:
    @pytest.mark.parametrize("tied", [False, True])
    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 10_000), groups=st.integers(4, 60), strength=st.floats(-1, 3))
    def test_unit_weights(self, seed: int, groups: int, strength: float, tied: bool) -> None:
        table = answer(draw_photos(groups, seed), strength, seed)
        table = coarse(table) if tied else table
        summary, found = summarise(table), weighted(table, np.ones(groups))
        for name in METRICS:
            if name in summary:
                assert found[name] == pytest.approx(summary[name]["value"], rel=1e-9, abs=1e-12), name
        assert set(METRICS) - set(summary) == {"macro_auroc", "macro_average_precision"}
        for index, row in enumerate(summary["per_class"].values()):
            for name in ("recall", "precision", "f1", "auroc"):
                expected = np.nan if row[name] is None else row[name]
                assert found[name][index] == pytest.approx(expected, rel=1e-9, nan_ok=True), name

    def test_calibration_bins_stay_those_of_the_whole_set(self) -> None:
        table = answer(draw_photos(60))
        weights = np.random.default_rng(0).poisson(1, 60)
        weight = weights[find_groups(table).of_photo]
        confidence = table.probabilities.max(axis=1)
        bins = equal_mass_bins(confidence, min(15, len(table) // 10))
        gaps = [
            abs((weight * (table.predicted == table.labels) - weight * confidence)[bins == one].sum())
            for one in range(bins.max() + 1)
        ]
        assert len(gaps) > 5
        assert weighted(table, weights)["expected_calibration_error"] == pytest.approx(sum(gaps) / weight.sum())


class TestUndefined:
    def test_classes_that_a_draw_lacks(self) -> None:
        table = answer(draw_photos(40))
        of_photo = find_groups(table).of_photo
        without_d = (np.bincount(of_photo, weights=table.labels == 3) == 0).astype(int)
        found = weighted(table, without_d)
        for name in ("recall", "auroc", "average_precision"):
            assert np.isnan(found[name][3]), name
            assert not np.isnan(found[name][:3]).any(), name
        assert found["balanced_accuracy"] == pytest.approx(found["recall"][:3].mean())
        assert found["macro_auroc"] == pytest.approx(found["auroc"][:3].mean())
        assert found["macro_average_precision"] == pytest.approx(found["average_precision"][:3].mean())
        # As in the summary, macro F1 counts it as 0.
        assert found["macro_f1"] == pytest.approx(np.nan_to_num(found["f1"]).sum() / 4)

    def test_a_class_neither_there_nor_predicted_counts_as_0_and_divides_nothing(self) -> None:
        table = answer(draw_photos(40))
        photos = table.table[["path", "group", "label", "subset"]]
        never = build_predictions(photos, table.logits - 100 * np.eye(4)[3], table.classes)
        of_photo = find_groups(never).of_photo
        with np.errstate(all="raise", under="ignore"):
            found = weighted(never, np.bincount(of_photo, weights=never.labels == 3) == 0)
        assert np.isnan(found["f1"][3])
        assert found["macro_f1"] == pytest.approx(found["f1"][:3].sum() / 4)

    def test_a_class_never_predicted(self) -> None:
        table = answer(draw_photos(40))
        photos = table.table[["path", "group", "label", "subset"]]
        never = build_predictions(photos, table.logits - 100 * np.eye(4)[3], table.classes)
        found = weighted(never, np.ones(40))
        assert np.isnan(found["precision"][3])
        assert (found["recall"][3], found["f1"][3]) == (0, 0)

    def test_a_draw_with_one_class(self) -> None:
        table = answer(draw_photos(12, most=1, mixed=0))
        found = weighted(table, table.labels[np.argsort(table.table["path"].to_numpy())] == 0)
        assert np.isnan(found["auroc"]).all()
        assert np.isnan(found["macro_auroc"])
        assert found["average_precision"][0] == pytest.approx(1)
        assert found["matthews_correlation"] == 0

    def test_no_photo_at_all(self) -> None:
        found = weighted(answer(draw_photos(12)), np.zeros(12))
        for name in set(METRICS) - {"macro_f1", "matthews_correlation"}:
            assert np.isnan(found[name]), name


def test_every_metric_is_defined_in_words() -> None:
    assert tuple(DEFINITIONS) == METRICS + PER_CLASS


def test_without_ranking_only_what_needs_it_is_missing() -> None:
    table = answer(draw_photos(12))
    metrics = photo_metrics(table, find_groups(table).of_photo, ranked=False)
    ranked = {"macro_auroc", "macro_average_precision", "auroc", "average_precision"}
    assert set(metrics.on(np.ones((12, 1)))) == {*METRICS, *PER_CLASS} - ranked
