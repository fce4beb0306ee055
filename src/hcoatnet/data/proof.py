"""Proving that a split does not leak."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from hcoatnet.data.groups import union_groups
from hcoatnet.data.manifest import Manifest, repeated_path_problems
from hcoatnet.errors import DataProblems, Problem

ALL_CLASSES = "all classes"
"""Name of the last row of a proof's tables."""

MOST_NAMED = 20
"""Photos that are named as being in only one of manifest and split; with more of them, it is the wrong file."""


@dataclass(frozen=True, eq=False)
class SplitProof:
    """What was counted while a split was proved not to leak.

    Attributes:
        photos: Number of photos: a row for each class and a last one for all, a column for each subset or fold.
        groups: Number of groups, likewise. A group may hold several classes.
        distinct_groups: Groups in all.
        distinct_sha256: Distinct photos by their bytes.
        repeats: Times that the photos are dealt out: 1, or the repeats of a cross-validation.
        part: What a part is called: ``subset`` or ``fold``.
    """

    photos: pd.DataFrame
    groups: pd.DataFrame
    distinct_groups: int
    distinct_sha256: int
    repeats: int
    part: str

    def table(self) -> pd.DataFrame:
        """Photos and groups of every class side by side, in columns such as ``train photos`` and ``train groups``."""
        columns = {}
        for part in self.photos.columns:
            columns[f"{part} photos"] = self.photos[part]
            columns[f"{part} groups"] = self.groups[part]
        return pd.DataFrame(columns)

    def lines(self) -> tuple[str, ...]:
        """The proof in sentences."""
        counts = [int(count) for count in self.photos.iloc[-1]]
        photos = sum(counts) // self.repeats
        if self.part == "subset":
            shares = ", ".join(f"{part} {count / photos:.1%}" for part, count in zip(self.photos, counts, strict=True))
        else:
            shares = f"{min(counts) / photos:.1%} to {max(counts) / photos:.1%}"
        each = f", in each of {self.repeats} repeats" if self.repeats > 1 else ""
        return (
            f"{self.distinct_groups:,} groups, none in two {self.part}s{each}.",
            f"{self.distinct_sha256:,} distinct sha256, none in two {self.part}s{each}.",
            f"{photos:,} of {photos:,} photos covered{each}.",
            f"Every class in every {self.part}. Share of the photos: {shares}.",
        )


def prove_parts(table: pd.DataFrame, parts: Sequence[str], manifest: Manifest, name: str) -> SplitProof:
    """Prove that in every repeat the parts cover the manifest exactly, share nothing, and hold every class each.

    Neither a group of the split, nor a group of the manifest, nor a SHA-256 may stand in two parts; as none of the
    three does, no chain of them does.

    Args:
        table: Columns ``path``, ``group``, ``repeat`` and ``part``.
        parts: The parts that each repeat must have.
        manifest: The photos.
        name: What a part is called: ``subset`` or ``fold``.

    Raises:
        DataProblems: With everything that speaks against it.
    """
    facts = manifest.table[["path", "label", "group", "sha256"]].rename(columns={"group": "manifest_group"})
    if table.empty:
        missing = _coverage_problems(table["path"], facts["path"])
        raise DataProblems("The split cannot be used: it names no photos.", missing)
    repeats = int(table["repeat"].nunique())
    problems: list[Problem] = []
    photos, groups = {}, {}
    for repeat, rows in table.groupby("repeat"):
        prefix = f"repeat {repeat}, " if repeats > 1 else ""
        problems += _coverage_problems(rows["path"], facts["path"])
        dealt = rows.drop_duplicates(["path", "part"]).merge(facts, on="path")
        problems += _leaks(dealt, name)
        for part in parts:
            inside = dealt[dealt["part"] == part]
            by_class = inside.groupby("label")
            photos[prefix + part] = by_class.size().reindex(manifest.classes, fill_value=0)
            groups[prefix + part] = by_class["group"].nunique().reindex(manifest.classes, fill_value=0)
            problems += _absent_classes(photos[prefix + part], prefix + part, name)
            photos[prefix + part].loc[ALL_CLASSES] = len(inside)
            groups[prefix + part].loc[ALL_CLASSES] = inside["group"].nunique()
    if problems:
        raise DataProblems("The split cannot be used.", problems)
    united = union_groups(list(dealt["group"]), list(dealt["manifest_group"]), list(dealt["sha256"]))
    return SplitProof(
        photos=pd.DataFrame(photos),
        groups=pd.DataFrame(groups),
        distinct_groups=len(set(united)),
        distinct_sha256=int(dealt["sha256"].nunique()),
        repeats=repeats,
        part=name,
    )


def _coverage_problems(paths: pd.Series, known: pd.Series) -> list[Problem]:
    here, there = set(paths), set(known)
    fix = "Make the split again from this manifest."
    unknown = [
        Problem(path, "photo not in the manifest", "a row of the split", "a photo of the manifest", fix)
        for path in sorted(here - there)
    ]
    missing = [
        Problem(path, "photo not in the split", "no row", "every photo of the manifest", fix)
        for path in sorted(there - here)
    ]
    return [*_first(unknown), *_first(missing), *repeated_path_problems(paths)]


def _first(problems: list[Problem]) -> list[Problem]:
    more = len(problems) - MOST_NAMED
    return problems if more <= 0 else [*problems[:MOST_NAMED], replace(problems[0], path=f"and {more:,} more photos")]


def _leaks(dealt: pd.DataFrame, name: str) -> list[Problem]:
    """Groups and copies that stand in two parts; what straddles by several keys alike is told once."""
    problems = []
    told = set()
    keys = (
        ("group", f"group in two {name}s"),
        ("manifest_group", f"group of the manifest in two {name}s"),
        ("sha256", f"same photo in two {name}s"),
    )
    for key, rule in keys:
        parts = dealt.groupby(key)["part"].nunique()
        for value in parts.index[parts > 1]:
            members = dealt[dealt[key] == value]
            if (paths := tuple(members["path"])) in told:
                continue
            told.add(paths)
            by_part = members.groupby("part", sort=False)
            found = "; ".join(f"{part}: {_some(list(rows['path']))}" for part, rows in by_part)
            fix = f"Put all of them in one {name}."
            problems.append(Problem(str(value), rule, found, f"one {name}", fix))
    return problems


def _some(paths: list[str]) -> str:
    shown = ", ".join(paths[:3])
    return shown if len(paths) <= 3 else f"{shown} and {len(paths) - 3} more"


def _absent_classes(photos: pd.Series, part: str, name: str) -> list[Problem]:
    expected = f"every class in every {name}"
    fix = f"Move a group of this class to {part}, or make the split again."
    return [
        Problem(str(label), f"class absent from a {name}", f"no photo in {part}", expected, fix)
        for label in photos.index[photos == 0]
    ]
