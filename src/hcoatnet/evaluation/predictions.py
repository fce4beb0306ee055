"""Predictions tables: one row a photo, with its label and what one model answered.

The columns are ``path, group, label, subset``, then ``logit_<class>`` and ``p_<class>`` for every class, then any
further columns of the manifest. Text stays text: a label ``1`` or ``NA`` is read as it was written.
"""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import softmax

from hcoatnet.errors import PredictionsError
from hcoatnet.files import write_text

KEY_COLUMNS = ("path", "group", "label", "subset")
LOGIT_PREFIX = "logit_"
PROBABILITY_PREFIX = "p_"
TOLERANCE = 1e-4

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Predictions:
    """A predictions table that has been checked: whoever holds one need not check it again.

    Attributes:
        table: The columns named above; text columns hold str, logits and probabilities float64.
        classes: Class names in the order of the logits.

    Raises:
        PredictionsError: The table is empty or incomplete, or contradicts itself.
    """

    table: pd.DataFrame
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_columns(self.table, self.classes)
        _check_photos(self.table, self.classes)
        _check_numbers(self)

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def labels(self) -> Integers:
        """Index of each photo's true class, shape (n,)."""
        index = {name: position for position, name in enumerate(self.classes)}
        return np.array([index[label] for label in self.table["label"]], dtype=np.int64)

    @cached_property
    def logits(self) -> Floats:
        """Shape (n, classes)."""
        return self._columns(LOGIT_PREFIX)

    @cached_property
    def probabilities(self) -> Floats:
        """Softmax of the logits, uncalibrated, shape (n, classes)."""
        return self._columns(PROBABILITY_PREFIX)

    @cached_property
    def predicted(self) -> Integers:
        """Index of the class with the largest logit, shape (n,); the first of equal ones."""
        best: Integers = self.logits.argmax(axis=1)
        return best

    @cached_property
    def groups(self) -> npt.NDArray[np.object_]:
        """Name of each photo's group, shape (n,)."""
        return self.table["group"].to_numpy(dtype=object)

    def _columns(self, prefix: str) -> Floats:
        return self.table[[prefix + name for name in self.classes]].to_numpy(dtype=np.float64)


def build_predictions(photos: pd.DataFrame, logits: npt.NDArray[Any], classes: Sequence[str]) -> Predictions:
    """Put photos and a model's logits into one table.

    Args:
        photos: Columns path, group, label, subset, and any further ones, which are kept as text (missing values as "").
        logits: Shape (len(photos), len(classes)), in the order of the rows of ``photos``.
        classes: Class names in the order of the logits.

    Raises:
        PredictionsError: The two do not fit together, or the logits are not finite.
    """
    if logits.shape != (len(photos), len(classes)):
        raise PredictionsError(
            f"{len(photos)} photos and {len(classes)} classes need logits of shape {(len(photos), len(classes))}; "
            f"got {tuple(logits.shape)}."
        )
    text = photos.reset_index(drop=True)
    text = text.apply(lambda column: column.map(lambda value: "" if pd.isna(value) else str(value)))
    exact = logits.astype(np.float64)
    _refuse_reserved([str(name) for name in text.columns])
    keys = [name for name in KEY_COLUMNS if name in text.columns]
    parts = [
        text[keys],
        pd.DataFrame(exact, columns=[LOGIT_PREFIX + name for name in classes]),
        pd.DataFrame(softmax(exact, axis=1), columns=[PROBABILITY_PREFIX + name for name in classes]),
        text.drop(columns=keys),
    ]
    return Predictions(pd.concat(parts, axis=1), tuple(classes))


def check_probabilities(probabilities: Floats, labels: Integers, groups: npt.NDArray[np.object_] | None = None) -> None:
    """Refuse arrays that cannot be the probabilities, true classes and groups of the same photos.

    Args:
        probabilities: Shape (n, classes), each row summing to 1.
        labels: Index of the true class, shape (n,).
        groups: Name of each photo's group, shape (n,).

    Raises:
        PredictionsError: The shapes do not fit, there is no photo, a value is NaN or outside [0, 1], or a label is no
            class.
    """
    if probabilities.ndim != 2 or probabilities.shape[1] < 2 or not len(probabilities):
        raise PredictionsError(
            f"Probabilities must have the shape (photos, classes), with a photo and two classes at least; got "
            f"{probabilities.shape}."
        )
    n, classes = probabilities.shape
    for name, values in (("labels", labels), ("groups", groups)):
        if values is not None and values.shape != (n,):
            raise PredictionsError(f"{n} photos need {name} of shape ({n},); got {values.shape}.")
    if ((labels < 0) | (labels >= classes)).any():
        raise PredictionsError(f"Labels must be 0 to {classes - 1}; got {labels.min()} to {labels.max()}.")
    bad = ~((probabilities >= 0) & (probabilities <= 1 + TOLERANCE)).all(axis=1)
    bad |= ~np.isclose(probabilities.sum(axis=1), 1, rtol=0, atol=TOLERANCE)
    if bad.any():
        raise PredictionsError(
            f"The probabilities of {int(bad.sum())} photos (first: row {int(bad.argmax())}) are not between 0 and 1, "
            f"or do not sum to 1 within {TOLERANCE}."
        )


def with_logits(predictions: Predictions, logits: npt.NDArray[Any]) -> Predictions:
    """The same photos with other logits, shape (n, classes), and the probabilities that belong to them."""
    drop = [prefix + name for prefix in (LOGIT_PREFIX, PROBABILITY_PREFIX) for name in predictions.classes]
    return build_predictions(predictions.table.drop(columns=drop), logits, predictions.classes)


