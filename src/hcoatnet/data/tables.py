"""Reading CSV files that people made: every value stays text, and what does not fit is named by its line."""

import csv
from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from io import StringIO
from pathlib import Path

import pandas as pd

from hcoatnet.errors import DataError, DataProblems, Problem


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV file with a header, separated by comma, semicolon or tab.

    Nothing is interpreted: ``1``, ``NA`` and ``nan`` stay text, and an empty cell is an empty text. Blank
    lines are skipped; a column without a name is called ``column_<place>``.

    Raises:
        DataError: If the file is missing, empty, not UTF-8, not a CSV, or names a column twice.
        DataProblems: If lines have more or fewer cells than the header.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file. Give a CSV file.")
    try:
        text = path.read_text(encoding="utf-8-sig")  # all line ends become \n, also inside cells
    except UnicodeDecodeError as error:
        message = f"{path}: not UTF-8 text (byte {error.start}). Save the table as 'CSV UTF-8' and try again."
        raise DataError(message) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    lines = _parse(text, path)
    if not lines:
        raise DataError(f"{path}: the file is empty. The first line must name the columns.")
    (_, first), *rows = lines
    header = [name.strip() or f"column_{place}" for place, name in enumerate(first, start=1)]
    repeated = sorted(column for column, count in Counter(header).items() if count > 1)
    if repeated:
        raise DataError(f"{path}: column {_quoted(repeated)} stands twice in the first line. Rename one of them.")
    problems = [
        Problem(
            path=f"{path.name}, line {number}",
            rule="wrong number of cells",
            found=f"{len(cells)} cells",
            expected=f"{len(header)}, as in the first line",
            fix="Put quotes around cells that hold the separator.",
        )
        for number, cells in rows
        if len(cells) != len(header)
    ]
    if problems:
        raise DataProblems(f"{path}: {len(problems)} lines do not fit the first line.", problems)
    return pd.DataFrame([cells for _, cells in rows], columns=header, dtype=str)


def require_columns(table: pd.DataFrame, columns: Sequence[str], path: Path, advice: str = "") -> None:
    """Check that a table has the columns asked for.

    Raises:
        DataError: If one is missing; the message names the columns that are there, and the nearest name.
    """
    present = [str(column) for column in table.columns]
    missing = [column for column in columns if column not in present]
    if not missing:
        return
    near = [name for column in missing for name in get_close_matches(column, present, n=1)]
    hint = f" Did you mean {_quoted(near)}?" if near else ""
    raise DataError(
        f"{path}: no column {_quoted(missing)}. Its columns: {', '.join(present)}.{hint}{advice and ' '}{advice}"
    )


def _parse(text: str, path: Path) -> list[tuple[int, list[str]]]:
    """Lines that hold text, each with its number and its cells."""
    start = text.lstrip("\n")[: csv.field_size_limit()].split("\n", 1)[:1]  # the limit is an error below, not here
    delimiter = max(",;\t", key=lambda candidate: len(next(csv.reader(start, delimiter=candidate), [])))
    reader = csv.reader(StringIO(text), delimiter=delimiter, strict=True)
    try:
        return [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not a CSV file ({error}). Save the table as CSV.") from error


def _quoted(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
