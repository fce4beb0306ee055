"""Figures of several models show the numbers of the comparison, inside the figure and apart."""

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from simulated_study import CLASSES, simulate_arm, simulate_photos, three_arms

from hcoatnet.evaluation.comparison import Comparison, compare
from hcoatnet.evaluation.floors import majority
from hcoatnet.report import comparison_figures, drawing
from hcoatnet.report.ranking import ranked_rows


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    arms = three_arms()
    return compare([*arms, majority(arms[0])], "beta_b", replicates=200)


def texts_of(figure: Figure) -> list[Text]:
    """All text that is drawn, tick labels outside the axes left out."""
    figure.draw_without_rendering()
    hidden = set()
    for axes in figure.axes:
        for axis, (low, high) in ((axes.xaxis, sorted(axes.get_xlim())), (axes.yaxis, sorted(axes.get_ylim()))):
            outside = [tick for tick in axis.get_major_ticks() if not low - 1e-9 <= tick.get_loc() <= high + 1e-9]
            hidden |= {label for tick in outside for label in (tick.label1, tick.label2)}
        if not axes.get_visible():
            hidden |= set(axes.findobj(Text))
    texts = figure.findobj(Text)
    return [text for text in texts if text.get_visible() and text.get_text().strip() and text not in hidden]


def assert_inside_and_apart(figure: Figure) -> None:
    upright = [
        (text.get_text(), text.get_window_extent()) for text in texts_of(figure) if text.get_rotation() in (0.0, 90.0)
    ]
    assert upright
    for words, box in upright:
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1, words
    for (words, box), (other, other_box) in itertools.combinations(upright, 2):
        assert not box.padded(-1).overlaps(other_box.padded(-1)), f"{words!r} touches {other!r}"


class TestForest:
    def test_points_and_intervals_are_those_of_the_comparison(self, comparison: Comparison) -> None:
        left, right = comparison_figures.forest(comparison).axes
        rows = ranked_rows(comparison)
        points = {line.get_ydata()[0]: line.get_xdata()[0] for line in left.lines if line.get_marker() == "o"}
        assert points == {place: row.metrics["macro_f1"].value for place, row in enumerate(rows)}
        segments = {line.get_ydata()[0]: tuple(line.get_xdata()) for line in left.lines if len(line.get_xdata()) == 2}
        for place, row in enumerate(rows):
            reach = row.metrics["macro_f1"].interval
            assert segments[place] == (reach.low, reach.high)
        places = {row.name: place for place, row in enumerate(rows)}
        points = {line.get_ydata()[0]: line.get_xdata()[0] for line in right.lines if line.get_marker() == "o"}
        assert points == {
            places[one.name]: one.macro_f1.value for one in comparison.differences if one.name != "majority"
        }
        bars = {bar.get_y() + bar.get_height() / 2: bar.get_width() / 2 for bar in right.patches}
        for one in comparison.differences:
            if one.name != "majority":
                assert bars[places[one.name]] == pytest.approx(one.detectable)

    def test_verdicts_stand_in_words(self, comparison: Comparison) -> None:
        words = {text.get_text() for text in texts_of(comparison_figures.forest(comparison))}
        assert {"reference", "Difference from beta_b"} <= words
        for one in comparison.differences:
            assert any(word.startswith(one.verdict) for word in words)

    def test_everything_lies_inside_and_apart(self, comparison: Comparison) -> None:
        assert_inside_and_apart(comparison_figures.forest(comparison))


class TestHeatMap:
    def test_cells_hold_the_f1_of_row_and_class(self, comparison: Comparison) -> None:
        (axes,) = comparison_figures.f1_heat_map(comparison).axes
        rows = ranked_rows(comparison)
        expected = [f"{row.per_class[name]['f1'].value:.2f}" for row in rows for name in CLASSES]
        assert [text.get_text() for text in axes.texts] == expected
        labels = [label.get_text() for label in axes.get_xticklabels()]
        for name, label in zip(CLASSES, labels, strict=True):
            assert f"({comparison.support[name][0]})" in label

    def test_everything_lies_inside_and_apart(self, comparison: Comparison) -> None:
        assert_inside_and_apart(comparison_figures.f1_heat_map(comparison))


