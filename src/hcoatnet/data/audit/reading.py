"""One pass over all photos of a folder, a table or a manifest: what can be opened, and what is odd about each.

Nothing stops at the first problem. What `hcoatnet data scan` would refuse is collected here, and the photos that can be
opened go on to the other parts of the audit.
"""

import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from hcoatnet.data.audit import integrity, pixels
from hcoatnet.data.audit.cache import Cache
from hcoatnet.data.audit.integrity import Facts, look_at, problems_of
from hcoatnet.data.groups import group_photos, union_groups
from hcoatnet.data.images import PhotoError
from hcoatnet.data.manifest import (
    MANIFEST_COLUMNS,
    Manifest,
    Progress,
    label_problems,
    read_manifest,
    repeated_path_problems,
)
from hcoatnet.data.sources.folder import list_folder, list_unlabelled
from hcoatnet.data.sources.scan import Listing, name_problem
from hcoatnet.data.sources.table import list_table
from hcoatnet.data.tables import read_table
from hcoatnet.errors import DataError, Problem
from hcoatnet.files import sha256_of_bytes, sha256_of_file

Features = Mapping[str, NDArray[np.uint8]]

_KIND = f"photo-{pixels.FEATURES_VERSION}-{integrity.VERSION}"


@dataclass(frozen=True, eq=False)
class Collection:
    """All photos that were listed, those that could be opened, and everything that is wrong with any of them.

    Attributes:
        manifest: The photos that can be opened, sorted by path, grouped as `hcoatnet data scan` would.
        facts: What each file holds, in the order of the manifest.
        features: Features of each photo, arrays (n, …) in the order of the manifest.
        problems: All problems, sorted by path.
        listed: Number of photos listed.
        notes: What was decided on the way, as sentences.
    """

    manifest: Manifest
    facts: tuple[Facts, ...]
    features: Features
    problems: tuple[Problem, ...]
    listed: int
    notes: tuple[str, ...]

    @property
    def labelled(self) -> bool:
        """Whether the photos come in two classes or more."""
        return len(self.manifest.classes) > 1


def list_photos(
    source: Path,
    path_column: str = "path",
    label_column: str = "label",
    group_column: str | None = None,
    path_format: str = "{}",
) -> Listing:
    """List the photos of a folder (with or without classes), a table or a manifest; none is opened.

    Of a manifest, ``group`` and ``sha256`` are kept as columns of the listing.

    Raises:
        DataError: If there is nothing usable at ``source``.
        DataProblems: If the rows of a manifest contradict each other.
    """
    if source.is_dir():
        holds_folders = any(path.is_dir() and not path.name.startswith(".") for path in source.iterdir())
        return list_folder(source) if holds_folders else list_unlabelled(source)
    if not source.exists():
        raise DataError(f"{source}: no such file or folder. Give a folder of photos, a table of photos or a manifest.")
    if set(MANIFEST_COLUMNS) <= set(read_table(source).columns):
        manifest = read_manifest(source)
        table = manifest.table.drop(columns=["width", "height"])
        return Listing(table, pd.DataFrame(index=table.index), manifest.folder)
    return list_table(source, path_column, label_column, group_column, path_format)


def read_photos(listing: Listing, cache: Cache | None = None, progress: Progress | None = None) -> Collection:
    """Open every listed photo once and collect what is wrong with any of them.

    Args:
        listing: What `list_photos` gave.
        cache: Where features and findings of files with the same SHA-256 are kept from one run to the next.
        progress: Called with the photos done and all.

    Raises:
        DataError: If no photo is listed, or none can be opened.
    """
    if listing.table.empty:
        raise DataError(f"{listing.folder}: no photos found.")
    table = listing.table.drop_duplicates("path")
    problems = [*listing.problems, *repeated_path_problems(listing.table["path"])]
    rows: list[int] = []
    hashes: list[str] = []
    facts: list[Facts] = []
    stacked: dict[str, list[NDArray[np.uint8]]] = {}
    recorded = list(table["sha256"]) if "sha256" in table.columns else [""] * len(table)
    for row, outcome in enumerate(_quietly(_read_all(listing.folder, list(table["path"]), cache, progress))):
        if isinstance(outcome, Problem):
            problems.append(outcome)
            continue
        sha256, fact, features = outcome
        path = str(table["path"].iloc[row])
        if recorded[row] and recorded[row] != sha256:
            rule = integrity.RULES["changed since the scan"]
            found = f"{sha256[:12]}…, not {recorded[row][:12]}…"
            problems.append(Problem(path, "changed since the scan", found, rule.expected, rule.fix))
        problems += problems_of(fact, path)
        rows.append(row)
        hashes.append(sha256)
        facts.append(fact)
        for name, values in features.items():
            stacked.setdefault(name, []).append(values)
    if not rows:
        first = f" First: {problems[0].path}: {problems[0].found}." if problems else ""
        raise DataError(f"{listing.folder}: none of {len(table):,} photos can be opened.{first}")
    order = np.argsort(np.array(table["path"].iloc[rows], dtype=object), kind="stable")
    readable = table.iloc[rows].assign(
        sha256=hashes, width=[fact.width for fact in facts], height=[fact.height for fact in facts]
    )
    manifest, notes = _with_groups(readable.iloc[order], listing)
    problems += _label_problems(manifest)
    return Collection(
        manifest=manifest,
        facts=tuple(facts[place] for place in order),
        features={name: np.stack([values[place] for place in order]) for name, values in stacked.items()},
        problems=tuple(sorted(problems, key=lambda problem: (problem.path, problem.rule))),
        listed=len(table),
        notes=(*listing.notes, *notes),
    )


