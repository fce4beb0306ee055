"""Splits of a manifest that no group and no copy of a photo straddles: made, read and proved."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from hcoatnet.data.assignment import assign_groups
from hcoatnet.data.groups import union_groups
from hcoatnet.data.manifest import Manifest, repeated_path_problems
from hcoatnet.data.tables import read_table, require_columns
from hcoatnet.errors import ConfigError, DataProblems, Problem, SplitError
from hcoatnet.files import sha256_of_bytes

SUBSETS = ("train", "val", "test")
FEWEST_FOLDS = 3
"""Training, validation and test need a fold each."""


@dataclass(frozen=True, eq=False)
class Split:
    """Train, validation and test photos.

    Attributes:
        table: ``path``, ``group`` and ``subset`` of every photo, sorted by path.
    """

    table: pd.DataFrame

    def paths(self, subset: str) -> tuple[str, ...]:
        """Paths of a subset's photos, sorted."""
        return tuple(self.table.loc[self.table["subset"] == subset, "path"])

    def to_csv(self) -> str:
        """The split file's whole text."""
        return self.table.to_csv(index=False, lineterminator="\n")

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of `to_csv`, hexadecimal."""
        return sha256_of_bytes(self.to_csv().encode("utf-8"))


@dataclass(frozen=True, eq=False)
class Folds:
    """A cross-validation: in each repeat every photo stands in one fold.

    Attributes:
        table: ``path``, ``group``, ``repeat`` and ``fold`` of every photo and repeat, sorted by repeat, then path; repeats
            and folds count from 0.
    """

    table: pd.DataFrame

    @property
    def repeats(self) -> int:
        """Number of repeats."""
        return int(self.table["repeat"].max()) + 1

    @property
    def folds(self) -> int:
        """Number K of folds in each repeat."""
        return int(self.table["fold"].max()) + 1

    def cell(self, repeat: int, fold: int) -> Split:
        """The split of one training: test is ``fold``, validation fold (``fold`` + 1) mod K, training the rest.

        Raises:
            SplitError: If there is no such repeat or fold.
        """
        if not (0 <= repeat < self.repeats and 0 <= fold < self.folds):
            there = f"repeats 0 to {self.repeats - 1}, folds 0 to {self.folds - 1}"
            raise SplitError(f"There is no fold {fold} in repeat {repeat}. The file has {there}.")
        rows = self.table[self.table["repeat"] == repeat]
        subset = {fold: "test", (fold + 1) % self.folds: "val"}
        subsets = [subset.get(number, "train") for number in rows["fold"]]
        return Split(rows[["path", "group"]].assign(subset=subsets).reset_index(drop=True))

    def to_csv(self) -> str:
        """The split file's whole text."""
        return self.table.to_csv(index=False, lineterminator="\n")

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of `to_csv`, hexadecimal."""
        return sha256_of_bytes(self.to_csv().encode("utf-8"))


@dataclass(frozen=True, eq=False)
class SplitProof:
    """What was counted while proving that a split does not leak.

    Attributes:
        photos: Number of photos, a row a class and a column a part (a subset, or a fold of a repeat).
        groups: Number of groups, likewise.
        distinct_groups: Groups in all.
        distinct_photos: Distinct SHA-256 in all.
        total: Photos in all.
        part: What the parts are called: ``subset`` or ``fold``.
    """

    photos: pd.DataFrame
    groups: pd.DataFrame
    distinct_groups: int
    distinct_photos: int
    total: int
    part: str

    def table(self) -> pd.DataFrame:
        """Photos and groups of every class in every part, with a last row for all classes."""
