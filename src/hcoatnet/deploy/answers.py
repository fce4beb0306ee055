"""From a model's logits to an answer: calibrated probabilities, a prediction set, and whether to abstain.

Needs NumPy alone, so that a server needs nothing else.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hcoatnet.errors import EvidenceError
from hcoatnet.evaluation.prediction_sets import Floats, Method, Thresholds, prediction_sets

LEVEL = 0.90
ERROR_RATE = 0.10
METHOD: Method = "lac"


@dataclass(frozen=True)
class TokenStage:
    """What one cut of one model saw and kept. Positions count the tokens of the uncut map row by row, from 0.

    Attributes:
        positions: Positions of the tokens that were scored, ascending.
        scores: Importance of each, positive, with sum 1.
        kept: Positions of the tokens that stay, ascending.
    """

    positions: tuple[int, ...]
    scores: tuple[float, ...]
    kept: tuple[int, ...]


@dataclass(frozen=True)
class TokenTrace:
    """What a model that prunes tokens kept of a photo.

    Attributes:
        rows: Rows of the uncut map of tokens, which covers the whole photo.
        columns: Its columns.
        stages: The cuts, in order.
    """

    rows: int
    columns: int
    stages: tuple[TokenStage, ...]


@dataclass(frozen=True)
class Answer:
    """What a classifier says of one photo.

    Attributes:
        name: How the photo is called.
        top_class: The most probable class.
        confidence: Its probability.
        probabilities: Calibrated probability of each class, in the classifier's order.
        prediction_set: Classes that together hold the true one at the level asked for; None where the calibration
            supports no such sets. It may be empty: then no class is likely enough.
        abstain: Whether the answer is to be left to a person.
        reason: Why, in a sentence; None without abstention.
        traces: Of each member of the classifier, what it kept; empty for models that prune nothing.
    """

    name: str
    top_class: str
    confidence: float
    probabilities: Mapping[str, float]
    prediction_set: tuple[str, ...] | None
    abstain: bool
    reason: str | None
    traces: tuple[TokenTrace, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Rules:
    """How logits become answers, read from a ``calibration.json``.

    Attributes:
        classes: Class names in the order of the logits.
        temperature: What logits are divided by.
        thresholds: What turns probabilities into prediction sets; None where refused.
        no_sets_because: Why there are no sets; None where there are.
        level: Coverage that the sets aim at.
        error_rate: Share of wrong answers above the abstain threshold that was asked for.
        abstain_below: Confidence under which to abstain; None where no confidence reaches the error rate.
        no_threshold_because: Why there is none; None where there is one.
    """

    classes: tuple[str, ...]
    temperature: float
    thresholds: Thresholds | None
    no_sets_because: str | None
    level: float
    error_rate: float
    abstain_below: float | None
    no_threshold_because: str | None

    @classmethod
    def read(
        cls,
        calibration: Mapping[str, Any],
        *,
        method: Method = METHOD,
        class_conditional: bool = False,
        level: float = LEVEL,
        error_rate: float = ERROR_RATE,
    ) -> "Rules":
        """The rules in the content of a ``calibration.json``.

        Args:
            calibration: See ``docs/reference/files.md``.
            method: Score of the prediction sets.
            class_conditional: Whether each class has a threshold of its own.
            level: Coverage of the sets.
            error_rate: Error rate of the abstain threshold.

        Raises:
            EvidenceError: The file was not fitted for such a setting, or holds something else in place of a number.
        """
        wanted = {"method": method, "class_conditional": class_conditional, "level": level}
        try:
            return cls._read(calibration, wanted, {"error_rate": error_rate})
        except (KeyError, TypeError, AttributeError) as error:
            raise EvidenceError(f"The calibration lacks something, or holds another kind of thing: {error}.") from error

    @classmethod
    def _read(cls, calibration: Mapping[str, Any], wanted: Mapping[str, Any], rate: Mapping[str, float]) -> "Rules":
        classes = tuple(calibration["classes"])
        sets = _entry(calibration["conformal"], wanted)
        abstain = _entry(calibration["abstain"], rate)
        values, below = sets["thresholds"], abstain["threshold"]
        temperature = _number(calibration["temperature"])
        if temperature <= 0:
            raise EvidenceError(f"The calibration's temperature must be above 0. Got {temperature} instead.")
        thresholds = None
        if values is not None:
            thresholds = Thresholds(
                values=tuple(_number(values[name]) for name in classes),
                photos=calibration["photos"],
                groups=calibration["groups"],
                **wanted,
            )
        return cls(
            classes=classes,
            temperature=temperature,
            thresholds=thresholds,
            no_sets_because=sets["refused"],
            level=wanted["level"],
            error_rate=rate["error_rate"],
            abstain_below=None if below is None else _number(below),
            no_threshold_because=abstain["reason"],
        )

    def probabilities(self, logits: NDArray[np.floating[Any]]) -> Floats:
        """Calibrated probabilities (N, C): softmax(logits / temperature), averaged over the members.

        Args:
            logits: Shape (N, M, C), M models of an ensemble.
        """
        scaled = logits.astype(np.float64) / self.temperature
        raised = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
        averaged: Floats = (raised / raised.sum(axis=-1, keepdims=True)).mean(axis=1)
        return averaged

    def answer(
        self,
        logits: NDArray[np.floating[Any]],
        names: Sequence[str],
        traces: Sequence[tuple[TokenTrace, ...]] | None = None,
    ) -> tuple[Answer, ...]:
        """Answers to N photos.

        Args:
            logits: Shape (N, M, C).
            names: Of the photos.
            traces: Of each photo, one for each member that prunes.
        """
        probabilities = self.probabilities(logits)
        sets = None if self.thresholds is None else prediction_sets(probabilities, self.thresholds)
        answers = []
        for row, name in enumerate(names):
            chosen = None
            if sets is not None:
                chosen = tuple(one for one, inside in zip(self.classes, sets[row], strict=True) if inside)
            top = int(probabilities[row].argmax())
            confidence = float(probabilities[row, top])
            reason = self._reason_to_abstain(confidence, chosen)
            answers.append(
                Answer(
                    name=name,
                    top_class=self.classes[top],
                    confidence=confidence,
                    probabilities=dict(zip(self.classes, probabilities[row].tolist(), strict=True)),
                    prediction_set=chosen,
                    abstain=reason is not None,
                    reason=reason,
                    traces=() if traces is None else traces[row],
                )
            )
        return tuple(answers)

    def _reason_to_abstain(self, confidence: float, chosen: tuple[str, ...] | None) -> str | None:
        if self.abstain_below is None:
            return (
                "Leave this photo to a person, as any other: on the calibration photos no confidence kept the share of "
                f"wrong answers at {self.error_rate:.0%} or less."
            )
        if confidence < self.abstain_below:
            return (
                f"Leave this photo to a person: the confidence, {confidence:.2f}, is below {self.abstain_below:.2f}. "
                f"Only above that were at most {self.error_rate:.0%} of the answers wrong on the calibration photos."
            )
        if chosen == ():
            return "Leave this photo to a person: no class is likely enough. It may show something else."
        return None


def _number(value: object) -> float:
    with suppress(OverflowError):  # a whole number of 400 digits is beyond any float
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    raise EvidenceError(f"The calibration holds {value!r} in place of a number.")


def _entry(entries: Sequence[Mapping[str, Any]], wanted: Mapping[str, Any]) -> Mapping[str, Any]:
    for entry in entries:
        if all(entry[key] == value for key, value in wanted.items()):
            return entry
    described = ", ".join(f"{key} {value}" for key, value in wanted.items())
    offered = sorted({str(entry[key]) for entry in entries for key in wanted if not isinstance(entry[key], bool)})
    raise EvidenceError(f"The calibration has no entry for {described}. It was fitted for: {', '.join(offered)}.")
