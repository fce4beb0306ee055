"""``hcoatnet demo``: everything once, in minutes, on drawn photos, and what leakage does to a score.

Few patients with many photos each, as rare diseases have: there a split by file flatters most. It is shown on the
baseline, which learns the drawn textures in the fewest steps.
"""

import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from hcoatnet.config import resolve_config
from hcoatnet.data.cache import CACHE_NAME
from hcoatnet.data.manifest import Manifest, read_manifest, write_manifest
from hcoatnet.data.synthetic import draw_synthetic
from hcoatnet.errors import ConfigError
from hcoatnet.evaluation.ledger import LEDGER_NAME
from hcoatnet.files import write_json
from hcoatnet.report.demonstration import Trained, write_demo_page
from hcoatnet.training.run import train

MARKER = "demo.json"
PATIENTS = 40
PHOTOS_PER_PATIENT = 8
PHOTO_SIZE = 96
MODEL = "h_coatnet_atto"
BASELINE = "cnn"
BY_PATIENT, BY_FILE = "by-patient-", "by-file-"
UNGROUPED = "every_photo_its_own_group.csv"


@dataclass(frozen=True)
class DemoScale:
    """How much the demonstration does; the tests do less.

    Attributes:
        patients: Synthetic patients.
        photos_per_patient: Photos of each, on average.
        settings: Settings of every training, over the ``quick`` protocol.
    """

    patients: int
    photos_per_patient: int
    settings: dict[str, Any]


FULL = DemoScale(PATIENTS, PHOTOS_PER_PATIENT, {"image_size": 64, "epochs": 18})


def run_demo(folder: Path, console: Console, scale: DemoScale = FULL) -> Path:
    """Draw photos, train two models on a split by patient and the baseline on a split by file too, and compare.

    Args:
        folder: Where everything goes. An earlier demonstration there is replaced; anything else is left alone.
        console: Where to speak.
        scale: How much to do.

    Returns:
        The page that shows it all.

    Raises:
        ConfigError: The folder holds something that is no demonstration.
    """
    _clear(folder)
    write_json(folder / MARKER, asdict(scale))
    console.print("Drawing synthetic photos. They say nothing about patients.", highlight=False)
    photos = folder / "photos"
    draw_synthetic(photos, patients=scale.patients, photos_per_patient=scale.photos_per_patient, size=PHOTO_SIZE)
    by_patient = photos / "manifest.csv"
    by_file = folder / UNGROUPED
    write_manifest(_every_photo_its_own_group(read_manifest(by_patient)), by_file)
    proposed = _train(console, folder, BY_PATIENT + MODEL, MODEL, by_patient, scale)
    honest = _train(console, folder, BY_PATIENT + BASELINE, BASELINE, by_patient, scale)
    leaky = _train(console, folder, BY_FILE + BASELINE, BASELINE, by_file, scale)
    page = write_demo_page(folder, read_manifest(by_patient), proposed, honest, leaky)
    for line in leakage_lines(honest, leaky):
        console.print(line, highlight=False, soft_wrap=True)
    return page


def leakage_lines(honest: Trained, leaky: Trained) -> tuple[str, ...]:
    """What the two splits say about the same model, for a terminal."""
    return (
        f"The same model ({honest.model}), the same photos, two splits:",
        f"  split by patient   macro F1 {honest.macro_f1:.3f} on {honest.photos} test photos",
        f"  split by file      macro F1 {leaky.macro_f1:.3f} on {leaky.photos} test photos, {leaky.seen_patients} of "
        "them of patients seen in training",
    )


def _clear(folder: Path) -> None:
    """Make room, at the cost of an earlier demonstration alone."""
    runs = [f"runs/{name}" for name in (BY_PATIENT + MODEL, BY_PATIENT + BASELINE, BY_FILE + BASELINE)]
    own = [MARKER, "photos", *runs, UNGROUPED, "index.html", LEDGER_NAME, CACHE_NAME]
    if folder.exists() and (found := {one.name for one in folder.iterdir()}):
        others = sorted(found - {*own, "runs"})
        if (folder / "runs").is_dir():
            others += sorted(f"runs/{one.name}" for one in (folder / "runs").iterdir() if f"runs/{one.name}" not in own)
        if others or MARKER not in found:
            raise ConfigError(
                f"{folder} holds files that are not a demonstration's: {', '.join((others or sorted(found))[:3])}. "
                "Give another place with --folder, or move them."
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)


def _every_photo_its_own_group(manifest: Manifest) -> Manifest:
    """What somebody has who does not know which photos show the same patient."""
    table = manifest.table.copy()
    table["group"] = table["path"]
    return replace(manifest, table=table)


def _train(console: Console, folder: Path, name: str, model: str, data: Path, scale: DemoScale) -> Trained:
    console.print(f"\n{name}", style="bold", highlight=False)
    settings = {"protocol": "quick", "model": model, "data": data, "out": folder / "runs" / name, **scale.settings}
    return Trained.of(train(resolve_config(settings), console).path)
