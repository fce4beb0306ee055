"""Taking the copies that an audit confirmed into the groups that a split keeps whole."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from hcoatnet.data.audit.clusters import State
from hcoatnet.data.groups import union_groups
from hcoatnet.data.manifest import Manifest
from hcoatnet.data.splits import Folds, Split
from hcoatnet.data.tables import read_table, require_columns
from hcoatnet.errors import DataError, DataProblems, Problem


@dataclass(frozen=True, eq=False)
class Joined:
    """A manifest whose groups hold all confirmed copies of their photos.

    Attributes:
        manifest: The photos with the joined groups; for a split, the manifest's own file stays as it is.
        pairs: Paths of the pairs that were joined.
        groups_before: Groups before the joining.
        groups_after: Groups after it.
        waiting: Clusters that a person has not decided on; nothing was joined because of them.
        unknown: Paths in the file that are not in the manifest.
    """

    manifest: Manifest
    pairs: tuple[tuple[str, str], ...]
    groups_before: int
    groups_after: int
    waiting: tuple[str, ...]
    unknown: tuple[str, ...]

    def lines(self, without: Split | Folds) -> tuple[str, ...]:
        """What was joined, in sentences.

        Args:
            without: The split that the same seed gives without the duplicates.
        """
        photos = {path for pair in self.pairs for path in pair}
        lines = [
            f"Confirmed copies: {len(photos):,} photos. Groups: {self.groups_after:,}, "
            f"{self.groups_before:,} without them.",
            f"Photos moved because of them: {self.moved(without):,}; the same seed would have parted them from copies.",
        ]
        if self.waiting:
            names = ", ".join(self.waiting[:5]) + (" and others" if len(self.waiting) > 5 else "")
            lines.append(
                f"Clusters that wait for a person and were not joined: {len(self.waiting):,} ({names}). "
                "Their photos may stand in two subsets; write verdicts and audit again."
            )
        if self.unknown:
            lines.append(f"Photos of the duplicates file that are not in the manifest: {len(self.unknown):,}.")
        return tuple(lines)

    def moved(self, without: Split | Folds) -> int:
        """Photos that a split made without the duplicates puts elsewhere than most of their copies.

        Of a cross-validation the first repeat counts.
        """
        table = without.table
        if isinstance(without, Folds):
            table = table[table["repeat"] == 0].rename(columns={"fold": "subset"})
        subset = dict(zip(table["path"], table["subset"], strict=True))
        ends = [path for pair in self.pairs for path in pair]
        cluster = dict(zip(ends, union_groups(ends, [place // 2 for place in range(len(ends))]), strict=True))
        parts: dict[str, Counter[str]] = {}
        for path, name in cluster.items():
            parts.setdefault(name, Counter())[subset[path]] += 1
        return sum(counts.total() - max(counts.values()) for counts in parts.values())


def join_duplicates(manifest: Manifest, path: Path) -> Joined:
    """Join the groups of photos that an audit confirmed to be copies.

    Args:
        manifest: The photos; it is not changed.
        path: ``duplicates.csv`` of `hcoatnet data audit`; only its rows in the state "merged" join anything.

    Raises:
        DataError: If it is not such a file, or is about other photos.
        DataProblems: If it holds a state that there is not.
    """
    table = read_table(path)
    advice = "Make it with `hcoatnet data audit`."
    require_columns(table, ("path_a", "path_b", "cluster", "state"), path, advice)
    if unlike := sorted(set(table["state"]) - set(get_args(State))):
        problems = [Problem(state, "state", repr(state), ", ".join(get_args(State)), advice) for state in unlike]
        raise DataProblems(f"{path}: {len(unlike):,} states that there are not.", problems)
    known = set(manifest.table["path"])
    named = set(table["path_a"]) | set(table["path_b"])
    if named and not named & known:
        raise DataError(
            f"{path}: none of its photos is in the manifest; first: {min(named)}. Audit this very manifest, "
            "as paths are relative to it."
        )
    merged = table[(table["state"] == "merged") & table["path_a"].isin(known) & table["path_b"].isin(known)]
    pairs = tuple(zip(merged["path_a"], merged["path_b"], strict=True))
    before = union_groups(list(manifest.table["group"]), list(manifest.table["sha256"]))
    after = _join(list(manifest.table["path"]), before, pairs)
    return Joined(
        Manifest(manifest.table.assign(group=after), manifest.folder),
        pairs,
        len(set(before)),
        len(set(after)),
        tuple(sorted(set(table.loc[table["state"] == "ask", "cluster"]))),
        tuple(sorted(named - known)),
    )


def _join(paths: Sequence[str], groups: Sequence[str], pairs: Sequence[tuple[str, str]]) -> list[str]:
    group = dict(zip(paths, groups, strict=True))
    ends = [group[path] for pair in pairs for path in pair]
    joined = dict(zip(ends, union_groups(ends, [place // 2 for place in range(len(ends))]), strict=True))
    return [joined.get(name, name) for name in groups]
