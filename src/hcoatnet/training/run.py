"""``hcoatnet train``: from settings to a finished run directory."""

import math
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from rich.console import Console
from torch import nn

from hcoatnet.config import TrainConfig
from hcoatnet.data.augmentation import Finish
from hcoatnet.data.cache import PhotoCache
from hcoatnet.data.loading import EpochOrder, TrainingPhotos, drawing_weights, evaluation_loader, training_loader
from hcoatnet.data.pixels import Holding
from hcoatnet.data.progressive import training_sides
from hcoatnet.errors import HCoAtNetError, RunError, TrainingError
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
    build_cache,
    check_unchanged,
    prepare_data,
    store_data,
    stored_data,
    with_drawn_photos,
)
from hcoatnet.training.probe import fit_probe
from hcoatnet.training.run_directory import RunDirectory
from hcoatnet.training.scoring import (
    held_photos,
    predict_photos,
    record_test_opening,
    subset_rows,
    trained_model,
)
from hcoatnet.training.team import ENDED_ELSEWHERE, Team, require_one_process

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
    accelerator = build_accelerator(config)
    team = Team(accelerator)
    if config.probe:
        require_one_process("--probe", accelerator)
    if config.frozen_epochs:
        require_one_process("--frozen-epochs", accelerator)
    console = (console or Console()) if team.leads else Console(quiet=True)
    start = team.first(lambda: _prepare(config, console))
    if start.prepared is None:
        return start.run
    model, loaded = build_model(start.config, len(start.prepared.manifest.classes))
    prepared = replace(start.prepared, notes=(*start.prepared.notes, *loaded))
    with ExitStack() as stack:
        stack.enter_context(sigterm_raises())
        stack.enter_context(deterministic_algorithms(config.deterministic))
        team.first(lambda: _claim(start, stack))
        journal = Journal(console, start.run.log_file if team.leads else None)
        try:
            with team.together():
                if team.leads:
                    _begin(start, prepared, model, accelerator, journal)
                _work(start.config, prepared, start.run, model, accelerator, journal)
                team.wait()  # the run is finished when the leading process has written its last file
        except HCoAtNetError as error:
            journal.log_only(str(error))
            if isinstance(error, TrainingError) and not team.leads:  # the leading process has met and told it, too
                raise SystemExit(ENDED_ELSEWHERE) from None
            raise
        except (KeyboardInterrupt, Terminated):
            journal.say(f"Interrupted. Continue with: hcoatnet train --resume {start.run.path}")
            raise
    return start.run


@dataclass(frozen=True)
class _Start:
    """What is settled before anything is computed.

    Attributes:
        config: The settings, with the drawn set where it is asked for.
        run: The run directory.
        continues: Whether a run was begun there.
        prepared: The data; None where the run is finished.
    """

    config: TrainConfig
    run: RunDirectory
    continues: bool
    prepared: Prepared | None


def _prepare(config: TrainConfig, console: Console) -> _Start:
    config, drawn = with_drawn_photos(config)
    run, stored = _place(config)
    if stored is not None:
        check_unchanged(config, stored, run)
        if run.finished:
            Journal(console).say(f"{run.path} is finished already; nothing to do.")
            return _Start(config, run, True, None)
    prepared = prepare_data(config) if stored is None else stored_data(config, run)
    if config.evaluate_test:
        check_ledger(prepared.ledger)
    prepared = replace(prepared, notes=(*drawn, *prepared.notes))
    return _Start(config, run, stored is not None, prepared)


def _claim(start: _Start, stack: ExitStack) -> None:
    """Keep every other training out of the run directory while ``stack`` lasts."""
    start.run.path.mkdir(parents=True, exist_ok=True)
    stack.enter_context(start.run.locked())
    if not start.continues and start.run.started:
        raise _holds_a_run(start.run)


def _begin(start: _Start, prepared: Prepared, model: nn.Module, accelerator: Accelerator, journal: Journal) -> None:
    if not start.continues:
        store_data(prepared, start.config, start.run)
        start.run.begin(
            replace(start.config, out=None, resume="never"), _device_name(accelerator), _precision(accelerator)
        )
    for line in _opening_lines(start.config, prepared, model, accelerator):
        journal.say(line)


def _work(
    config: TrainConfig,
    prepared: Prepared,
    run: RunDirectory,
    model: nn.Module,
    accelerator: Accelerator,
    journal: Journal,
) -> None:
    cache = build_cache(config, journal)
    material = build_material(config, prepared, accelerator, cache)
    steps = math.ceil(len(material.training) / config.accumulation)
    learner = Learner(model, config, accelerator, steps, _random_start(model, config))
    (fit_probe if config.probe else fit)(learner, material, run, journal)
    _finish(run, config, prepared, learner, cache)


