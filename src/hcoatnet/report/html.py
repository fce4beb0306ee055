"""Reports as one self-contained HTML page, made from the files of a run or of an evaluation.

A page needs no network, prints well, is readable on a phone and in the dark, and names no absolute path. Whatever comes
from a user's data (class names, notes, settings) is escaped.
"""

import base64
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

import hcoatnet
from hcoatnet.errors import RunError
from hcoatnet.evaluation.predictions import Predictions, read_predictions
from hcoatnet.files import write_text
from hcoatnet.report import drawing, figures

FEW_PHOTOS = 30
SUBSET_TITLES = {"train": "Training", "val": "Validation", "test": "Test"}
VALIDATION_CHOSE = (
    "The validation photos chose the epoch whose weights were kept, so figures on them are likely to flatter the model."
)
CURVES = ["epoch", "train_loss", "val_loss", "val_macro_f1", "val_balanced_accuracy", "learning_rate", "best"]


@dataclass(frozen=True)
class Metric:
    """A row of the table of results: its key in the summary, its name, and one plain line about it."""

    key: str
    name: str
    explanation: str


METRICS = (
    Metric("accuracy", "Accuracy", "Share of photos that were named rightly. Common classes dominate it."),
    Metric("balanced_accuracy", "Balanced accuracy", "Mean recall of the classes that have photos here."),
    Metric("macro_f1", "Macro F1", "Mean over all classes of F1, the harmonic mean of precision and recall."),
    Metric("macro_precision", "Macro precision", "Mean over all classes of precision; 0 for a class never named."),
    Metric("macro_recall", "Macro recall", "Mean over all classes of recall; 0 for a class without photos."),
    Metric("weighted_f1", "Weighted F1", "Mean of F1 weighted by photos. Common classes dominate it."),
    Metric("cohen_kappa", "Cohen’s κ", "Agreement beyond chance: 0 is chance, 1 is perfect."),
    Metric("matthews_correlation", "Matthews correlation", "True against named classes: 0 is chance, 1 is perfect."),
    Metric(
        "log_loss",
        "Log loss",
        "Mean surprise at the true class, in nats; lower is better. Equal odds for {classes} classes give {even:.3f}.",
    ),
    Metric("brier", "Brier score", "Squared error of the probabilities, summed over classes: 0 to 2, lower is better."),
    Metric(
        "expected_calibration_error",
        "Expected calibration error",
        "Mean distance of confidence from accuracy, in bins of equally many photos; lower is better.",
    ),
)


@dataclass(frozen=True)
class Subset:
    """What the page says of one predictions table; ``title`` is such as "Test"."""

    title: str
    predictions: Predictions
    summary: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Reads as in "152 test photos"."""
        return self.title.lower()

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the confusion matrix."""
        return self.predictions.classes

    @property
    def right(self) -> int:
        """Photos that were named rightly."""
        return int(np.trace(self.summary["confusion_matrix"]))

    @property
    def floor_class(self) -> str:
        """The class with most photos."""
        per_class = self.summary["per_class"]
        return max(self.classes, key=lambda name: int(per_class[name]["support"]))

    @property
    def floor_share(self) -> float:
        """Accuracy of always naming that class."""
        return float(self.summary["per_class"][self.floor_class]["support"] / self.summary["n"])

    @property
    def classes_with_few(self) -> tuple[str, ...]:
        """Classes with so few photos that they are marked."""
        return tuple(name for name, row in self.summary["per_class"].items() if row["support"] < FEW_PHOTOS)

    @property
    def summary_in_words(self) -> str:
        """A paragraph for a reader who knows no metric."""
        floor = self.summary["per_class"][self.floor_class]["support"]
        above = "" if self.right > floor else " The model does no better than that."
        chose = f" {VALIDATION_CHOSE}" if self.title == SUBSET_TITLES["val"] else ""
        photos = f"{_counted(self.summary['n'], f'{self.name} photo')} of {_counted(self.summary['groups'], 'group')}"
        return (
            f"On {photos} the model was right on {self.right:,} ({_percent(self.summary['accuracy']['value'])}). "
            f"Always naming the most common class, {self.floor_class}, would have been right on {floor:,} "
            f"({_percent(self.floor_share)}).{above}{self._best_and_worst()}{chose}"
        )

    @cached_property
    def confusion(self) -> dict[str, str]:
        """The confusion matrix as a picture."""
        wrong = np.array(self.summary["confusion_matrix"])
        np.fill_diagonal(wrong, 0)
        true, named = np.unravel_index(wrong.argmax(), wrong.shape)
        n = self.summary["n"]
        text = (
            f"Confusion matrix of {_counted(n, f'{self.name} photo')}: {self.right:,} on the diagonal, named rightly."
        )
        if wrong.any():
            most = f"{self.classes[true]} named {self.classes[named]}, {_counted(int(wrong.max()), 'photo')}"
            text += f" Most frequent confusion: {most}."
        return _picture(figures.confusion_matrix(self.predictions, f"{self.title} photos"), text)

    def _best_and_worst(self) -> str:
        per_class = self.summary["per_class"]
        found = [name for name in self.classes if per_class[name]["support"]]
        best, worst = (pick(found, key=lambda name: float(per_class[name]["recall"])) for pick in (max, min))
        if per_class[best]["recall"] == per_class[worst]["recall"]:
            return ""
        best_of, worst_of = (self._found_of(name) for name in (best, worst))
        return f" It found {best} best ({best_of}) and {worst} least ({worst_of})."

    def _found_of(self, name: str) -> str:
        index = self.classes.index(name)
        return f"{self.summary['confusion_matrix'][index][index]:,} of {self.summary['per_class'][name]['support']:,}"


