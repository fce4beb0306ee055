"""A trained run to one ONNX file, in float32 or int8, released only where it answers as the run does."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from hcoatnet.config import Views
from hcoatnet.data.images import normalise, open_photo, resize_photo
from hcoatnet.deploy.export import ExportFacts, export_checked
from hcoatnet.deploy.parity import MOST_PHOTOS, Parity, batches
from hcoatnet.deploy.quantisation import CALIBRATION_PHOTOS, Agreement, Pixels, quantise_checked
from hcoatnet.deploy.run_photos import run_photos
from hcoatnet.errors import BundleError
from hcoatnet.models import registry
from hcoatnet.training.run_directory import RunDirectory
from hcoatnet.training.scoring import trained_model


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


def export_run(
    path: Path, out: Path, *, int8: bool = False, views: Views | None = None, data: Path | None = None
) -> Exported:
    """Write the best weights of a finished run as an ONNX file, or leave ``out`` as it was.

    Args:
        path: The run directory.
        out: The file, ``*.onnx``; an earlier one is replaced.
        int8: Quantise it; else the numbers are torch's own float32.
        views: How it is to see a photo; None as the run says.
        data: Where the run's photos are now, if they have moved: their folder, or the manifest in it.

    Raises:
        RunError: The run is not finished, its files do not fit together, or its photos are not where they were.
        BundleError: It cannot be exported, or does not answer as torch does (float32) or nearly so (int8).
    """
    _check_target(out)
    run = RunDirectory(path)
    stored = run.settings()
    config = replace(stored, views=views or stored.views)
    size, classes = config.image_size, tuple(run.results()["classes"])
    validation = run_photos(run, "val", data)
    model = trained_model(run, config, len(classes), torch.device("cpu"))
    checked = batches(np.stack([normalise(one) for one in _pixels(validation.spread(MOST_PHOTOS), size)]))
    facts = ExportFacts(run.name, registry.resolve(config.model), classes, size)
    out.parent.mkdir(parents=True, exist_ok=True)
    if not int8:
        return Exported(out, export_checked([model], checked, out, facts), None)
    with tempfile.TemporaryDirectory() as folder:
        exact = Path(folder) / "float32.onnx"
        parity = export_checked([model], checked, exact, facts)
        calibration = _pixels(run_photos(run, "train", data).spread(CALIBRATION_PHOTOS), size)
        labels = np.array([classes.index(label) for label in validation.labels])
        agreement = quantise_checked(exact, out, calibration, _pixels(validation.paths, size), labels)
    return Exported(out, parity, agreement)


def _check_target(out: Path) -> None:
    if out.suffix != ".onnx":
        raise BundleError(f"--out must name a file that ends in .onnx. Got {out} instead.")
    if out.exists() and not out.is_file():
        raise BundleError(f"{out} is no file, and is left alone. Name another with --out.")


def _pixels(paths: Sequence[Path], size: int) -> Pixels:
    return np.stack([resize_photo(open_photo(path), size) for path in paths])
