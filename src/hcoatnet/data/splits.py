"""Splits of a manifest that no group and no copy of a photo straddles: made, read and proved."""

import re
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

import pandas as pd

from hcoatnet.data.groups import union_groups
from hcoatnet.data.manifest import Manifest
from hcoatnet.data.proof import SplitProof, prove_parts
from hcoatnet.data.stratification import deal_groups
from hcoatnet.data.tables import read_table, require_columns
from hcoatnet.errors import ConfigError, DataProblems, Problem, SplitError
from hcoatnet.files import sha256_of_bytes

SUBSETS = ("train", "val", "test")

FEWEST_FOLDS = 3
"""Training, validation and test need a fold each."""


@dataclass(frozen=True, eq=False)
class _SplitFile:
    table: pd.DataFrame

    def to_csv(self) -> str:
        """The split file's whole text."""
        return self.table.to_csv(index=False, lineterminator="\n")

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of `to_csv`, hexadecimal."""
        return sha256_of_bytes(self.to_csv().encode("utf-8"))


@dataclass(frozen=True, eq=False)
class Split(_SplitFile):
    """Train, validation and test photos.

    Attributes:
        table: ``path``, ``group`` and ``subset`` of every photo, sorted by path.
    """

    def paths(self, subset: str) -> tuple[str, ...]:
        """Paths of the photos in ``train``, ``val`` or ``test``, sorted."""
        return tuple(self.table.loc[self.table["subset"] == subset, "path"])


@dataclass(frozen=True, eq=False)
class Folds(_SplitFile):
    """A cross-validation: in each repeat every photo stands in one fold.

    Attributes:
        table: ``path``, ``group``, ``repeat`` and ``fold`` of every photo in every repeat, sorted by repeat, then path.
            Repeats and folds count from 0.
    """

    @property
    def repeats(self) -> int:
        """Number of repeats."""
        return int(self.table["repeat"].max()) + 1

    @property
    def folds(self) -> int:
        """Number K of folds in each repeat."""
        return int(self.table["fold"].max()) + 1

    def cell(self, repeat: int, fold: int) -> Split:
        """The split of one training: test is ``fold``, validation is fold (``fold`` + 1) mod K, training is the rest.

        Raises:
            SplitError: If there is no such repeat or fold.
        """
        if not (0 <= repeat < self.repeats and 0 <= fold < self.folds):
            there = f"repeats 0 to {self.repeats - 1} and folds 0 to {self.folds - 1}"
            raise SplitError(f"There is no fold {fold} of repeat {repeat}: the split has {there}.")
        rows = self.table[self.table["repeat"] == repeat]
        held_out = {fold: "test", (fold + 1) % self.folds: "val"}
        subsets = [held_out.get(number, "train") for number in rows["fold"]]
        return Split(rows[["path", "group"]].assign(subset=subsets).reset_index(drop=True))


def hold_out(manifest: Manifest, val_share: float = 0.15, test_share: float = 0.15, seed: int = 42) -> Split:
    """Split into training, validation and test photos, stratified by class, whole groups only.

    Args:
        manifest: The photos.
        val_share: Share of each class for validation, in (0, 1).
        test_share: Share of each class for the test, in (0, 1).
        seed: The same seed and photos give the same split, in whatever order the photos are listed.

    Raises:
        ConfigError: If the shares leave nothing for training.
        SplitError: If a class has fewer than three groups, or no split with every class in every subset was found.
    """
    if not (val_share > 0 and test_share > 0 and val_share + test_share < 1):
        raise ConfigError(
            "The shares for validation and test must be above 0 and sum to less than 1. "
            f"Found {val_share} and {test_share}."
        )
    _require_seed(seed)
    table = _sorted_rows(manifest)
    shares = (1 - val_share - test_share, val_share, test_share)
    parts = deal_groups(list(table["label"]), list(table["group"]), shares, [seed])
    split = Split(table[["path", "group"]].assign(subset=[SUBSETS[part] for part in parts]))
    prove(split, manifest)
    return split


def cross_validation(manifest: Manifest, folds: int = 5, repeats: int = 1, seed: int = 42) -> Folds:
    """Deal the photos out to folds, stratified by class, whole groups only, several times over.

    Args:
        manifest: The photos.
        folds: Number K of folds, 3 or more; each is the test set once and the validation set once.
        repeats: How many times, each with a seed of its own.
        seed: As in `hold_out`.

    Raises:
        ConfigError: If there are fewer than three folds, or no repeat.
        SplitError: If a class has fewer than K groups, or no folds with every class in each were found.
    """
    if folds < FEWEST_FOLDS:
        raise ConfigError(
            f"Training, validation and test need a fold each: at least {FEWEST_FOLDS} folds. Found {folds}."
        )
    if repeats < 1:
        raise ConfigError(f"The number of repeats must be 1 or more. Found {repeats}.")
    _require_seed(seed)
    table = _sorted_rows(manifest)
    rounds = []
    for repeat in range(repeats):
        parts = deal_groups(list(table["label"]), list(table["group"]), [1 / folds] * folds, [seed, repeat])
        rounds.append(table[["path", "group"]].assign(repeat=repeat, fold=parts))
    made = Folds(pd.concat(rounds, ignore_index=True))
    prove(made, manifest)
    return made


def read_split(path: Path, manifest: Manifest) -> Split | Folds:
    """Read a split file, made by this package or by hand, and prove that it fits the manifest and does not leak.

    The file says which photo stands where, with ``path`` and ``subset``, or ``path``, ``repeat`` and ``fold``; that is
    obeyed to the letter. A ``group`` column is optional. The groups used are the union of the file's, the manifest's
    and the SHA-256, so a file can join groups but not divide them. Other columns are ignored.

    Raises:
        DataError: If the file cannot be read.
        SplitError: If its columns are not those of a split file.
        DataProblems: If its values are none that a split file has; else with all that `prove` finds.
    """
    table = read_table(path)
    require_columns(table, ("path",), path)
    by_subset, by_fold = "subset" in table.columns, {"repeat", "fold"} <= set(table.columns)
    if by_subset == by_fold:
        raise SplitError(
            f"{path}: a split file has the columns path and subset, or path, repeat and fold. "
            f"Found {', '.join(table.columns)}. Make one with `hcoatnet data split`."
        )
    if by_fold and (problems := _numbering_problems(table)):
        raise DataProblems(f"{path}: {len(problems):,} problems in the split file.", problems)
    known = manifest.table.set_index("path")
    groups = known["group"].reindex(table["path"]).fillna("").to_numpy()
    if "group" in table.columns:
        groups = table["group"].where(table["group"].str.strip() != "", groups).to_numpy()
    table = table.assign(group=groups)
    if by_subset:
        split: Split | Folds = Split(table[["path", "group", "subset"]].sort_values("path", ignore_index=True))
    else:
        table = table[["path", "group", "repeat", "fold"]].astype({"repeat": "int64", "fold": "int64"})
        split = Folds(table.sort_values(["repeat", "path"], ignore_index=True))
    try:
        prove(split, manifest)
    except DataProblems as error:
        raise DataProblems(f"{path}: {error}", error.problems) from error
    photos = known.loc[split.table["path"]]
    keys = (photos["group"], photos["sha256"], split.table["path"])
    united = union_groups(list(split.table["group"]), *(list(key) for key in keys))
    return type(split)(split.table.assign(group=united))


def prove(split: Split | Folds, manifest: Manifest) -> SplitProof:
    """Prove that a split covers the manifest, that no group or copy straddles, and that every class is everywhere.

    For folds this is proved of every repeat, and so of every cell.

    Raises:
        DataProblems: With everything that speaks against it; see `hcoatnet.data.proof.prove_parts`.
    """
    if isinstance(split, Split):
        if problems := _subset_problems(split.table["subset"]):
            raise DataProblems(f"The split cannot be used: {len(problems):,} problems.", problems)
        table = split.table.rename(columns={"subset": "part"}).assign(repeat=0)
        return prove_parts(table, SUBSETS, manifest, "subset")
    table = split.table.assign(part=[f"fold {fold}" for fold in split.table["fold"]])
    return prove_parts(table, [f"fold {fold}" for fold in range(split.folds)], manifest, "fold")


def _sorted_rows(manifest: Manifest) -> pd.DataFrame:
    """Photos sorted by path, with groups that hold all copies of their photos."""
    table = manifest.table.sort_values("path", ignore_index=True)
    return table.assign(group=union_groups(list(table["group"]), list(table["sha256"])))


def _require_seed(seed: int) -> None:
    if seed < 0:
        raise ConfigError(f"The seed must be 0 or more. Found {seed}.")


def _subset_problems(subsets: pd.Series) -> list[Problem]:
    problems = []
    for name in sorted(set(subsets) - set(SUBSETS)):
        near = get_close_matches(name.strip().lower(), SUBSETS, n=1, cutoff=0.4)  # admits 'validation'
        found = f"'{name}' in {int((subsets == name).sum()):,} rows"
        fix = f"Write {near[0]} instead." if near else "Write one of the three."
        problems.append(Problem(f"subset '{name}'", "unknown subset", found, ", ".join(SUBSETS), fix))
    return problems


def _numbering_problems(table: pd.DataFrame) -> list[Problem]:
    """Repeats and folds must be whole numbers that count from 0 without a gap."""
    fix = "Make the split again with `hcoatnet data split`."
    problems = [
        Problem(path, f"value of {column}", value or "nothing", "a whole number", fix)
        for column in ("repeat", "fold")
        for path, value in zip(table["path"], table[column], strict=True)
        if not re.fullmatch("[0-9]{1,4}", value)
    ]
    if problems:
        return problems
    for column, fewest in (("repeat", 1), ("fold", FEWEST_FOLDS)):
        numbers = {int(value) for value in table[column]}
        last = max(fewest, len(numbers)) - 1
        if numbers != set(range(last + 1)):
            found = ", ".join(str(number) for number in sorted(numbers))
            problems.append(Problem(f"column {column}", "numbering", found, f"0 to {last}", fix))
    return problems
