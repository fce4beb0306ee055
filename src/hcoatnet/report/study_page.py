"""The page of a study: what was done, what can be said of it, and what cannot."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from hcoatnet.errors import EvidenceError
from hcoatnet.evaluation.comparison import FEW, Comparison
from hcoatnet.evaluation.evidence import Arm
from hcoatnet.evaluation.intervals import Estimate
from hcoatnet.evaluation.ledger import Openings
from hcoatnet.report.card import card_of
from hcoatnet.report.checklist import checklist_of
from hcoatnet.report.comparison_figures import confusion_matrices, curves_of_cells, f1_heat_map, forest
from hcoatnet.report.comparison_tables import (
    confusions_table,
    counts_table,
    differences_table,
    per_class_table,
    probabilities_table,
    results_table,
    subgroups_table,
    tests_table,
)
from hcoatnet.report.data_tables import count_table, flow_of, folds_table
from hcoatnet.report.examination import Examination, examine
from hcoatnet.report.facts import Subject, facts_of
from hcoatnet.report.findings import can_be_said, cannot_be_said, init_words, summary
from hcoatnet.report.html import all_synthetic
from hcoatnet.report.page import Picture, Report, render
from hcoatnet.report.probability_section import Section, probability_section
from hcoatnet.report.record import RunRecord, environments_of, openings_of, varying_settings
from hcoatnet.report.study_tables import models_table, runs_table, varying_table
from hcoatnet.report.tables import Table, score, written
from hcoatnet.report.words import counted, listed, times

CONTENTS = (
    ("results", "Results"),
    ("classes", "Class by class"),
    ("confusions", "Confusions"),
    ("ranking", "ROC"),
    ("calibration", "Calibration"),
    ("abstaining", "Abstaining"),
    ("sets", "Prediction sets"),
    ("errors", "Errors"),
    ("subgroups", "Subgroups"),
    ("training", "Training"),
)
LAST_CONTENTS = (
    ("done", "What was done"),
    ("openings", "Test openings"),
    ("limits", "Limits"),
    ("card", "Model card"),
    ("checklist", "Checklist"),
)


def study_report(folder: Path, arms: Sequence[Arm], reference: str | None = None, by: Sequence[str] = ()) -> Report:
    """The report of a study.

    Args:
        folder: The study's directory; the run of a cell is in ``runs/``.
        arms: All of its arms. Those from scratch and those from pretrained weights are examined apart.
        reference: Name of the arm that the others are compared with.
        by: Metadata columns whose values become subgroups.

    Raises:
        EvidenceError: The arms cannot be compared, or there is no such reference or column.
        RunError: A file that the report is made from is missing.
    """
    records = {(arm.name, arm.init): _records(folder, arm) for arm in arms}
    examinations = [examine(some, _reference_in(some, arms, reference), by) for some in _kinds(arms)]
    several = len(examinations) > 1
    named = {f"{name} ({init})" if several else name: runs for (name, init), runs in records.items() if runs}
    runs = [record for some in named.values() for record in some]
    sections = [_section(one, records) for one in examinations]
    if several:
        inits = [one.comparison.init for one in examinations]
        sections = [
            section.with_suffix(init, f"Models trained {init_words(init)}")
            for section, init in zip(sections, inits, strict=True)
        ]
    openings = openings_of(runs)
    facts = facts_of(Subject(named, tuple(examinations), openings))
    name = folder.resolve().name
    card, checklist = card_of(name, facts), checklist_of(facts)
    classes = arms[0].classes
    tables = _tables_of_runs(named, arms, classes)
    common, _ = varying_settings({row: some[0].recipe for row, some in named.items()})
    page = render(
        "study.html.jinja",
        {
            "kicker": "Study report",
            "title": name,
            "facts": _facts_line(examinations, arms),
            "synthetic": all_synthetic(runs[0].manifest),
            "contents": _contents(sections),
            "sections": sections,
            "flow": flow_of(runs[0], examinations[0].comparison.photos),
            "tables": tables,
            "common": list(common.items()),
            "environment": environments_of(runs),
            "test_set": _openings(openings, arms, len({run.metrics["split_sha256"] for run in runs})),
            "limits": _limits([one.comparison for one in examinations]),
            "notes": list(dict.fromkeys(str(note) for run in runs for note in run.metrics["notes"])),
            "card": card,
            "checklist": checklist,
        },
    )
    return Report(
        page=page,
        pictures=tuple(picture for section in sections for picture in section.pictures.values()),
        tables=(
            *(table for section in sections for table in (*section.tables.values(), *section.extra_tables)),
            *tables.values(),
        ),
        card=card,
        checklist=checklist,
    )


def _records(folder: Path, arm: Arm) -> list[RunRecord]:
    """The runs of an arm; none where it is not trained."""
    places = [folder / "runs" / cell.run for cell in arm.cells]
    return [RunRecord.of(place) for place in places if place.is_dir()]


def _kinds(arms: Sequence[Arm]) -> list[list[Arm]]:
    """Arms by their initial weights, those without any in each."""
    inits = sorted({arm.init for arm in arms if arm.init != "none"}, reverse=True)
    return [[arm for arm in arms if arm.init in (init, "none")] for init in inits or ["none"]]


def _reference_in(some: Sequence[Arm], arms: Sequence[Arm], reference: str | None) -> str | None:
    if reference is None or reference in {arm.name for arm in some}:
        return reference
    if reference in {arm.name for arm in arms}:
        return None
    raise EvidenceError(
        f"There is no row {reference!r} to compare with. The rows are: {listed(sorted({arm.name for arm in arms}))}."
    )


def _section(examination: Examination, records: Mapping[tuple[str, str], Sequence[RunRecord]]) -> Section:
    """Everything about one kind of initial weights."""
    comparison = examination.comparison
    runs = [record for (_, init), some in records.items() if init in (comparison.init, "none") for record in some]
    probabilities = probability_section(examination, runs[0].photo_folder)
    by_column = examination.subgroups
    reference = examination.reference.name
    histories = {
        arm.name: [run.history for run in records[arm.name, arm.init] if (run.folder / "history.csv").is_file()]
        for arm in examination.arms
    }
    return Section(
        key="",
        heading="",
        pictures={
            **_comparison_pictures(examination),
            **probabilities.pictures,
            **_training_picture({name: some for name, some in histories.items() if some}),
        },
        tables={
            "differences": differences_table(comparison),
            "tests": tests_table(comparison),
            "results": results_table(comparison),
            "probabilities": probabilities_table(comparison, examination.confident_errors),
            "counts": counts_table(comparison),
            "per_class": per_class_table(comparison),
            **probabilities.tables,
        },
        extra_tables=(
            *probabilities.extra_tables,
            confusions_table(examination.arms),
            *(subgroups_table(column, found) for column, found in by_column.items()),
        ),
        subgroups=tuple(subgroups_table(column, found, reference) for column, found in by_column.items()),
        lists={
            **probabilities.lists,
            "summary": [summary(comparison, examination.reference)],
            "can": can_be_said(comparison),
            "cannot": cannot_be_said(comparison),
        },
        failures=probabilities.failures,
        failures_of=probabilities.failures_of,
    )


def _comparison_pictures(examination: Examination) -> dict[str, Picture]:
    comparison = examination.comparison
    estimates = [f"{row.name} {_in_words(row.metrics['macro_f1'])}" for row in examination.rows]
    verdicts = [f"{one.name} {one.verdict}" for one in comparison.differences]
    best = {
        name: max(examination.arms, key=lambda arm: examination.row(arm.name).per_class[name]["f1"].value or 0.0)
        for name in comparison.classes
    }
    highest = [
        f"{name} {written(examination.row(arm.name).per_class[name]['f1'].value)} ({arm.name})"
        for name, arm in best.items()
    ]
    return {
        "forest": Picture(
            "forest",
            forest(comparison),
            f"Macro F1: {'; '.join(estimates)}. Against {comparison.reference}: {'; '.join(verdicts)}.",
            f"Macro F1 with {100 * comparison.level:.3g} % intervals, and differences from {comparison.reference} on "
            "the same photos. A difference inside the pale bar is smaller than what this study would find four times "
            "in five. Verdicts are corrected for the number of comparisons.",
        ),
        "f1_by_class": Picture(
            "f1_by_class",
            f1_heat_map(comparison),
            f"F1 of each class and model. Highest of each class: {'; '.join(highest)}.",
            "F1 of each class (with its photos), mean over seeds and repeats. 1 is perfect; a class never named, or "
            "never rightly, has 0.",
        ),
        "confusions": Picture(
            "confusions",
            confusion_matrices(examination.arms),
            f"Confusion matrices of {listed([arm.name for arm in examination.arms])} as percent of each true class; "
            "the counts are in the table of confusions.",
            "Confusion matrices in percent of each row. Rows: the true class, with its photos. Columns: what the model "
            "named. All test photos, mean over seeds and repeats.",
        ),
    }


def _training_picture(histories: Mapping[str, Sequence[pd.DataFrame]]) -> dict[str, Picture]:
    histories = {name: [one for one in some if len(one) > 1] for name, some in histories.items()}
    histories = {name: some for name, some in histories.items() if some}
    if not histories:
        return {}
    highest = [f"{name} {max(one['val_macro_f1'].max() for one in some):.3f}" for name, some in histories.items()]
    return {
        "learning_curves": Picture(
            "learning_curves",
            curves_of_cells(histories),
            f"Validation macro F1 over the epochs. Highest of any training: {'; '.join(highest)}.",
            "Validation macro F1 over the epochs: a thin line for each training, a thick one for their mean, a dot "
            "where the kept weights are from. The test photos play no part in these curves.",
        )
    }


def _tables_of_runs(
    named: Mapping[str, Sequence[RunRecord]], arms: Sequence[Arm], classes: Sequence[str]
) -> dict[str, Table]:
    first = next(iter(named.values()))
    places: dict[tuple[int, int], RunRecord] = {}
    for record in first:
        places.setdefault((int(record.settings.get("repeat") or 0), int(record.settings.get("fold") or 0)), record)
    return {
        "folds": folds_table(places, classes),
        "photos": count_table({"Photos (groups)": first[0].photos}, classes),
        "models": models_table(named, arms[0].seeds),
        "varying": varying_table({row: some[0].recipe for row, some in named.items()}),
        "runs": runs_table(named),
    }


def _contents(sections: Sequence[Section]) -> list[tuple[str, str]]:
    """Places on the page: the sections of one kind of weights, or the chapters of several."""
    if len(sections) > 1:
        return [*((f"part-{section.key}", section.heading) for section in sections), *LAST_CONTENTS]
    (only,) = sections
    absent = {
        "sets": not (only.tables.get("conformal") or only.lists["refused"]),
        "subgroups": not only.subgroups,
        "training": "learning_curves" not in only.pictures,
    }
    return [*((place, name) for place, name in CONTENTS if not absent.get(place)), *LAST_CONTENTS]


def _facts_line(examinations: Sequence[Examination], arms: Sequence[Arm]) -> list[str]:
    comparison = examinations[0].comparison
    names = {arm.name for arm in arms if arm.init != "none"}
    trainings = sum(len(arm.cells) for arm in arms if arm.init != "none")
    return [
        counted(len(names), "model"),
        counted(trainings, "training"),
        f"{counted(comparison.photos, 'photo')} of {counted(comparison.groups, 'group')}",
        f"{len(comparison.classes)} classes",
    ]


def _openings(openings: Openings | None, arms: Sequence[Arm], splits: int) -> str:
    if openings is None:
        return "No test ledger lies beside the split file, so how often the test photos were opened is not known."
    own = len({cell.config_sha256 for arm in arms for cell in arm.cells})
    said = (
        f"The test photos of the {counted(splits, 'split')} of this study have been opened {times(openings.openings)}, "
        f"by {counted(openings.configurations, 'configuration')}; seeds and folds of one configuration count as one. "
    )
    if openings.configurations > own:
        return (
            f"{said}That is more than the {own} of this study: others were tried on the same photos, and the best of "
            "many owes part of its lead to luck."
        )
    return f"{said}No configuration outside this study has been tried on them."


def _limits(comparisons: Sequence[Comparison]) -> list[str]:
    first = comparisons[0]
    limits = [
        "The intervals say how far other test photos of the same kind would move the figures. That other training "
        "photos would give other models is in the corrected t test and in the spread over seeds, not in the intervals.",
        "Nothing on this page says how the settings were chosen. If some were tried on these test photos, the figures "
        "flatter them.",
        "Photos of other cameras, clinics or skin types than those in this data set were not tried.",
    ]
    if first.several_photos_a_group:
        limits.append(
            "Some groups hold several photos. Wilson’s intervals and McNemar’s test take photos as independent and are "
            "too sure."
        )
    if first.few:
        limits.append(f"A few photos decide the figures of classes with fewer than {FEW}: {', '.join(first.few)}.")
    return limits


def _in_words(estimate: Estimate) -> str:
    value = score(estimate)
    return value.text + (f" ({value.interval_text})" if value.interval_text else "")
