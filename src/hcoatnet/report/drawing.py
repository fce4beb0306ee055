"""What all figures share: colours, axes, cells, names, and files.

Figures are for a light background and drawn as vectors: nothing here depends on a display or on matplotlib's global
state. Colours are those of Okabe and Ito and one sequential blue, which stay apart for readers with any colour vision
and in print; lines differ in their dashes, too. Cells hold their numbers, so that no colour bar is needed.
"""

import textwrap
import threading
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hcoatnet.files import write_bytes

Colour = str | tuple[float, float, float, float]
Dashes = Literal["solid"] | tuple[float, tuple[float, ...]]

INK = "#1c2430"
QUIET = "#5f6b7a"
FAINT = "#d9dee5"
BLUE = "#0072b2"
VERMILLION = "#d55e00"
SERIES: tuple[tuple[str, Dashes], ...] = (
    (BLUE, "solid"),
    (VERMILLION, (0, (5, 1.5))),
    ("#009e73", (0, (1.2, 1.2))),
    ("#000000", (0, (5, 1.5, 1.2, 1.5))),
    ("#e69f00", "solid"),
    ("#cc79a7", (0, (3, 1.2))),
)
"""Colour and dashes of the lines of one panel, in the order in which they are given away."""

BLUES = LinearSegmentedColormap.from_list("page to deep blue", ["#f5f8fb", "#c3d9ec", "#6ba3cf", "#2468a4", "#0b3566"])
DOUBLE_COLUMN = 7.2
"""Width of two columns of a journal, in inches."""

PNG_DPI = 160
PNG_WIDTH = 2000
PRINT_DPI = 300
LINE_LENGTH = 24

# Both vector formats read matplotlib's global settings while they are written, so only one is written at a time.
_settings_lock = threading.Lock()


def new_figure(width: float, height: float) -> Figure:
    """An empty white figure, in inches, whose panels make room for their labels."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def plain_axes(axes: Axes, title: str = "", grid: str = "y") -> None:
    """Quiet axes: a title at the left, a faint grid (``x``, ``y``, ``both`` or none), no frame but the base line."""
    if title:
        axes.set_title(title, fontsize=9.5, color=INK, loc="left", parse_math=False)
    if grid:
        axes.grid(axis=grid, color=FAINT, linewidth=0.6)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=8.5, labelcolor=QUIET, pad=6 if grid == "both" else 3.5)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(FAINT)


def draw_cells(
    axes: Axes,
    shades: npt.NDArray[np.float64],
    texts: Sequence[Sequence[str]],
    bold: Callable[[int, int], bool],
    fontsize: float,
) -> None:
    """A matrix of shaded cells that hold their numbers, the first row at the top.

    Args:
        axes: Where to draw.
        shades: From 0 (page) to 1 (deep blue), NaN for an empty cell, shape (rows, columns).
        texts: What the cells say, row by row; 0 and a dash are quiet.
        bold: Whether the cell of a row and column says so in bold.
        fontsize: In points.
    """
    rows, columns = shades.shape
    axes.pcolormesh(shades, cmap=BLUES, vmin=0, vmax=1, edgecolors="white", linewidth=1.5)
    axes.set_ylim(rows, 0)
    for row in range(rows):
        for column in range(columns):
            shown = texts[row][column]
            axes.text(
                column + 0.5,
                row + 0.5,
                shown,
                ha="center",
                va="center",
                fontsize=fontsize,
                fontweight="bold" if bold(row, column) else "normal",
                color=readable_on(BLUES(np.nan_to_num(shades[row, column])), quiet=shown in {"0", "–"}),
            )
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0, labelsize=8.5, labelcolor=INK)


def name_columns(axes: Axes, names: Sequence[str], fontsize: float = 8.5) -> None:
    """Name the columns of cells below them, slanted where the names are long."""
    axes.set_xticks(np.arange(len(names)) + 0.5, names, parse_math=False, fontsize=fontsize)
    if not fit_upright(names):
        for label in axes.get_xticklabels():
            label.set(rotation=40, ha="right", rotation_mode="anchor")


def name_rows(axes: Axes, names: Sequence[str], fontsize: float = 8.5) -> None:
    """Name the rows of cells at their left."""
    axes.set_yticks(np.arange(len(names)) + 0.5, names, parse_math=False, fontsize=fontsize)


def fit_upright(names: Sequence[str]) -> bool:
    """Whether names are short enough to stand side by side below columns."""
    return longest_line(names) <= 5


def longest_line(texts: Sequence[str]) -> int:
    """Characters of the longest line among the texts."""
    return max(len(line) for text in texts for line in text.splitlines())


def in_lines(name: str, length: int = LINE_LENGTH, lines: int = 2) -> str:
    """A name broken into a few lines; what does not fit is cut with an ellipsis."""
    if lines == 1:
        return name if len(name) <= length else f"{name[: length - 1]}…"
    return "\n".join(textwrap.wrap(name, length, max_lines=lines, placeholder="…"))


def percent_of_row(share: float) -> str:
    """A share in whole percent; a small one is not called 0, and an undefined one is a dash."""
    if np.isnan(share):
        return "–"
    return "<1" if 0 < share < 0.005 else f"{100 * share:.0f}"


def name_lines(figure: Figure, names: Sequence[str]) -> None:
    """A key of the lines, above all panels, in the order of :data:`SERIES`."""
    longest = max(len(name) for name in names)
    per_row = max(1, min(len(names), int(figure.get_figwidth() / (0.6 + 0.068 * longest))))
    keys = figure.legend(
        [Line2D([], [], color=colour, linestyle=dashes, linewidth=1.8) for colour, dashes in SERIES[: len(names)]],
        names,
        loc="outside upper left",
        ncols=per_row,
        frameon=False,
        fontsize=8.5,
        labelcolor=INK,
        handlelength=2.6,
        columnspacing=1.6,
    )
    for text in keys.get_texts():
        text.set_parse_math(False)


def panels(
    count: int, per_row: int, width: float, height: float, sharex: bool = False, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure of ``count`` panels of one size, in inches, at most ``per_row`` in a row; axes in reading order."""
    rows, columns = arrange(count, per_row)
    figure = new_figure(width * columns, height * rows)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey).ravel().tolist()
    for axes in grid[count:]:
        axes.set_visible(False)
    return figure, grid[:count]