def write_predictions(predictions: Predictions, path: Path) -> None:
    """Write the table as CSV: equal tables give equal bytes, and reading gives back every number bit for bit."""
    write_text(path, predictions.table.to_csv(index=False, lineterminator="\n"))


def read_predictions(path: Path) -> Predictions:
    """Read a predictions table and check it.

    Raises:
        PredictionsError: The file cannot be read, or its table is empty, incomplete or inconsistent.
    """
    try:
        header, rows = _read_rows(path)
        classes = [name.removeprefix(LOGIT_PREFIX) for name in header if name.startswith(LOGIT_PREFIX)]
        return Predictions(pd.DataFrame(rows, columns=header), tuple(classes))
    except PredictionsError as error:
        raise PredictionsError(f"{path}: {error}") from None


def _read_rows(path: Path) -> tuple[list[str], list[list[str | float]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.reader(stream, strict=True))
    except OSError as error:
        raise PredictionsError(f"The predictions table cannot be opened ({error.strerror}).") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise PredictionsError(f"This is not a CSV file in UTF-8 ({error}).") from None
    if not rows:
        raise PredictionsError("The file is empty. Make it again with `hcoatnet evaluate`.")
    header, *body = rows
    for number, row in enumerate(body, start=2):
        if len(row) != len(header):
            raise PredictionsError(
                f"Row {number} has {len(row)} values where the header names {len(header)} columns. "
                "The file may have been cut off; make it again with `hcoatnet evaluate`."
            )
    return header, [
        [_parse(value, name, number) for value, name in zip(row, header, strict=True)]
        for number, row in enumerate(body, start=2)
    ]


def _parse(value: str, column: str, row: int) -> str | float:
    if not column.startswith((LOGIT_PREFIX, PROBABILITY_PREFIX)):
        return value
    try:
        return float(value)
    except ValueError:
        raise PredictionsError(f"Column {column!r} must hold numbers; row {row} holds {value!r}.") from None


def _refuse_reserved(columns: Sequence[str]) -> None:
    reserved = [name for name in columns if name.startswith((LOGIT_PREFIX, PROBABILITY_PREFIX))]
    if reserved:
        raise PredictionsError(f"Column {reserved[0]!r} of the photos has a reserved name; rename it.")


def _check_columns(table: pd.DataFrame, classes: tuple[str, ...]) -> None:
    columns = [str(name) for name in table.columns]
    twice = sorted(name for name, count in Counter(columns).items() if count > 1)
    if twice:
        raise PredictionsError(f"Column {twice[0]!r} stands in the table twice.")
    missing = [name for name in KEY_COLUMNS if name not in columns]
    if missing:
        raise PredictionsError(f"Missing columns: {', '.join(missing)}. A predictions table has {KEY_COLUMNS}.")
    if len(classes) < 2:
        raise PredictionsError(f"At least two classes need a {LOGIT_PREFIX}<class> column; found {len(classes)}.")
    for prefix in (LOGIT_PREFIX, PROBABILITY_PREFIX):
        found = {name.removeprefix(prefix) for name in columns if name.startswith(prefix)}
        if found != set(classes):
            odd = sorted(found ^ set(classes))
            raise PredictionsError(
                f"Every class needs one {LOGIT_PREFIX} and one {PROBABILITY_PREFIX} column; "
                f"only one of them is there for: {', '.join(odd)}."
            )


def _check_photos(table: pd.DataFrame, classes: tuple[str, ...]) -> None:
    if table.empty:
        raise PredictionsError("The table holds no photo.")
    for name in ("path", "group", "subset"):
        if (table[name] == "").any():
            raise PredictionsError(f"Column {name!r} is empty for {int((table[name] == '').sum())} photos.")
    unknown = table[~table["label"].isin(classes)]
    if len(unknown):
        first = unknown.iloc[0]
        raise PredictionsError(
            f"{len(unknown)} photos have a label that the model does not know, first {first['label']!r} "
            f"({first['path']}). Its classes are: {', '.join(classes)}."
        )
    twice = table[table.duplicated(["path", "subset"])]
    if len(twice):
        first = twice.iloc[0]
        raise PredictionsError(f"Photo {first['path']} stands in subset {first['subset']} more than once.")


def _check_numbers(predictions: Predictions) -> None:
    def photos(bad: npt.NDArray[np.bool_]) -> str:
        return f"{bad.sum()} photos (first {predictions.table['path'].iloc[int(bad.argmax())]})"

    probabilities = predictions.probabilities
    for name, values in (("logits", predictions.logits), ("probabilities", probabilities)):
        bad = ~np.all(np.isfinite(values), axis=1)
        if bad.any():
            raise PredictionsError(f"The {name} of {photos(bad)} hold NaN or infinity.")
    bad = ~np.isclose(probabilities.sum(axis=1), 1, rtol=0, atol=TOLERANCE)
    if bad.any():
        raise PredictionsError(f"The probabilities of {photos(bad)} do not sum to 1 within {TOLERANCE}.")
    bad = ~np.all(np.isclose(probabilities, softmax(predictions.logits, axis=1), rtol=0, atol=TOLERANCE), axis=1)
    if bad.any():
        raise PredictionsError(
            f"The probabilities of {photos(bad)} are not the softmax of the logits within {TOLERANCE}. "
            "A predictions table holds uncalibrated probabilities."
        )
