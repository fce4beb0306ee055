"""Photos listed in a CSV table, with any further columns of the user's."""

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from hcoatnet.data.manifest import Progress, is_reserved, relative_path
from hcoatnet.data.sources.scan import ScanResult, scan_photos
from hcoatnet.data.tables import read_table, require_columns
from hcoatnet.errors import DataError, Problem

# Spelled without case, blanks and underscores; the first that stands in the table is taken.
_PATH_NAMES = ("path", "filepath", "imagepath", "file", "filename", "image", "imagename", "photo")
_LABEL_NAMES = ("label", "class", "classname", "diagnosis", "diagnostic", "dx")
_PATIENT_NAMES = ("patientid", "patient", "subjectid", "subject", "participantid", "participant", "personid", "person")
_LESION_NAMES = ("lesionid", "lesion")


def scan_table(
    table_path: Path,
    path_column: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    progress: Progress | None = None,
) -> ScanResult:
    """Scan the photos that a CSV table lists, one a row, with paths relative to the table.

    Columns that are not named are recognised by well-known names; what was taken is noted. Photos are grouped by
    ``group_column`` or the patient column; rows where it is empty fall back to the lesion column, then to the source
    photo, then to the photo. All further columns are kept; those with a reserved name as ``user_<name>``.

    Args:
        table_path: The table.
        path_column: Column of the photos' paths.
        label_column: Column of the classes.
        group_column: Column of the patients, or of what else must never straddle a split.
        progress: Called with the photos done and all.

    Raises:
        DataError: If the table cannot be read or lacks a column.
        DataProblems: With everything wrong with its rows and photos.
    """
    table = read_table(table_path)
    if table.empty:
        raise DataError(f"{table_path}: no rows below the first line. Expected one row a photo.")
    notes: list[str] = []
    path_column = path_column or _recognise(table, _PATH_NAMES, "path", table_path)
    label_column = label_column or _recognise(table, _LABEL_NAMES, "label", table_path)
    require_columns(table, (path_column, label_column, *([group_column] if group_column else [])), table_path)
    units = _unit_columns(table, group_column)
    if len({path_column, label_column, *units}) < 2 + len(units):
        raise DataError(
            f"{table_path}: path, label and group must be three columns. Found {path_column}, {label_column}."
        )
    notes.append(f"Photos from the column {path_column}, classes from {label_column}.")
    extra = _further_columns(
        table, {path_column, label_column, *(["group"] if group_column == "group" else [])}, table_path
    )
    if renamed := [f"{old} → {new}" for old, new in extra.items() if old != new]:
        notes.append(f"Columns with reserved names were renamed: {', '.join(renamed)}.")
    if patient := _first_of(table, _PATIENT_NAMES):
        if patient not in units:
            notes.append(f"Groups come from {units[0]}, not {patient}: photos of one patient may stand in two subsets.")
    elif "group" in table.columns and not group_column:
        notes.append("The column group was not used; if it names patients, give --group-column group.")

    blank = table[path_column].str.strip() == ""
    problems = [
        Problem(f"{table_path.name}, row {row + 1}", "no path", "an empty path", "the photo's path", "Fill it in.")
        for row in table.index[blank]
    ]
    table = table[~blank]
    listing = table[list(extra)].rename(columns=extra)
    folder = table_path.parent
    listing.insert(0, "path", [_find(value, folder) for value in table[path_column]])
    listing.insert(1, "label", table[label_column])
    return scan_photos(listing, table[units], folder, problems, notes, progress)


def _unit_columns(table: pd.DataFrame, group_column: str | None) -> list[str]:
    """Columns that say what a photo belongs to, the widest first."""
    widest = group_column or _first_of(table, _PATIENT_NAMES)
    lesion = _first_of(table, _LESION_NAMES)
    return list(dict.fromkeys(column for column in (widest, lesion) if column))


def _first_of(table: pd.DataFrame, names: Sequence[str]) -> str | None:
    present = {re.sub(r"[\s_\-]", "", str(column)).casefold(): str(column) for column in reversed(table.columns)}
    return next((present[name] for name in names if name in present), None)


def _recognise(table: pd.DataFrame, names: Sequence[str], role: str, table_path: Path) -> str:
    column = _first_of(table, names)
    if column is None:
        present = ", ".join(str(name) for name in table.columns)
        raise DataError(
            f"{table_path}: which column holds the {role}? Name it with --{role}-column. Columns: {present}."
        )
    return column


def _further_columns(table: pd.DataFrame, used: set[str], table_path: Path) -> dict[str, str]:
    """The user's own columns, each with the name that the manifest gives it."""
    names = {
        str(column): f"user_{column}" if is_reserved(str(column)) else str(column)
        for column in table.columns
        if column not in used
    }
    if clashing := sorted({name for name in names.values() if list(names.values()).count(name) > 1}):
        raise DataError(f"{table_path}: two columns would both be called {clashing[0]}. Rename one of them.")
    return names


def _find(value: str, folder: Path) -> str:
    """Path relative to the folder; tables made on Windows may have backslashes."""
    if "\\" in value and not (folder / value).exists():
        value = value.replace("\\", "/")
    root = folder.resolve()
    return relative_path(root / value, root)
