"""The second stage: photos described, likely pairs proposed, and each pair laid over the other. Results are kept."""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hcoatnet.data.audit.cache import Cache
from hcoatnet.data.audit.descriptors import DESCRIPTOR_VERSION, describe
from hcoatnet.data.audit.embedding import Embedding
from hcoatnet.data.audit.verification import VERIFICATION_VERSION, Alignment, LocalFeatures, align, extract_local
from hcoatnet.data.images import open_photo
from hcoatnet.data.manifest import Progress
from hcoatnet.files import sha256_of_bytes

NEIGHBOURS = 6
"""Photos laid over each photo: those nearest to it by descriptor."""

MOST_KEPT = 10_000
"""Photos whose local features stay in memory, about 40 kB each."""

_DESCRIPTORS = f"descriptor-{DESCRIPTOR_VERSION}-{VERIFICATION_VERSION}"
_PAIRS = f"pair-{VERIFICATION_VERSION}"
_FIELDS = ("inliers", "share", "spread", "overlap", "correlation", "agreeing")

Item = TypeVar("Item")
Result = TypeVar("Result")


class LocalStore:
    """Local features of photos: extracted when first asked for, kept while there is room. Safe under several threads.

    Attributes:
        files: The photos' files.
        keys: What each is known by in the cache: the hash of its bytes, and of its mask where it has one.
    """

    def __init__(
        self,
        files: Sequence[Path],
        sha256: Sequence[str],
        masks: Sequence[NDArray[np.bool_] | None],
        most: int = MOST_KEPT,
    ) -> None:
        self.files = files
        self.keys = [_key(digest, mask) for digest, mask in zip(sha256, masks, strict=True)]
        self._masks = masks
        self._most = most
        self._kept: OrderedDict[int, LocalFeatures] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, photo: int) -> LocalFeatures:
        with self._lock:
            if photo in self._kept:
                self._kept.move_to_end(photo)
                return self._kept[photo]
        local = extract_local(open_photo(self.files[photo]), self._masks[photo])
        with self._lock:
            self._kept[photo] = local
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return local


def describe_all(store: LocalStore, cache: Cache | None, progress: Progress | None = None) -> NDArray[np.float16]:
    """Descriptors of all photos, (n, 1024)."""
    return _described(store, _DESCRIPTORS, lambda photo: describe(store[photo]), cache, progress)


def embed_all(
    store: LocalStore, embedding: Embedding, cache: Cache | None, progress: Progress | None = None
) -> NDArray[np.float16]:
    """Features of all photos from a network, (n, d)."""
    kind = f"embedding-{embedding.fingerprint}"
    return _described(store, kind, lambda photo: embedding.describe(open_photo(store.files[photo])), cache, progress)


def align_pairs(
    store: LocalStore, pairs: NDArray[np.int64], cache: Cache | None, progress: Progress | None = None
) -> list[Alignment]:
    """Lay the photos of each pair (m, 2) over each other; the one with the lower key below, whatever the order."""
    ordered = [sorted((int(one), int(other)), key=lambda photo: store.keys[photo]) for one, other in pairs]
    keys = [sha256_of_bytes(f"{store.keys[one]} {store.keys[other]}".encode()) for one, other in ordered]
    known = cache.load(_PAIRS, keys) if cache else {}
    new: dict[str, dict[str, NDArray[Any]]] = {}
    found = []

    def one_pair(number: int) -> Alignment:
        if keys[number] in known:
            return _alignment(known[keys[number]])
        one, other = ordered[number]
        return align(store[one], store[other])

    with _kept_at_end(cache, _PAIRS, new):
        for number, alignment in enumerate(_in_threads(one_pair, range(len(keys)))):
            found.append(alignment)
            if keys[number] not in known:
                new[keys[number]] = {"values": np.array([getattr(alignment, name) for name in _FIELDS])}
            if progress is not None:
                progress(number + 1, len(keys))
    return found


def _described(
    store: LocalStore,
    kind: str,
    describe_one: Callable[[int], NDArray[np.float16]],
    cache: Cache | None,
    progress: Progress | None,
) -> NDArray[np.float16]:
    known = cache.load(kind, store.keys) if cache else {}
    new: dict[str, dict[str, NDArray[Any]]] = {}
    rows = []

    def one_photo(photo: int) -> NDArray[np.float16]:
        there = known.get(store.keys[photo])
        return describe_one(photo) if there is None else there["values"]

    with _kept_at_end(cache, kind, new):
        for photo, row in enumerate(_in_threads(one_photo, range(len(store)))):
            rows.append(row)
            if store.keys[photo] not in known:
                new[store.keys[photo]] = {"values": row}
            if progress is not None:
                progress(photo + 1, len(store))
    return np.stack(rows)


@contextmanager
def _kept_at_end(cache: Cache | None, kind: str, rows: Mapping[str, Mapping[str, NDArray[Any]]]) -> Iterator[None]:
    """Store what was computed, also after an interrupt, so that it is not computed again."""
    try:
        yield
    finally:
        if cache:
            cache.store(kind, rows)


def _in_threads(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
    try:
        yield from pool.map(work, items)
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt does not wait for what is still queued


def _alignment(row: Mapping[str, NDArray[Any]]) -> Alignment:
    inliers, *rest = row["values"].tolist()
    return Alignment(int(inliers), *rest)


def _key(sha256: str, mask: NDArray[np.bool_] | None) -> str:
    return sha256 if mask is None or not mask.any() else sha256_of_bytes(sha256.encode() + np.packbits(mask).tobytes())
