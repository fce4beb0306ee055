"""Copies and near-copies among all photos: from equal bytes to crops that were turned, recoloured and stored again.

Stages propose pairs and confirm them. Only confirmed pairs are joined into clusters.

====================  =============================================  ===================================================
stage                 proposes                                       confirms
====================  =============================================  ===================================================
file                  equal SHA-256 of the bytes                     the same
pixels                equal SHA-256 of the pixels                    the same
hash                  perceptual hashes within 10 of 63 bits,        thumbnails that correlate in that variant
                      in one of eight flips and rotations
name                  file names that point to one source            nothing
geometry              nearest descriptors, names, and hashes that    local features that one map explains, and pixels
                      were near but did not confirm                  that correlate under this map (needs OpenCV)
person                                                               a verdict, which overrules all but equal bytes
====================  =============================================  ===================================================
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hcoatnet.data.audit.cache import Cache
from hcoatnet.data.audit.clusters import Cluster, Edge, Stage, State, Verdicts, apply_verdicts, build_clusters
from hcoatnet.data.audit.descriptors import nearest_pairs
from hcoatnet.data.audit.embedding import Embedding
from hcoatnet.data.audit.geometry import NEIGHBOURS, LocalStore, align_pairs, describe_all, embed_all
from hcoatnet.data.audit.hashes import NEIGHBOURS as MOST_NEAR_HASHES
from hcoatnet.data.audit.hashes import hashes_of, near_pairs
from hcoatnet.data.audit.names import name_pairs
from hcoatnet.data.audit.thumbnails import Details, compare, details_of, fill_masked, mask_array
from hcoatnet.data.audit.verification import opencv_is_installed
from hcoatnet.data.manifest import Manifest, Progress

HASH_BITS = 10
"""Perceptual hashes that differ in more of their 63 bits propose nothing."""

HASH_CORRELATION = 0.94
HASH_AGREEING = 0.75
"""Thumbnails that agree at least so well confirm a pair that the hash proposes."""

Masks = Mapping[str, NDArray[np.bool_]]
Features = Mapping[str, NDArray[np.uint8]]
Stages = Callable[[str], Progress]

_COLUMNS = (
    "path_a", "path_b", "stage", "score", "confirmed", "cluster", "state", "label_a", "label_b", "group_a", "group_b",
    "verdict",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Duplicates:
    """What was found.

    Attributes:
        edges: Confirmed pairs, pairs that names alone propose, and pairs that a person took apart; sorted by path.
        clusters: The confirmed pairs, joined.
        notes: Sentences for the user.
        photos: Label and group of every photo, by path.
    """

    edges: tuple[Edge, ...]
    clusters: tuple[Cluster, ...]
    notes: tuple[str, ...]
    photos: Mapping[str, tuple[str, str]]

    def table(self) -> pd.DataFrame:
        """One row a pair, confirmed ones first, in the order of their clusters."""
        home = {path: cluster for cluster in self.clusters for path in cluster.paths}
        rows = []
        for edge in self.edges:
            cluster = home[edge.path_a] if edge.confirmed else None
            (label_a, group_a), (label_b, group_b) = (self.photos[path] for path in edge.pair)
            score = "" if edge.score is None else f"{edge.score:.4f}"
            confirmed, name = ("yes", cluster.name) if cluster else ("no", "")
            state = _state(edge, cluster)
            rows.append((*edge.pair, edge.stage, score, confirmed, name, state, label_a, label_b, group_a, group_b, ""))
        table = pd.DataFrame(rows, columns=list(_COLUMNS), dtype=str)
        return table.sort_values(["confirmed", "cluster", "path_a", "path_b"], ascending=[False, True, True, True])

    def to_csv(self) -> str:
        """The text of duplicates.csv."""
        return self.table().to_csv(index=False, lineterminator="\n")

    def to_json(self) -> dict[str, Any]:
        """Counts and clusters as a JSON object."""
        return {
            "pairs": dict(sorted(Counter(edge.stage for edge in self.edges if edge.confirmed).items())),
            "photos": sum(len(cluster.paths) for cluster in self.clusters),
            "clusters": [{**asdict(cluster), "merged": cluster.merged} for cluster in self.clusters],
            "notes": list(self.notes),
        }


def find_duplicates(
    manifest: Manifest,
    features: Features,
    *,
    masks: Masks | None = None,
    verdicts: Verdicts | None = None,
    cache: Cache | None = None,
    embedding: Embedding | None = None,
    progress: Stages | None = None,
) -> Duplicates:
    """Search all pairs of photos for copies.

    Args:
        manifest: The photos, all of which can be opened.
        features: ``pixel_sha256`` (n, 32) and ``thumbnail`` (n, 64, 64, 3), in the order of the manifest.
        masks: Constant regions to look away from, such as logos: by path, True in arrays (64, 64) over the whole photo.
        verdicts: What a person said of pairs; paths that are not in the manifest are ignored.
        cache: Where descriptors and compared pairs are kept from one run to the next.
        embedding: A network whose features propose further pairs.
        progress: Gives each named stage a function of what is done and all.
    """
    stage: Stages = progress or (lambda name: lambda done, total: None)
    order = np.argsort(manifest.table["path"].to_numpy(dtype=str), kind="stable")
    manifest = Manifest(manifest.table.iloc[order].reset_index(drop=True), manifest.folder)
    features = {name: rows[order] for name, rows in features.items()}
    table = manifest.table
    paths = list(table["path"])
    photos = {path: (label, group) for path, label, group in zip(paths, table["label"], table["group"], strict=True)}
    edges = equal_edges(paths, list(table["sha256"]), "file")
    pixels = [row.tobytes() for row in features["pixel_sha256"]]
    edges += equal_edges(paths, pixels, "pixels")
    first = first_of_each(pixels)
    distinct = np.unique(first)
    prepared = prepare(manifest, features, masks, distinct)
    near, notes = _hash_stage(prepared, stage("comparing hashes"))
    edges += near.edges
    hinted = _as_places(name_pairs(paths, list(table["label"])), first, distinct)
    found = near
    if opencv_is_installed():
        found = _geometry_stage(prepared, near, hinted, cache, embedding, stage)
        edges += found.edges
    else:
        notes.append(
            "OpenCV is not installed, so crops and small rotations were not looked for. Install hcoatnet[audit]."
        )
    edges += [Edge(*prepared.pair_of(pair), "name", found.scores.get(pair), False) for pair in hinted]
    known = {pair: said for pair, said in (verdicts or {}).items() if pair[0] in photos and pair[1] in photos}
    settled = apply_verdicts(edges, known)
    clusters = build_clusters(settled, photos, known)
    if waiting := sum(not cluster.merged for cluster in clusters):
        notes.append(f"Clusters that wait for a person, so that their photos are not joined: {waiting:,}.")
    return Duplicates(settled, clusters, tuple(notes), photos)


@dataclass(frozen=True, eq=False)
class Prepared:
    """Photos with different pixels, ready to be compared. A pair is two places in these arrays, the lower first.

    Attributes:
        paths: Their paths, sorted as in the manifest.
        hashes: Perceptual hashes in all variants, (n, 8).
        details: Structure of the thumbnails.
        store: Local features.
    """

    paths: tuple[str, ...]
    hashes: NDArray[np.uint64]
    details: Details
    store: LocalStore

    def pair_of(self, places: tuple[int, int]) -> tuple[str, str]:
        """Paths of a pair, the lower first."""
        one, other = sorted(self.paths[place] for place in places)
        return one, other


@dataclass(frozen=True, eq=False)
class _Found:
    """What a stage confirmed, and the score of every pair that it looked at."""

    edges: list[Edge]
    scores: Mapping[tuple[int, int], float]


def prepare(
    manifest: Manifest, features: Features, masks: Masks | None, chosen: NDArray[np.intp] | None = None
) -> Prepared:
    """Hashes, details and a store of local features of the photos in the chosen rows, all by default."""
    rows = np.arange(len(manifest)) if chosen is None else chosen
    table = manifest.table.iloc[rows]
    paths = tuple(table["path"])
    thumbnails = features["thumbnail"][rows]
    masked = mask_array(paths, masks)
    return Prepared(
        paths,
        hashes_of(fill_masked(thumbnails, masked)),
        details_of(thumbnails, masked),
        LocalStore(
            [manifest.folder / path for path in paths],
            list(table["sha256"]),
            [(masks or {}).get(path) for path in paths],
        ),
    )


def equal_edges(paths: Sequence[str], keys: Sequence[Any], stage: Stage) -> list[Edge]:
    """An edge from the first photo with a key to each further one."""
    first = first_of_each(keys)
    pairs = ((paths[one], paths[place]) for place, one in enumerate(first) if one != place)
    return [Edge(min(pair), max(pair), stage, 1.0, True) for pair in pairs]


def first_of_each(keys: Sequence[Any]) -> NDArray[np.intp]:
    """For every place the first one with the same key."""
    places: dict[Any, int] = {}
    return np.array([places.setdefault(key, place) for place, key in enumerate(keys)], dtype=np.intp)


def confirms(correlation: NDArray[np.float64], agreeing: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether thumbnails confirm what the hash proposes; see `hcoatnet.data.audit.thumbnails.compare`."""
    return (correlation >= HASH_CORRELATION) & (agreeing >= HASH_AGREEING)


