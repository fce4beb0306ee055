"""Photos listed in a CSV table, with any further columns of the user's."""

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from hcoatnet.data.manifest import Progress, is_reserved, relative_path
from hcoatnet.data.sources.scan import Listing, ScanResult, scan_photos
from hcoatnet.data.tables import read_table, require_columns
from hcoatnet.errors import DataError, Problem

# Spelled without case, blanks, hyphens and underscores; the first that stands in the table is taken.
_PATIENT_NAMES = ("patientid", "patient", "subjectid", "subject", "participantid", "participant", "personid", "person")
_LESION_NAMES = ("lesionid", "lesion")


def scan_table(
    table_path: Path,
    path_column: str = "path",
    label_column: str = "label",
    group_column: str | None = None,
    path_format: str = "{}",
    progress: Progress | None = None,
) -> ScanResult:
    """Scan the photos that a CSV table lists, one a row: `list_table`, then open every photo.

    Raises:
        DataError: If the table cannot be read or lacks a column.
        DataProblems: With everything wrong with its rows and photos.
    """
    return scan_photos(list_table(table_path, path_column, label_column, group_column, path_format), progress)


def list_table(
    table_path: Path,
    path_column: str = "path",
    label_column: str = "label",
    group_column: str | None = None,
    path_format: str = "{}",
) -> Listing:
    """List the photos that a CSV table names, one a row.

    Photos are grouped by ``group_column``, or by a column whose name says that it holds patients; rows where it is
    empty fall back to a lesion column, then to the source photo, then to the photo itself. All further columns are
    kept, those with a reserved name as ``user_<name>``. The notes tell what was taken for what.

    Args:
        table_path: The table.
        path_column: Column of the photos' paths, relative to the table or absolute.
        label_column: Column of the classes.
        group_column: Column of the patients, or of what else must never straddle a split.
        path_format: What makes a path of the value of ``path_column``, which stands for ``{}``: ``images/{}.jpg``.

    Raises:
        DataError: If the table cannot be read or lacks a column, or ``path_format`` lacks its ``{}``.
        DataProblems: If its lines do not fit its header.
    """
    if path_format.count("{}") != 1:
        raise DataError(f"The path format must hold {{}} once, as in images/{{}}.jpg. Found {path_format!r}.")
    table = read_table(table_path)
    if table.empty:
        raise DataError(f"{table_path}: no rows below the first line. Expected one row a photo.")
    roles = [path_column, label_column, *([group_column] if group_column else [])]
    advice = "Name the right ones with --path-column, --label-column and --group-column."
    require_columns(table, roles, table_path, advice)
    if len(set(roles)) < len(roles):
        raise DataError(f"{table_path}: path, label and group must be different columns. Found {', '.join(roles)}.")
    used = {path_column, label_column}
    if group_column == "group":  # any other column of patients also stays as it is
        used.add("group")
    further = _further_columns(table, used, table_path)
    units = _unit_columns(table, group_column)
    blank = table[path_column].str.strip() == ""
    problems = [
        Problem(f"{table_path.name}, row {row + 1}", "no path", "an empty path", "the photo's path", "Fill it in.")
        for row in table.index[blank]
    ]
    table = table[~blank]
    paths = [_relative_to(table_path.parent, path_format.replace("{}", value)) for value in table[path_column]]
    listing = pd.DataFrame({"path": paths, "label": table[label_column]}, index=table.index)
    listing = listing.join(table[list(further)].rename(columns=further))
    notes = _notes(table, further, units, group_column)
    return Listing(listing, table[units], table_path.parent, tuple(problems), tuple(notes))


def _further_columns(table: pd.DataFrame, used: set[str], table_path: Path) -> dict[str, str]:
    """The user's own columns, each with the name that the manifest gives it."""
    own = [column for column in table.columns if column not in used]
    names = {column: f"user_{column}" if is_reserved(column) else column for column in own}
    for column, name in names.items():
        if name != column and name in own:
            raise DataError(f"{table_path}: {column} would be kept as {name}, which is there too. Rename one of them.")
    return names


def _unit_columns(table: pd.DataFrame, group_column: str | None) -> list[str]:
    """Columns that say what a photo belongs to, the widest first."""
    units = (group_column or _first_of(table, _PATIENT_NAMES), _first_of(table, _LESION_NAMES))
    return list(dict.fromkeys(column for column in units if column))


def names_a_unit(column: str) -> bool:
    """Whether a column of this name holds patients or lesions."""
    return _plain(column) in (*_PATIENT_NAMES, *_LESION_NAMES)


def _plain(column: str) -> str:
    return re.sub(r"[\s_\-]", "", column).casefold()


def _first_of(table: pd.DataFrame, names: Sequence[str]) -> str | None:
    present = {_plain(column): column for column in reversed(table.columns)}
    return next((present[name] for name in names if name in present), None)


def _relative_to(folder: Path, value: str) -> str:
    """Path relative to the folder; tables made on Windows may have backslashes."""
    root = folder.resolve()
    if "\\" in value and not (root / value).exists():
        value = value.replace("\\", "/")
    return relative_path(root / value, root)


def _notes(table: pd.DataFrame, further: dict[str, str], units: Sequence[str], group_column: str | None) -> list[str]:
    notes = []
    if renamed := [f"{old} → {new}" for old, new in further.items() if old != new]:
        notes.append(f"Columns with reserved names were renamed: {', '.join(renamed)}.")
    patient = _first_of(table, _PATIENT_NAMES)
    if patient and patient not in units:
        notes.append(f"Groups come from {units[0]}, not {patient}: photos of one patient may stand in two subsets.")
    if group_column is None and patient:
        notes.append(f"The column {patient} was taken for patients.")
    if group_column is None and not patient and "group" in table.columns:
        notes.append("The column group was not used. If it names patients, give --group-column group.")
    return notes
