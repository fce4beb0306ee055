"""A trained run over photos: predictions table, metrics, figures and report."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pandas as pd
import torch
from rich.console import Console
from torch import nn

from hcoatnet.config import Device, TrainConfig, Views
from hcoatnet.data.cache import PhotoCache
from hcoatnet.data.loading import Share, evaluation_loader
from hcoatnet.data.manifest import Manifest
from hcoatnet.data.pixels import HeldPhotos, Holding, PhotoFiles, hold
from hcoatnet.data.sources.source import load_data
from hcoatnet.data.tables import read_table
from hcoatnet.errors import ConfigError, DataError
from hcoatnet.evaluation.ledger import LEDGER_NAME, check_ledger, record_opening
from hcoatnet.evaluation.metrics import summarise
from hcoatnet.evaluation.predictions import Predictions, build_predictions, write_predictions
from hcoatnet.files import sha256_of_file, write_json
from hcoatnet.report import drawing, figures
from hcoatnet.report.html import write_evaluation_report
from hcoatnet.training.checkpoint import load_weights
from hcoatnet.training.inference import predict_logits
from hcoatnet.training.journal import Journal
from hcoatnet.training.preparation import Prepared, build_accelerator, build_cache, ledger_of, stored_data
from hcoatnet.training.run_directory import RunDirectory
from hcoatnet.training.team import Team, require_one_process


@dataclass(frozen=True)
class Evaluation:
    """What ``evaluate`` made.

    Attributes:
        folder: Where its files lie.
        predictions: The table.
        metrics: The content of metrics.json.
    """

    folder: Path
    predictions: Predictions
    metrics: Mapping[str, Any]


@dataclass(frozen=True)
class _Photos:
    """Photos to evaluate: rows of a predictions table without predictions, and what is to be said of them."""

    name: str
    rows: pd.DataFrame
    photos: HeldPhotos
    overlap: dict[str, int] | None
    notes: tuple[str, ...]


def trained_model(run: RunDirectory, config: TrainConfig, classes: int, device: torch.device) -> nn.Module:
    """The model of a run with its best weights and the views of ``config``, on ``device``, in evaluation mode."""
    from hcoatnet.models import registry
    from hcoatnet.models.views import with_views

    model = registry.create(config.model, classes, config.image_size, **cast(dict[str, Any], config.model_options))
    load_weights(model, run.weights_file)
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    return with_views(model.to(device).to(memory_format=layout).eval(), config.views)


def predict_photos(
    model: nn.Module,
    rows: pd.DataFrame,
    photos: HeldPhotos,
    config: TrainConfig,
    classes: tuple[str, ...],
    device: torch.device,
    team: Team | None = None,
) -> Predictions:
    """The predictions table of ``photos``, whose path, group, label, subset and extras stand in ``rows``."""
    loader = evaluation_loader(photos, config, device, Share() if team is None else team.share)
    return build_predictions(rows, predict_logits(model, loader, device, team), classes)


def held_photos(prepared: Prepared, rows: pd.DataFrame, holding: Holding, cache: PhotoCache | None) -> HeldPhotos:
    """The photos of ``rows``, from the cache where there is one.

    Raises:
        PhotoError: A photo cannot be read, or is not the one that the manifest lists.
    """
    listed = prepared.manifest.table.set_index("path").loc[rows["path"], ["sha256", "width", "height"]]
    files = PhotoFiles([prepared.manifest.folder / path for path in rows["path"]], listed["sha256"].tolist())
    return hold(files, holding, cache, listed[["width", "height"]].to_numpy())


def subset_rows(prepared: Prepared, subset: str) -> pd.DataFrame:
    """The photos of one subset: path, group (the split's), label, subset, and the manifest's further columns."""
    table = prepared.manifest.table.drop(columns=["group", "sha256", "width", "height"])
    chosen = prepared.split.table[prepared.split.table["subset"] == subset]
    rows = chosen.merge(table, on="path", how="left", validate="one_to_one")
    first = ["path", "group", "label", "subset"]
    return rows[first + [name for name in rows.columns if name not in first]]


def evaluate_run(
    path: Path, *, data: Path | None = None, subset: str = "test", name: str | None = None,
    views: Views | None = None, device: Device = "auto", console: Console | None = None,
) -> Evaluation:  # fmt: skip
    """Evaluate a finished run again, on its own split or on other labelled photos, into its ``evaluations/<name>/``.

    Args:
        path: The run directory.
        data: Other photos, a folder or a manifest; None for the run's own. If test photos of the run are among them,
            that is recorded in the ledger, too.
        subset: ``val`` or ``test`` of the run's own photos. Opening ``test`` is recorded in the ledger.
        name: Name of the folder to write; by default the subset's, or that of ``data``, with the views if they are not
            the run's.
        views: How the model sees the photos; None as the run says. The run stays as it is.
        device: As in training.
        console: Where to speak.

    Raises:
        RunError: The run is not finished, or its files do not fit together.
        DataError: The photos cannot be used, or have classes that the model does not know.
    """
    journal = Journal(console or Console())
    run = RunDirectory(path)
    stored = run.settings()
    config = replace(stored, device=device, views=views or stored.views)
    classes = tuple(run.results()["classes"])
    accelerator = build_accelerator(config)
    require_one_process("evaluate", accelerator)
    chosen = _own_photos(run, config, subset, journal) if data is None else _other_photos(run, config, classes, data)
    label = name or (chosen.name if config.views == stored.views else f"{chosen.name}-{config.views}")
    if label != Path(label).name or label == "..":
        raise ConfigError(f"--name must be a plain folder name. Got {label!r} instead.")
    if (data is None and subset == "test") or (chosen.overlap is not None and chosen.overlap["test_photos"]):
        record_test_opening(run, config, ledger_of(config))
    model = trained_model(run, config, len(classes), accelerator.device)
    predictions = predict_photos(model, chosen.rows, chosen.photos, config, classes, accelerator.device)
    metrics = {
        "format": 1,
        "run": run.name,
        "model": config.model,
        "init": config.init_kind,
        "data": label,
        "views": config.views,
        "overlap": chosen.overlap,
        "summary": summarise(predictions),
        "notes": list(chosen.notes),
    }
    target = run.path / "evaluations" / label
    (target / "figures").mkdir(parents=True, exist_ok=True)
    write_predictions(predictions, target / "predictions.csv")
    drawing.save(figures.confusion_matrix(predictions, label), target / "figures" / "confusion_matrix")
    write_evaluation_report(target, predictions, metrics)
    write_json(target / "metrics.json", metrics)
    for note in chosen.notes:
        journal.say(note)
    return Evaluation(target, predictions, metrics)


def record_test_opening(run: RunDirectory, config: TrainConfig, ledger: Path) -> Path:
    """Record that the run's test set is opened now; inside the run where the data's own folder is gone.

    Returns:
        The ledger that was written.
    """
    if not ledger.parent.is_dir():
        ledger = run.path / LEDGER_NAME
    check_ledger(ledger)
    record_opening(
        ledger,
        run=run.name,
        weights_sha256=sha256_of_file(run.weights_file),
        split_sha256=sha256_of_file(run.split_file),
        config_sha256=config.sha256,
        study=run.study,
    )
    return ledger


def _own_photos(run: RunDirectory, config: TrainConfig, subset: str, journal: Journal) -> _Photos:
    prepared = stored_data(config, run)
    rows = subset_rows(prepared, subset)
    photos = held_photos(prepared, rows, Holding.for_evaluation(config.image_size), build_cache(config, journal))
    return _Photos(subset, rows, photos, None, ())


def _other_photos(run: RunDirectory, config: TrainConfig, classes: tuple[str, ...], data: Path) -> _Photos:
    manifest, notes = load_data(data)
    _check_classes(manifest, classes, data)
    table = manifest.table.assign(subset="new")
    rows = table[["path", "group", "label", "subset", *manifest.extra_columns]]
    name = data.stem if data.is_file() else data.resolve().name
    files = PhotoFiles([manifest.folder / path for path in table["path"]], table["sha256"].tolist())
    photos = hold(files, Holding.for_evaluation(config.image_size), None)
    overlap = _overlap(manifest, run)
    if count := overlap["test_photos"]:
        notes = (*notes, f"{count:,} of these photos are test photos of the run: its test set counts as opened.")
    return _Photos(name, rows, photos, overlap, notes)


def _check_classes(manifest: Manifest, classes: tuple[str, ...], data: Path) -> None:
    unknown = sorted(set(manifest.classes) - set(classes))
    if unknown:
        raise DataError(
            f"{data} has classes that the run does not know: {', '.join(unknown)}. It knows {', '.join(classes)}. "
            "Name the classes as in training, or leave the others out."
        )


def _overlap(manifest: Manifest, run: RunDirectory) -> dict[str, int]:
    """Photos and groups of ``manifest`` that the run was trained or chosen on, and photos that it is tested on.

    Photos are the same by their bytes, groups by their names.
    """
    stored, split = read_table(run.manifest_file), read_table(run.split_file)
    is_test = split["subset"] == "test"
    seen, test = (stored.loc[stored["path"].isin(split.loc[rows, "path"]), "sha256"] for rows in (~is_test, is_test))
    return {
        "photos": int(manifest.table["sha256"].isin(seen).sum()),
        "groups": len(set(manifest.table["group"]) & set(split.loc[~is_test, "group"])),
        "test_photos": int(manifest.table["sha256"].isin(test).sum()),
    }
