"""Labels that are likely wrong, from predictions on photos that the model was not trained on.

Confident learning (Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels",
JAIR 70, section 3): a photo labelled i is suspected if some other class j is predicted with at least the mean
probability that photos labelled j get for j.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hcoatnet.data.manifest import Manifest
from hcoatnet.errors import DataError
from hcoatnet.evaluation.predictions import Predictions, read_predictions

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LabelIssue:
    """A photo whose label is suspected.

    Attributes:
        path: The photo.
        label: Its label in the manifest.
        suggested: The class that the predictions name instead.
        p_label: Mean predicted probability of the label.
        p_suggested: Mean predicted probability of the suggested class.
        models: Number of predictions that were averaged.
    """

    path: str
    label: str
    suggested: str
    p_label: float
    p_suggested: float
    models: int

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def prediction_files(study: Path) -> list[Path]:
    """Test predictions of a study (one file a cell), or of a single run.

    Raises:
        DataError: If there are none.
    """
    files = sorted(study.glob("runs/*/predictions_test.csv")) or sorted(study.glob("predictions_test.csv"))
    if not files:
        raise DataError(
            f"{study}: no predictions_test.csv in it or in its runs. Give a study or a run that has evaluated its test "
            "photos, or name predictions tables with --predictions."
        )
    return files


def label_issues(photos: Manifest, files: Sequence[Path]) -> tuple[tuple[LabelIssue, ...], tuple[str, ...]]:
    """Suspected labels, the least likely label first.

    Only photos of the subset ``test`` count: on photos that a model was trained on it repeats the label it was given.
    Predictions of several models, seeds or repeats on one photo are averaged.

    Args:
        photos: The photos.
        files: Predictions tables whose paths are those of the manifest, of one set of classes.

    Returns:
        The suspected labels, and notes on what was used.

    Raises:
        PredictionsError: If a table is not valid.
        DataError: If the tables name different classes, or none of these photos.
    """
    classes, sums, counts = _pooled([read_predictions(file) for file in files], files)
    rows = [row for row, path in enumerate(photos.table["path"]) if path in sums]
    if not rows:
        raise DataError(
            f"None of the {len(sums):,} photos in the predictions tables is in the data that are audited. The paths "
            "must be the same: audit the manifest that the models were trained with."
        )
    paths = [str(photos.table["path"].iloc[row]) for row in rows]
    known = {name: number for number, name in enumerate(classes)}
    labels = np.array([known.get(str(photos.table["label"].iloc[row]), -1) for row in rows])
    probabilities = np.stack([sums[path] / counts[path] for path in paths])
    kept = labels >= 0
    suggested = np.full(len(labels), -1)
    suggested[kept] = suspected_classes(labels[kept], probabilities[kept])
    issues = [
        LabelIssue(
            path=paths[row],
            label=classes[labels[row]],
            suggested=classes[suggested[row]],
            p_label=float(probabilities[row, labels[row]]),
            p_suggested=float(probabilities[row, suggested[row]]),
            models=counts[paths[row]],
        )
        for row in np.flatnonzero(suggested >= 0)
    ]
    issues.sort(key=lambda issue: (issue.p_label - issue.p_suggested, issue.path))
    tables = "predictions table" if len(files) == 1 else "predictions tables"
    right = float((probabilities.argmax(axis=1) == labels).mean())
    note = (
        f"Labels were compared with {len(files):,} {tables}, which hold {len(rows):,} of {len(photos):,} photos. "
        f"Together they name {right:.0%} as labelled: the weaker they are, the less their doubt means."
    )
    return tuple(issues), (note,)


def suspected_classes(labels: NDArray[np.int64], probabilities: Floats) -> NDArray[np.int64]:
    """For each photo the class it is counted under in the confident joint if that is not its label, else −1.

    The threshold of class j is the mean of p_j over the photos labelled j (equation 2 of the paper); a photo is counted
    under the most probable class whose threshold its probability reaches (equation 1), or not at all.

    Args:
        labels: Class of each photo, (n,).
        probabilities: Out-of-fold probabilities, (n, C).
    """
    classes = probabilities.shape[1]
    thresholds = np.array(
        [probabilities[labels == name, name].mean() if (labels == name).any() else np.inf for name in range(classes)]
    )
    confident = np.where(probabilities >= thresholds, probabilities, -np.inf)
    best = confident.argmax(axis=1)
    counted = np.isfinite(confident.max(axis=1)) & (best != labels)
    return np.where(counted, best, -1)


def _pooled(
    tables: Sequence[Predictions], files: Sequence[Path]
) -> tuple[tuple[str, ...], dict[str, Floats], dict[str, int]]:
    """Classes, and for each test photo the sum of its probabilities and their number."""
    classes = tables[0].classes
    sums: dict[str, Floats] = {}
    counts: dict[str, int] = {}
    for table, file in zip(tables, files, strict=True):
        if set(table.classes) != set(classes):
            raise DataError(f"{file}: its classes ({', '.join(table.classes)}) are not those of {files[0]}.")
        order = [table.classes.index(name) for name in classes]
        held_out = (table.table["subset"] == "test").to_numpy()
        for path, row in zip(table.table["path"][held_out], table.probabilities[held_out][:, order], strict=True):
            sums[path] = sums[path] + row if path in sums else row
            counts[path] = counts.get(path, 0) + 1
    return classes, sums, counts
