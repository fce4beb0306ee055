"""Tables that are shown on a page and written as CSV, LaTeX and Markdown, all from the same cells."""

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Literal

from hcoatnet.evaluation.intervals import Estimate, Interval
from hcoatnet.files import write_text

Form = Literal["count", "score", "percent", "difference", "p", "number", "size"]

UNDEFINED = "–"
FEW_MARK = "†"
MINUS = "\N{MINUS SIGN}"
HARD_SPACE = "\N{NO-BREAK SPACE}"

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "–": "--",
    MINUS: "$-$",
    FEW_MARK: r"$^\dagger$",
    HARD_SPACE: "~",
    "×": r"$\times$",
    "²": r"\textsuperscript{2}",
    "κ": r"$\kappa$",
    "χ": r"$\chi$",
}


@dataclass(frozen=True)
class Value:
    """A number of a table, with its interval where it has one; None where it is undefined."""

    value: float | None
    form: Form = "score"
    reach: Interval | None = None

    @property
    def text(self) -> str:
        """The number as it is read."""
        return written(self.value, self.form)

    @property
    def interval_text(self) -> str:
        """The interval as it is read, without brackets; empty where there is none."""
        if self.reach is None:
            return ""
        low, high = (written(end, self.form) for end in (self.reach.low, self.reach.high))
        if self.form == "percent":
            return f"{low.removesuffix(f'{HARD_SPACE}%')}–{high}"
        return f"{low} to {high}" if self.form == "difference" else f"{low}–{high}"


@dataclass(frozen=True)
class Label:
    """The name of a row.

    Attributes:
        text: The name.
        small: A plain line about it, for the page only.
        few: Whether it is marked as resting on few photos.
    """

    text: str
    small: str = ""
    few: bool = False


Cell = Label | Value | str


@dataclass(frozen=True)
class Table:
    """Cells in rows under named columns; the first cell of a row names it.

    Attributes:
        name: Stem of its files.
        caption: What it shows, in a sentence.
        columns: Heads of the columns.
        rows: As many cells each.
        note: What a reader must know, below the table.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""

    def to_csv(self) -> str:
        """Numbers in full, an interval as two columns of their own, and nothing where a number is undefined."""
        with_interval = [
            any(isinstance(cell, Value) and cell.reach is not None for cell in column)
            for column in zip(*self.rows, strict=True)
        ] or [False] * len(self.columns)
        header: list[str] = []
        for name, wide in zip(self.columns, with_interval, strict=True):
            header += [name, f"{name} low", f"{name} high"] if wide else [name]
        stream = StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        for row in self.rows:
            values: list[str] = []
            for cell, wide in zip(row, with_interval, strict=True):
                values += _exact(cell, wide)
            writer.writerow(values)
        return stream.getvalue()

    def to_latex(self) -> str:
        """A ``table`` environment for the package booktabs."""
        lines = [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            rf"\caption{{{_latex(self.caption)}}}",
            rf"\label{{tab:{re.sub('[^a-z0-9]+', '-', self.name.lower())}}}",
            rf"\begin{{tabular}}{{{self._latex_alignment()}}}",
            r"\toprule",
            " & ".join(_latex(name) for name in self.columns) + r" \\",
            r"\midrule",
            *(" & ".join(_latex(plain(cell)) for cell in row) + r" \\" for row in self.rows),
            r"\bottomrule",
            r"\end{tabular}",
            *([rf"\par\smallskip\footnotesize {_latex(self.note)}"] if self.note else []),
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"

    def to_markdown(self) -> str:
        """A table with pipes, its caption above and its note below."""
        right = ["---" if letter == "l" else "---:" for letter in self._latex_alignment()]
        rows = [self.columns, right, *([plain(cell) for cell in row] for row in self.rows)]
        body = ["| " + " | ".join(_markdown(text) for text in row) + " |" for row in rows]
        parts = [_markdown(self.caption), "\n".join(body), *([_markdown(self.note)] if self.note else [])]
        return "\n\n".join(parts) + "\n"

    def _latex_alignment(self) -> str:
        numeric = [all(isinstance(cell, Value) for cell in column) for column in zip(*self.rows, strict=True)]
        return "".join("r" if one else "l" for one in numeric or [False] * len(self.columns))


def score(estimate: Estimate, form: Form = "score") -> Value:
    """An estimate as a cell, with the interval that reports show."""
    return Value(estimate.value, form, estimate.interval)


def plain(cell: Cell) -> str:
    """A cell as one line of text, its interval in brackets."""
    if isinstance(cell, Value):
        return f"{cell.text} ({cell.interval_text})" if cell.reach is not None else cell.text
    if isinstance(cell, Label):
        return f"{cell.text} {FEW_MARK}" if cell.few else cell.text
    return cell


def written(value: float | None, form: Form = "score") -> str:
    """A number as a reader meets it; a dash where it is undefined."""
    if value is None or math.isnan(value):
        return UNDEFINED
    if form == "count":
        return f"{value:,.0f}"
    if form == "percent":
        return f"{100 * value:.1f}{HARD_SPACE}%"
    if form == "size":
        return f"{value:.2f}".replace("-", MINUS)
    if form == "p":
        return "<0.001" if value < 0.001 else f"{value:.3f}"
    if form == "difference":
        return f"{value:+.3f}".replace("-", MINUS)
    return (f"{value:.3g}" if form == "number" else f"{value:.3f}").replace("-", MINUS)


def write_tables(tables: Sequence[Table], folder: Path) -> None:
    """Write each table as ``<name>.csv``, ``<name>.tex`` and ``<name>.md``."""
    folder.mkdir(parents=True, exist_ok=True)
    for table in tables:
        write_text(folder / f"{table.name}.csv", table.to_csv())
        write_text(folder / f"{table.name}.tex", table.to_latex())
        write_text(folder / f"{table.name}.md", table.to_markdown())


def _exact(cell: Cell, wide: bool) -> list[str]:
    if not isinstance(cell, Value):
        return [cell.text if isinstance(cell, Label) else cell] + [""] * (2 * wide)
    ends = () if cell.reach is None else (cell.reach.low, cell.reach.high)
    numbers = ["" if one is None or math.isnan(one) else repr(one) for one in (cell.value, *ends)]
    return numbers + [""] * (2 * wide + 1 - len(numbers))


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split(" ")))


def _markdown(text: str) -> str:
    escaped = re.sub(r"([\\`*_|\[\]<])", r"\\\1", " ".join(text.split("\n")))
    return escaped if text != "---" else text
