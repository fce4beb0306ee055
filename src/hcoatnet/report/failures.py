"""The errors that a model is surest of: where to look first for wrong labels, odd photos and what a model misreads."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from hcoatnet.evaluation.evidence import Arm
from hcoatnet.report.tables import Label, Table, Value
from hcoatnet.report.thumbnails import thumbnail

SHOWN = 12
LISTED = 50


@dataclass(frozen=True)
class Failure:
    """A photo that was named wrongly.

    Attributes:
        path: As the predictions table has it.
        label: Its true class.
        predicted: What it was named.
        confidence: Probability given to that name.
        true_probability: Probability given to the true class.
        also_wrong: Number of the other models that named it wrongly, too.
        others: Number of the other models.
        thumbnail: The photo as a data URI; None where it is not there, or was not asked for.
    """

    path: str
    label: str
    predicted: str
    confidence: float
    true_probability: float
    also_wrong: int
    others: int
    thumbnail: str | None

    @property
    def name(self) -> str:
        """The photo's file name."""
        return PurePosixPath(self.path).name

    @property
    def text(self) -> str:
        """The photo in words, for who cannot see it."""
        return f"Photo of the class {self.label}, named {self.predicted}"


def surest_errors(arm: Arm, others: Sequence[Arm], most: int, photos: Path | None = None) -> list[Failure]:
    """Wrongly named test photos of the first seed and repeat, the largest probability first.

    Args:
        arm: Whose errors.
        others: Arms to ask about the same photos.
        most: How many at most.
        photos: Folder that the paths are relative to; without it there are no thumbnails.
    """
    predictions = arm.replicates[0].predictions
    others = [other for other in others if other is not arm]
    confidence = predictions.probabilities.max(axis=1)
    wrong = np.flatnonzero(predictions.predicted != predictions.labels)
    paths = predictions.table["path"].to_numpy()
    ranked = sorted(wrong, key=lambda row: (-confidence[row], paths[row]))[:most]
    misses = np.zeros(len(predictions), dtype=int)
    for other in others:
        theirs = other.replicates[0].predictions
        misses += theirs.predicted != theirs.labels
    return [
        Failure(
            path=str(paths[row]),
            label=predictions.classes[predictions.labels[row]],
            predicted=predictions.classes[predictions.predicted[row]],
            confidence=float(confidence[row]),
            true_probability=float(predictions.probabilities[row, predictions.labels[row]]),
            also_wrong=int(misses[row]),
            others=len(others),
            thumbnail=thumbnail(photos / str(paths[row])) if photos is not None else None,
        )
        for row in ranked
    ]


def failures_table(arms: Sequence[Arm]) -> Table:
    """The surest errors of every arm, without pictures."""
    found = [(arm, failure) for arm in arms for failure in surest_errors(arm, arms, LISTED)]
    return Table(
        name="failures",
        caption=f"The errors that each model is surest of, {LISTED} at most, in the first seed and repeat",
        columns=(
            "Photo",
            "Model",
            "True class",
            "Named",
            "Confidence",
            "Probability of the true class",
            "Others wrong",
        ),
        rows=tuple(
            (
                Label(one.path),
                arm.name,
                one.label,
                one.predicted,
                Value(one.confidence),
                Value(one.true_probability),
                Value(one.also_wrong, "count"),
            )
            for arm, one in found
        ),
    )
