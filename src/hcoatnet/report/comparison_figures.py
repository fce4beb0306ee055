"""Figures that set models side by side: estimates and differences, classes, confusions and the course of training."""

from collections.abc import Mapping, Sequence
from operator import eq

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hcoatnet.evaluation.comparison import Comparison, Difference
from hcoatnet.evaluation.evidence import Arm
from hcoatnet.evaluation.intervals import Estimate
from hcoatnet.report.drawing import (
    BLUE,
    DOUBLE_COLUMN,
    FAINT,
    INK,
    QUIET,
    VERMILLION,
    arrange,
    draw_cells,
    fit_upright,
    in_lines,
    longest_line,
    name_columns,
    name_rows,
    new_figure,
    panels,
    percent_of_row,
    plain_axes,
)
from hcoatnet.report.ranking import ranked_rows
from hcoatnet.report.tables import written

NAME_LENGTH = 22
VERDICT_COLOURS = {"better": BLUE, "worse": VERMILLION, "not distinguishable": QUIET}


def forest(comparison: Comparison) -> Figure:
    """Macro F1 of every row with its interval (left), and its paired difference from the reference (right).

    The pale bar behind a difference reaches as far as the smallest difference that this design could detect. Of a row
    that is not trained only the verdict and the number are given: on one scale with it, models would look alike.
    """
    rows = ranked_rows(comparison)
    differences = {one.name: one for one in comparison.differences}
    names = [in_lines(row.name, NAME_LENGTH) for row in rows]
    figure = new_figure(DOUBLE_COLUMN, 0.36 * len(rows) + 0.95)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1, 1.35])
    for position, row in enumerate(rows):
        _draw_interval(left, position, row.metrics["macro_f1"], INK if row.name == comparison.reference else BLUE)
        if row.name in differences and row.init != "none":
            _draw_difference(right, position, differences[row.name])
    for axes, title in ((left, "Macro F1"), (right, f"Difference from {in_lines(comparison.reference, 30, 1)}")):
        plain_axes(axes, title, grid="x")
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    left.set_ylim(len(rows) - 0.5, -0.5)
    left.set_yticks(range(len(rows)), names, parse_math=False, color=INK)
    for label, row in zip(left.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if row.name == comparison.reference else "normal")
    left.set_xlim(left=0)
    right.axvline(0, color=INK, linewidth=0.9, zorder=1)
    right.margins(x=0.08)
    for position, row in enumerate(rows):
        words, colour = "reference", INK
        if (found := differences.get(row.name)) is not None:
            words, colour = found.verdict, VERDICT_COLOURS[found.verdict]
            if row.init == "none" and found.macro_f1.value is not None:
                words = f"{words} ({written(found.macro_f1.value, 'difference')})"
        right.text(
            1.02, position, words, transform=right.get_yaxis_transform(), va="center", fontsize=8.5, color=colour
        )
    return figure


def f1_heat_map(comparison: Comparison) -> Figure:
    """F1 of every class (columns, with their photos) for every row."""
    rows = ranked_rows(comparison)
    values = np.array(
        [[_or_nan(row.per_class[name]["f1"].value) for name in comparison.classes] for row in rows], dtype=np.float64
    )
    columns = [f"{in_lines(name)}\n({comparison.support[name][0]:,})" for name in comparison.classes]
    upright = fit_upright(columns)
    longest = longest_line([in_lines(row.name, NAME_LENGTH) for row in rows])
    width = min(max(3.5, 0.62 * len(columns) + 0.075 * longest + 0.6), 11)
    figure = new_figure(width, 0.34 * len(rows) + (0.6 if upright else 0.05 * longest_line(columns) + 0.45))
    axes = figure.subplots()
    draw_cells(
        axes,
        values,
        [["–" if np.isnan(value) else f"{value:.2f}" for value in row] for row in values],
        lambda row, column: rows[row].name == comparison.reference,
        fontsize=8.5,
    )
    name_columns(axes, columns)
    name_rows(axes, [in_lines(row.name, NAME_LENGTH) for row in rows])
    return figure


