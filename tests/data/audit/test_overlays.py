"""Overlays planted into drawn thumbnails are found with their carriers; photos without any give none."""

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from hcoatnet.data.audit.overlays import find_overlays
from hcoatnet.data.manifest import Manifest

N = 240


def drawn(n, seed=0):
    """Smooth skin-coloured pictures with a dark spot in the middle, as lesions stand there in photos."""
    rng = np.random.default_rng(seed)
    rough = ndimage.gaussian_filter(rng.normal(size=(n, 64, 64, 3)), (0, 4, 4, 0)) * 160
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    spot = np.exp(-(x**2 + y**2) * rng.uniform(2, 12, n)[:, None, None]) * rng.uniform(20, 90, n)[:, None, None]
    tone = rng.uniform(110, 220, (n, 1, 1, 1)) * np.array([1, 0.8, 0.7])
    fine = rng.normal(0, 4, (n, 64, 64, 3))
    return np.clip(tone + rough - spot[..., None] + fine, 0, 255).astype(np.uint8)


def manifest_of(n, **columns):
    table = pd.DataFrame({
        "path": [f"{number:04}.jpg" for number in range(n)],
        "label": ["red" if number % 3 == 0 else "blue" for number in range(n)],
        "group": [f"g{number:04}" for number in range(n)],
        "sha256": "0" * 64, "width": 200, "height": 150,
    })  # fmt: skip
    return Manifest(table.assign(**columns), None)


def logo(thumbnails):
    thumbnails[:, 52:60, 44:60] = 245
    thumbnails[:, 55:57, 46:58] = (20, 30, 140)


def watermark(thumbnails):
    pattern = np.zeros((64, 64, 1))
    pattern[30:34, 10:54:4] = 1
    thumbnails[:] = np.clip(thumbnails + 45.0 * pattern, 0, 255).astype(np.uint8)


def border(thumbnails):
    thumbnails[:, :3], thumbnails[:, -3:], thumbnails[:, :, :3], thumbnails[:, :, -3:] = 0, 0, 0, 0


def ruler(thumbnails):
    thumbnails[:, 58:62, ::3] = 10


@pytest.mark.parametrize("seed", range(3))
def test_photos_without_an_overlay_give_none(seed):
    overlays, masks = find_overlays(manifest_of(N), drawn(N, seed))
    assert (overlays, masks) == ((), {})


@pytest.mark.parametrize("plant", [logo, watermark, border, ruler])
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_an_overlay_on_one_class_is_found_with_its_carriers(plant, share):
    photos, thumbnails = manifest_of(N), drawn(N)
    red = np.flatnonzero(photos.table["label"] == "red")
    planted = red[: int(share * len(red))]
    marked = thumbnails[planted]
    plant(marked)
    changed = np.abs(marked.astype(int) - thumbnails[planted]).max(axis=(0, 3)) > 8
    thumbnails[planted] = marked
    overlays, masks = find_overlays(photos, thumbnails)
    assert len(overlays) == 1
    carriers = set(np.flatnonzero(overlays[0].carriers))
    assert len(carriers & set(planted)) >= 0.9 * len(planted)
    assert len(carriers - set(planted)) <= 0.05 * len(planted)
    assert overlays[0].goes_with("label")
    assert overlays[0].by["label"]["red"][1] == len(red)
    assert overlays[0].p["label"] < 1e-6
    assert set(masks) == set(photos.table["path"][sorted(carriers)])
    mask = next(iter(masks.values()))
    assert mask[changed].mean() > 0.7
    assert mask[~ndimage.binary_dilation(changed, iterations=5)].mean() < 0.02


def test_an_overlay_on_all_photos_goes_with_no_class():
    thumbnails = drawn(N)
    logo(thumbnails)
    (overlay,), masks = find_overlays(manifest_of(N), thumbnails)
    assert overlay.found_in == "all photos"
    assert not overlay.goes_with("label")
    assert len(masks) >= 0.95 * N
    left, top, right, bottom = overlay.box
    assert 0.6 < left < 0.75 and 0.7 < top < 0.85 and right > 0.9 and bottom > 0.9


def test_an_overlay_of_a_source_is_told_of_that_source():
    thumbnails = drawn(N)
    sources = ["web" if number < N // 4 else "clinic" for number in range(N)]
    web = thumbnails[: N // 4]
    logo(web)
    thumbnails[: N // 4] = web
    (overlay,), _ = find_overlays(manifest_of(N, source=sources), thumbnails, ["source"])
    assert overlay.goes_with("source")
    assert not overlay.goes_with("label")
    assert overlay.by["source"]["clinic"] == (0, 3 * N // 4)


def test_many_photos_of_one_patient_are_no_overlay():
    thumbnails = drawn(N)
    thumbnails[:60] = thumbnails[0]
    groups = ["one" if number < 60 else f"g{number}" for number in range(N)]
    assert find_overlays(manifest_of(N, group=groups), thumbnails)[0] == ()


def test_few_photos_are_not_searched():
    thumbnails = drawn(15)
    logo(thumbnails)
    assert find_overlays(manifest_of(15), thumbnails) == ((), {})
