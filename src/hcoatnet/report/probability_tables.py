"""Tables of what the probabilities are worth: calibration, abstaining and prediction sets."""

from collections.abc import Mapping, Sequence

import numpy as np

from hcoatnet.evaluation.calibration import CalibrationResult
from hcoatnet.evaluation.conformal import ConformalResult
from hcoatnet.evaluation.selective import COVERAGES, SelectiveResult
from hcoatnet.report.probability_figures import method_name
from hcoatnet.report.tables import Label, Table, Value, score
from hcoatnet.report.words import whole_percent


def calibration_table(results: Mapping[str, CalibrationResult]) -> Table:
    """Temperature, calibration error and log loss before and after temperature scaling."""
    at_bound = [name for name, result in results.items() if result.at_bound]
    note = (
        "One temperature for each training (here the median), fitted on its validation photos and measured on its test "
        "photos. It changes no answer, only how sure it sounds: above 1 the model was too sure of itself. Chance alone "
        "makes the calibration error larger than 0; its intervals lie high."
    )
    if at_bound:
        note += f" At its bound, because validation could not tell it, in some trainings of: {', '.join(at_bound)}."
    return Table(
        name="calibration",
        caption="Before and after temperature scaling",
        columns=(
            "Model",
            "Temperature",
            "Calibration error, before",
            "Calibration error, after",
            "Log loss, before",
            "Log loss, after",
        ),
        rows=tuple(
            (
                Label(name),
                Value(float(np.median(result.temperatures)), "size"),
                score(result.before.ece),
                score(result.after.ece),
                score(result.before.log_loss),
                score(result.after.log_loss),
            )
            for name, result in results.items()
        ),
        note=note,
    )


def brier_table(results: Mapping[str, CalibrationResult]) -> Table:
    """The parts of the Brier score before and after temperature scaling."""
    parts = {
        "reliability": "Reliability",
        "resolution": "Resolution",
        "uncertainty": "Uncertainty",
        "within_bin": "Within bins",
    }
    return Table(
        name="brier_parts",
        caption="Brier score = reliability − resolution + uncertainty + within bins",
        columns=("Model", "Temperature scaling", "Brier score", *parts.values()),
        rows=tuple(
            (
                Label(name),
                stage,
                score(getattr(result, stage).brier),
                *(Value(getattr(getattr(result, stage).parts, part)) for part in parts),
            )
            for name, result in results.items()
            for stage in ("before", "after")
        ),
    )


def reliability_table(results: Mapping[str, CalibrationResult]) -> Table:
    """The points of the reliability diagrams with the photos of each bin."""
    rows = []
    for name, result in results.items():
        for stage in ("before", "after"):
            diagram = getattr(result, stage).reliability
            for number, (count, confidence, accuracy) in enumerate(
                zip(diagram.count, diagram.confidence, diagram.accuracy, strict=True), start=1
            ):
                cells = (Value(number, "count"), Value(count, "count"), Value(confidence), Value(accuracy))
                rows.append((Label(name), stage, *cells))
    return Table(
        name="reliability",
        caption="Points of the reliability diagrams, first seed and repeat",
        columns=("Model", "Temperature scaling", "Bin", "Photos", "Mean confidence", "Accuracy"),
        rows=tuple(rows),
    )


def selective_table(results: Mapping[str, SelectiveResult]) -> Table:
    """Area under the risk–coverage curve and accuracy where the least sure answers are left to a person."""
    return Table(
        name="selective",
        caption="Accuracy where the model answers only the photos that it is surest of",
        columns=("Model", *(f"Accuracy at {whole_percent(coverage)} coverage" for coverage in COVERAGES), "AURC"),
        rows=tuple(
            (
                Label(name),
                *(score(result.accuracy_at[coverage], "percent") for coverage in COVERAGES),
                score(result.aurc),
            )
            for name, result in results.items()
        ),
        note="AURC: area under the risk–coverage curve; smaller is better. Confidences after temperature scaling.",
    )


def conformal_table(results: Mapping[str, Sequence[ConformalResult]]) -> Table:
    """Coverage and size of prediction sets for each model, method and level that the calibration photos support."""
    return Table(
        name="conformal",
        caption="Prediction sets: how often the true class is in the set, and how large it is",
        columns=("Model", "Method", "Aimed at", "Coverage", "Mean set size", "Empty sets", "Lowest class"),
        rows=tuple(
            (
                Label(name),
                method_name(one),
                Value(one.level, "percent"),
                score(one.measured.overall.coverage, "percent"),
                score(one.measured.overall.set_size, "size"),
                Value(one.measured.overall.empty, "percent"),
                _lowest_class(one),
            )
            for name, found in results.items()
            for one in found
            if one.measured is not None
        ),
        note="Approximate: the photos that set the thresholds also chose the checkpoint and the temperature. The "
        "coverage shown is measured on test photos.",
    )


def conformal_per_class_table(results: Mapping[str, Sequence[ConformalResult]]) -> Table:
    """Coverage and size of prediction sets for each class."""
    return Table(
        name="conformal_per_class",
        caption="Prediction sets by true class",
        columns=("Class", "Model", "Method", "Aimed at", "Photos", "Coverage", "Mean set size"),
        rows=tuple(
            (
                Label(label),
                name,
                method_name(one),
                Value(one.level, "percent"),
                Value(figures.photos, "count"),
                score(figures.coverage, "percent"),
                score(figures.set_size, "size"),
            )
            for name, found in results.items()
            for one in found
            if one.measured is not None
            for label, figures in one.measured.per_class.items()
        ),
    )


def refusals(results: Mapping[str, Sequence[ConformalResult]]) -> list[str]:
    """Why prediction sets were refused: one reason for each level, overall and by class."""
    found: dict[tuple[bool, float], str] = {}
    for several in results.values():
        for one in several:
            if one.refused is not None:
                found.setdefault((one.class_conditional, one.level), one.refused)
    return list(found.values())


def _lowest_class(one: ConformalResult) -> str:
    if one.measured is None:
        return ""
    rates = {
        name: figures.coverage.value
        for name, figures in one.measured.per_class.items()
        if figures.coverage.value is not None
    }
    lowest = min(rates, key=lambda name: (rates[name], name))
    return f"{lowest} {Value(rates[lowest], 'percent').text}"
