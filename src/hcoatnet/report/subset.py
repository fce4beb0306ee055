"""What a page says of one predictions table: in words, as tables and as a picture."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hcoatnet.evaluation.comparison import FEW, Comparison, Row
from hcoatnet.evaluation.intervals import Interval
from hcoatnet.evaluation.predictions import Predictions
from hcoatnet.report import figures
from hcoatnet.report.comparison_tables import intervals_note
from hcoatnet.report.data_tables import SUBSET_TITLES
from hcoatnet.report.page import Picture
from hcoatnet.report.tables import Label, Table, Value
from hcoatnet.report.words import counted, percent

VALIDATION_CHOSE = (
    "The validation photos chose the epoch whose weights were kept, so figures on them are likely to flatter the model."
)


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
        "Mean distance of confidence from accuracy, in bins of equally many photos; lower is better. Chance alone "
        "makes it larger than 0.",
    ),
)


@dataclass(frozen=True, eq=False)
class Subset:
    """What the page says of one predictions table.

    Attributes:
        title: Such as "Test".
        predictions: The table.
        summary: Its metrics, from :func:`hcoatnet.evaluation.metrics.summarise`.
        row: Its estimates with intervals, where they were computed.
    """

    title: str
    predictions: Predictions
    summary: Mapping[str, Any]
    row: Row | None = None

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
        return tuple(name for name, row in self.summary["per_class"].items() if row["support"] < FEW)

    @property
    def summary_in_words(self) -> str:
        """A paragraph for a reader who knows no metric."""
        floor = self.summary["per_class"][self.floor_class]["support"]
        above = "" if self.right > floor else " The model does no better than that."
        chose = f" {VALIDATION_CHOSE}" if self.title == SUBSET_TITLES["val"] else ""
        photos = f"{counted(self.summary['n'], f'{self.name} photo')} of {counted(self.summary['groups'], 'group')}"
        return (
            f"On {photos} the model was right on {self.right:,} ({percent(self.summary['accuracy']['value'])}). "
            f"Always naming the most common class, {self.floor_class}, would have been right on {floor:,} "
            f"({percent(self.floor_share)}).{above}{self._best_and_worst()}{chose}"
        )

    @cached_property
    def picture(self) -> Picture:
        """The confusion matrix as a picture."""
        wrong = np.array(self.summary["confusion_matrix"])
        np.fill_diagonal(wrong, 0)
        true, named = np.unravel_index(wrong.argmax(), wrong.shape)
        n = self.summary["n"]
        text = f"Confusion matrix of {counted(n, f'{self.name} photo')}: {self.right:,} on the diagonal, named rightly."
        if wrong.any():
            most = f"{self.classes[true]} named {self.classes[named]}, {counted(int(wrong.max()), 'photo')}"
            text += f" Most frequent confusion: {most}."
        return Picture(
            f"confusion_matrix_{self.name}",
            figures.confusion_matrix(self.predictions, f"{self.title} photos"),
            text,
            f"Confusion matrix of the {self.name} photos. Rows: the true class, with its number of photos. Columns: "
            "what the model named.",
        )

    @property
    def confusions_table(self) -> Table:
        """The confusion matrix as a table."""
        rows = zip(self.classes, self.summary["confusion_matrix"], strict=True)
        return Table(
            f"confusion_matrix_{self.name}",
            f"{self.title} photos: true class in rows, predicted class in columns",
            ("True class", *self.classes),
            tuple((Label(name), *(Value(count, "count") for count in counts)) for name, counts in rows),
        )

    @property
    def per_class_table(self) -> Table:
        """Recall, precision, F1, specificity and AUROC of each class."""
        columns = ("recall", "precision", "f1", "specificity", "auroc")
        note = f"† Fewer than {FEW} photos: one photo moves the recall of such a class by more than three points."
        return Table(
            f"per_class_{self.name}",
            f"{self.title} photos",
            ("Class", "Photos", "Groups", "Recall", "Precision", "F1", "Specificity", "AUROC"),
            tuple(
                (
                    Label(name, few=name in self.classes_with_few),
                    Value(row["support"], "count"),
                    Value(row["groups"], "count"),
                    *(Value(row[column], "score", self._class_reach(name, column)) for column in columns),
                )
                for name, row in self.summary["per_class"].items()
            ),
            note if self.classes_with_few else "",
        )

    def value(self, key: str) -> Value:
        """A metric, with its interval where there is one."""
        estimate = self.row.metrics.get(key) if self.row is not None else None
        form = "percent" if key == "accuracy" else "score"
        return Value(self.summary[key]["value"], form, estimate.interval if estimate is not None else None)  # type: ignore[arg-type]

    def _class_reach(self, name: str, column: str) -> Interval | None:
        estimate = self.row.per_class[name].get(column) if self.row is not None else None
        return estimate.interval if estimate is not None else None

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


def results_table(subsets: Sequence[Subset], comparison: Comparison | None) -> Table:
    """Every metric of every subset; intervals where there is a comparison."""
    classes = len(subsets[0].classes)
    return Table(
        name="results",
        caption="Every figure is computed from all photos named at the head of its column",
        columns=("Metric", *(f"{subset.title} n = {subset.summary['n']:,}" for subset in subsets)),
        rows=tuple(
            (
                Label(metric.name, metric.explanation.format(classes=classes, even=math.log(classes))),
                *(subset.value(metric.key) for subset in subsets),
            )
            for metric in METRICS
        ),
        note=intervals_note(comparison) if comparison else "",
    )