def _random_start(model: nn.Module, config: TrainConfig) -> frozenset[str]:
    """Names of the parameters that start random, where a setting treats the others apart."""
    from hcoatnet.models import registry

    apart = config.frozen_epochs > 0 or config.layer_decay < 1
    return registry.random_parameters(model, config.init_file) if apart else frozenset()


def build_model(config: TrainConfig, classes: int) -> tuple[nn.Module, tuple[str, ...]]:
    """The model with its initial weights, drawn from the run's seed or read from a file, and notes about them."""
    from hcoatnet.models import registry
    from hcoatnet.models.initialisation import scale_to_inputs

    options = cast(dict[str, Any], config.model_options)
    if config.start_size:
        sizes = training_sides(config)
        registry.require_sizes(config.model, config.image_size, sizes, num_classes=classes, **options)
    seed_everything(derive(config.seed, Purpose.WEIGHTS))
    model = registry.create(
        config.model,
        classes,
        config.image_size,
        drop_rate=config.dropout,
        drop_path_rate=config.drop_path,
        pretrained=config.init == "pretrained",
        **options,
    )
    file = config.init_file
    if config.initialisation == "fan_in":
        scratch = config.init_kind == "scratch"
        scale_to_inputs(model, None if scratch else registry.random_parameters(model, file))
    return model, () if file is None else registry.load_weights(model, file)


def build_material(
    config: TrainConfig, prepared: Prepared, accelerator: Accelerator, cache: PhotoCache | None = None
) -> Material:
    """Loaders and loss for the training and validation photos."""
    classes, device, share = prepared.manifest.classes, accelerator.device, Team(accelerator).share
    train, val = (subset_rows(prepared, subset) for subset in ("train", "val"))
    labels = [classes.index(label) for label in train["label"]]
    counts = [labels.count(index) for index in range(len(classes))]
    weights = drawing_weights(labels, len(classes)) if config.sampler == "weighted" else None
    order = EpochOrder(len(labels), config.seed, weights)
    photos = held_photos(prepared, train, Holding.for_training(config.image_size), None if config.probe else cache)
    held_out = held_photos(prepared, val, Holding.for_evaluation(config.image_size), cache)
    return Material(
        training=training_loader(TrainingPhotos(photos, labels, config), order, config, device, share),
        order=order,
        finish=Finish(config, device),
        validation=evaluation_loader(held_out, config, device, share),
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


def _finish(
    run: RunDirectory, config: TrainConfig, prepared: Prepared, learner: Learner, cache: PhotoCache | None
) -> None:
    """Evaluate the best weights, write tables, calibration, figures and report, and last the metrics."""
    import pandas as pd

    classes, team = prepared.manifest.classes, learner.team
    team.wait()  # for the best weights to be written
    model = trained_model(run, config, len(classes), team.device)
    subsets: dict[str, Any] = {}
    tables: dict[str, Predictions] = {}
    ledger = None
    for subset in ("val", "test") if config.evaluate_test else ("val",):
        if subset == "test":
            ledger = team.first(lambda: record_test_opening(run, config, prepared.ledger))
        rows = subset_rows(prepared, subset)
        photos = held_photos(prepared, rows, Holding.for_evaluation(config.image_size), cache)
        tables[subset] = predict_photos(model, rows, photos, config, classes, team.device, team)
    if not team.leads:
        return
    run.figures.mkdir(exist_ok=True)
    for subset, predictions in tables.items():
        write_predictions(predictions, run.predictions_file(subset))
        drawing.save(figures.confusion_matrix(predictions, TITLES[subset]), run.figures / f"confusion_matrix_{subset}")
        subsets[subset] = summarise(predictions)
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
        f"{config.protocol}, on {_device_name(accelerator)} in {_precision(accelerator)}.",
    ]


def _device_name(accelerator: Accelerator) -> str:
    name = str(accelerator.device.type)
    if name == "cuda":
        name = f"cuda ({torch.cuda.get_device_name(accelerator.device)})"
    return name if accelerator.num_processes == 1 else f"{accelerator.num_processes} × {name}"


def _precision(accelerator: Accelerator) -> str:
    return "fp32" if accelerator.mixed_precision == "no" else str(accelerator.mixed_precision)
