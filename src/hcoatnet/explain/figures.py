"""Figures of an explanation: the whole of it for one photo, and its curves alone."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from hcoatnet.deploy.answers import TokenTrace
from hcoatnet.explain.explanation import Explanation
from hcoatnet.explain.faithfulness import Curves
from hcoatnet.explain.overlays import OPACITY, draw_activation
from hcoatnet.explain.token_maps import ANCHORS, draw_kept
from hcoatnet.report.drawing import BLUE, DOUBLE_COLUMN, INK, QUIET, new_figure, plain_axes

FRAMES = LinearSegmentedColormap.from_list("importance", [tuple(c / 255 for c in colour) for colour in ANCHORS])
OVER_GREY = LinearSegmentedColormap.from_list(
    "map over grey", [tuple(OPACITY * c / 255 + (1 - OPACITY) * 0.5 for c in colour) for colour in ANCHORS]
)
"""The colours of a map as they look over a photo of middle grey."""

CHANCE = "#b4bcc6"
DARK = "#2b2b2b"
TITLES = {"deletion": "Deletion (low is good)", "insertion": "Insertion (high is good)"}
AXES = {"deletion": "cells filled, %", "insertion": "cells put back, %"}


def draw_explanation(one: Explanation, photo: Image.Image) -> Figure:
    """Photo, class-activation map and curves in a row; below it what each cut kept, where the model prunes."""
    trace = one.answer.traces[0] if one.answer.traces else None
    rows = 1 if trace is None else 2
    columns = max(4, 1 + len(trace.stages)) if trace else 4
    figure = new_figure(DOUBLE_COLUMN / 4 * columns, 2.0 * rows + 0.35)
    grid = figure.subplots(rows, columns, squeeze=False)
    title = f"{one.answer.top_class}, probability {one.answer.confidence:.2f}"
    if one.label != one.answer.top_class:
        title += f"; explained: {one.label}, {one.probability:.2f}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, color=INK, parse_math=False)
    _show(grid[0, 0], photo, "Photo")
    _show_map(grid[0, 1], one, photo)
    for axes in grid[0, 2:]:
        axes.set_visible(False)
    for axes, curves in zip(grid[0, 2:4], one.curves or (), strict=False):
        axes.set_visible(True)
        _draw_curves(axes, curves)
    if trace is not None:
        _show_cuts(grid[1].tolist(), trace, photo, len(one.signed))
    return figure


def draw_curves(pair: Sequence[Curves]) -> Figure:
    """Deletion and insertion side by side."""
    figure = new_figure(DOUBLE_COLUMN * 0.72, 2.1)
    for axes, curves in zip(figure.subplots(1, 2).tolist(), pair, strict=True):
        _draw_curves(axes, curves)
    return figure


def describe_curves(pair: Sequence[Curves]) -> str:
    """The curves in words."""
    parts = []
    for curves in pair:
        half = len(curves.shares) // 2
        start, middle, end = (f"{curves.by_map[step]:.2f}" for step in (0, half, -1))
        chance = f"{curves.by_chance[:, half].mean():.2f}"
        parts.append(
            f"In {curves.game} the probability goes from {start} to {middle} after half of the cells (random orders: "
            f"{chance}) and {end} after all."
        )
    return " ".join(parts)


def _show(axes: Axes, picture: Image.Image, title: str) -> None:
    axes.imshow(np.asarray(picture))
    axes.set_title(title, fontsize=8.5, color=INK, loc="left")
    axes.axis("off")


def _show_map(axes: Axes, one: Explanation, photo: Image.Image) -> None:
    if one.empty:
        _show(axes, photo.convert("L").convert("RGB"), "No place speaks for it")
        return
    _show(axes, draw_activation(photo, one.shares), "Class-activation map")
    _bar_below(axes, OVER_GREY, ("0", "½ (line)", "largest"))


def _show_cuts(row: Sequence[Axes], trace: TokenTrace, photo: Image.Image, members: int) -> None:
    whose = f", model 1 of {members}" if members > 1 else ""
    _show(row[0], draw_kept(photo, trace, 0), f"All {trace.rows * trace.columns} tokens{whose}")
    for axes, (number, cut) in zip(row[1:], enumerate(trace.stages, start=1), strict=False):
        _show(axes, draw_kept(photo, trace, number), f"Cut {number}: {len(cut.kept)} kept")
    for axes in row[1 + len(trace.stages) :]:
        axes.axis("off")
    _bar_below(row[0], FRAMES, ("least", "importance", "most"))
    row[1].legend(
        handles=[Patch(color=DARK, label="left out")], loc="upper left", bbox_to_anchor=(0, -0.03), frameon=False,
        fontsize=7.5, labelcolor=QUIET, handlelength=1, borderaxespad=0,
    )  # fmt: skip


def _bar_below(axes: Axes, colours: LinearSegmentedColormap, words: tuple[str, str, str]) -> None:
    """A colour bar below a picture, with words at its ends and in its middle."""
    bar = axes.inset_axes((0, -0.09, 1, 0.05))
    bar.imshow(np.linspace(0, 1, 256)[np.newaxis], cmap=colours, aspect="auto", extent=(0, 1, 0, 1))
    bar.axis("off")
    for place, word, side in zip((0, 0.5, 1), words, ("left", "center", "right"), strict=True):
        bar.text(place, -0.5, word, ha=side, va="top", fontsize=7.5, color=QUIET)


def _draw_curves(axes: Axes, curves: Curves) -> None:
    plain_axes(axes, grid="y")
    axes.set_title(TITLES[curves.game], fontsize=8.5, color=INK, loc="left")
    percent = 100 * curves.shares
    axes.fill_between(percent, curves.by_chance.min(axis=0), curves.by_chance.max(axis=0), color=CHANCE, linewidth=0)
    axes.plot(percent, curves.by_map, color=BLUE, linewidth=1.8)
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 1)
    axes.set_xticks([0, 50, 100])
    axes.set_yticks([0, 0.5, 1])
    axes.tick_params(labelsize=7.5, pad=2)
    axes.set_xlabel(AXES[curves.game], fontsize=7.5, color=QUIET)
    above = curves.by_map.mean() < 0.5
    axes.legend(
        handles=[Patch(color=BLUE, label=f"map, area {curves.area:.2f}"),
                 Patch(color=CHANCE, label=f"random, {curves.chance_areas.mean():.2f}")],
        loc="upper right" if above else "lower left", frameon=False, fontsize=7.5, labelcolor=INK, handlelength=1,
        borderaxespad=0.2, labelspacing=0.25,
    )  # fmt: skip