def _with_groups(table: pd.DataFrame, listing: Listing) -> tuple[Manifest, Sequence[str]]:
    notes: Sequence[str] = ()
    if "group" in table.columns:
        groups = union_groups(list(table["group"]), list(table["sha256"]))
    else:
        groups, notes = group_photos(table[["path", "label", "sha256"]], listing.owners.loc[table.index])
    table = table.assign(group=groups)
    extra = [column for column in table.columns if column not in MANIFEST_COLUMNS]
    return Manifest(table[[*MANIFEST_COLUMNS, *extra]].reset_index(drop=True), listing.folder), notes


def _label_problems(manifest: Manifest) -> list[Problem]:
    """What is wrong with labels, unless there are none at all."""
    return label_problems(manifest.table) if manifest.table["label"].str.strip().any() else []


_Read = tuple[str, Facts, Mapping[str, NDArray[np.uint8]]]


def _read_all(
    folder: Path, paths: Sequence[str], cache: Cache | None, progress: Progress | None
) -> Iterator[_Read | Problem]:
    """For every path its SHA-256, facts and features, or what keeps it from being opened."""
    pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
    new: dict[str, dict[str, NDArray[Any]]] = {}
    try:
        hashes = list(pool.map(lambda path: _hash_of(folder / path), paths)) if cache else [""] * len(paths)
        known = cache.load(_KIND, sorted(set(hashes) - {""})) if cache else {}
        tasks = pool.map(lambda path, sha256: _read_one(folder, path, known.get(sha256), sha256), paths, hashes)
        for done, outcome in enumerate(tasks, start=1):
            if not isinstance(outcome, Problem) and cache and outcome[0] not in known:
                new[outcome[0]] = {**outcome[2], "facts": np.array(json.dumps(outcome[1].to_json()).encode())}
            if progress is not None:
                progress(done, len(paths))
            yield outcome
    finally:
        pool.shutdown(cancel_futures=True)
        if cache and new:  # also after an interrupt: what was read is not read again
            cache.store(_KIND, new)


def _quietly(outcomes: Iterator[_Read | Problem]) -> list[_Read | Problem]:
    """All outcomes, without Pillow's warnings of damaged metadata: filters belong to all threads of the process.

    NumPy multiplies in one thread meanwhile: the photos are spread over threads already, and threads of threads wait
    for one another.
    """
    with warnings.catch_warnings(), threadpool_limits(1, user_api="blas"):
        warnings.simplefilter("ignore")
        return list(outcomes)


def _hash_of(path: Path) -> str:
    """SHA-256 of the file, or an empty text if it cannot be read: why, the reading tells."""
    try:
        return sha256_of_file(path) if path.stat().st_size <= integrity.LARGEST_FILE else ""
    except (OSError, ValueError):
        return ""


def _read_one(folder: Path, path: str, known: Mapping[str, NDArray[Any]] | None, sha256: str) -> _Read | Problem:
    if (problem := name_problem(path)) is not None:
        return problem
    if known is not None:
        features = {name: values for name, values in known.items() if name != "facts"}
        return sha256, Facts.of(json.loads(bytes(known["facts"].item()))), features
    try:
        size = (folder / path).stat().st_size
        if size > integrity.LARGEST_FILE:
            expected = f"at most {integrity.LARGEST_FILE:,} bytes"
            return Problem(path, "too large a file", f"{size:,} bytes", expected, "Take it out, or export it smaller.")
        content = (folder / path).read_bytes()
        facts, features = look_at(content, path)
    except PhotoError as error:
        return error.problem
    except OSError as error:
        rule = "missing" if isinstance(error, FileNotFoundError | IsADirectoryError) else "unreadable"
        found = error.strerror or type(error).__name__
        return Problem(path, rule, found, "a photo", "Correct the path or its permissions, or take it out.")
    return sha256_of_bytes(content), facts, features
