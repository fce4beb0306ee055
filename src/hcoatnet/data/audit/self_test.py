"""The audit measures itself: how many changed copies of the user's own photos would it have found?"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hcoatnet.data.audit.cache import Cache
from hcoatnet.data.audit.changes import CHANGES
from hcoatnet.data.audit.descriptors import describe
from hcoatnet.data.audit.duplicates import HASH_BITS, Features, Masks, Prepared, confirms, prepare
from hcoatnet.data.audit.embedding import Embedding
from hcoatnet.data.audit.geometry import NEIGHBOURS, describe_all, embed_all
from hcoatnet.data.audit.hashes import hashes_of, nearest_variant
from hcoatnet.data.audit.pixels import thumbnail_of
from hcoatnet.data.audit.thumbnails import Details, compare, details_of
from hcoatnet.data.audit.verification import align, extract_local, opencv_is_installed
from hcoatnet.data.images import open_photo
from hcoatnet.data.manifest import Manifest, Progress

TestedStage = Literal["hash", "geometry", "all"]
STAGES: tuple[TestedStage, ...] = ("hash", "geometry", "all")


@dataclass(frozen=True)
class SelfTestRow:
    """How one stage did on copies with one change.

    Attributes:
        change: What was done to the photos; see `hcoatnet.data.audit.changes`.
        stage: ``hash``, ``geometry`` (by itself), or ``all`` (either of them).
        copies: Copies that were made, one a photo.
        found: Copies that the stage joined with their original.
        recall: Share of copies found.
        low: Lower end of its 95 % Wilson interval.
        high: Upper end.
        false_joins: Copies that the stage joined with a photo of another group than their original's. If one person
            stands under two names, or copies straddle groups, they count here too: it is an upper bound.
    """

    change: str
    stage: TestedStage
    copies: int
    found: int
    recall: float
    low: float
    high: float
    false_joins: int


@dataclass(frozen=True)
class SelfTest:
    """Recall and false joins of every stage on changed copies of a sample of photos.

    Attributes:
        rows: One for each change and stage.
        photos: Photos of which copies were made.
        searched: Photos among which each copy was looked for.
        neighbours: Photos that the geometric check was made with for each copy.
    """

    rows: tuple[SelfTestRow, ...]
    photos: int
    searched: int
    neighbours: int

    def table(self) -> pd.DataFrame:
        """One row a change; recall of each stage in columns, and false joins of all of them per copy."""
        frame = pd.DataFrame([asdict(row) for row in self.rows])
        table = frame.pivot(index="change", columns="stage", values="recall").reindex(
            index=list(dict.fromkeys(frame["change"])), columns=[name for name in STAGES if name in set(frame["stage"])]
        )
        whole = frame[frame["stage"] == "all"].set_index("change")
        return table.assign(copies=whole["copies"], false_joins=whole["false_joins"])

    def to_json(self) -> dict[str, Any]:
        """All of it as a JSON object."""
        return asdict(self)


def self_test(
    manifest: Manifest,
    features: Features,
    *,
    masks: Masks | None = None,
    cache: Cache | None = None,
    embedding: Embedding | None = None,
    photos: int = 200,
    seed: int = 0,
    progress: Progress | None = None,
) -> SelfTest:
    """Change a sample of the photos in each way and look for the originals of the copies among all photos.

    A copy is looked for as `find_duplicates` would if it were one of the photos, but its name tells nothing, and
    constant regions are masked in the originals only.

    Args:
        manifest: As for `find_duplicates`, like the next four.
        features: Likewise.
        masks: Likewise.
        cache: Likewise.
        embedding: Likewise.
        photos: Size of the sample; all photos if there are fewer.
        seed: Draws the sample and the changes.
        progress: Called with the copies done and all.
    """
    prepared = prepare(manifest, features, masks)
    searched = _Searched(
        prepared,
        tuple(manifest.table["group"]),
        describe_all(prepared.store, cache) if opencv_is_installed() else None,
        embed_all(prepared.store, embedding, cache) if embedding is not None else None,
        embedding,
    )
    sample = np.random.default_rng(seed).permutation(len(manifest))[:photos]
    joined: dict[tuple[str, TestedStage], list[tuple[int, set[int]]]] = {}
    for done, photo in enumerate(sample.tolist()):
        original = open_photo(prepared.store.files[photo])
        for number, (name, change) in enumerate(CHANGES.items()):
            copy = change(original, np.random.default_rng([seed, photo, number]))
            for stage, places in searched.look_for(copy).items():
                joined.setdefault((name, stage), []).append((photo, places))
            if progress is not None:
                progress(done * len(CHANGES) + number + 1, len(sample) * len(CHANGES))
    rows = [_row(name, stage, found, searched.groups) for (name, stage), found in joined.items()]
    return SelfTest(tuple(rows), len(sample), len(manifest), NEIGHBOURS)


@dataclass(frozen=True, eq=False)
class _Searched:
    """All photos, as a copy is looked for among them."""

    photos: Prepared
    groups: tuple[str, ...]
    described: NDArray[np.float16] | None
    embedded: NDArray[np.float16] | None
    embedding: Embedding | None

    def look_for(self, copy: Any) -> Mapping[TestedStage, set[int]]:
        """Photos that each stage joins the copy with."""
        thumbnail = thumbnail_of(copy)[None]
        near = np.flatnonzero(nearest_variant(hashes_of(thumbnail), self.photos.hashes).min(axis=1) <= HASH_BITS)
        by_hash = set(near[self._thumbnails_confirm(thumbnail, near)].tolist())
        if self.described is None:
            return {"hash": by_hash, "all": by_hash}
        local = extract_local(copy)
        proposed = _nearest(describe(local), self.described)
        if self.embedding is not None and self.embedded is not None:
            proposed |= _nearest(self.embedding.describe(copy), self.embedded)
        proposed |= set(near.tolist())
        by_geometry = {photo for photo in proposed if align(self.photos.store[photo], local).is_copy}
        return {"hash": by_hash, "geometry": by_geometry, "all": by_hash | by_geometry}

    def _thumbnails_confirm(self, thumbnail: NDArray[np.uint8], near: NDArray[np.intp]) -> NDArray[np.bool_]:
        own, theirs = details_of(thumbnail), self.photos.details
        near_details = Details(
            np.concatenate([own.values, theirs.values[near]]),
            None if theirs.weights is None else np.concatenate([np.ones_like(own.values), theirs.weights[near]]),
            np.concatenate([own.flat, theirs.flat[near]]),
        )
        pairs = np.stack([np.zeros(len(near), np.int64), np.arange(1, len(near) + 1)], axis=1)
        shown = ~near_details.flat[1:] & ~own.flat
        return confirms(*compare(near_details, pairs)) & shown


def _nearest(described: NDArray[np.float16], others: NDArray[np.float16]) -> set[int]:
    cosine = others.astype(np.float32) @ described.astype(np.float32)
    return set(np.argsort(-cosine, kind="stable")[:NEIGHBOURS].tolist())


def _row(change: str, stage: TestedStage, found: Sequence[tuple[int, set[int]]], groups: Sequence[str]) -> SelfTestRow:
    from scipy.stats import binomtest

    hits = sum(photo in places for photo, places in found)
    wrong = sum(any(groups[place] != groups[photo] for place in places) for photo, places in found)
    interval = binomtest(hits, len(found)).proportion_ci(method="wilson")
    return SelfTestRow(
        change, stage, len(found), hits, hits / len(found), float(interval.low), float(interval.high), wrong
    )