def write_run_report(run: Path, metrics: Mapping[str, Any]) -> Path:
    """Write ``report.html`` into a run directory, from its files and the content of its ``metrics.json``.

    Raises:
        RunError: A file that the report is made from is missing.
        PredictionsError: A predictions table of the run is not valid.
    """
    manifest, split = (_read_table(run / name) for name in ("manifest.csv", "split.csv"))
    photos = manifest[["path", "label"]].merge(split, on="path")
    columns = {title: photos[photos["subset"] == key] for key, title in SUBSET_TITLES.items()}
    subsets = [
        Subset(SUBSET_TITLES[key], read_predictions(_existing(run / f"predictions_{key}.csv")), metrics["subsets"][key])
        for key in ("test", "val")
        if key in metrics["subsets"]
    ]
    context = {
        "kicker": "Run report",
        "title": _without_folder(" · ".join(filter(None, (metrics[key] for key in ("model", "init", "protocol"))))),
        "facts": [
            f"{metrics['parameters']:,} parameters",
            f"best epoch {metrics['best_epoch']} of {metrics['epochs']}",
            f"trained in {_duration(metrics['training_seconds'])}",
        ],
        "synthetic": _all_synthetic(manifest),
        "warning": None,
        "subsets": subsets,
        "curves": _learning_curves(_read_history(run / "history.csv")),
        "monitor": metrics["monitor"].replace("_", " ").replace("f1", "F1"),
        "data": _count_photos(columns | {"All": photos}, metrics["classes"]),
        "test_set": _openings(metrics["test_ledger"]),
        "limits": ["This is one run on one split.", *_limits(subsets)],
        "notes": metrics["notes"],
        "settings": [(name, _shown(value)) for name, value in _read_settings(run / "config.yaml").items()],
        "environment": _environment(json.loads(_existing(run / "environment.json").read_text(encoding="utf-8"))),
        "hashes": [(name, metrics[f"{name}_sha256"]) for name in ("config", "manifest", "split", "weights")],
    }
    return _write_page(run, context)


def write_evaluation_report(folder: Path, predictions: Predictions, metrics: Mapping[str, Any]) -> Path:
    """Write ``report.html`` into the folder of an evaluation of one run on other photos.

    Args:
        folder: Where the page goes.
        predictions: What the run's model answered.
        metrics: Keys run, model, init, data (names), overlap (photos and groups of these data that the run trained on
            or was chosen by, or None), summary (of ``predictions``) and notes.
    """
    subset = Subset("Evaluated", predictions, metrics["summary"])
    context = {
        "kicker": "Evaluation report",
        "title": _without_folder(f"{metrics['model']} · {metrics['init']} · on {metrics['data']}"),
        "facts": [f"model of run {metrics['run']}"],
        "synthetic": _all_synthetic(predictions.table),
        "warning": _overlap(metrics["overlap"]),
        "subsets": [subset],
        "curves": None,
        "data": _count_photos({"Photos (groups)": predictions.table}, predictions.classes),
        "test_set": None,
        "limits": ["This is one trained model on one set of photos.", *_limits([subset])],
        "notes": metrics["notes"],
        "settings": None,
    }
    return _write_page(folder, context)


