"""A drawn set of skin-like textures, so that everything can be tried without a single real photo.

Nothing here is clinical. The five classes take their names from the published task because the textures borrow the
plainest words of its textbook descriptions. A score on this set says that the software runs, and how much a split by
file flatters a model; it says nothing about any disease or any patient. :mod:`hcoatnet.data.synthetic_skin` draws.
"""

import shutil
from pathlib import Path
from uuid import uuid4

import numpy as np
import pandas as pd

from hcoatnet.data.manifest import MANIFEST_COLUMNS, Manifest, Progress, write_manifest
from hcoatnet.data.synthetic_skin import draw_skin, photograph
from hcoatnet.errors import ConfigError, DataError
from hcoatnet.files import sha256_of_file, write_text

CLASS_SHARES = {
    "synthetic harlequin": 32,
    "synthetic healthy": 45,
    "synthetic lamellar": 22,
    "synthetic netherton": 13,
    "synthetic vulgaris": 46,
}
"""Photos of each class in the published test set (n = 158): the shares among the synthetic patients."""

FEWEST_PATIENTS = 7
"""From this number on, the largest-remainder rule gives every class a patient."""


def draw_synthetic(
    folder: Path,
    *,
    patients: int = 120,
    photos_per_patient: int = 3,
    size: int = 128,
    seed: int = 0,
    progress: Progress | None = None,
) -> Manifest:
    """Draw a set of synthetic photos into a new folder, with its manifest and a README that says what it is.

    The bytes depend on the arguments and the versions of NumPy, SciPy and Pillow only. The set is drawn beside
    ``folder`` and moved there when it is whole.

    Args:
        folder: Where to draw; it must not exist, or be empty.
        patients: Synthetic patients. They are dealt to the classes by `CLASS_SHARES` with largest remainders.
        photos_per_patient: Mean number of photos of a patient; single patients have up to two more or fewer.
        size: Width and height of a photo, in pixels.
        seed: Of everything random.
        progress: Called after each photo.

    Returns:
        The manifest as it was written, with the extra columns ``patient_id`` (also the group) and ``source``.

    Raises:
        ConfigError: If a number is out of its range.
        DataError: If there is something in ``folder`` already.
    """
    for name, value, least in (
        ("patients", patients, FEWEST_PATIENTS),
        ("photos_per_patient", photos_per_patient, 1),
        ("size", size, 32),
        ("seed", seed, 0),
    ):
        if value < least:
            raise ConfigError(f"'{name}' of a synthetic set must be at least {least}. Got {value}.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} is there already and is not an empty folder. Name a new folder for the photos.")
    target = folder.resolve()
    unfinished = target.with_name(f".{target.name}.{uuid4().hex[:8]}.tmp")
    unfinished.mkdir(parents=True)
    try:
        table = _draw_photos(unfinished, _deal(patients, photos_per_patient, seed), size, seed, progress)
        manifest = write_manifest(Manifest(table, unfinished), unfinished / "manifest.csv")
        write_text(unfinished / "README.txt", _readme(len(table), patients, size, seed))
        if target.exists():
            target.rmdir()
        unfinished.rename(target)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return Manifest(manifest.table, folder)


def _deal(patients: int, photos_per_patient: int, seed: int) -> list[tuple[str, int]]:
    """Class and number of photos of each patient."""
    random = np.random.default_rng([seed, 0])
    quotas = np.array(list(CLASS_SHARES.values())) * patients / sum(CLASS_SHARES.values())
    counts = np.floor(quotas).astype(int)
    counts[np.argsort(counts - quotas, kind="stable")[: patients - counts.sum()]] += 1
    labels = random.permutation(np.repeat(list(CLASS_SHARES), counts))
    spread = min(2, photos_per_patient - 1)
    photos = np.resize(np.arange(photos_per_patient - spread, photos_per_patient + spread + 1), patients)
    return [(str(label), int(number)) for label, number in zip(labels, random.permutation(photos), strict=True)]


def _draw_photos(
    folder: Path, dealt: list[tuple[str, int]], size: int, seed: int, progress: Progress | None
) -> pd.DataFrame:
    total = sum(photos for _, photos in dealt)
    rows = []
    for number, (label, photos) in enumerate(dealt, start=1):
        patient = f"synthetic_p{number:03d}"
        skin = draw_skin(label, np.random.default_rng([seed, number]))
        (folder / label).mkdir(exist_ok=True)
        for take in range(1, photos + 1):
            path = f"{label}/{patient}_{take}.jpg"
            photo = photograph(skin, size, np.random.default_rng([seed, number, take]))
            photo.save(folder / path, quality=92, subsampling=0)
            sha256 = sha256_of_file(folder / path)
            rows.append((path, label, patient, sha256, size, size, patient, "synthetic"))
            if progress is not None:
                progress(len(rows), total)
    return pd.DataFrame(rows, columns=[*MANIFEST_COLUMNS, "patient_id", "source"])


def _readme(photos: int, patients: int, size: int, seed: int) -> str:
    return f"""SYNTHETIC: drawn by a computer, not photographed. No person, no patient, no disease is shown here.

{photos} drawings of {size} x {size} pixels of {patients} synthetic "patients" in five classes of skin-like texture:
thick plates with red fissures (synthetic harlequin), plain skin (synthetic healthy), large dark plates (synthetic
lamellar), curved double-edged scale (synthetic netherton), fine white scale (synthetic vulgaris).

For trying software without real photos, and for showing what a split does that separates photos of one patient.
Figures measured on them say nothing about any disease, person or clinical use; do not mix them with real photos.

manifest.csv lists them; its column source says "synthetic" throughout.
Made by `hcoatnet data synth` with seed {seed}.
"""