class TestConfusions:
    def test_cells_are_percent_of_the_row_over_all_replicates(self) -> None:
        arms = three_arms()
        figure = comparison_figures.confusion_matrices(arms)
        for arm, axes in zip(arms, figure.axes, strict=True):
            counts = np.zeros((3, 3))
            for replicate in arm.replicates:
                np.add.at(counts, (replicate.predictions.labels, replicate.predictions.predicted), 1)
            found = [float(text.get_text().replace("<1", "0.4")) for text in axes.texts]
            np.testing.assert_allclose(found, (100 * counts / counts.sum(axis=1, keepdims=True)).ravel(), atol=0.5001)
            assert axes.get_title(loc="left") == arm.name

    @pytest.mark.parametrize("models", [1, 5])
    def test_everything_lies_inside_and_apart(self, models: int) -> None:
        photos = simulate_photos()
        arms = [simulate_arm(f"some_model_of_a_long_name_{number}", photos, 1.0) for number in range(models)]
        assert_inside_and_apart(comparison_figures.confusion_matrices(arms))

    def test_a_class_never_predicted(self) -> None:
        arms = three_arms()
        figure = comparison_figures.confusion_matrices([majority(arms[0])])
        columns = {text.get_text() for place, text in enumerate(figure.axes[0].texts) if place % 3 == 2}
        assert columns == {"0"}


class TestCurves:
    def histories(self, models: int) -> dict[str, list[pd.DataFrame]]:
        epochs = np.arange(1, 7)
        one = pd.DataFrame({"epoch": epochs, "val_macro_f1": epochs / 10, "best": [1, 1, 0, 1, 0, 0], "test_f1": 0.99})
        two = one.assign(val_macro_f1=epochs / 12).head(5)
        return {f"model {number}": [one, two] for number in range(models)}

    def test_lines_are_the_histories_and_their_mean(self) -> None:
        figure = comparison_figures.curves_of_cells(self.histories(1))
        lines = figure.axes[0].lines
        np.testing.assert_array_equal(lines[0].get_ydata(), np.arange(1, 7) / 10)
        np.testing.assert_allclose(lines[-1].get_ydata(), np.arange(1, 6) * (1 / 10 + 1 / 12) / 2)
        kept = [line for line in lines if line.get_marker() == "o"]
        assert [float(line.get_xdata()[0]) for line in kept] == [4, 4]

    def test_no_test_line_ever(self) -> None:
        figure = comparison_figures.curves_of_cells(self.histories(2))
        assert all(0.99 not in np.asarray(line.get_ydata()) for axes in figure.axes for line in axes.lines)
        assert not [text for text in texts_of(figure) if "test" in text.get_text()]

    def test_everything_is_in_view(self) -> None:
        for axes in comparison_figures.curves_of_cells(self.histories(5)).axes[:5]:
            low, high = axes.get_ylim()
            assert all(low <= value <= high for line in axes.lines for value in line.get_ydata())

    @pytest.mark.parametrize("models", [1, 5, 7])
    def test_everything_lies_inside_and_apart(self, models: int) -> None:
        assert_inside_and_apart(comparison_figures.curves_of_cells(self.histories(models)))


def test_equal_comparisons_give_equal_bytes(comparison: Comparison) -> None:
    one, two = (drawing.svg(comparison_figures.forest(comparison)) for _ in range(2))
    assert one == two


def test_panels_fill_their_rows_alike() -> None:
    assert [drawing.arrange(count, 4) for count in (1, 3, 4, 5, 7, 9)] == [
        (1, 1), (1, 3), (1, 4), (2, 3), (2, 4), (3, 3),
    ]  # fmt: skip


def test_series_stay_apart_in_grey_or_in_their_dashes() -> None:
    luminances = [drawing.luminance(colour) for colour, _ in drawing.SERIES]
    for (one, (_, dashes)), (other, (_, other_dashes)) in itertools.combinations(
        zip(luminances, drawing.SERIES, strict=True), 2
    ):
        assert dashes != other_dashes or abs(one - other) > 0.1
