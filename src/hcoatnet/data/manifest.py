"""The manifest: one row a photo, with its class, its group and the hash of its bytes."""

import os
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from hcoatnet.data.tables import read_table, require_columns
from hcoatnet.errors import DataError, DataProblems, Problem
from hcoatnet.files import sha256_of_bytes, write_text

MANIFEST_COLUMNS = ("path", "label", "group", "sha256", "width", "height")

Progress = Callable[[int, int], None]
"""Called with the number of photos done and the number of all."""

_RESERVED = re.compile("|".join([*MANIFEST_COLUMNS, "subset", "repeat", "fold", "logit_.*", "p_.*"]))


@dataclass(frozen=True, eq=False)
class Manifest:
    """Photos with class and group.

    Attributes:
        table: `MANIFEST_COLUMNS`, then any further columns; one row a photo, sorted by path. Width and height are
            integers, everything else is text, and an empty text is a value that is not recorded.
        folder: Where the photos are: each at ``folder / path``.
    """

    table: pd.DataFrame
    folder: Path

    def __len__(self) -> int:
        return len(self.table)

    @property
    def classes(self) -> tuple[str, ...]:
        """Labels that occur, sorted."""
        return tuple(sorted(set(self.table["label"])))

    @property
    def extra_columns(self) -> tuple[str, ...]:
        """Columns beyond `MANIFEST_COLUMNS`, in their order."""
        return tuple(str(column) for column in self.table.columns[len(MANIFEST_COLUMNS) :])

    def to_csv(self) -> str:
        """The manifest file's whole text; the same photos give the same text on every machine."""
        return self.table.to_csv(index=False, lineterminator="\n")

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of `to_csv`, hexadecimal."""
        return sha256_of_bytes(self.to_csv().encode("utf-8"))


def is_reserved(column: str) -> bool:
    """Whether a column of this name has a meaning of its own in manifests, split files or predictions tables."""
    return _RESERVED.fullmatch(column) is not None


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest. The photos themselves are not opened.

    Raises:
        DataError: If it is not a manifest.
        DataProblems: If its rows contradict each other or lack a value.
    """
    table = read_table(path)
    advice = "Make a manifest of a table of photos with `hcoatnet data scan TABLE.csv --out manifest.csv`."
    require_columns(table, MANIFEST_COLUMNS, path, advice)
    extra = [column for column in table.columns if column not in MANIFEST_COLUMNS]
    if clashing := [column for column in extra if is_reserved(column)]:
        names = ", ".join(clashing)
        raise DataError(
            f"{path}: the names {names} are kept for other files. Rename these columns, as user_{clashing[0]}."
        )
    problems = _value_problems(table) + label_problems(table)
    if problems:
        raise DataProblems(f"{path}: {len(problems)} problems in the manifest.", problems)
    table = table[[*MANIFEST_COLUMNS, *extra]].astype({"width": "int64", "height": "int64"})
    return Manifest(table.sort_values("path", ignore_index=True), path.parent)


def write_manifest(manifest: Manifest, path: Path) -> Manifest:
    """Write a manifest, its photo paths re-expressed relative to the file's folder.

    Returns:
        The manifest as it was written.

    Raises:
        DataError: If no relative path leads to the photos, as from one Windows drive to another.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    photos, target = manifest.folder.resolve(), path.parent.resolve()
    paths = [relative_path(photos / photo, target) for photo in manifest.table["path"]]
    table = manifest.table.assign(path=paths).sort_values("path", ignore_index=True)
    written = Manifest(table, path.parent)
    write_text(path, written.to_csv())
    return written


def relative_path(photo: Path, folder: Path) -> str:
    """Path of a photo as a manifest in ``folder`` holds it, with forward slashes. The folder must be resolved.

    Raises:
        DataError: If no relative path leads to the photo, as from one Windows drive to another.
    """
    try:
        return Path(os.path.relpath(photo, folder)).as_posix()
    except ValueError as error:
        raise DataError(f"{photo}: no relative path leads there from {folder}. Keep both on one drive.") from error


def require_photos(manifest: Manifest) -> None:
    """Check that every photo's file is where the manifest says, before any time is spent on the first.

    Raises:
        DataProblems: Naming every photo that is not there.
    """
    problems = [
        Problem(path, "missing", "no such file", f"a photo in {manifest.folder}", "Restore it, or scan the data again.")
        for path in manifest.table["path"]
        if not (manifest.folder / path).is_file()
    ]
    if problems:
        raise DataProblems(f"{len(problems)} of {len(manifest)} photos are missing from {manifest.folder}.", problems)


def label_problems(table: pd.DataFrame) -> list[Problem]:
    """What is wrong with the labels of a table with ``path`` and ``label``."""
    problems = [
        Problem(path, "no label", "an empty label", "the photo's class", "Fill in the label, or take the row out.")
        for path, label in zip(table["path"], table["label"], strict=True)
        if not label.strip()
    ]
    spellings = defaultdict(set)
    for label in set(table["label"]):
        spellings[" ".join(label.split()).casefold()].add(label)
    for plain, labels in sorted(spellings.items()):
        if plain and (len(labels) > 1 or labels != {label.strip() for label in labels}):
            found = ", ".join(repr(label) for label in sorted(labels))
            fix = "Spell the class the same way everywhere, without blanks around it."
            problems.append(Problem(min(labels).strip(), "spelling of a class", found, "one spelling", fix))
    classes = [plain for plain in spellings if plain]
    if len(classes) == 1 and not problems:
        fix = "Put the photos of each class in a folder of its own, or name the column that holds the class."
        found = f"only the class '{table['label'].iloc[0]}'"
        problems.append(Problem("label", "one class only", found, "two classes or more", fix))
    return problems


def _value_problems(table: pd.DataFrame) -> list[Problem]:
    if table.empty:
        return [Problem("manifest", "no photos", "0 rows", "one row a photo", "Scan the photos again.")]
    problems = []
    checks = (
        ("path", lambda value: value.strip() and not Path(value).is_absolute(), "a path relative to the manifest"),
        ("group", str.strip, "the patient, or what must not be split"),
        ("sha256", re.compile("[0-9a-f]{64}").fullmatch, "64 hexadecimal digits"),
        ("width", re.compile("[1-9][0-9]{0,8}").fullmatch, "a positive whole number of pixels"),
        ("height", re.compile("[1-9][0-9]{0,8}").fullmatch, "a positive whole number of pixels"),
    )
    for column, is_valid, expected in checks:
        for path, value in zip(table["path"], table[column], strict=True):
            if not is_valid(value):
                fix = "Scan the photos again with `hcoatnet data scan`."
                problems.append(Problem(path, f"value of {column}", value or "nothing", expected, fix))
    return problems + repeated_path_problems(table["path"])


def repeated_path_problems(paths: pd.Series) -> list[Problem]:
    """One problem for every path that stands in more than one row."""
    counts = paths[paths.duplicated(keep=False)].value_counts().sort_index()
    return [
        Problem(str(path), "photo listed twice", f"{count} rows", "one row a photo", "Take the other rows out.")
        for path, count in counts.items()
    ]