def confusion_matrices(arms: Sequence[Arm]) -> Figure:
    """Confusion matrices side by side, as percent of each row, over the test photos of all seeds and repeats.

    Rows are the true and columns the predicted classes; the photos of each class stand beside its name.
    """
    classes = arms[0].classes
    names = [in_lines(name) for name in classes]
    support = np.bincount(arms[0].replicates[0].predictions.labels, minlength=len(classes))
    per_row = 4 if len(classes) <= 3 else 3 if len(classes) <= 7 else 2
    rows, columns = arrange(len(arms), per_row)
    cell = 0.5 if len(classes) <= 4 else 0.33 if len(classes) <= 7 else 0.3
    titles = [in_lines(arm.name, int(cell * len(classes) / 0.08)) for arm in arms]
    labels = [f"{name} ({n:,})" for name, n in zip(names, support, strict=True)]
    below = 0.25 if fit_upright(names) else 0.055 * longest_line(names) + 0.15
    figure = new_figure(
        columns * (cell * len(classes) + 0.2) + 0.07 * longest_line(labels) + 0.3,
        rows * (cell * len(classes) + 0.2 + 0.15 * max(title.count("\n") + 1 for title in titles)) + below + 0.1,
    )
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel().tolist()
    for number, axes in enumerate(grid):
        if number >= len(arms):
            axes.set_visible(False)
            continue
        shares = _shares(mean_confusions(arms[number]))
        texts = [[percent_of_row(share) for share in row] for row in shares]
        draw_cells(axes, shares, texts, eq, fontsize=7.5)
        axes.set_title(titles[number], fontsize=9, color=INK, loc="left", parse_math=False)
        if number + columns >= len(arms):
            name_columns(axes, names, fontsize=8)
        else:
            axes.set_xticks([])
    name_rows(grid[0], labels, fontsize=8)
    return figure


def mean_confusions(arm: Arm) -> npt.NDArray[np.float64]:
    """Photos by true class (rows) and predicted class (columns), mean over seeds and repeats: fractions can occur."""
    size = len(arm.classes)
    counts = np.zeros((size, size))
    for replicate in arm.replicates:
        np.add.at(counts, (replicate.predictions.labels, replicate.predictions.predicted), 1)
    return counts / len(arm.replicates)


def curves_of_cells(histories: Mapping[str, Sequence[pd.DataFrame]]) -> Figure:
    """Validation macro F1 over the epochs, a panel a model: a thin line for each training and a thick one for the mean.

    Dots mark the epochs whose weights were kept. The mean stops where the first training does.

    Args:
        histories: By model; columns epoch, val_macro_f1 and best (1 where an epoch was better than all before it).
    """
    _, columns = arrange(len(histories), 4)
    figure, grid = panels(len(histories), 4, DOUBLE_COLUMN / max(2, columns), 1.75, sharey=True)
    for axes, (name, tables) in zip(grid, histories.items(), strict=True):
        plain_axes(axes, in_lines(name, NAME_LENGTH, 1))
        for table in tables:
            axes.plot(table["epoch"], table["val_macro_f1"], color=BLUE, linewidth=0.7, alpha=0.45)
            kept = table[table["best"] == 1].tail(1)
            axes.plot(kept["epoch"], kept["val_macro_f1"], "o", color=VERMILLION, markersize=3.2, markeredgewidth=0)
        together = pd.concat([table.set_index("epoch")["val_macro_f1"] for table in tables], axis=1).dropna()
        axes.plot(together.index, together.mean(axis=1), color=BLUE, linewidth=2)
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
        axes.set_xlabel("epoch", fontsize=8.5, color=QUIET)
    highest = max(float(table["val_macro_f1"].max()) for tables in histories.values() for table in tables)
    grid[0].set_ylim(0, 1.08 * highest or 1.0)
    grid[0].set_ylabel("validation macro F1", fontsize=8.5, color=QUIET)
    return figure


def _draw_interval(axes: Axes, position: float, estimate: Estimate, colour: str) -> None:
    if estimate.value is None:
        return
    if (reach := estimate.interval) is not None:
        axes.plot([reach.low, reach.high], [position] * 2, color=colour, linewidth=1.8, solid_capstyle="butt")
    axes.plot([estimate.value], [position], "o", color=colour, markersize=5.5, markeredgecolor="white")


def _draw_difference(axes: Axes, position: float, difference: Difference) -> None:
    axes.barh(position, 2 * difference.detectable, left=-difference.detectable, height=0.62, color=FAINT, zorder=0)
    _draw_interval(axes, position, difference.macro_f1, VERDICT_COLOURS[difference.verdict])


def _shares(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    support = counts.sum(axis=1, keepdims=True)
    shares: npt.NDArray[np.float64] = np.full(counts.shape, np.nan)
    np.divide(counts, support, out=shares, where=support > 0)
    return shares


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value