def _hash_stage(photos: Prepared, progress: Progress) -> tuple[_Found, list[str]]:
    shown = np.flatnonzero(~photos.details.flat)
    near = near_pairs(photos.hashes[shown], HASH_BITS, progress)
    pairs = shown[near.pairs]
    correlation, agreeing = compare(photos.details, pairs)
    scores = {(int(one), int(other)): float(score) for (one, other), score in zip(pairs, correlation, strict=True)}
    confirmed = pairs[confirms(correlation, agreeing)].tolist()
    edges = [Edge(*photos.pair_of((one, other)), "hash", scores[one, other], True) for one, other in confirmed]
    notes = []
    if flat := int(photos.details.flat.sum()):
        notes.append(f"Photos without any structure, which only equal pixels can join: {flat:,}.")
    if crowded := len(near.crowded):
        notes.append(
            f"Photos with more than {MOST_NEAR_HASHES} others of nearly the same hash: {crowded:,}. Only the nearest "
            "were compared; look for a frame or a logo that many photos share."
        )
    return _Found(edges, scores), notes


def _geometry_stage(
    photos: Prepared,
    near: _Found,
    hinted: Iterable[tuple[int, int]],
    cache: Cache | None,
    embedding: Embedding | None,
    stage: Stages,
) -> _Found:
    described = describe_all(photos.store, cache, stage("describing photos"))
    proposed = {tuple(pair) for pair in nearest_pairs(described, NEIGHBOURS, stage("proposing pairs")).tolist()}
    if embedding is not None:
        embedded = embed_all(photos.store, embedding, cache, stage("embedding photos"))
        proposed |= {tuple(pair) for pair in nearest_pairs(embedded, NEIGHBOURS).tolist()}
    proposed |= {*hinted, *near.scores}
    done = {edge.pair for edge in near.edges}
    pairs = sorted(pair for pair in proposed if photos.pair_of(pair) not in done)
    alignments = align_pairs(
        photos.store, np.array(pairs, dtype=np.int64).reshape(-1, 2), cache, stage("comparing pairs")
    )
    edges = [
        Edge(*photos.pair_of(pair), "geometry", alignment.correlation, True)
        for pair, alignment in zip(pairs, alignments, strict=True)
        if alignment.is_copy
    ]
    return _Found(edges, dict(zip(pairs, (alignment.correlation for alignment in alignments), strict=True)))


def _as_places(
    pairs: Iterable[tuple[int, int]], first: NDArray[np.intp], distinct: NDArray[np.intp]
) -> list[tuple[int, int]]:
    """Pairs of rows as pairs of places among the distinct photos; those with equal pixels fall away."""
    place = {int(row): number for number, row in enumerate(distinct)}
    found = {tuple(sorted((place[int(first[one])], place[int(first[other])]))) for one, other in pairs}
    return sorted((one, other) for one, other in found if one != other)


def _state(edge: Edge, cluster: Cluster | None) -> State:
    if cluster is not None:
        return cluster.state_of(edge)
    return "rejected" if edge.stage == "person" else "candidate"
