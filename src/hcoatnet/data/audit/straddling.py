"""Clusters of copies that stand in more than one subset of a split: leaks."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from hcoatnet.data.audit.clusters import Cluster
from hcoatnet.data.manifest import Manifest
from hcoatnet.data.tables import read_table, require_columns
from hcoatnet.errors import SplitError

SOURCE_SPLIT = "source_split"


@dataclass(frozen=True)
class Straddling:
    """A cluster that a split divides.

    Attributes:
        cluster: Its name in ``duplicates.csv``.
        subsets: Subsets or folds and their photos, in order; of several repeats the first that divides it.
        merged: Whether the cluster is certain, or listed for a person to decide.
    """

    cluster: str
    subsets: dict[str, tuple[str, ...]]
    merged: bool

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def read_subsets(path: Path) -> list[dict[str, str]]:
    """Where a split file puts each photo: one mapping from path to subset, or one a repeat from path to fold.

    Unlike `hcoatnet.data.splits.read_split` this proves nothing: a split that leaks is what is looked for.

    Raises:
        DataError: If the file cannot be read.
        SplitError: If its columns are not those of a split file.
    """
    table = read_table(path)
    require_columns(table, ("path",), path)
    if "subset" in table.columns:
        return [dict(zip(table["path"], table["subset"], strict=True))]
    if {"repeat", "fold"} <= set(table.columns):
        rounds = [rows for _, rows in table.groupby("repeat", sort=True)]
        return [dict(zip(rows["path"], "fold " + rows["fold"], strict=True)) for rows in rounds]
    raise SplitError(f"{path}: a split file has the columns path and subset, or path, repeat and fold.")


def subsets_of_folders(photos: Manifest) -> list[dict[str, str]]:
    """As `read_subsets`, from the folders train, valid and test that the photos came in; empty if they did not."""
    if SOURCE_SPLIT not in photos.table.columns:
        return []
    known = photos.table[photos.table[SOURCE_SPLIT] != ""]
    return [dict(zip(known["path"], known[SOURCE_SPLIT], strict=True))] if len(known) else []


def straddling(clusters: Sequence[Cluster], rounds: Sequence[dict[str, str]]) -> tuple[Straddling, ...]:
    """Clusters with photos in more than one subset, or in more than one fold of any repeat."""
    found = []
    for cluster in clusters:
        for subsets in rounds:
            parts = pd.Series({path: subsets[path] for path in cluster.paths if path in subsets}, dtype=object)
            if parts.nunique() > 1:
                divided = {str(name): tuple(sorted(map(str, rows.index))) for name, rows in parts.groupby(parts)}
                found.append(Straddling(cluster.name, divided, cluster.merged))
                break
    return tuple(found)
