"""One epoch of reading training photos through the cache, and the memory that it takes.

    python benchmarks/reading.py FOLDER --photos 100000

Draws small photos, no two alike, into the folder, and passes them through the loader of `hcoatnet train` as training
would see them. Prints one line of JSON: the most memory beyond that of mapped files, in MiB, before and in the epoch.
"""

import argparse
import json
import time
from pathlib import Path

IMAGE_SIZE = 32
PER_FOLDER = 1000
DRAWN = (48, 40)
"""Width and height of the drawn photos."""


def draw_photos(folder: Path, count: int) -> tuple[list[Path], list[str]]:
    """Paths and SHA-256 of ``count`` photos of noise, drawn where they are not there yet."""
    import numpy as np
    from PIL import Image

    from hcoatnet.files import sha256_of_file

    paths = [folder / f"{number // PER_FOLDER:04}" / f"{number:07}.png" for number in range(count)]
    for number, path in enumerate(paths):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse = np.random.default_rng(number).integers(0, 256, (6, 5, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize(DRAWN).save(path, compress_level=1)
    return paths, [sha256_of_file(path) for path in paths]


def own_memory() -> float:
    """MiB that this process holds of its own: mapped files, which the system takes back when it likes, do not count."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise OSError("This system does not tell the memory of a process without mapped files.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=1000)
    given = parser.parse_args()
    import numpy as np
    import torch
    from rich.console import Console

    from hcoatnet.config import resolve_config
    from hcoatnet.data.cache import GIGABYTE, PhotoCache
    from hcoatnet.data.loading import EpochOrder, TrainingPhotos, batches, training_loader
    from hcoatnet.data.pixels import Holding, PhotoFiles, hold
    from hcoatnet.training.journal import Journal

    config = resolve_config({"protocol": "quick", "model": "test_convnext", "image_size": IMAGE_SIZE})
    paths, digests = draw_photos(given.folder / "photos", given.photos)
    before = own_memory()
    started = time.perf_counter()
    cache = PhotoCache(given.folder / f"cache-{given.photos}", GIGABYTE, Journal(Console(quiet=True)))
    sizes = np.full((given.photos, 2), DRAWN)
    held = hold(PhotoFiles(paths, digests), Holding.for_training(IMAGE_SIZE), cache, sizes)
    filled = time.perf_counter() - started
    photos = TrainingPhotos(held, [0] * given.photos, config)
    order = EpochOrder(given.photos, 0)
    most, seen = own_memory(), 0
    for number, (pixels, *_) in enumerate(batches(training_loader(photos, order, config, torch.device("cpu")))):
        seen += len(pixels)
        if number % 50 == 0:
            most = max(most, own_memory())
    facts = {"photos": seen, "before": before, "most": most, "filling_seconds": filled}
    print(json.dumps({**facts, "seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    main()
