"""Speed of the audit's first stage: files, hashes and all pairs, against imagehash over all pairs and cleanvision.

    python benchmarks/audit_speed.py                     # 10,000 drawn photos of 200 × 150, and 100,000 hashes
    python benchmarks/audit_speed.py --geometry 1000     # also the second stage, on so many photos

Prints wall and processor time (all threads) and the largest memory of the process. On a machine that other programs use
too, compare processor times and the ratios. imagehash is timed on a few hundred photos; its time for all of them is
extrapolated: linear in photos for hashing, linear in pairs for comparing. cleanvision, where it is installed, looks at
all photos; it reports equal hashes of one orientation only, which needs no pairs.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
from machine import machine_facts
from PIL import Image

from hcoatnet.data.audit.cache import Cache
from hcoatnet.data.audit.duplicates import HASH_BITS, find_duplicates
from hcoatnet.data.audit.hashes import hashes_of, near_pairs
from hcoatnet.data.audit.reading import Collection, list_photos, read_photos
from hcoatnet.data.audit.thumbnails import compare, details_of
from hcoatnet.data.manifest import Manifest
from hcoatnet.files import write_json

SIZE = (200, 150)


@dataclass
class Clock:
    """Seconds of one measured part."""

    wall: float = 0.0
    processor: float = 0.0


@contextmanager
def timed(name: str) -> Iterator[Clock]:
    clock = Clock(-time.perf_counter(), -time.process_time())
    yield clock
    clock.wall += time.perf_counter()
    clock.processor += time.process_time()
    print(f"{name:<58} {clock.wall:9.2f} s wall {clock.processor:9.2f} s processor", flush=True)


def draw_photos(folder: Path, count: int) -> None:
    """Noise with the spectrum of natural pictures, each its own, in two classes; stored as JPEG."""
    draws = np.random.default_rng(0)
    width, height = SIZE
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = np.inf
    for number in range(count):
        spectrum = np.fft.rfft2(draws.normal(size=(3, height, width))) / frequency**1.3
        pixels = np.fft.irfft2(spectrum, s=(height, width))
        pixels = 128 + 40 * pixels / pixels.std()
        path = folder / "ab"[number % 2] / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8).transpose(1, 2, 0)).save(path, quality=85)


def first_stage(folder: Path, cache: Cache) -> Collection:
    collection = read_photos(list_photos(folder), cache)
    thumbnails = collection.features["thumbnail"]
    near = near_pairs(hashes_of(thumbnails), HASH_BITS)
    compare(details_of(thumbnails), near.pairs)
    return collection


def time_imagehash(folder: Path, sample: int, count: int) -> float:
    """Seconds that `count` photos would take: 64-bit pHash of each, one orientation only, every pair subtracted."""
    paths = sorted(folder.rglob("*.jpg"))[:sample]
    with timed(f"imagehash: hashes of {len(paths):,} photos") as hashing:
        found = [imagehash.phash(Image.open(path)) for path in paths]
    with timed(f"imagehash: {len(paths) * (len(paths) - 1) // 2:,} pairs") as comparing:
        sum(one - other <= HASH_BITS for one, other in combinations(found, 2))
    pairs = count * (count - 1) / (len(paths) * (len(paths) - 1))
    return hashing.processor * count / len(paths) + comparing.processor * pairs


def time_cleanvision(folder: Path) -> float | None:
    """Seconds of cleanvision's search for exact and near duplicates, in one process; None where it is not installed."""
    try:
        from cleanvision import Imagelab
    except ImportError:
        print("cleanvision is not installed; left out")
        return None
    lab = Imagelab(data_path=str(folder))
    with timed("cleanvision: exact and near duplicates") as clock:
        lab.find_issues({"exact_duplicates": {}, "near_duplicates": {}}, n_jobs=1, verbose=False)
    return clock.processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=10_000)
    parser.add_argument("--hashes", type=int, default=100_000)
    parser.add_argument("--imagehash", type=int, default=400, help="photos that imagehash is timed on")
    parser.add_argument("--geometry", type=int, default=0, help="photos for the second stage")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    chosen = parser.parse_args()
    found: dict[str, Any] = {"photos": chosen.photos, "hashes": chosen.hashes, "machine": machine_facts(threads=1)}
    with tempfile.TemporaryDirectory() as name:
        folder, cache = Path(name) / "photos", Cache(Path(name) / "cache")
        draw_photos(folder, chosen.photos)
        with timed(f"files, hashes and all pairs of {chosen.photos:,} photos") as first:
            collection = first_stage(folder, cache)
        with timed("the same again, from the cache") as again:
            first_stage(folder, cache)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{'largest memory so far':<58} {memory:9.0f} MiB")
        found |= {"first_stage": asdict(first), "from_the_cache": asdict(again), "memory_mebibytes": memory}
        theirs = time_imagehash(folder, chosen.imagehash, chosen.photos)
        print(
            f"imagehash, {chosen.photos:,} photos: {theirs:,.0f} s processor, extrapolated; one of eight orientations"
        )
        print(f"ratio of processor times: {theirs / first.processor:.1f}")
        found |= {"imagehash_photos": chosen.imagehash, "imagehash_to_ours": theirs / first.processor}
        if (cleanvision := time_cleanvision(folder)) is not None:
            print(f"ratio of processor times to cleanvision: {cleanvision / first.processor:.1f}")
        if chosen.geometry:
            part = Manifest(collection.manifest.table.head(chosen.geometry), collection.manifest.folder)
            features = {key: rows[: chosen.geometry] for key, rows in collection.features.items()}
            with timed(f"both stages of {chosen.geometry:,} photos, nothing cached") as second:
                find_duplicates(part, features, cache=cache)
            found |= {"second_stage_photos": chosen.geometry, "second_stage": asdict(second)}
            with timed("the same again, from the cache"):
                find_duplicates(part, features, cache=cache)
    random = np.random.default_rng(1).integers(0, 1 << 63, (chosen.hashes, 8), dtype=np.uint64)
    with timed(f"all pairs of {chosen.hashes:,} hashes in eight variants") as pairs:
        near_pairs(random, HASH_BITS)
    if chosen.out:
        write_json(chosen.out, {**found, "all_pairs_of_hashes": asdict(pairs)})


if __name__ == "__main__":
    main()
