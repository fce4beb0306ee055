"""From a list of files with labels to a manifest: hash, decode, check and group every photo."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hcoatnet.data.groups import group_photos
from hcoatnet.data.images import PHOTO_SUFFIXES, PhotoError, PhotoFacts, describe_photo
from hcoatnet.data.manifest import MANIFEST_COLUMNS, Manifest, Progress, label_problems, repeated_path_problems
from hcoatnet.errors import DataError, DataProblems, Problem


@dataclass(frozen=True)
class ScanResult:
    """A manifest, and what was decided on the way.

    Attributes:
        manifest: The photos, with paths relative to the folder that was scanned.
        notes: Sentences to be shown to the user.
    """

    manifest: Manifest
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Listing:
    """Photos that a folder or a table names, before any is opened.

    Attributes:
        table: Columns ``path`` (relative to ``folder``) and ``label``, then any further columns; all text.
        owners: For each row of the table what it belongs to: see `hcoatnet.data.groups.group_photos`.
        folder: Where the photos are.
        problems: What is wrong with the folder or the table itself.
        notes: What was decided already, as sentences to be shown to the user.
    """

    table: pd.DataFrame
    owners: pd.DataFrame
    folder: Path
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()


def scan_photos(photos: Listing, progress: Progress | None = None) -> ScanResult:
    """Hash and decode the listed photos, check their labels and group them.

    Args:
        photos: What is listed.
        progress: Called with the photos done and all.

    Raises:
        DataError: If no photo is listed.
        DataProblems: With all problems of all photos and labels.
    """
    listing, owners, folder, problems = photos.table, photos.owners, photos.folder, photos.problems
    if listing.empty and not problems:
        raise DataError(f"{folder}: no photos found. Expected files such as {', '.join(PHOTO_SUFFIXES)}.")
    facts, photo_problems = _describe_all(folder, list(listing["path"]), progress)
    scanned = listing.assign(
        sha256=[fact.sha256 if fact else "" for fact in facts],
        width=[fact.width if fact else 0 for fact in facts],
        height=[fact.height if fact else 0 for fact in facts],
    )
    contradictions, label_notes = _compare_copies(scanned, owners)
    found = [*problems, *repeated_path_problems(listing["path"]), *photo_problems, *label_problems(scanned)]
    found += contradictions
    if found:
        raise DataProblems(
            f"{folder}: {len(found):,} problems in {len(listing):,} photos. No manifest was made.", found
        )
    groups, group_notes = group_photos(scanned, owners)
    scanned = scanned.assign(group=groups)
    extra = [column for column in listing.columns if column not in MANIFEST_COLUMNS]
    table = scanned[[*MANIFEST_COLUMNS, *extra]].sort_values("path", ignore_index=True)
    return ScanResult(Manifest(table, folder), (*photos.notes, *group_notes, *label_notes))


def _describe_all(
    folder: Path, paths: list[str], progress: Progress | None
) -> tuple[list[PhotoFacts | None], list[Problem]]:
    facts: list[PhotoFacts | None] = []
    problems: list[Problem] = []
    pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
    try:
        for result in pool.map(lambda path: _describe(folder, path), paths):
            facts.append(result if isinstance(result, PhotoFacts) else None)
            if isinstance(result, Problem):
                problems.append(result)
            if progress is not None:
                progress(len(facts), len(paths))
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt does not wait for the photos still queued
    return facts, problems


def name_problem(path: str) -> Problem | None:
    """What is wrong with a photo's file name: a CSV file could not hold it."""
    if path.isprintable():  # also false for a name that is not UTF-8
        return None
    expected = "a name of printable characters"
    return Problem(ascii(path), "file name", "control characters, or not UTF-8", expected, "Rename the file.")


def _describe(folder: Path, path: str) -> PhotoFacts | Problem:
    if (problem := name_problem(path)) is not None:
        return problem
    try:
        return describe_photo(folder / path, path)
    except PhotoError as error:
        return error.problem


def _compare_copies(photos: pd.DataFrame, owners: pd.DataFrame) -> tuple[list[Problem], list[str]]:
    """Exact copies with different labels: a contradiction, unless they stand for different lesions of one patient."""
    problems, notes = [], []
    labelled = photos.loc[photos["sha256"] != "", ["sha256", "label"]].drop_duplicates()
    for sha256 in labelled.loc[labelled["sha256"].duplicated(), "sha256"].unique():
        copies = photos[photos["sha256"] == sha256].sort_values("path")
        shown = "; ".join(f"{path}: {label}" for path, label in zip(copies["path"], copies["label"], strict=True))
        if _show_several_lesions(copies["label"], owners.loc[copies.index]):
            notes.append(f"One photo stands for several lesions of a patient and keeps its labels ({shown}).")
        else:
            fix = "Find out which label is right and take the other copy out."
            problems.append(Problem(copies["path"].iloc[0], "one photo, two labels", shown, "one label", fix))
    return problems, notes


def _show_several_lesions(labels: pd.Series, owners: pd.DataFrame) -> bool:
    if owners.shape[1] < 2 or (owners == "").any(axis=None):
        return False
    patients, lesions = owners.iloc[:, 0], owners.iloc[:, 1]
    return patients.nunique() == 1 and bool((labels.groupby(lesions).nunique() == 1).all())
