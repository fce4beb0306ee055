"""Metrics equal scikit-learn, closed forms and published arithmetic, and depend on neither names nor row order."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from hcoatnet.evaluation.metrics import (
    brier_score,
    equal_mass_bins,
    expected_calibration_error,
    log_loss,
    score,
    summarise,
)
from hcoatnet.evaluation.predictions import Predictions, build_predictions

ICHTHYOSIS = (
    "Harlequin ichthyosis",
    "Healthy skin",
    "Ichthyosis vulgaris",
    "Lamellar ichthyosis",
    "Netherton syndrome",
)
PUBLISHED_SUPPORT = (32, 45, 46, 22, 13)
PUBLISHED_ACCURACY = {143: 90.51, 131: 82.91, 130: 82.28, 118: 74.68, 114: 72.15, 110: 69.62, 105: 66.46}
METRICS = {
    "accuracy",
    "balanced_accuracy",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "weighted_f1",
    "cohen_kappa",
    "matthews_correlation",
    "log_loss",
    "brier",
    "expected_calibration_error",
}


def table_of(labels: np.ndarray, logits: np.ndarray, classes: tuple[str, ...] | None = None) -> Predictions:
    classes = classes or tuple("abcdefghijkl"[: logits.shape[1]])
    photos = pd.DataFrame(
        {
            "path": [f"{number}.jpg" for number in range(len(labels))],
            "group": [f"g{number // 3}" for number in range(len(labels))],
            "label": [classes[label] for label in labels],
            "subset": "test",
        }
    )
    return build_predictions(photos, logits, classes)


def random_table(seed: int, n: int = 152, classes: int = 6) -> Predictions:
    rng = np.random.default_rng(seed)
    shares = np.arange(1, classes + 1) / np.arange(1, classes + 1).sum()
    labels = rng.choice(classes, size=n, p=shares)
    return table_of(labels, rng.normal(size=(n, classes)) + 1.5 * np.eye(classes)[labels])


def values_of(summary: dict) -> dict[str, float]:
    return without_none({name: summary[name]["value"] for name in METRICS})


def without_none(values: dict) -> dict[str, float]:
    return {name: np.nan if value is None else value for name, value in values.items()}


def close(values: dict[str, float]) -> object:
    return pytest.approx(values, rel=1e-9, abs=1e-12, nan_ok=True)


class TestAgainstScikitLearn:
    @pytest.mark.parametrize("seed", range(5))
    def test_every_figure(self, seed: int) -> None:
        predictions = random_table(seed)
        y, p, predicted = predictions.labels, predictions.probabilities, predictions.predicted
        average = {"labels": range(6), "zero_division": 0}
        expected = {
            "accuracy": oracle.accuracy_score(y, predicted),
            "balanced_accuracy": oracle.balanced_accuracy_score(y, predicted),
            "macro_precision": oracle.precision_score(y, predicted, average="macro", **average),
            "macro_recall": oracle.recall_score(y, predicted, average="macro", **average),
            "macro_f1": oracle.f1_score(y, predicted, average="macro", **average),
            "weighted_f1": oracle.f1_score(y, predicted, average="weighted", **average),
            "cohen_kappa": oracle.cohen_kappa_score(y, predicted),
            "matthews_correlation": oracle.matthews_corrcoef(y, predicted),
            "log_loss": oracle.log_loss(y, p, labels=range(6)),
            "brier": oracle.brier_score_loss(y, p, labels=range(6), scale_by_half=False),
        }
        summary = summarise(predictions)
        found = values_of(summary)
        assert set(found) == METRICS
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, rel=1e-12), name
        for index, (name, row) in enumerate(summary["per_class"].items()):
            one, named = y == index, predicted == index
            assert row["precision"] == pytest.approx(oracle.precision_score(one, named)), name
            assert row["recall"] == pytest.approx(oracle.recall_score(one, named)), name
            assert row["f1"] == pytest.approx(oracle.f1_score(one, named)), name
            assert row["specificity"] == pytest.approx(oracle.recall_score(~one, ~named)), name
            assert row["auroc"] == pytest.approx(oracle.roc_auc_score(one, p[:, index])), name
            assert row["support"] == one.sum(), name
            assert row["groups"] == len(set(predictions.groups[one])), name
        assert summary["confusion_matrix"] == oracle.confusion_matrix(y, predicted).tolist()

    def test_one_photo_of_another_class_gives_a_specificity(self) -> None:
        summary = summarise(table_of(np.array([0, 0, 0, 1]), np.eye(3)[[0, 0, 1, 1]]))
        assert summary["per_class"]["a"]["specificity"] == 1
        assert summary["per_class"]["b"]["specificity"] == pytest.approx(2 / 3)

    def test_a_class_without_photos_or_without_others_has_no_auroc_and_no_warning(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            summary = summarise(table_of(np.zeros(4, dtype=int), np.eye(2)[[0, 0, 1, 1]]))
        assert [row["auroc"] for row in summary["per_class"].values()] == [None, None]

    def test_counts_stand_beside_every_figure(self) -> None:
        summary = summarise(random_table(0))
        assert (summary["n"], summary["groups"]) == (152, 51)
        assert {summary[name]["n"] for name in METRICS} == {152}
        assert json.loads(json.dumps(summary, allow_nan=False)) == summary


class TestBins:
    @settings(max_examples=50, deadline=None)
    @given(values=st.lists(st.integers(0, 20), min_size=1, max_size=60), bins=st.integers(1, 15))
    def test_they_are_in_order_from_0_none_is_empty_and_equal_values_share_one(self, values, bins) -> None:
        position = equal_mass_bins(np.array(values) / 20, bins)
        assert sorted(set(position.tolist())) == list(range(position.max() + 1))
        assert position.max() < bins
        by_value = dict(zip(values, position.tolist(), strict=True))
        assert [by_value[value] for value in values] == position.tolist()
        assert [by_value[value] for value in sorted(by_value)] == sorted(by_value.values())

    @pytest.mark.parametrize(("n", "bins"), [(40, 4), (41, 4), (43, 4), (3, 5)])
    def test_different_values_fill_them_equally(self, n: int, bins: int) -> None:
        counts = np.bincount(equal_mass_bins(np.random.default_rng(n).permutation(n) / n, bins))
        assert counts.tolist() == [len(part) for part in np.array_split(np.arange(n), min(bins, n))]


class TestAgainstClosedForms:
    def test_log_loss_of_an_extreme_answer_is_not_clipped(self) -> None:
        assert log_loss(np.array([1]), np.array([[1000.0, 0.0]])) == pytest.approx(1000.0, rel=1e-12)

    def test_log_loss_of_knowing_nothing_is_log_of_the_number_of_classes(self) -> None:
        assert log_loss(np.array([0, 3]), np.zeros((2, 5))) == pytest.approx(np.log(5), rel=1e-12)

    def test_log_loss_is_logsumexp_less_the_true_logit(self) -> None:
        predictions = random_table(3)
        true = predictions.logits[np.arange(len(predictions)), predictions.labels]
        expected = (logsumexp(predictions.logits, axis=1) - true).mean()
        assert summarise(predictions)["log_loss"]["value"] == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize(
        ("probabilities", "expected"), [([1.0, 0.0, 0.0], 0.0), ([0.0, 1.0, 0.0], 2.0), ([1 / 3] * 3, 2 / 3)]
    )
    def test_brier_runs_from_0_to_2(self, probabilities: list[float], expected: float) -> None:
        assert brier_score(np.array([0]), np.array([probabilities])) == pytest.approx(expected, abs=1e-12)

    def test_calibration_error_of_one_bin_is_confidence_less_accuracy(self) -> None:
        probabilities = np.array([[0.9, 0.1]] * 8)
        labels = np.array([0] * 6 + [1] * 2)
        assert expected_calibration_error(labels, probabilities) == pytest.approx(0.9 - 6 / 8)

    def test_calibration_error_of_two_bins(self) -> None:
        confidence = np.concatenate([np.linspace(0.55, 0.65, 10), np.linspace(0.85, 0.95, 10)])
        labels = np.array([0] * 4 + [1] * 6 + [0] * 10)
        probabilities = np.column_stack([confidence, 1 - confidence])
        # Bins of ten: |0.4 − 0.6| and |1.0 − 0.9|.
        assert expected_calibration_error(labels, probabilities) == pytest.approx((0.2 + 0.1) / 2)

    def test_calibration_error_uses_15_bins_at_most(self) -> None:
        rng = np.random.default_rng(0)
        confidence = np.sort(rng.uniform(0.5, 1, 1500))
        right = rng.uniform(size=1500) < 0.7
        parts = zip(np.split(confidence, 15), np.split(right, 15), strict=True)
        expected = np.mean([abs(part.mean() - hits.mean()) for part, hits in parts])
        found = expected_calibration_error(1 - right.astype(int), np.column_stack([confidence, 1 - confidence]))
        assert found == pytest.approx(expected, rel=1e-12)

    def test_calibration_error_of_equal_confidences_does_not_depend_on_the_order(self) -> None:
        probabilities = np.array([[1.0, 0.0]] * 40)
        labels = np.array([0] * 20 + [1] * 20)
        mixed = np.random.default_rng(1).permutation(labels)
        assert expected_calibration_error(labels, probabilities) == pytest.approx(0.5)
        assert expected_calibration_error(mixed, probabilities) == pytest.approx(0.5)

    def test_a_perfect_model(self) -> None:
        labels = np.arange(30) % 3
        values = values_of(summarise(table_of(labels, 60 * np.eye(3)[labels])))
        for name in METRICS - {"log_loss", "brier", "expected_calibration_error"}:
            assert values[name] == pytest.approx(1.0), name
        for name in ("log_loss", "brier", "expected_calibration_error"):
            assert values[name] == pytest.approx(0.0, abs=1e-12), name


class TestPublishedArithmetic:
    @pytest.mark.parametrize(("right", "percent"), PUBLISHED_ACCURACY.items())
    def test_every_published_accuracy_is_a_count_of_158(self, right: int, percent: float) -> None:
        labels = np.repeat(np.arange(5), PUBLISHED_SUPPORT)
        answers = np.where(np.arange(158) < right, labels, (labels + 1) % 5)
        summary = summarise(table_of(labels, 4.0 * np.eye(5)[answers], ICHTHYOSIS))
        assert round(100 * summary["accuracy"]["value"], 2) == percent
        assert summary["accuracy"]["n"] == 158
        assert [row["support"] for row in summary["per_class"].values()] == list(PUBLISHED_SUPPORT)
        assert np.trace(summary["confusion_matrix"]) == right

    def test_seven_accuracies_are_published(self) -> None:
        assert len(PUBLISHED_ACCURACY) == 7


class TestUndefinedValues:
    def test_a_class_without_photos_and_predictions(self) -> None:
        labels = np.array([0, 0, 1, 1])
        summary = summarise(table_of(labels, np.eye(3)[labels] * 3))
        absent = {"precision": None, "recall": None, "f1": None, "specificity": 1.0, "auroc": None}
        assert summary["per_class"]["c"] == absent | {"support": 0, "groups": 0}
        for name in ("macro_precision", "macro_recall", "macro_f1"):
            assert summary[name]["value"] == pytest.approx(2 / 3), name
        assert summary["balanced_accuracy"]["value"] == summary["weighted_f1"]["value"] == 1.0

    def test_a_class_never_predicted_has_an_f1_of_0(self) -> None:
        summary = summarise(table_of(np.array([0, 1]), np.array([[1.0, 0.0], [1.0, 0.0]])))
        row = summary["per_class"]["b"]
        assert (row["precision"], row["recall"], row["f1"]) == (None, 0.0, 0.0)
        assert summary["macro_f1"]["value"] == pytest.approx(1 / 3)

    def test_photos_of_one_class_only(self) -> None:
        summary = summarise(table_of(np.array([0, 0]), np.array([[1.0, 0.0], [1.0, 0.0]])))
        assert summary["cohen_kappa"]["value"] is None
        assert summary["matthews_correlation"]["value"] == 0.0
        assert summary["per_class"]["a"]["specificity"] is None
        assert summary["per_class"]["a"]["auroc"] is None
        json.dumps(summary, allow_nan=False)

    def test_one_photo(self) -> None:
        summary = summarise(table_of(np.array([1]), np.array([[1.0, 0.0, 0.0]])))
        assert summary["accuracy"] == {"value": 0.0, "n": 1}
        json.dumps(summary, allow_nan=False)


class TestInvariances:
    @settings(max_examples=40, deadline=None)
    @given(seed=st.integers(0, 10_000), n=st.integers(1, 60), classes=st.integers(2, 6))
    def test_order_of_rows(self, seed: int, n: int, classes: int) -> None:
        predictions = random_table(seed, n, classes)
        shuffled = predictions.table.sample(frac=1, random_state=seed).reset_index(drop=True)
        before, after = summarise(predictions), summarise(Predictions(shuffled, predictions.classes))
        assert values_of(after) == close(values_of(before))
        assert after["per_class"] == before["per_class"]
        assert after["confusion_matrix"] == before["confusion_matrix"]

    @settings(max_examples=40, deadline=None)
    @given(seed=st.integers(0, 10_000), n=st.integers(1, 60), classes=st.integers(2, 6))
    def test_names_and_order_of_classes(self, seed: int, n: int, classes: int) -> None:
        predictions = random_table(seed, n, classes)
        order = np.random.default_rng(seed).permutation(classes)
        new_names = tuple(f"new {predictions.classes[index]}" for index in order)
        labels = np.argsort(order)[predictions.labels]
        renamed = table_of(labels, predictions.logits[:, order], new_names)
        before, after = summarise(predictions), summarise(renamed)
        assert values_of(after) == close(values_of(before))
        for name, row in before["per_class"].items():
            assert without_none(after["per_class"][f"new {name}"]) == close(without_none(row)), name

    @settings(max_examples=40, deadline=None)
    @given(seed=st.integers(0, 10_000), n=st.integers(1, 60), classes=st.integers(2, 6))
    def test_ranges(self, seed: int, n: int, classes: int) -> None:
        values = values_of(summarise(random_table(seed, n, classes)))
        assert values["log_loss"] >= 0
        assert 0 <= values["brier"] <= 2
        for name in METRICS - {"log_loss", "brier", "cohen_kappa", "matthews_correlation"}:
            assert -1e-12 <= values[name] <= 1 + 1e-12, name


class TestScoresOfAnEpoch:
    @settings(max_examples=40, deadline=None)
    @given(seed=st.integers(0, 10_000), n=st.integers(1, 60), classes=st.integers(2, 6))
    def test_equal_scikit_learn_and_the_summary(self, seed: int, n: int, classes: int) -> None:
        predictions = random_table(seed, n, classes)
        scores = score(predictions.labels, predictions.logits.astype(np.float32))
        y, predicted = predictions.labels, predictions.predicted
        present = np.unique(y)
        macro = {"labels": range(classes), "average": "macro", "zero_division": 0}
        assert scores.accuracy == pytest.approx(oracle.accuracy_score(y, predicted))
        assert scores.balanced_accuracy == pytest.approx(
            oracle.recall_score(y, predicted, labels=present, average="macro")
        )
        assert scores.macro_f1 == pytest.approx(oracle.f1_score(y, predicted, **macro))
        summary = summarise(predictions)
        for name in ("accuracy", "balanced_accuracy", "macro_f1"):
            assert summary[name]["value"] == pytest.approx(getattr(scores, name)), name
