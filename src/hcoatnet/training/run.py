"""``hcoatnet train``: from settings to a finished run directory."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from rich.console import Console
from torch import nn

from hcoatnet.config import TrainConfig
from hcoatnet.data.loading import EpochOrder, TrainingPhotos, drawing_weights, evaluation_loader, training_loader
from hcoatnet.errors import HCoAtNetError, RunError
from hcoatnet.evaluation.calibration_file import calibration_of_run
from hcoatnet.evaluation.ledger import check_ledger, count_openings
from hcoatnet.evaluation.metrics import summarise
from hcoatnet.evaluation.predictions import Predictions, write_predictions
from hcoatnet.files import sha256_of_file, write_json
from hcoatnet.interruption import Terminated, sigterm_raises
from hcoatnet.report import drawing, figures
from hcoatnet.report.html import write_run_report
from hcoatnet.seeding import Purpose, derive, deterministic_algorithms, seed_everything
from hcoatnet.training.journal import Journal
from hcoatnet.training.loop import Learner, Material, fit
from hcoatnet.training.objective import Objective, class_weights
from hcoatnet.training.preparation import (
    Prepared,
    build_accelerator,
    check_unchanged,
    prepare_data,
    store_data,
    stored_data,
    with_drawn_photos,
)
from hcoatnet.training.probe import fit_probe
from hcoatnet.training.run_directory import RunDirectory
from hcoatnet.training.scoring import predict_photos, record_test_opening, subset_rows, trained_model

TITLES = {"val": "Validation photos", "test": "Test photos"}


def train(config: TrainConfig, console: Console | None = None) -> RunDirectory:
    """Train, evaluate and report one model, or continue where a run was stopped.

    Args:
        config: All settings, from :func:`hcoatnet.config.resolve_config`.
        console: Where to speak; standard output by default.

    Returns:
        The finished run directory.

    Raises:
        HCoAtNetError: A mistake in settings, data or an existing run. The last epoch's checkpoint stays.
    """
    config, drawn = with_drawn_photos(config)
    run, stored = _place(config)
    if stored is not None:
        check_unchanged(config, stored, run)
        if run.finished:
            Journal(console or Console()).say(f"{run.path} is finished already; nothing to do.")
            return run
    prepared = prepare_data(config) if stored is None else stored_data(config, run)
    if config.evaluate_test:
        check_ledger(prepared.ledger)
    accelerator = build_accelerator(config)
    model, loaded = build_model(config, len(prepared.manifest.classes))
    prepared = replace(prepared, notes=(*drawn, *prepared.notes, *loaded))
    run.path.mkdir(parents=True, exist_ok=True)
    with run.locked(), sigterm_raises(), deterministic_algorithms(config.deterministic):
        if stored is None and run.started:
            raise _holds_a_run(run)
        journal = Journal(console or Console(), run.log_file)
        if stored is None:
            store_data(prepared, config, run)
            run.begin(replace(config, out=None, resume="never"), _device_name(accelerator))
        for line in _opening_lines(config, prepared, model, accelerator):
            journal.say(line)
        try:
            material = build_material(config, prepared, accelerator.device)
            learner = Learner(model, config, accelerator, math.ceil(len(material.training) / config.accumulation))
            (fit_probe if config.probe else fit)(learner, material, run, journal)
            _finish(run, config, prepared, learner)
        except HCoAtNetError as error:
            journal.log_only(str(error))
            raise
        except (KeyboardInterrupt, Terminated):
            journal.say(f"Interrupted. Continue with: hcoatnet train --resume {run.path}")
            raise
    return run


def build_model(config: TrainConfig, classes: int) -> tuple[nn.Module, tuple[str, ...]]:
    """The model with its initial weights, drawn from the run's seed or read from a file, and notes about them."""
    from hcoatnet.models import registry

    seed_everything(derive(config.seed, Purpose.WEIGHTS))
    model = registry.create(
        config.model,
        classes,
        config.image_size,
        drop_rate=config.dropout,
        drop_path_rate=config.drop_path,
        pretrained=config.init == "pretrained",
        **cast(dict[str, Any], config.model_options),
    )
    file = config.init_file
    return model, () if file is None else registry.load_weights(model, file)