def render(template: str, context: Mapping[str, Any]) -> str:
    """A page from one of the package's templates, with everything in ``context`` escaped."""
    environment = Environment(
        loader=PackageLoader("hcoatnet.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(context, version=hcoatnet.__version__)


def _write_page(folder: Path, context: Mapping[str, Any]) -> Path:
    classes = len(context["subsets"][0].classes)
    metrics = [(m, m.explanation.format(classes=classes, even=math.log(classes))) for m in METRICS]
    write_text(folder / "report.html", render("report.html.jinja", {**context, "metrics": metrics, "few": FEW_PHOTOS}))
    return folder / "report.html"


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise RunError(
            f"{path.parent} holds no {path.name}: the report is made from it. Train or evaluate the run again."
        )
    return path


def _read_table(path: Path) -> pd.DataFrame:
    return pd.read_csv(_existing(path), dtype=str, keep_default_na=False)


def _read_settings(path: Path) -> dict[str, Any]:
    settings: dict[str, Any] = yaml.safe_load(_existing(path).read_text(encoding="utf-8"))
    return settings


def _read_history(path: Path) -> pd.DataFrame:
    """The history without rows that a crash tore; of an epoch that was run again, the last row."""
    rows = pd.read_csv(_existing(path), dtype=str, on_bad_lines="skip")
    numbers = pd.DataFrame({name: pd.to_numeric(rows[name], errors="coerce") for name in CURVES}).dropna()
    return numbers.drop_duplicates("epoch", keep="last").sort_values("epoch")


def _learning_curves(history: pd.DataFrame) -> dict[str, str] | None:
    if history.empty:
        return None
    first, last = history.iloc[0], history.iloc[-1]
    text = (
        f"Learning curves over {_counted(len(history), 'epoch')}: training loss from {first['train_loss']:.2f} to "
        f"{last['train_loss']:.2f}, validation loss from {first['val_loss']:.2f} to {last['val_loss']:.2f}, highest "
        f"validation macro F1 {history['val_macro_f1'].max():.3f}."
    )
    return _picture(figures.learning_curves(history), text)


def _picture(figure: Figure, text: str) -> dict[str, str]:
    """An image element's source and its alternative text. As an image, an SVG keeps its ids to itself."""
    return {"source": f"data:image/svg+xml;base64,{base64.b64encode(drawing.svg(figure)).decode()}", "text": text}


def _count_photos(columns: Mapping[str, pd.DataFrame], classes: Sequence[str]) -> dict[str, Any]:
    def count(photos: pd.DataFrame) -> dict[str, int]:
        return {"photos": len(photos), "groups": photos["group"].nunique()}

    return {
        "columns": list(columns),
        "classes": [
            (name, [count(photos[photos["label"] == name]) for photos in columns.values()]) for name in classes
        ],
        "totals": [count(photos) for photos in columns.values()],
    }


def _all_synthetic(photos: pd.DataFrame) -> bool:
    return "source" in photos.columns and bool((photos["source"] == "synthetic").all())


def _openings(ledger: Mapping[str, int] | None) -> str:
    if ledger is None:
        return (
            "The test set has not been opened: no figure about the model comes from it, and nothing was chosen by it."
        )
    openings, configurations = ledger["openings"], ledger["configurations"]
    times = {1: "once", 2: "twice"}.get(openings, f"{openings:,} times")
    said = f"The test photos of this split have been opened {times}, by {_counted(configurations, 'configuration')}."
    if configurations == 1:
        return f"{said} No other configuration has been compared on them."
    return (
        f"{said} The more configurations are tried on the same test photos, the more the best of them owes to luck and "
        "the less it says about new patients. Choose between configurations on validation figures."
    )


def _overlap(overlap: Mapping[str, int] | None) -> str | None:
    if overlap is None or not (overlap["photos"] or overlap["groups"]):
        return None
    return (
        f"{_counted(overlap['photos'], 'photo')} and {_counted(overlap['groups'], 'group')} of these data are also "
        "among those that the model was trained on or chosen by. The figures on this page flatter the model: expect "
        "less on new patients."
    )


def _limits(subsets: Sequence[Subset]) -> list[str]:
    n = subsets[0].summary["n"]
    limits = [
        "The figures have no intervals, and alone they do not support a claim that this model is better or worse than "
        f"another: one photo of {n:,} is {100 / n:.1f} points of accuracy, and another seed or split would give other "
        "figures.",
        "Photos from other cameras, clinics or skin types than those in this data set were not tried.",
        "The probabilities are those of the network, not calibrated.",
    ]
    few = sorted({name for subset in subsets for name in subset.classes_with_few})
    if few:
        limits.append(f"A few photos decide the figures of classes with fewer than {FEW_PHOTOS}: {', '.join(few)}.")
    if any(subset.title == SUBSET_TITLES["val"] for subset in subsets):
        limits.append(VALIDATION_CHOSE)
    return limits


def _environment(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    machine = [(name, _shown(value)) for name, value in environment.items() if name != "packages"]
    return machine + [(name, _shown(value)) for name, value in environment["packages"].items()]


def _shown(value: Any) -> str:
    """A setting as it stands in YAML, short enough for a table."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ", ".join(_shown(item) for item in value)
    return _without_folder(str(value))


def _without_folder(text: str) -> str:
    """Only the last part of an absolute path, also after a prefix such as ``pretrained:``."""
    return re.sub(r"(^|(?<=[\s:]))(?:[A-Za-z]:[\\/]|/|\\\\)(?:[^·]*[\\/])?", "", text)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest if not hours else 0, "s")]
    return " ".join(f"{value} {unit}" for value, unit in parts if value) or "under a second"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def _counted(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"
