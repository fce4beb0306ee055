"""From pairs of photos that are copies of each other to clusters, and what a person has said about them."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hcoatnet.data.groups import union_groups
from hcoatnet.data.tables import read_table, require_columns
from hcoatnet.errors import DataProblems, Problem

LARGEST_CLUSTER = 20
"""Photos that a cluster may have without a person being asked."""

SAME, DIFFERENT = "same", "not the same"

Stage = Literal["file", "pixels", "hash", "geometry", "name", "person"]
State = Literal["merged", "ask", "candidate", "rejected"]
Verdicts = Mapping[tuple[str, str], str]
"""What a person said of pairs of paths, the lower first: `SAME` or `DIFFERENT`."""


@dataclass(frozen=True)
class Edge:
    """Two photos that are, or by their names may be, copies of each other.

    Attributes:
        path_a: Path of one, the lower of the two.
        path_b: Path of the other.
        stage: What found it: equal bytes (file), equal pixels, near perceptual hashes, the geometric check, file names,
            or a person.
        score: Correlation of the two where they overlap, 1 for equal pixels; None where nothing was compared.
        confirmed: Whether this stage proves it.
    """

    path_a: str
    path_b: str
    stage: Stage
    score: float | None
    confirmed: bool

    @property
    def pair(self) -> tuple[str, str]:
        """Both paths."""
        return self.path_a, self.path_b


@dataclass(frozen=True)
class Cluster:
    """Photos joined by confirmed edges, directly or through others.

    Attributes:
        name: ``c0001`` and so on, in the order of the clusters' first paths.
        paths: The photos, sorted.
        edges: The confirmed edges among them, sorted.
        labels: Their labels, sorted; photos without one are left out.
        groups: Their groups, sorted.
        reason: Why a person is asked before they are merged; empty if they are merged.
    """

    name: str
    paths: tuple[str, ...]
    edges: tuple[Edge, ...]
    labels: tuple[str, ...]
    groups: tuple[str, ...]
    reason: str

    @property
    def merged(self) -> bool:
        """Whether a split may take the cluster as it is."""
        return not self.reason

    def state_of(self, edge: Edge) -> State:
        """Whether a split joins the two photos. In a cluster that waits, only those that a person or the bytes join."""
        return "merged" if self.merged or edge.stage in ("person", "file") else "ask"


def read_verdicts(path: Path, known: Collection[str]) -> dict[tuple[str, str], str]:
    """Read a person's verdicts: ``path_a``, ``path_b`` and ``verdict``, which is "same" or "not the same".

    Rows without a verdict and further columns are ignored, so a filled-in duplicates.csv will do.

    Raises:
        DataError: If it is not a table with these columns.
        DataProblems: If a path is not among ``known``, a verdict has another wording, or two rows disagree.
    """
    table = read_table(path)
    require_columns(table, ("path_a", "path_b", "verdict"), path)
    verdicts: dict[tuple[str, str], str] = {}
    problems = []
    for one, other, said in zip(table["path_a"], table["path_b"], table["verdict"], strict=True):
        verdict = " ".join(said.split()).casefold()
        if not verdict:
            continue
        pair = min(one, other), max(one, other)
        name = " and ".join(pair)
        for photo in pair:
            if photo not in known:
                fix = "Correct the path, or take the row out."
                problems.append(Problem(photo, "photo not in the manifest", "a verdict", "a photo's path", fix))
        if verdict not in (SAME, DIFFERENT):
            problems.append(Problem(name, "verdict", said, f"{SAME}, or {DIFFERENT}", "Write one of the two."))
        elif one == other:
            problems.append(Problem(name, "one photo", "a photo with itself", "two photos", "Take the row out."))
        elif verdicts.setdefault(pair, verdict) != verdict:
            problems.append(Problem(name, "two verdicts", "both", "one verdict", "Take one of the rows out."))
    if problems:
        raise DataProblems(f"{path}: {len(problems):,} problems in the verdicts.", problems)
    return verdicts


def apply_verdicts(edges: Sequence[Edge], verdicts: Verdicts) -> tuple[Edge, ...]:
    """The edges as a person's verdicts leave them: one an unordered pair, sorted.

    "Same" confirms a pair, found or not; "not the same" takes its confirmation away. Only equal bytes stand whatever is
    said, because no split can tell such photos apart. Of several edges of a pair the first confirmed one counts.
    """
    best: dict[tuple[str, str], Edge] = {}
    for edge in edges:
        there = best.get(edge.pair)
        if there is None or (edge.confirmed and not there.confirmed):
            best[edge.pair] = edge
    for pair, verdict in verdicts.items():
        there = best.get(pair)
        score = there.score if there else None
        if there is not None and there.stage == "file" and verdict == DIFFERENT:
            continue
        if verdict == SAME or there is not None:
            best[pair] = Edge(*pair, "person", score, verdict == SAME)
    return tuple(best[pair] for pair in sorted(best))


def build_clusters(
    edges: Sequence[Edge], photos: Mapping[str, tuple[str, str]], verdicts: Verdicts | None = None
) -> tuple[Cluster, ...]:
    """Clusters of the confirmed edges; the order of the edges makes no difference.

    Args:
        edges: As `apply_verdicts` gives them.
        photos: Label and group of every path.
        verdicts: What a person said.
    """
    confirmed = sorted((edge for edge in edges if edge.confirmed), key=lambda edge: edge.pair)
    apart = [pair for pair, verdict in (verdicts or {}).items() if verdict == DIFFERENT]
    clusters = []
    for number, (members, inside) in enumerate(_components(confirmed), start=1):
        reason = _reason_to_ask(members, inside, photos, apart)
        labels = _labels_of(members, photos)
        groups = tuple(sorted({photos[path][1] for path in members}))
        clusters.append(Cluster(f"c{number:04}", tuple(sorted(members)), tuple(inside), labels, groups, reason))
    return tuple(clusters)


def _components(edges: Sequence[Edge]) -> list[tuple[set[str], list[Edge]]]:
    """Photos that the edges join, and the edges among them; in the order of the first path of each."""
    ends = [path for edge in edges for path in edge.pair]
    roots = union_groups(ends, [number // 2 for number in range(len(ends))])
    members: dict[str, set[str]] = defaultdict(set)
    inside: dict[str, list[Edge]] = defaultdict(list)
    for path, root in zip(ends, roots, strict=True):
        members[root].add(path)
    for edge, root in zip(edges, roots[::2], strict=True):
        inside[root].append(edge)
    return [(members[root], inside[root]) for root in sorted(members)]


def _labels_of(paths: Collection[str], photos: Mapping[str, tuple[str, str]]) -> tuple[str, ...]:
    return tuple(sorted({photos[path][0] for path in paths} - {""}))


def _reason_to_ask(
    paths: set[str], edges: Sequence[Edge], photos: Mapping[str, tuple[str, str]], apart: list[tuple[str, str]]
) -> str:
    """What a person has not decided yet: parts that a person joined may differ in label and be large together."""
    for one, other in apart:
        if one in paths and other in paths:
            return f"{one} and {other} are said to be not the same, but other photos link them"
    for part, _ in _components([edge for edge in edges if edge.stage != "person"]):
        if len(labels := _labels_of(part, photos)) > 1:
            return f"holds {len(labels)} labels: {', '.join(labels)}"
        if len(part) > LARGEST_CLUSTER:
            return f"holds {len(part)} photos, more than {LARGEST_CLUSTER}"
    return ""