def arrange(count: int, per_row: int) -> tuple[int, int]:
    """Rows and columns for ``count`` panels, at most ``per_row`` in a row, in rows that are filled about alike."""
    rows = -(-count // per_row)
    return rows, -(-count // rows)


def readable_on(background: Colour, quiet: bool) -> str:
    """White or black, whichever contrasts more; what is quiet is grey instead of black."""
    if contrast("white", background) > contrast("black", background):
        return "white"
    return QUIET if quiet else "black"


def contrast(one: Colour, other: Colour) -> float:
    """Contrast ratio of two colours, 1 to 21 (WCAG 2)."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: Colour) -> float:
    """Relative luminance of an sRGB colour, 0 to 1 (WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def save(figure: Figure, stem: Path) -> tuple[Path, Path]:
    """Write ``<stem>.png`` and ``<stem>.svg``, each at once; equal figures give equal SVG files.

    Returns:
        The two paths, PNG first.
    """
    png_file, svg_file = (stem.with_name(f"{stem.name}{suffix}") for suffix in (".png", ".svg"))
    write_bytes(png_file, png(figure, min(PNG_DPI, PNG_WIDTH / figure.get_figwidth())))
    write_bytes(svg_file, svg(figure))
    return png_file, svg_file


def svg(figure: Figure) -> bytes:
    """The figure as an SVG file. Text is drawn as outlines, so that it looks the same on every machine."""
    _settle(figure)
    buffer = BytesIO()
    with _settings_lock, matplotlib.rc_context({"svg.hashsalt": "hcoatnet", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def pdf(figure: Figure) -> bytes:
    """The figure as a PDF file with embedded TrueType fonts and without a date."""
    _settle(figure)
    buffer = BytesIO()
    with _settings_lock, matplotlib.rc_context({"pdf.fonttype": 42}):
        figure.savefig(buffer, format="pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return buffer.getvalue()


def png(figure: Figure, dpi: float = PRINT_DPI) -> bytes:
    """The figure as a PNG file, by default with 300 dots an inch."""
    _settle(figure)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def _settle(figure: Figure) -> None:
    """Lay the figure out once, so that all formats agree and the later ones need not do it again."""
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
