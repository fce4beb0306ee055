"""Photos for the search for duplicates."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hcoatnet.data.audit.pixels import features_of
from hcoatnet.data.images import open_photo
from hcoatnet.data.manifest import Manifest
from hcoatnet.data.synthetic import draw_synthetic


@pytest.fixture(scope="session")
def skin(tmp_path_factory: pytest.TempPathFactory) -> list[Image.Image]:
    """Forty drawn photos of forty drawn patients, 160 × 160 pixels."""
    folder = tmp_path_factory.mktemp("skin")
    manifest = draw_synthetic(folder, patients=40, photos_per_patient=1, size=160, seed=3)
    return [Image.open(folder / path).convert("RGB") for path in manifest.table["path"]][:40]


@pytest.fixture
def photo_set(tmp_path: Path):
    """A function that stores photos under their paths and gives manifest and features, as an audit reads them."""

    def make(photos: dict[str, Image.Image | bytes], labels=None, groups=None):
        import pandas as pd

        from hcoatnet.files import sha256_of_file

        for path, photo in photos.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            if isinstance(photo, bytes):
                (tmp_path / path).write_bytes(photo)
            else:
                photo.save(tmp_path / path)
        paths = sorted(photos)
        opened = [open_photo(tmp_path / path) for path in paths]
        table = pd.DataFrame(
            {
                "path": paths,
                "label": [(labels or {}).get(path, "A") for path in paths],
                "group": [(groups or {}).get(path, f"P-{path}") for path in paths],
                "sha256": [sha256_of_file(tmp_path / path) for path in paths],
                "width": [photo.width for photo in opened],
                "height": [photo.height for photo in opened],
            }
        )
        each = [features_of(photo) for photo in opened]
        return Manifest(table, tmp_path), {name: np.stack([row[name] for row in each]) for name in each[0]}

    return make
