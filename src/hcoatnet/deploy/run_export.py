"""A trained run to one ONNX file, in float32 or int8, released only where it answers as the run does."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from hcoatnet.config import TrainConfig
from hcoatnet.data.images import normalise, open_photo, resize_photo
from hcoatnet.deploy.export import ExportFacts, export_checked
from hcoatnet.deploy.parity import MOST_PHOTOS, Parity, batches
from hcoatnet.deploy.quantisation import CALIBRATION_PHOTOS, Agreement, Pixels, quantise_checked
from hcoatnet.errors import BundleError, RunError
from hcoatnet.models import registry
from hcoatnet.training.preparation import stored_data
from hcoatnet.training.run_directory import RunDirectory
from hcoatnet.training.scoring import subset_rows, trained_model


@dataclass(frozen=True)
class Exported:
    """A file that passed.

    Attributes:
        path: The file.
        parity: How close float32 comes to torch.
        agreement: How close int8 comes to float32; None in float32.
    """

    path: Path
    parity: Parity
    agreement: Agreement | None


@dataclass(frozen=True)
class _Photos:
    """Photos of one subset of a run, and the index of each one's class."""

    paths: Sequence[Path]
    labels: Sequence[int]

    def spread(self, count: int) -> Sequence[Path]:
        """At most so many of them, evenly spread over all."""
        places = np.unique(np.linspace(0, len(self.paths) - 1, count).round().astype(int))
        return [self.paths[place] for place in places]


def export_run(path: Path, out: Path, *, int8: bool = False, data: Path | None = None) -> Exported:
    """Write the best weights of a finished run as an ONNX file, or leave ``out`` as it was.

    Args:
        path: The run directory.
        out: The file, ``*.onnx``; an earlier one is replaced.
        int8: Quantise it; else the numbers are torch's own float32.
        data: Where the run's photos are now, if they have moved: their folder, or the manifest in it.

    Raises:
        RunError: The run is not finished, its files do not fit together, or its photos are not where they were.
        BundleError: It cannot be exported, or does not answer as torch does (float32) or nearly so (int8).
    """
    _check_target(out)
    run = RunDirectory(path)
    config = run.settings()
    classes = tuple(run.results()["classes"])
    config = _with_photos(config, run, data)
    model = trained_model(run, config, len(classes), torch.device("cpu"))
    validation = _photos(config, run, "val", classes)
    checked = batches(np.stack([normalise(one) for one in _pixels(validation.spread(MOST_PHOTOS), config.image_size)]))
    facts = ExportFacts(run.name, registry.resolve(config.model), classes, config.image_size)
    if not int8:
        out.parent.mkdir(parents=True, exist_ok=True)
        return Exported(out, export_checked([model], checked, out, facts), None)
    calibration = _pixels(_photos(config, run, "train", classes).spread(CALIBRATION_PHOTOS), config.image_size)
    with tempfile.TemporaryDirectory() as folder:
        exact = Path(folder) / "float32.onnx"
        parity = export_checked([model], checked, exact, facts)
        pixels = _pixels(validation.paths, config.image_size)
        out.parent.mkdir(parents=True, exist_ok=True)
        agreement = quantise_checked(exact, out, calibration, pixels, np.array(validation.labels))
    return Exported(out, parity, agreement)


def _check_target(out: Path) -> None:
    if out.suffix != ".onnx":
        raise BundleError(f"--out must name a file that ends in .onnx. Got {out} instead.")
    if out.exists() and not out.is_file():
        raise BundleError(f"{out} is no file, and is left alone. Name another with --out.")


def _with_photos(config: TrainConfig, run: RunDirectory, data: Path | None) -> TrainConfig:
    """The settings, with ``data`` where the photos are now."""
    if data is not None:
        config = replace(config, data=data)
    if config.data is None or not config.data.exists():
        raise RunError(
            f"The photos of {run.path}, on which the export is checked, are not at {config.data}. Say with --data "
            "where their folder is now."
        )
    return config


def _photos(config: TrainConfig, run: RunDirectory, subset: str, classes: tuple[str, ...]) -> _Photos:
    prepared = stored_data(config, run)
    rows = subset_rows(prepared, subset)
    folder = prepared.manifest.folder
    missing = [path for path in rows["path"] if not (folder / path).is_file()]
    if missing:
        raise RunError(
            f"{len(missing)} of {len(rows)} {subset} photos of {run.path} are not in {folder}, such as {missing[0]}. "
            "Say with --data where their folder is now."
        )
    return _Photos([folder / path for path in rows["path"]], [classes.index(label) for label in rows["label"]])


def _pixels(paths: Sequence[Path], size: int) -> Pixels:
    return np.stack([resize_photo(open_photo(path), size) for path in paths])
