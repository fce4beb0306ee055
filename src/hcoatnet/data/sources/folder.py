"""Photos in a folder: one folder a class, also below train, valid and test."""

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import pandas as pd

from hcoatnet.data.cache import CACHE_NAME
from hcoatnet.data.images import PHOTO_SUFFIXES
from hcoatnet.data.manifest import Progress
from hcoatnet.data.sources.scan import Listing, ScanResult, scan_photos
from hcoatnet.errors import DataError, Problem

SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Names of folders that hold a split of the classes rather than a class, and the subset each means."""


@dataclass
class _Findings:
    """What a walk through a folder comes across."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)  # path, label, subset of the source
    problems: list[Problem] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    nested: bool = False


def scan_folder(folder: Path, progress: Progress | None = None) -> ScanResult:
    """Scan a folder that holds one folder a class: `list_folder`, then open every photo.

    Args:
        folder: The folder.
        progress: Called with the photos done and all.

    Raises:
        DataError: If there is no such folder, or no folder of a class in it.
        DataProblems: With everything wrong with the photos and classes.
    """
    return scan_photos(list_folder(folder), progress)


def list_folder(folder: Path) -> Listing:
    """List a folder that holds one folder a class, or such folders below ``train``, ``valid`` and ``test``.

    All photos below a class's folder belong to the class, however deep. Where the photos come in split folders, all are
    merged, and the column ``source_split`` keeps where each came from (train, val or test). Hidden files and files that
    are no photos by their suffix are left out and counted. Symbolic links are followed, each folder once a class. What
    a ``README.roboflow.txt`` says of stored copies is said again.

    Raises:
        DataError: If there is no such folder, or no folder of a class in it.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder. Give a folder that holds one folder of photos a class.")
    findings = _Findings()
    inner = _folders_in(folder, folder, findings)
    if not inner:
        raise DataError(f"{folder}: no folders in it. Expected one folder of photos a class, named as the class.")
    merged = all(path.name.casefold() in SPLIT_FOLDERS for path in inner)
    classes: dict[str, list[tuple[Path, str]]] = {}
    if merged:
        for split in inner:
            for path in _folders_in(split, folder, findings):
                classes.setdefault(path.name, []).append((path, SPLIT_FOLDERS[split.name.casefold()]))
    else:
        classes = {path.name: [(path, "")] for path in inner}
        findings.problems += _beside_classes(inner)
    _collect(classes, folder, findings)
    listing = pd.DataFrame(findings.rows, columns=["path", "label", "source_split"], dtype=str)
    if not merged:
        listing = listing.drop(columns="source_split")
    no_owners = pd.DataFrame(index=listing.index)
    notes = _notes(findings, inner if merged else []) + stored_copies_notes(folder)
    return Listing(listing, no_owners, folder, tuple(findings.problems), tuple(notes))


def list_unlabelled(folder: Path) -> Listing:
    """List every photo below a folder, however deep, with an empty label."""
    findings = _Findings()
    rows = [(path.relative_to(folder).as_posix(), "") for path in _photos_below(folder, findings)]
    listing = pd.DataFrame(rows, columns=["path", "label"], dtype=str)
    notes = _notes(findings, []) + stored_copies_notes(folder)
    return Listing(listing, pd.DataFrame(index=listing.index), folder, (), tuple(notes))


def stored_copies_notes(folder: Path) -> list[str]:
    """What the ``README.roboflow.txt`` of an export says of stored copies, as a note; none if there is no such file."""
    readme = folder / "README.roboflow.txt"
    if not readme.is_file():
        return []
    text = readme.read_bytes()[:100_000].decode("utf-8", errors="replace")
    found = re.search(r"(\d+)\s+versions\s+of\s+each\s+source\s+image", text)
    if found is None or int(found[1]) < 2:
        return []
    return [
        f"README.roboflow.txt: {found[1]} versions of each source image were made by augmentation and stored. Copies "
        "of one source photo (the same name before '.rf.') share a group: they are not further photos."
    ]


def _folders_in(parent: Path, root: Path, findings: _Findings) -> list[Path]:
    """Folders that may be classes. Photos beside them belong to no class."""
    folders = []
    try:
        children = sorted(parent.iterdir())
    except OSError as error:
        _refuse(error)
    for path in children:
        if _is_hidden(path.name):
            findings.ignored["hidden"] += path.name != CACHE_NAME
        elif path.is_dir():
            folders.append(path)
        elif path.suffix.lower() in PHOTO_SUFFIXES:
            shown = path.relative_to(root).as_posix()
            fix = "Move it into the folder of its class, or take it out."
            findings.problems.append(
                Problem(shown, "photo without class", "not in a folder of a class", "a class", fix)
            )
        else:
            findings.ignored[path.suffix.lower() or "no suffix"] += 1
    return folders


def _beside_classes(inner: list[Path]) -> list[Problem]:
    """Split folders beside folders of other names: one or the other is not a class."""
    others = ", ".join(path.name for path in inner if path.name.casefold() not in SPLIT_FOLDERS)
    return [
        Problem(
            path=path.name,
            rule="split folder beside classes",
            found=f"'{path.name}', which holds folders, beside {others}",
            expected="either folders of classes, or train, valid and test alone",
            fix="Move the others away, or the classes out of the split folder.",
        )
        for path in inner
        if path.name.casefold() in SPLIT_FOLDERS and _folders_in(path, path, _Findings())
    ]


def _collect(classes: dict[str, list[tuple[Path, str]]], root: Path, findings: _Findings) -> None:
    for label, folders in sorted(classes.items()):
        before = len(findings.rows)
        for folder, subset in folders:
            for path in _photos_below(folder, findings):
                findings.rows.append((path.relative_to(root).as_posix(), label, subset))
        if len(findings.rows) == before:
            shown = folders[0][0].relative_to(root).as_posix()
            fix = "Put photos in it, or remove it."
            findings.problems.append(Problem(shown, "empty class", "no photos", "photos of the class", fix))


def _photos_below(folder: Path, findings: _Findings) -> list[Path]:
    photos = []
    seen = set()
    for here, inner, names in os.walk(folder, followlinks=True, onerror=_refuse):
        real = os.path.realpath(here)
        if real in seen:  # a link that leads back up, or twice to one place
            inner.clear()
            continue
        seen.add(real)
        if hidden := [name for name in (*inner, *names) if _is_hidden(name)]:
            findings.ignored["hidden"] += len(hidden) - (CACHE_NAME in hidden)
        inner[:] = sorted(name for name in inner if name not in hidden)
        findings.nested = findings.nested or bool(inner)
        for name in sorted(name for name in names if name not in hidden):
            if Path(name).suffix.lower() in PHOTO_SUFFIXES:
                photos.append(Path(here) / name)
            else:
                findings.ignored[Path(name).suffix.lower() or "no suffix"] += 1
    return photos


def _refuse(error: OSError) -> NoReturn:
    """A folder that cannot be listed must not look like an empty one."""
    raise DataError(f"{error.filename}: the folder cannot be read ({error.strerror}).") from error


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in {"__MACOSX", "Thumbs.db", "desktop.ini"}


def _notes(findings: _Findings, splits: list[Path]) -> list[str]:
    notes = []
    if splits:
        names = ", ".join(path.name for path in splits)
        notes.append(f"The folders {names} were merged; the column source_split keeps where each photo came from.")
    if findings.nested:
        notes.append("Folders inside a class's folder were read too; their names were not taken as groups.")
    if ignored := +findings.ignored:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in ignored.most_common())
        notes.append(f"Left out, as they are not photos: {kinds}.")
    return notes
