"""Figures of probabilities show what scikit-learn and the statistics say."""

import numpy as np
import pytest
from simulated_study import CLASSES, simulate_arm, simulate_photos, three_arms
from sklearn.metrics import auc, roc_auc_score
from test_comparison_figures import assert_inside_and_apart, texts_of

from hcoatnet.evaluation.calibration import calibrate_out_of_fold
from hcoatnet.evaluation.conformal import conformal_out_of_fold
from hcoatnet.evaluation.predictions import Predictions
from hcoatnet.evaluation.selective import risk_coverage, selective_out_of_fold
from hcoatnet.report import drawing, probability_figures


@pytest.fixture(scope="module")
def models() -> dict[str, Predictions]:
    return {arm.name: arm.replicates[0].predictions for arm in three_arms()}


class TestRoc:
    def test_the_area_under_each_line_is_the_auroc(self, models) -> None:
        figure = probability_figures.roc_curves(models)
        for index, axes in enumerate(figure.axes):
            chance, *lines = axes.lines
            assert list(chance.get_xdata()) == [0, 1]
            for line, predictions in zip(lines, models.values(), strict=True):
                expected = roc_auc_score(predictions.labels == index, predictions.probabilities[:, index])
                assert auc(line.get_xdata(), line.get_ydata()) == pytest.approx(expected)

    def test_panels_name_the_class_and_its_photos(self, models) -> None:
        figure = probability_figures.roc_curves(models)
        support = np.bincount(next(iter(models.values())).labels)
        for axes, name, n in zip(figure.axes, CLASSES, support, strict=True):
            title = axes.get_title(loc="left")
            assert title.startswith(name[:12])
            assert title.endswith(f"({n})")

    def test_a_class_without_photos_has_no_panel(self) -> None:
        photos = simulate_photos()
        arm = simulate_arm("x", photos[photos["label"] != CLASSES[2]], 1.0)
        assert len(probability_figures.roc_curves({"x": arm.replicates[0].predictions}).axes) == 2

    def test_lines_of_several_models_are_named_and_that_of_one_is_not(self, models) -> None:
        assert set(models) <= {text.get_text() for text in texts_of(probability_figures.roc_curves(models))}
        alone = probability_figures.roc_curves({"alpha": models["alpha"]})
        assert "alpha" not in {text.get_text() for text in texts_of(alone)}


class TestPrecisionRecall:
    def test_pale_lines_are_the_shares_of_the_classes(self, models) -> None:
        figure = probability_figures.precision_recall_curves(models)
        labels = next(iter(models.values())).labels
        for index, axes in enumerate(figure.axes):
            assert axes.lines[0].get_ydata()[0] == pytest.approx((labels == index).mean())
            assert len(axes.lines) == 1 + len(models)


class TestReliability:
    def test_points_are_those_of_the_diagrams_before_and_after(self) -> None:
        arms = three_arms()[:2]
        results = {arm.name: calibrate_out_of_fold(arm, draws=100) for arm in arms}
        figure = probability_figures.reliability_diagrams(results)
        for axes, result in zip(figure.axes, results.values(), strict=True):
            _, before, after = axes.lines
            np.testing.assert_array_equal(before.get_xdata(), result.before.reliability.confidence)
            np.testing.assert_array_equal(before.get_ydata(), result.before.reliability.accuracy)
            np.testing.assert_array_equal(after.get_ydata(), result.after.reliability.accuracy)
            (counts,) = [text.get_text() for text in axes.texts]
            assert counts == f"{len(result.after.reliability.count)} bins of 18"
        assert_inside_and_apart(figure)


class TestRiskCoverage:
    def test_lines_are_the_curves(self) -> None:
        curves = {arm.name: selective_out_of_fold(arm, draws=100).curve for arm in three_arms()}
        (axes,) = probability_figures.risk_coverage_curves(curves).axes
        for line, curve in zip(axes.lines, curves.values(), strict=True):
            np.testing.assert_array_equal(line.get_ydata(), curve.risk)
        assert_inside_and_apart(probability_figures.risk_coverage_curves(curves))


class TestConformal:
    def test_marks_are_the_measured_coverages(self) -> None:
        arms = three_arms()
        results = {arm.name: conformal_out_of_fold(arm, draws=100) for arm in arms}
        left, _ = probability_figures.conformal_sets(results, 0.9).axes
        found = sorted(float(line.get_xdata()[0]) for line in left.lines if line.get_marker() in ("o", "s", "D", "^"))
        expected = sorted(
            one.measured.overall.coverage.value
            for several in results.values()
            for one in several
            if one.level == 0.9 and one.measured
        )
        assert len(expected) >= 6
        assert found == expected
        assert_inside_and_apart(probability_figures.conformal_sets(results, 0.9))


def test_equal_figures_give_equal_bytes_in_every_format(models) -> None:
    predictions = models["alpha"]
    curves = {"alpha": risk_coverage(predictions.labels, predictions.probabilities)}
    for form, start in ((drawing.svg, b"<?xml"), (drawing.pdf, b"%PDF"), (drawing.png, b"\x89PNG")):
        one, two = (form(probability_figures.risk_coverage_curves(curves)) for _ in range(2))
        assert one == two
        assert one.startswith(start)