def build_material(config: TrainConfig, prepared: Prepared, device: torch.device) -> Material:
    """Loaders and loss for the training and validation photos."""
    classes = prepared.manifest.classes
    folder = prepared.manifest.folder
    train, val = (subset_rows(prepared, subset) for subset in ("train", "val"))
    labels = [classes.index(label) for label in train["label"]]
    counts = [labels.count(index) for index in range(len(classes))]
    weights = drawing_weights(labels, len(classes)) if config.sampler == "weighted" else None
    order = EpochOrder(len(labels), config.seed, weights)
    photos = TrainingPhotos([folder / path for path in train["path"]], labels, config)
    return Material(
        training=training_loader(photos, order, config, device),
        order=order,
        validation=evaluation_loader([folder / path for path in val["path"]], config, device),
        validation_labels=torch.tensor([classes.index(label) for label in val["label"]]),
        objective=Objective(class_weights(counts, config.class_weights).to(device), config.label_smoothing),
        classes=classes,
    )


def _place(config: TrainConfig) -> tuple[RunDirectory, TrainConfig | None]:
    """The run directory, and the settings stored in it where a run is to be continued."""
    if config.resume not in ("never", "auto"):
        run = RunDirectory(Path(config.resume))
        return run, run.settings()
    run = RunDirectory(config.out or Path("runs") / default_name(config))
    if not run.started:
        return run, None
    if config.resume == "never":
        raise _holds_a_run(run)
    return run, run.settings()


def _holds_a_run(run: RunDirectory) -> RunError:
    return RunError(
        f"{run.path} holds a run already. Continue it with --resume auto, or choose another directory with --out."
    )


def default_name(config: TrainConfig) -> str:
    """``<model>-<init>-s<seed>``, with the repeat and fold where a split file of folds is used."""
    name = f"{config.model}-{config.init_kind}-s{config.seed}"
    return f"{name}-r{config.repeat}-f{config.fold}" if config.repeat or config.fold else name


def _finish(run: RunDirectory, config: TrainConfig, prepared: Prepared, learner: Learner) -> None:
    """Evaluate the best weights, write tables, calibration, figures and report, and last the metrics."""
    import pandas as pd

    classes, device = prepared.manifest.classes, learner.accelerator.device
    model = trained_model(run, config, len(classes), device)
    subsets: dict[str, Any] = {}
    tables: dict[str, Predictions] = {}
    ledger = None
    run.figures.mkdir(exist_ok=True)
    for subset in ("val", "test") if config.evaluate_test else ("val",):
        if subset == "test":
            ledger = record_test_opening(run, config, prepared.ledger)
        rows = subset_rows(prepared, subset)
        predictions = predict_photos(model, rows, prepared.manifest.folder, config, classes, device)
        write_predictions(predictions, run.predictions_file(subset))
        drawing.save(figures.confusion_matrix(predictions, TITLES[subset]), run.figures / f"confusion_matrix_{subset}")
        subsets[subset] = summarise(predictions)
        tables[subset] = predictions
    write_json(run.calibration_file, calibration_of_run(tables["val"], tables.get("test")))
    drawing.save(figures.learning_curves(pd.read_csv(run.history_file)), run.figures / "learning_curves")
    openings = None if ledger is None else count_openings([ledger], {sha256_of_file(run.split_file)})
    metrics = {
        "format": 1,
        "model": config.model,
        "init": config.init_kind,
        "protocol": config.protocol,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "classes": list(classes),
        "best_epoch": max(row.epoch for row in learner.rows if row.best),
        "epochs": len(learner.rows),
        "monitor": config.monitor,
        "seed": config.seed,
        "config_sha256": config.sha256,
        "manifest_sha256": sha256_of_file(run.manifest_file),
        "split_sha256": sha256_of_file(run.split_file),
        "weights_sha256": sha256_of_file(run.weights_file),
        "training_seconds": round(sum(row.seconds for row in learner.rows), 1),
        "subsets": subsets,
        "test_ledger": openings and {"openings": openings.openings, "configurations": openings.configurations},
        "notes": list(prepared.notes),
    }
    write_run_report(run.path, metrics)
    write_json(run.metrics_file, metrics)


def _opening_lines(config: TrainConfig, prepared: Prepared, model: nn.Module, accelerator: Accelerator) -> list[str]:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return [
        *prepared.notes,
        *prepared.proof.lines(),
        f"{config.model} ({config.init_kind}), {parameters:,} parameters, {config.image_size}² pixels, protocol "
        f"{config.protocol}, on {_device_name(accelerator)}.",
    ]


def _device_name(accelerator: Accelerator) -> str:
    if accelerator.device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(accelerator.device)})"
    return str(accelerator.device.type)
