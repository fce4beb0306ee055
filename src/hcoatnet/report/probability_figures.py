"""Figures of what the probabilities are worth: ranking, calibration, abstaining and prediction sets."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, PercentFormatter
from sklearn.metrics import precision_recall_curve, roc_curve

from hcoatnet.evaluation.calibration import CalibrationResult, Reliability
from hcoatnet.evaluation.conformal import ConformalResult
from hcoatnet.evaluation.intervals import Estimate
from hcoatnet.evaluation.predictions import Predictions
from hcoatnet.evaluation.selective import RiskCoverage
from hcoatnet.report.drawing import (
    BLUE,
    DOUBLE_COLUMN,
    FAINT,
    INK,
    QUIET,
    SERIES,
    arrange,
    in_lines,
    name_lines,
    new_figure,
    panels,
    plain_axes,
)

MOST_LINES = len(SERIES)
"""More lines than these cannot be told apart in one panel."""
HALVES = FixedLocator([0, 0.5, 1])
MARKS = ("o", "s", "D", "^")

Curve = Callable[[npt.NDArray[np.bool_], npt.NDArray[np.float64]], tuple[npt.NDArray[np.float64], ...]]


def roc_curves(models: Mapping[str, Predictions]) -> Figure:
    """Receiver operating characteristic, one class against the rest: a panel a class, a line a model."""
    figure, grid = _class_panels(models)
    for axes, index in grid:
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1)
        _draw_curves(axes, models, index, roc_curve, {})
    _name_axes([axes for axes, _ in grid], "false positive rate", "recall")
    return figure


def precision_recall_curves(models: Mapping[str, Predictions]) -> Figure:
    """Precision over recall, one class against the rest: a panel a class, a line a model.

    The pale line is the share of the class: the precision of naming photos at random.
    """

    def recall_first(
        is_class: npt.NDArray[np.bool_], p: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.float64], ...]:
        precision, recall, _ = precision_recall_curve(is_class, p, drop_intermediate=True)
        return recall, precision

    figure, grid = _class_panels(models)
    labels = next(iter(models.values())).labels
    for axes, index in grid:
        axes.axhline(float((labels == index).mean()), color=FAINT, linewidth=1)
        _draw_curves(axes, models, index, recall_first, {"drawstyle": "steps-pre"})
    _name_axes([axes for axes, _ in grid], "recall", "precision")
    return figure


def reliability_diagrams(results: Mapping[str, CalibrationResult]) -> Figure:
    """Accuracy over confidence, a panel a model, before (open) and after (filled) temperature scaling.

    Bins hold equally many photos; the bars are Wilson intervals, and the panel says how many photos a bin holds.
    """
    width = 3.2 if len(results) == 1 else DOUBLE_COLUMN / max(3, arrange(len(results), 4)[1])
    figure, grid = panels(len(results), 4, width, min(width, 2.4) + 0.4 * (len(results) == 1), sharex=True, sharey=True)
    for axes, (name, result) in zip(grid, results.items(), strict=True):
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1)
        _draw_reliability(axes, result.before.reliability, QUIET, filled=False)
        _draw_reliability(axes, result.after.reliability, BLUE, filled=True)
        plain_axes(axes, in_lines(name, 22, 1), grid="both")
        _make_square(axes)
        counts = result.after.reliability.count
        many = f"{min(counts):,}" if min(counts) == max(counts) else f"{min(counts):,}–{max(counts):,}"
        axes.text(0.97, 0.04, f"{len(counts)} bins of {many}", ha="right", fontsize=7.5, color=QUIET)
    _name_axes(grid, "confidence", "accuracy")
    marks = [
        Line2D([], [], color=QUIET, marker="s", markerfacecolor="white", markersize=4, linestyle="none"),
        Line2D([], [], color=BLUE, marker="o", markersize=4.5, linestyle="none"),
    ]
    words = ["as trained", "after temperature scaling"]
    figure.legend(marks, words, loc="outside upper left", ncols=2, frameon=False, fontsize=8.5, labelcolor=INK)
    return figure


def risk_coverage_curves(curves: Mapping[str, RiskCoverage]) -> Figure:
    """Share of wrong answers among the photos that are answered, the surest first; a line a model."""
    figure = new_figure(4.6, 3.2)
    axes = figure.subplots()
    for (colour, dashes), curve in zip(SERIES, curves.values(), strict=False):
        axes.plot(curve.coverage, curve.risk, color=colour, linestyle=dashes, linewidth=1.7)
    plain_axes(axes, grid="both")
    axes.set(xlim=(0, 1), ylim=(0, None))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel("share of photos answered", fontsize=8.5, color=QUIET)
    axes.set_ylabel("wrong among them", fontsize=8.5, color=QUIET)
    if len(curves) > 1:
        name_lines(figure, list(curves))
    return figure


def conformal_sets(models: Mapping[str, Sequence[ConformalResult]], level: float) -> Figure:
    """Measured coverage (left) and mean size (right) of prediction sets, a row a model and a mark a method.

    Args:
        models: By model; results of other levels and refused ones are left out.
        level: The coverage that was aimed at; the dashed line.
    """
    measured = {
        name: [(method_name(one), one.measured.overall) for one in results if one.level == level and one.measured]
        for name, results in models.items()
    }
    methods = list(dict.fromkeys(method for found in measured.values() for method, _ in found))
    figure = new_figure(DOUBLE_COLUMN, 0.5 * len(models) + 1.15)
    left, right = figure.subplots(1, 2, sharey=True)
    left.axvline(level, color=INK, linewidth=0.9, linestyle=(0, (2, 2)))
    for row, found in enumerate(measured.values()):
        for method, overall in found:
            number = methods.index(method)
            place = row + 0.19 * (number - (len(methods) - 1) / 2)
            _draw_measured(left, place, overall.coverage, number)
            _draw_measured(right, place, overall.set_size, number)
    for axes, title in ((left, "Coverage"), (right, "Mean number of classes in a set")):
        plain_axes(axes, title, grid="x")
    left.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    left.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    left.set_ylim(len(models) - 0.5, -0.5)
    left.set_yticks(range(len(models)), [in_lines(name, 22) for name in models], parse_math=False, color=INK)
    right.set_xlim(left=0)
    marks = [
        Line2D([], [], color=SERIES[number][0], marker=MARKS[number], linestyle="none", markersize=5)
        for number in range(len(methods))
    ]
    figure.legend(
        marks, methods, loc="outside upper left", ncols=len(methods), frameon=False, fontsize=8.5, labelcolor=INK
    )
    return figure


def method_name(result: ConformalResult) -> str:
    """``LAC``, ``APS``, or the same with thresholds by class."""
    return result.method.upper() + (", by class" if result.class_conditional else "")


def _class_panels(models: Mapping[str, Predictions]) -> tuple[Figure, list[tuple[Axes, int]]]:
    """A square panel for each class that has both photos and others to be told from."""
    first = next(iter(models.values()))
    support = np.bincount(first.labels, minlength=len(first.classes))
    shown = [index for index, n in enumerate(support) if 0 < n < len(first)]
    per_row = min(len(shown), 4 if len(shown) in (4, 7, 8) or len(shown) > 9 else 3)
    figure, grid = panels(len(shown), per_row, DOUBLE_COLUMN / max(per_row, 3), 2.3, sharex=True, sharey=True)
    for axes, index in zip(grid, shown, strict=True):
        plain_axes(axes, f"{in_lines(first.classes[index], 22, 1)} ({support[index]:,})", grid="both")
        _make_square(axes)
    if len(models) > 1:
        name_lines(figure, list(models)[:MOST_LINES])
    return figure, list(zip(grid, shown, strict=True))


def _make_square(axes: Axes) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1.02), aspect="equal")
    axes.xaxis.set_major_locator(HALVES)
    axes.yaxis.set_major_locator(HALVES)


def _draw_curves(
    axes: Axes, models: Mapping[str, Predictions], index: int, curve: Curve, style: Mapping[str, str]
) -> None:
    for (colour, dashes), predictions in zip(SERIES, models.values(), strict=False):
        x, y = curve(predictions.labels == index, predictions.probabilities[:, index])[:2]
        axes.plot(x, y, color=colour, linestyle=dashes, linewidth=1.4, **style)  # type: ignore[arg-type]


def _draw_reliability(axes: Axes, diagram: Reliability, colour: str, filled: bool) -> None:
    axes.vlines(diagram.confidence, diagram.low, diagram.high, color=colour, linewidth=0.9, alpha=0.55)
    axes.plot(
        diagram.confidence,
        diagram.accuracy,
        "o" if filled else "s",
        color=colour,
        markersize=4.5 if filled else 4,
        markerfacecolor=colour if filled else "white",
    )


def _draw_measured(axes: Axes, place: float, measured: Estimate, number: int) -> None:
    colour = SERIES[number][0]
    if (reach := measured.interval) is not None:
        axes.plot([reach.low, reach.high], [place] * 2, color=colour, linewidth=1.5, solid_capstyle="butt")
    if measured.value is not None:
        axes.plot([measured.value], [place], MARKS[number], color=colour, markersize=5, markeredgecolor="white")


def _name_axes(grid: Sequence[Axes], x: str, y: str) -> None:
    """Name the axes once: below the panels that have none below them, and at the left."""
    for axes in grid:
        place = axes.get_subplotspec()
        if place is None:
            continue
        columns = place.get_gridspec().ncols
        if place.num1 + columns >= len(grid):
            axes.set_xlabel(x, fontsize=8.5, color=QUIET)
            axes.tick_params(labelbottom=True)
        if place.is_first_col():
            axes.set_ylabel(y, fontsize=8.5, color=QUIET)
