"""All that is shown of why a model answered as it did, photo by photo."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hcoatnet.data.images import normalise
from hcoatnet.deploy.answers import Answer
from hcoatnet.explain import faithfulness
from hcoatnet.explain.faithfulness import Curves
from hcoatnet.explain.overlays import relative
from hcoatnet.explain.randomisation import Randomisation, randomisation
from hcoatnet.explain.subject import Subject, maps_of

CHUNK = 16
"""Photos that are explained together."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """One photo explained.

    Attributes:
        answer: What the model says of it.
        label: The class whose map this is.
        signed: Signed class-activation map of each member, (M, H, W).
        curves: Deletion and insertion; None where not asked for, and where no place speaks for the class.
        randomisation: Its maps against those of untrained models; None where not asked for.
    """

    answer: Answer
    label: str
    signed: NDArray[np.float32]
    curves: tuple[Curves, Curves] | None
    randomisation: Randomisation | None

    @cached_property
    def shares(self) -> NDArray[np.float32]:
        """The map that is shown, in [0, 1]: the mean over the members, each as shares of its own largest value."""
        mean = np.mean([relative(member) for member in self.signed], axis=0)
        return relative(mean)

    @property
    def empty(self) -> bool:
        """Whether no place speaks for the class."""
        return not self.shares.any()

    @property
    def probability(self) -> float:
        """What the model gives the class."""
        return self.answer.probabilities[self.label]

    def to_dict(self) -> dict[str, Any]:
        """All numbers, ready for JSON."""
        return {
            "answer": self.answer.to_dict(),
            "class": self.label,
            "map": {"signed": self.signed.tolist(), "shown": self.shares.tolist(), "empty": self.empty},
            "faithfulness": None if self.curves is None else [_curves_dict(one) for one in self.curves],
            "randomisation": None if self.randomisation is None else randomisation_dict(self.randomisation),
        }


def explain(
    subject: Subject,
    pixels: Sequence[NDArray[np.uint8]],
    names: Sequence[str],
    *,
    labels: Sequence[str] | None = None,
    checks: bool = True,
) -> list[Explanation]:
    """Explain a few photos.

    Args:
        subject: The model.
        pixels: Each photo as ``resize_photo`` gives it for the model, (S, S, 3); :data:`CHUNK` at most, since they pass
            the model together.
        names: How they are called.
        labels: Class to explain of each photo; by default the one that the model finds most probable.
        checks: Whether to play deletion and insertion and to compare with untrained models.

    Raises:
        ConfigError: The model knows no such class.
    """
    prepared = np.stack([normalise(one) for one in pixels])
    answers = subject.classifier.answer(prepared, names)
    labels = labels or [answer.top_class for answer in answers]
    classes = np.array([subject.class_index(one) for one in labels])
    signed = np.stack([maps_of(model, prepared, classes) for model in subject.models], axis=1)
    random = _against_untrained(subject, signed, prepared, classes) if checks else [None] * len(answers)
    explanations = []
    for row, answer in enumerate(answers):
        bare = Explanation(answer, labels[row], signed[row], None, random[row])
        curves = None
        if checks and not bare.empty:
            curves = faithfulness.play(pixels[row], bare.shares, subject.probability_of(int(classes[row])))
        explanations.append(Explanation(answer, labels[row], signed[row], curves, random[row]))
    return explanations


def randomisation_dict(found: Randomisation) -> dict[str, Any]:
    """A randomisation check, ready for JSON."""
    rows = [[None if math.isnan(value) else value for value in row] for row in found.correlations.tolist()]
    return {"correlations": rows, "mean": found.mean, "hardly_depends": found.hardly_depends}


def _against_untrained(
    subject: Subject, signed: NDArray[np.float32], prepared: NDArray[np.float32], classes: NDArray[np.intp]
) -> list[Randomisation]:
    """For each photo, every member's map against that of each untrained model."""
    photos, members = signed.shape[:2]

    def untrained(draw: int) -> NDArray[np.float32]:
        return maps_of(subject.untrained(draw), prepared, classes).repeat(members, axis=0)

    found = randomisation(signed.reshape(photos * members, *signed.shape[2:]), untrained)
    return [Randomisation(found.correlations[row * members : (row + 1) * members]) for row in range(photos)]


def _curves_dict(curves: Curves) -> dict[str, Any]:
    return {
        "game": curves.game,
        "shares": curves.shares.tolist(),
        "by_map": curves.by_map.tolist(),
        "by_chance": curves.by_chance.tolist(),
        "area": curves.area,
        "chance_areas": curves.chance_areas.tolist(),
    }
