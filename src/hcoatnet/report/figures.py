"""The figures of one run: confusion matrix and learning curves."""

from collections.abc import Sequence
from operator import eq
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import confusion_matrix as count_confusions

from hcoatnet.evaluation.predictions import Predictions
from hcoatnet.report.drawing import (
    BLUE,
    INK,
    QUIET,
    VERMILLION,
    draw_cells,
    fit_upright,
    in_lines,
    longest_line,
    name_columns,
    name_rows,
    new_figure,
    percent_of_row,
    plain_axes,
)

LEAST_DISTANCE = 0.11


def confusion_matrix(predictions: Predictions, title: str) -> Figure:
    """Confusion matrix as counts (left) and as percent of each row (right).

    Rows are the true and columns the predicted classes. A class without photos has no shares.
    """
    classes = predictions.classes
    counts = count_confusions(predictions.labels, predictions.predicted, labels=range(len(classes)))
    support = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, support, out=np.full(counts.shape, np.nan), where=support > 0)
    names = [in_lines(name) for name in classes]

    rows = [f"{name} ({n})" for name, n in zip(names, support[:, 0], strict=True)]
    cell = 0.8 if len(classes) <= 3 else 0.62 if len(classes) <= 6 else 0.5
    # About square cells; the constrained layout sees to it that labels fit whatever their length.
    width = 2 * cell * len(classes) + 0.075 * longest_line(rows) + 0.7
    height = cell * len(classes) + (0.9 if fit_upright(names) else 0.05 * longest_line(names) + 1.0)
    figure = new_figure(width, height)
    left, right = figure.subplots(1, 2, sharey=True)
    fontsize = 9.5 if len(classes) <= 6 else 8.5
    draw_cells(left, counts / max(counts.max(), 1), [[str(n) for n in row] for row in counts], eq, fontsize)
    draw_cells(right, shares, [[percent_of_row(share) for share in row] for row in shares], eq, fontsize)
    for axes, heading in ((left, "Photos"), (right, "Percent of row")):
        name_columns(axes, names)
        axes.set_title(heading, fontsize=9.5, color=INK, loc="left")
        axes.set_xlabel("predicted", fontsize=9, color=QUIET)
    name_rows(left, rows)
    left.set_ylabel("true (photos)", fontsize=9, color=QUIET)
    figure.suptitle(title, fontsize=11, fontweight="bold", color=INK, x=0.01, ha="left", parse_math=False)
    return figure


def learning_curves(history: pd.DataFrame) -> Figure:
    """Losses, validation scores and learning rate over the epochs; the epoch whose weights were kept is marked.

    Args:
        history: Columns epoch, train_loss, val_loss, val_macro_f1, val_balanced_accuracy, learning_rate and best (1
            where an epoch was better than all before it), one row an epoch.
    """
    epochs = history["epoch"].to_numpy()
    improved = history[history["best"] == 1]
    figure = new_figure(width=5.8, height=5.2)
    loss, scores, rate = figure.subplots(3, 1, sharex=True, height_ratios=[3, 3, 1])
    lines = {"train_loss": ("training", QUIET), "val_loss": ("validation", BLUE)}
    _draw_lines(loss, history, "Loss", lines)
    lines = {"val_macro_f1": ("macro F1", BLUE), "val_balanced_accuracy": ("balanced accuracy", VERMILLION)}
    _draw_lines(scores, history, "Validation scores", lines, top=1.0)
    highest = f"Learning rate (highest {history['learning_rate'].max():.2g})"
    _draw_lines(rate, history, highest, {"learning_rate": ("", QUIET)})
    rate.set_yticks([])
    rate.set_xlabel("epoch", fontsize=9, color=QUIET)
    rate.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    margin = max(0.02 * np.ptp(epochs), 0.4)
    rate.set_xlim(epochs.min() - margin, epochs.max() + margin)
    if len(improved):
        _mark_best(figure, int(improved["epoch"].iloc[-1]), float(improved["val_macro_f1"].iloc[-1]))
    return figure


def _draw_lines(
    axes: Axes, history: pd.DataFrame, title: str, lines: dict[str, tuple[str, str]], top: float | None = None
) -> None:
    """Draw columns as lines of (name, colour) from 0 up to ``top``, or to what they need."""
    epochs = history["epoch"].to_numpy()
    marker = "o" if len(epochs) == 1 else None
    for column, (_, colour) in lines.items():
        axes.plot(epochs, history[column].to_numpy(), color=colour, linewidth=1.6, marker=marker, markersize=4)
    highest = np.nanmax(history[list(lines)].to_numpy(dtype=np.float64))
    axes.set_ylim(0, top or 1.08 * highest or 1.0)
    plain_axes(axes, title)
    _label_ends(axes, sorted((float(history[column].iloc[-1]), *label) for column, label in lines.items()))


def _label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Name one or two lines, the lower one first, where they end; names that would touch move apart."""
    heights = np.array([value for value, _, _ in ends]) / axes.get_ylim()[1]
    overlap = LEAST_DISTANCE - np.ptp(heights)
    if len(ends) == 2 and overlap > 0:
        heights += np.array([-0.5, 0.5]) * overlap
        heights += max(0, 0.02 - heights[0])
    for height, (_, name, colour) in zip(heights, ends, strict=True):
        axes.text(1.01, height, name, transform=axes.transAxes, va="center", fontsize=8.5, color=colour)


def _mark_best(figure: Figure, epoch: int, macro_f1: float) -> None:
    for axes in figure.axes:
        axes.axvline(epoch, color=INK, linewidth=0.8, linestyle=(0, (2, 2)), zorder=0.5)
    scores = figure.axes[1]
    scores.plot([epoch], [macro_f1], marker="o", markersize=5, color=BLUE, markeredgecolor="white")
    left, right = scores.get_xlim()
    side: dict[str, Any] = (
        {"xytext": (-6, 0), "ha": "right"} if epoch > (left + right) / 2 else {"xytext": (6, 0), "ha": "left"}
    )
    scores.annotate(
        f"best epoch {epoch}: macro F1 {macro_f1:.3f}",
        (epoch, 0.94 if macro_f1 < 0.8 else 0.07),
        textcoords="offset points",
        va="center",
        fontsize=8.5,
        color=INK,
        **side,
    )
