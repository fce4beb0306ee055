"""``calibration.json``: what turns a model's logits into calibrated probabilities, prediction sets and abstentions.

Everything in it refers to softmax(logits / temperature). It lies in a run directory, fitted on the run's validation
photos, or in a study, fitted on the test photos of all folds, each answered by a model that had not seen it.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from hcoatnet.errors import EvidenceError
from hcoatnet.evaluation.calibration import DRAWS, at_bound, calibrated, fit_temperature
from hcoatnet.evaluation.conformal import (
    LEVELS,
    Coverage,
    SetFigures,
    conformal_out_of_fold,
    coverage,
    fit_thresholds,
    least_n,
)
from hcoatnet.evaluation.evidence import Arm
from hcoatnet.evaluation.intervals import Interval
from hcoatnet.evaluation.prediction_sets import METHODS, Method, Thresholds, prediction_sets
from hcoatnet.evaluation.predictions import Predictions
from hcoatnet.evaluation.resampling import resample
from hcoatnet.evaluation.selective import ERROR_RATES, AbstainThreshold, abstain_threshold

CALIBRATION_FORMAT = 1

Setting = tuple[Method, bool, float]
"""Method, class-conditional, level."""

SETTINGS: tuple[Setting, ...] = tuple(
    (method, conditional, level) for method in METHODS for conditional in (False, True) for level in LEVELS
)
RUN_REASON = (
    "The validation photos also chose the checkpoint, so the model fits them better than new photos, and sets and "
    "error rates are too favourable by an unknown amount."
)
CLOSED = "The test photos were not opened."
STUDY_REASON = (
    "The photos were answered by the models of several folds, each blind to its own test photos; the thresholds "
    "describe the recipe, and any one model only roughly."
)


def calibration_of_run(val: Predictions, test: Predictions | None = None, *, draws: int = DRAWS) -> dict[str, Any]:
    """Content of ``calibration.json`` of a run.

    Args:
        val: The validation photos. They also chose the checkpoint, so the content is marked approximate.
        test: The test photos, on which the sets are measured; None where they were not opened.
        draws: Bootstrap draws of each interval.

    Returns:
        See ``docs/reference/files.md``.
    """
    temperature = fit_temperature(val.logits, val.labels)
    scaled = calibrated(val, temperature)
    measured: dict[Setting, Coverage | str] = {}
    if test is not None:
        answers, resampling = calibrated(test, temperature), resample(test, draws, seed=0)
        for setting in SETTINGS:
            thresholds = _thresholds(scaled, setting)
            if isinstance(thresholds, str):
                measured[setting] = thresholds
            else:
                sets = prediction_sets(answers.probabilities, thresholds)
                measured[setting] = coverage([sets], test, resampling)
    content = _content(scaled, temperature, measured, draws)
    where = "validation photos of the run"
    return _head(val, where, RUN_REASON, "test photos of the run" if test else None) | content


def calibration_of_study(arm: Arm, *, draws: int = DRAWS) -> dict[str, Any]:
    """Content of ``calibration.json`` of one model of a study.

    Temperature and thresholds come from the out-of-fold test predictions of the first seed and repeat: every photo
    once, answered by a model that had not seen it. Their coverage cannot be measured on the same photos; what stands
    beside them is that of sets calibrated inside each cell (see ``conformal_out_of_fold``).

    Args:
        arm: All cells of the model.
        draws: Bootstrap draws of each interval.

    Returns:
        See ``docs/reference/files.md``.
    """
    first = arm.replicates[0]
    temperature = fit_temperature(first.predictions.logits, first.predictions.labels)
    measured = {
        (result.method, result.class_conditional, result.level): result.measured or str(result.refused)
        for result in conformal_out_of_fold(arm, draws=draws)
    }
    content = _content(calibrated(first.predictions, temperature), temperature, measured, draws)
    where = f"out-of-fold test photos, seed {first.seed}, repeat {first.repeat}"
    by = "test photos of every cell, with the temperature and thresholds of its validation photos"
    return _head(first.predictions, where, STUDY_REASON, by) | content


def _head(photos: Predictions, source: str, reason: str, measured_on: str | None) -> dict[str, Any]:
    return {
        "format": CALIBRATION_FORMAT,
        "classes": list(photos.classes),
        "source": source,
        "photos": len(photos),
        "groups": len(set(photos.groups)),
        "per_class": {
            name: {
                "photos": int((photos.labels == index).sum()),
                "groups": len(set(photos.groups[photos.labels == index])),
            }
            for index, name in enumerate(photos.classes)
        },
        "approximate": True,
        "approximate_because": reason,
        "measured_on": measured_on,
    }


def _content(
    scaled: Predictions, temperature: float, measured: Mapping[Setting, Coverage | str], draws: int
) -> dict[str, Any]:
    return {
        "temperature": temperature,
        "temperature_at_bound": at_bound(temperature),
        "conformal": [_conformal(scaled, setting, measured.get(setting, CLOSED)) for setting in SETTINGS],
        "abstain": [_abstain(abstain_threshold(scaled, rate, draws=draws)) for rate in ERROR_RATES],
    }


def _thresholds(photos: Predictions, setting: Setting) -> Thresholds | str:
    """The thresholds, or why they are refused."""
    method, conditional, level = setting
    try:
        return fit_thresholds(
            photos.probabilities, photos.labels, photos.groups, level, method, conditional, photos.classes
        )
    except EvidenceError as error:
        return str(error)


def _conformal(photos: Predictions, setting: Setting, measured: Coverage | str) -> dict[str, Any]:
    method, conditional, level = setting
    found = _thresholds(photos, setting)
    refused = found if isinstance(found, str) else None
    values = None if isinstance(found, str) else dict(zip(photos.classes, found.values, strict=True))
    return {
        "method": method,
        "class_conditional": conditional,
        "level": level,
        "thresholds": values,
        "refused": refused,
        "least_groups": least_n(level),
        "measured": None if isinstance(measured, str) else _measured(measured),
        "not_measured_because": measured if isinstance(measured, str) else None,
    }


def _measured(measured: Coverage) -> dict[str, Any]:
    return _set_figures(measured.overall) | {
        "per_class": {name: _set_figures(figures) for name, figures in measured.per_class.items()}
    }


def _set_figures(figures: SetFigures) -> dict[str, Any]:
    return {
        "photos": figures.photos,
        "groups": figures.groups,
        "coverage": figures.coverage.value,
        "coverage_interval": _ends(figures.coverage.percentile),
        "coverage_wilson": _ends(figures.wilson),
        "mean_set_size": figures.set_size.value,
        "mean_set_size_interval": _ends(figures.set_size.percentile),
        "empty_sets": figures.empty,
    }


def _abstain(found: AbstainThreshold) -> dict[str, Any]:
    return asdict(found) | {"interval": _ends(found.interval), "wilson": _ends(found.wilson)}


def _ends(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]
