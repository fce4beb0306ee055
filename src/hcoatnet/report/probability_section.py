"""What a page says of the probabilities, for one model or several: pictures, tables and errors."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hcoatnet.evaluation.conformal import ConformalResult
from hcoatnet.evaluation.evidence import Arm
from hcoatnet.evaluation.predictions import Predictions
from hcoatnet.report.examination import Examination
from hcoatnet.report.failures import SHOWN, Failure, failures_table, surest_errors
from hcoatnet.report.page import Picture
from hcoatnet.report.probability_figures import (
    MOST_LINES,
    conformal_sets,
    precision_recall_curves,
    reliability_diagrams,
    risk_coverage_curves,
    roc_curves,
)
from hcoatnet.report.probability_tables import (
    brier_table,
    calibration_table,
    conformal_per_class_table,
    conformal_table,
    refusals,
    reliability_table,
    selective_table,
)
from hcoatnet.report.tables import Table, written
from hcoatnet.report.words import listed, percent, whole_percent

SET_LEVEL = 0.9


@dataclass(frozen=True, eq=False)
class Section:
    """One kind of initial weights, or one run, on a page.

    Attributes:
        key: Suffix of ids and file names; empty where there is only one.
        heading: What it is about; empty where there is only one.
        pictures: By their name on the page.
        tables: By their name on the page.
        extra_tables: Tables that are only written as files.
        subgroups: Tables of subgroups that the page shows.
        lists: Sentences, by their name on the page.
        failures: The surest errors of one model.
        failures_of: Its name.
    """

    key: str
    heading: str
    pictures: Mapping[str, Picture]
    tables: Mapping[str, Table]
    extra_tables: tuple[Table, ...]
    subgroups: tuple[Table, ...]
    lists: Mapping[str, list[str]]
    failures: tuple[Failure, ...]
    failures_of: str

    def with_suffix(self, key: str, heading: str) -> "Section":
        """The same with another suffix to its ids and files, where a page holds several."""
        return replace(
            self,
            key=key,
            heading=heading,
            pictures={name: replace(one, name=f"{one.name}_{key}") for name, one in self.pictures.items()},
            tables={name: replace(one, name=f"{one.name}_{key}") for name, one in self.tables.items()},
            extra_tables=tuple(replace(one, name=f"{one.name}_{key}") for one in self.extra_tables),
            subgroups=tuple(replace(one, name=f"{one.name}_{key}") for one in self.subgroups),
        )


def probability_section(examination: Examination, photos: Path) -> Section:
    """ROC, calibration, abstaining, prediction sets and the surest errors.

    Args:
        examination: Of one model or several.
        photos: Folder of the photos, for thumbnails.
    """
    drawn = _most_important(examination)
    reference = examination.reference
    calibration, selective, conformal = examination.calibration, examination.selective, examination.conformal
    tables = {
        "calibration": calibration_table(calibration),
        "selective": selective_table(selective),
        "conformal": conformal_table(conformal),
        "brier": brier_table(calibration),
    }
    extra = (reliability_table(calibration), conformal_per_class_table(conformal))
    return Section(
        key="",
        heading="",
        pictures=curve_pictures(
            {arm.name: arm.replicates[0].predictions for arm in drawn}, _left_out(examination, drawn)
        )
        | _calibration_picture(examination)
        | _risk_picture(examination, drawn)
        | _sets_picture(conformal),
        tables={name: table for name, table in tables.items() if table.rows},
        extra_tables=(*extra, failures_table(examination.arms)),
        subgroups=(),
        lists={"refused": refusals(conformal)},
        failures=tuple(surest_errors(reference, examination.arms, SHOWN, photos)),
        failures_of=reference.name,
    )


def curve_pictures(models: Mapping[str, Predictions], also: str = "") -> dict[str, Picture]:
    """ROC and precision–recall curves of some predictions tables, by model."""
    first = next(iter(models.values()))
    whom = f"{listed(list(models))}, {len(first.classes)} classes"
    pooled = "Photos of all folds together, first seed and repeat." if len(models) > 1 else ""
    return {
        "roc": Picture(
            "roc",
            roc_curves(models),
            f"ROC curves, one class against the rest: {whom}. The areas under them stand in the tables.",
            f"ROC curves, one class against the rest, with the photos of the class. The diagonal is chance. {pooled}"
            f"{also}".strip(),
        ),
        "precision_recall": Picture(
            "precision_recall",
            precision_recall_curves(models),
            f"Precision over recall, one class against the rest: {whom}. The average precisions stand in the tables.",
            "Precision over recall, one class against the rest. The pale line is the share of the class: what naming "
            f"photos at random would give. {pooled}{also}".strip(),
        ),
    }


def _calibration_picture(examination: Examination) -> dict[str, Picture]:
    errors = [
        f"{name} {written(one.before.ece.value)} before and {written(one.after.ece.value)} after"
        for name, one in examination.calibration.items()
    ]
    return {
        "reliability": Picture(
            "reliability",
            reliability_diagrams(examination.calibration),
            f"Reliability diagrams. Calibration error by temperature scaling: {'; '.join(errors)}.",
            "Reliability: the share of right answers over the stated confidence, in bins of equally many photos. On "
            "the diagonal confidence can be believed; below it the model is too sure of itself. Bars: Wilson "
            "intervals, which assume independent photos.",
        )
    }


def _risk_picture(examination: Examination, drawn: list[Arm]) -> dict[str, Picture]:
    curves = {arm.name: examination.selective[arm.name].curve for arm in drawn}
    errors = [f"{name} {percent(float(curve.risk[-1]))}" for name, curve in curves.items()]
    return {
        "risk_coverage": Picture(
            "risk_coverage",
            risk_coverage_curves(curves),
            f"Risk–coverage curves. Wrong answers where every photo is answered: {', '.join(errors)}.",
            "Risk and coverage: the share of wrong answers if only the photos that the model is surest of are answered "
            "and the others are left to a person. At the right end all are answered." + _left_out(examination, drawn),
        )
    }


def _sets_picture(conformal: Mapping[str, tuple[ConformalResult, ...]]) -> dict[str, Picture]:
    shown = {
        name: found
        for name, found in conformal.items()
        if any(one.level == SET_LEVEL and one.measured is not None for one in found)
    }
    if not shown:
        return {}
    aim = whole_percent(SET_LEVEL)
    lac = [
        f"{name} {percent(one.measured.overall.coverage.value or 0.0)}"
        for name, found in shown.items()
        for one in found
        if one.measured and (one.method, one.class_conditional, one.level) == ("lac", False, SET_LEVEL)
    ]
    return {
        "conformal": Picture(
            "conformal",
            conformal_sets(shown, SET_LEVEL),
            f"Coverage and size of prediction sets aimed at {aim}. Coverage with LAC: {', '.join(lac)}.",
            f"Prediction sets aimed at holding the true class for {aim} of the photos (dashed): how many "
            "they hold on test photos, and how many classes a set has. Small sets at the right coverage are good.",
        )
    }


def _most_important(examination: Examination) -> list[Arm]:
    """At most as many arms as lines can be told apart: the reference, and those with the largest macro F1."""
    others = [arm for arm in examination.arms if arm is not examination.reference]
    chosen = [examination.reference, *others[: MOST_LINES - 1]]
    return [arm for arm in examination.arms if arm in chosen]


def _left_out(examination: Examination, drawn: list[Arm]) -> str:
    missing = [arm.name for arm in examination.arms if arm not in drawn]
    return f" Not drawn, for legibility: {listed(missing)}." if missing else ""
