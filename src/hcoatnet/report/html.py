"""The page of one run, and that of an evaluation of a run on other photos, each made from plain files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from hcoatnet.errors import EvidenceError
from hcoatnet.evaluation.comparison import FEW, compare
from hcoatnet.evaluation.evidence import Arm, Cell
from hcoatnet.evaluation.ledger import Openings
from hcoatnet.evaluation.metrics import summarise
from hcoatnet.evaluation.predictions import Predictions, read_predictions
from hcoatnet.files import write_text
from hcoatnet.report import figures
from hcoatnet.report.card import card_of
from hcoatnet.report.checklist import checklist_of
from hcoatnet.report.comparison_tables import subgroups_table
from hcoatnet.report.data_tables import SUBSET_TITLES, count_table, subsets_table
from hcoatnet.report.examination import Examination, examine
from hcoatnet.report.facts import Subject, facts_of
from hcoatnet.report.page import Picture, Report, render
from hcoatnet.report.probability_section import Section, curve_pictures, probability_section
from hcoatnet.report.record import RunRecord, existing, openings_of
from hcoatnet.report.subset import VALIDATION_CHOSE, Subset, results_table
from hcoatnet.report.tables import Table, Value
from hcoatnet.report.words import VIEWS, counted, duration, shown, times, without_folder


@dataclass(frozen=True)
class RunTables:
    """The tables of a run's page.

    Attributes:
        results: Every metric.
        per_class: One table a subset.
        photos: Photos of each class and subset.
        subgroups: One table a column.
    """

    results: Table
    per_class: tuple[Table, ...]
    photos: Table
    subgroups: tuple[Table, ...]

    @property
    def all(self) -> tuple[Table, ...]:
        """In the order of the page."""
        return (self.results, *self.per_class, *self.subgroups, self.photos)


def write_run_report(run: Path, metrics: Mapping[str, Any]) -> Path:
    """Write ``report.html`` into a run directory, from its files and the content of its ``metrics.json``.

    Raises:
        RunError: A file that the report is made from is missing.
        PredictionsError: A predictions table of the run is not valid.
    """
    write_text(run / "report.html", run_report(RunRecord(run, metrics)).page)
    return run / "report.html"


def run_report(record: RunRecord, by: Sequence[str] = ()) -> Report:
    """The report of a run.

    Args:
        record: Its files.
        by: Metadata columns whose values become subgroups.

    Raises:
        RunError: A file that the report is made from is missing.
        PredictionsError: A predictions table of the run is not valid.
        EvidenceError: A column cannot be used for subgroups.
    """
    metrics = record.metrics
    predictions = {
        key: read_predictions(existing(record.folder / f"predictions_{key}.csv"))
        for key in ("test", "val")
        if key in metrics["subsets"]
    }
    examination, refused = _examine(record, predictions, by)
    row = examination.row(metrics["model"]) if examination is not None else None
    subsets = [
        Subset(SUBSET_TITLES[key], table, summarise(table), row if key == "test" else None)
        for key, table in predictions.items()
    ]
    section = _section(examination, record.photo_folder, subsets[0])
    tables = RunTables(
        results=results_table(subsets, examination.comparison if examination is not None else None),
        per_class=tuple(subset.per_class_table for subset in subsets),
        photos=subsets_table(record.photos, metrics["classes"]),
        subgroups=_subgroup_tables(examination),
    )
    curves = _learning_curves(record)
    openings = openings_of([record]) or _openings_at_the_end(metrics)
    examined = (examination,) if examination is not None else ()
    facts = facts_of(Subject({metrics["model"]: [record]}, examined, openings))
    card, checklist = card_of(_title(metrics), facts), checklist_of(facts)
    page = render(
        "report.html.jinja",
        {
            **_run_context(record),
            "subsets": subsets,
            "headline": _headline(subsets[0]),
            "section": section,
            "contents": _contents(section, tables, curves),
            "tables": tables,
            "curves": curves,
            "test_set": _openings("test" in metrics["subsets"], openings),
            "limits": ["This is one run on one split.", *_limits(subsets, refused)],
            "card": card,
            "checklist": checklist,
        },
    )
    confusions = (one.confusions_table for one in subsets)
    return Report(
        page=page,
        pictures=(*(one.picture for one in subsets), *section.pictures.values(), *([curves] if curves else [])),
        tables=(*tables.all, *confusions, *section.tables.values(), *section.extra_tables),
        card=card,
        checklist=checklist,
    )


def write_evaluation_report(folder: Path, predictions: Predictions, metrics: Mapping[str, Any]) -> Path:
    """Write ``report.html`` into the folder of an evaluation of one run on other photos.

    Args:
        folder: Where the page goes.
        predictions: What the run's model answered.
        metrics: Keys run, model, init, data (names), views, overlap (photos and groups of these data that the run
            trained on or was chosen by, or None), summary (of ``predictions``) and notes.
    """
    cell = Cell(metrics["run"], 0, 0, 0, predictions, predictions, (0,) * len(predictions.classes), "", "")
    refused = None
    try:
        comparison = compare([Arm(metrics["model"], metrics["init"], (cell,))])
    except EvidenceError as error:
        comparison, refused = None, str(error)
    subset = Subset("Evaluated", predictions, metrics["summary"], comparison.rows[0] if comparison else None)
    section = _section(None, folder, subset)
    tables = RunTables(
        results=results_table([subset], comparison),
        per_class=(subset.per_class_table,),
        photos=count_table({"Photos (groups)": predictions.table}, predictions.classes),
        subgroups=(),
    )
    context = {
        "kicker": "Evaluation report",
        "title": without_folder(f"{metrics['model']} · {metrics['init']} · on {metrics['data']}"),
        "facts": [f"model of run {metrics['run']}", f"it saw {VIEWS[metrics['views']]}"],
        "synthetic": all_synthetic(predictions.table),
        "warning": _overlap(metrics["overlap"]),
        "subsets": [subset],
        "headline": _headline(subset),
        "section": section,
        "contents": _contents(section, tables, None)[:-2],
        "tables": tables,
        "curves": None,
        "test_set": None,
        "limits": ["This is one trained model on one set of photos.", *_limits([subset], refused)],
        "notes": metrics["notes"],
        "settings": None,
    }
    write_text(folder / "report.html", render("report.html.jinja", context))
    return folder / "report.html"


def all_synthetic(photos: pd.DataFrame) -> bool:
    """Whether every photo was drawn by the program."""
    return "source" in photos.columns and bool((photos["source"] == "synthetic").all())


def _examine(
    record: RunRecord, predictions: Mapping[str, Predictions], by: Sequence[str]
) -> tuple[Examination | None, str | None]:
    """What the test photos say, or why nothing can be computed from them."""
    if "test" not in predictions:
        return None, None
    metrics, settings = record.metrics, record.settings
    train = record.photos.loc[record.photos["subset"] == "train", "label"].value_counts()
    cell = Cell(
        run=record.folder.resolve().name,
        seed=int(metrics.get("seed", 0)),
        repeat=int(settings.get("repeat") or 0),
        fold=int(settings.get("fold") or 0),
        val=predictions["val"],
        test=predictions["test"],
        train_counts=tuple(int(train.get(name, 0)) for name in metrics["classes"]),
        split_sha256=metrics["split_sha256"],
        config_sha256=metrics["config_sha256"],
    )
    arm = Arm(metrics["model"], metrics["init"], (cell,))
    try:
        compare([arm], replicates=100)
    except EvidenceError as error:
        return None, str(error)
    return examine([arm], by=by), None


def _section(examination: Examination | None, photos: Path, main: Subset) -> Section:
    """What is said of the probabilities: curves alone where there is nothing to fit a temperature on."""
    if examination is not None:
        return probability_section(examination, photos)
    pictures: dict[str, Picture] = {}
    if len(set(main.predictions.labels)) > 1:
        pictures = curve_pictures({"the model": main.predictions})
    return Section("", "", pictures, {}, (), (), {}, (), "")


def _title(metrics: Mapping[str, Any]) -> str:
    return without_folder(" · ".join(filter(None, (metrics[key] for key in ("model", "init", "protocol")))))


def _run_context(record: RunRecord) -> dict[str, Any]:
    """What a page says of a run before and after its results."""
    metrics = record.metrics
    return {
        "kicker": "Run report",
        "title": _title(metrics),
        "facts": [
            f"{metrics['parameters']:,} parameters",
            f"best epoch {metrics['best_epoch']} of {metrics['epochs']}",
            f"trained in {duration(metrics['training_seconds'])}",
        ],
        "synthetic": all_synthetic(record.manifest),
        "warning": None,
        "notes": metrics["notes"],
        "settings": [(name, shown(value)) for name, value in record.settings.items()],
        "environment": list(record.environment.items()),
        "hashes": [(name, metrics[f"{name}_sha256"]) for name in ("config", "manifest", "split", "weights")],
    }


def _subgroup_tables(examination: Examination | None) -> tuple[Table, ...]:
    if examination is None:
        return ()
    return tuple(subgroups_table(column, found) for column, found in examination.subgroups.items())


def _contents(section: Section, tables: RunTables, curves: Picture | None) -> list[tuple[str, str]]:
    """The places of a page that are there; the last two only where it is that of a run."""
    places = {
        "results": ("Results", True),
        "confusions": ("Confusions", True),
        "ranking": ("ROC", "roc" in section.pictures),
        "calibration": ("Calibration", "reliability" in section.pictures),
        "abstaining": ("Abstaining", "reliability" in section.pictures),
        "errors": ("Errors", bool(section.failures_of)),
        "subgroups": ("Subgroups", bool(tables.subgroups)),
        "training": ("Training", curves is not None),
        "photos": ("Photos", True),
        "limits": ("Limits", True),
        "card": ("Model card", True),
        "checklist": ("Checklist", True),
    }
    return [(place, name) for place, (name, there) in places.items() if there]


def _headline(main: Subset) -> list[tuple[str, Value, str]]:
    accuracy, balanced, macro_f1 = (main.value(key) for key in ("accuracy", "balanced_accuracy", "macro_f1"))
    return [
        ("Accuracy", accuracy, f"{main.right:,} of {counted(main.summary['n'], 'photo')}"),
        ("Most common class alone", Value(main.floor_share, "percent"), f"always naming {main.floor_class}"),
        ("Balanced accuracy", balanced, "every class counts the same"),
        ("Macro F1", macro_f1, "every class counts the same"),
    ]


def _learning_curves(record: RunRecord) -> Picture | None:
    history = record.history
    if history.empty:
        return None
    first, last = history.iloc[0], history.iloc[-1]
    monitor = record.metrics["monitor"].replace("_", " ").replace("f1", "F1")
    return Picture(
        "learning_curves",
        figures.learning_curves(history),
        f"Learning curves over {counted(len(history), 'epoch')}: training loss from {first['train_loss']:.2f} to "
        f"{last['train_loss']:.2f}, validation loss from {first['val_loss']:.2f} to {last['val_loss']:.2f}, highest "
        f"validation macro F1 {history['val_macro_f1'].max():.3f}.",
        f"Learning curves. The dotted line marks the epoch whose weights were kept, chosen by {monitor} on the "
        "validation photos. The test photos play no part in these curves.",
    )


def _openings_at_the_end(metrics: Mapping[str, Any]) -> Openings | None:
    """How often the test photos had been opened when the run ended."""
    ledger = metrics["test_ledger"]
    return Openings(ledger["openings"], ledger["configurations"]) if ledger else None


def _openings(opened: bool, openings: Openings | None) -> str:
    if not opened:
        by_others = (
            f" Other runs opened the same test photos {times(openings.openings)}."
            if openings is not None and openings.openings
            else ""
        )
        return (
            "The test set has not been opened: no figure about the model comes from it, and nothing was chosen by it."
            + by_others
        )
    if openings is None:
        return "No test ledger was found, so how often the test photos were opened is not known."
    said = (
        f"The test photos of this split have been opened {times(openings.openings)}, by "
        f"{counted(openings.configurations, 'configuration')}."
    )
    if openings.configurations == 1:
        return f"{said} No other configuration has been compared on them."
    return (
        f"{said} The more configurations are tried on the same test photos, the more the best of them owes to luck and "
        "the less it says about new patients. Choose between configurations on validation figures."
    )


def _overlap(overlap: Mapping[str, int] | None) -> str | None:
    if overlap is None or not (overlap["photos"] or overlap["groups"]):
        return None
    return (
        f"{counted(overlap['photos'], 'photo')} and {counted(overlap['groups'], 'group')} of these data are also "
        "among those that the model was trained on or chosen by. The figures on this page flatter the model: expect "
        "less on new patients."
    )


def _limits(subsets: Sequence[Subset], refused: str | None) -> list[str]:
    n = subsets[0].summary["n"]
    alone = (
        "The intervals say how far other photos of the same kind would move the figures, not how far another seed or "
        "split would."
        if subsets[0].row is not None
        else "The figures have no intervals."
    )
    limits = [
        f"{alone} Alone they do not support a claim that this model is better or worse than another: one photo of "
        f"{n:,} is {100 / n:.1f} points of accuracy.",
        "Photos from other cameras, clinics or skin types than those in this data set were not tried.",
        "The probabilities are those of the network, not calibrated, unless a figure says otherwise.",
    ]
    if refused:
        limits.append(f"Intervals and all that follows from them could not be computed. {refused}")
    few = sorted({name for subset in subsets for name in subset.classes_with_few})
    if few:
        limits.append(f"A few photos decide the figures of classes with fewer than {FEW}: {', '.join(few)}.")
    if any(subset.title == SUBSET_TITLES["val"] for subset in subsets):
        limits.append(VALIDATION_CHOSE)
    return limits
