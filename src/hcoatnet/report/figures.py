"""Figures for a light background, drawn as vectors: nothing here depends on a display or on matplotlib's global state.

Colours are those of Okabe and Ito and one sequential blue, which stay apart for readers with any colour vision and in
print. Lines are labelled where they end, and cells hold their numbers, so that no legend or colour bar is needed.
"""

import textwrap
import threading
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import confusion_matrix as count_confusions

from hcoatnet.evaluation.predictions import Predictions
from hcoatnet.files import write_bytes

Colour = str | tuple[float, float, float, float]

INK = "#1c2430"
QUIET = "#5f6b7a"
FAINT = "#d9dee5"
BLUE = "#0072b2"
VERMILLION = "#d55e00"
BLUES = LinearSegmentedColormap.from_list("page to deep blue", ["#f5f8fb", "#c3d9ec", "#6ba3cf", "#2468a4", "#0b3566"])
PNG_DPI = 160
PNG_WIDTH = 2000
LEAST_DISTANCE = 0.11
LINE_LENGTH = 24

# svg.hashsalt is read from matplotlib's global settings while an SVG is written, so only one is written at a time.
_svg_lock = threading.Lock()


def confusion_matrix(predictions: Predictions, title: str) -> Figure:
    """Confusion matrix as counts (left) and as percent of each row (right).

    Rows are the true and columns the predicted classes. A class without photos has no shares.
    """
    classes = predictions.classes
    counts = count_confusions(predictions.labels, predictions.predicted, labels=range(len(classes)))
    support = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, support, out=np.full(counts.shape, np.nan), where=support > 0)
    names = [_in_two_lines(name) for name in classes]

    rows = [f"{name} ({n})" for name, n in zip(names, support[:, 0], strict=True)]
    cell = 0.8 if len(classes) <= 3 else 0.62 if len(classes) <= 6 else 0.5
    # About square cells; the constrained layout sees to it that labels fit whatever their length.
    width = 2 * cell * len(classes) + 0.075 * _longest_line(rows) + 0.7
    height = cell * len(classes) + (0.9 if _fit_upright(names) else 0.05 * _longest_line(names) + 1.0)
    figure = _new_figure(width, height)
    left, right = figure.subplots(1, 2, sharey=True)
    _draw_cells(left, counts / max(counts.max(), 1), lambda row, column: str(counts[row, column]))
    _draw_cells(right, shares, lambda row, column: _percent(shares[row, column]))
    for axes, heading in ((left, "Photos"), (right, "Percent of row")):
        _name_columns(axes, names)
        axes.set_title(heading, fontsize=9.5, color=INK, loc="left")
        axes.set_xlabel("predicted", fontsize=9, color=QUIET)
    left.set_yticks(np.arange(len(classes)) + 0.5, rows, parse_math=False)
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
    figure = _new_figure(width=5.8, height=5.2)
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


def save(figure: Figure, stem: Path) -> tuple[Path, Path]:
    """Write ``<stem>.png`` and ``<stem>.svg``, each at once; equal figures give equal SVG files.

    Returns:
        The two paths, PNG first.
    """
    png, vector = (stem.with_name(f"{stem.name}{suffix}") for suffix in (".png", ".svg"))
    buffer = BytesIO()
    dpi = min(PNG_DPI, PNG_WIDTH / figure.get_figwidth())
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    write_bytes(png, buffer.getvalue())
    write_bytes(vector, svg(figure))
    return png, vector


def svg(figure: Figure) -> bytes:
    """The figure as an SVG file. Text is drawn as outlines, so that it looks the same on every machine."""
    buffer = BytesIO()
    with _svg_lock, matplotlib.rc_context({"svg.hashsalt": "hcoatnet", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _new_figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _in_two_lines(name: str) -> str:
    return "\n".join(textwrap.wrap(name, LINE_LENGTH, max_lines=2, placeholder="…"))


def _draw_cells(axes: Axes, shades: npt.NDArray[np.float64], text: Callable[[int, int], str]) -> None:
    size = len(shades)
    axes.pcolormesh(shades, cmap=BLUES, vmin=0, vmax=1, edgecolors="white", linewidth=1.5)
    axes.set_ylim(size, 0)
    for row in range(size):
        for column in range(size):
            shown = text(row, column)
            axes.text(
                column + 0.5,
                row + 0.5,
                shown,
                ha="center",
                va="center",
                fontsize=9.5 if size <= 6 else 8.5,
                fontweight="bold" if row == column else "normal",
                color=_readable_on(BLUES(np.nan_to_num(shades[row, column])), quiet=shown in {"0", "–"}),
            )
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0, labelsize=8.5, labelcolor=INK)


def _readable_on(background: Colour, quiet: bool) -> str:
    """White or black, whichever contrasts more; what is quiet is grey instead of black."""
    if _contrast("white", background) > _contrast("black", background):
        return "white"
    return QUIET if quiet else "black"


def _contrast(one: Colour, other: Colour) -> float:
    """Contrast ratio of two colours, 1 to 21 (WCAG 2)."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: Colour) -> float:
    """Relative luminance of an sRGB colour, 0 to 1 (WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def _percent(share: float) -> str:
    if np.isnan(share):
        return "–"
    return "<1" if 0 < share < 0.005 else f"{100 * share:.0f}"


def _name_columns(axes: Axes, names: Sequence[str]) -> None:
    axes.set_xticks(np.arange(len(names)) + 0.5, names, parse_math=False)
    if not _fit_upright(names):
        for label in axes.get_xticklabels():
            label.set(rotation=40, ha="right", rotation_mode="anchor")


def _fit_upright(names: Sequence[str]) -> bool:
    return _longest_line(names) <= 5


def _longest_line(texts: Sequence[str]) -> int:
    return max(len(line) for text in texts for line in text.splitlines())


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
    axes.set_title(title, fontsize=9.5, color=INK, loc="left")
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=8.5, labelcolor=QUIET)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(FAINT)
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
