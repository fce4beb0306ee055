"""Tables of a comparison: results, differences, classes, confusions and subgroups."""

from collections.abc import Mapping, Sequence

from hcoatnet.evaluation.comparison import FEW, Comparison, Difference, Row
from hcoatnet.evaluation.evidence import Arm
from hcoatnet.evaluation.intervals import Estimate
from hcoatnet.evaluation.subgroups import Gap, Subgroups
from hcoatnet.report.comparison_figures import mean_confusions
from hcoatnet.report.ranking import ranked_rows
from hcoatnet.report.tables import Label, Table, Value, score, written

NAMES = {
    "macro_f1": "Macro F1",
    "balanced_accuracy": "Balanced accuracy",
    "accuracy": "Accuracy",
    "weighted_f1": "Weighted F1",
    "matthews_correlation": "Matthews correlation",
    "macro_auroc": "Macro AUROC",
    "macro_average_precision": "Macro average precision",
    "brier": "Brier score",
    "log_loss": "Log loss",
    "expected_calibration_error": "Calibration error",
}
ANSWERS = ("macro_f1", "balanced_accuracy", "accuracy", "weighted_f1", "matthews_correlation")
PROBABILITIES = ("macro_auroc", "macro_average_precision", "brier", "log_loss", "expected_calibration_error")
INDEPENDENT = "assumes independent photos"


def results_table(comparison: Comparison) -> Table:
    """Metrics of the answers, every row with intervals, and the spread over seeds."""
    rows = ranked_rows(comparison)
    with_spread = any(row.seed_spread is not None for row in rows)
    spread = ("SD over seeds",) if with_spread else ()
    return Table(
        name="results",
        caption=f"How well each model names the classes: estimate and {_level(comparison)} interval",
        columns=("Model", *(NAMES[metric] for metric in ANSWERS), *spread),
        rows=tuple(
            (
                _name(row, comparison),
                *(score(row.metrics[metric]) for metric in ANSWERS),
                *([Value(row.seed_spread)] if with_spread else []),
            )
            for row in rows
        ),
        note=intervals_note(comparison) + (" SD over seeds: of macro F1." if with_spread else ""),
    )


def probabilities_table(comparison: Comparison) -> Table:
    """Metrics of the probabilities as trained, every row with intervals."""
    return Table(
        name="results_probabilities",
        caption=f"What the probabilities are worth, as trained: estimate and {_level(comparison)} interval",
        columns=("Model", *(NAMES[metric] for metric in PROBABILITIES)),
        rows=tuple(
            (_name(row, comparison), *(score(row.metrics[metric]) for metric in PROBABILITIES))
            for row in ranked_rows(comparison)
        ),
        note="AUROC and average precision: larger is better. Brier score, log loss and calibration error: smaller is "
        "better; chance alone makes the calibration error larger than 0, and its intervals lie high.",
    )


def counts_table(comparison: Comparison) -> Table:
    """Photos named rightly in the first seed and repeat, with Wilson's interval."""
    label = f"Wilson interval ({INDEPENDENT})" if comparison.several_photos_a_group else "Wilson interval"
    return Table(
        name="counts",
        caption="Photos named rightly, in the first seed and repeat",
        columns=("Model", "Right", "Of", label),
        rows=tuple(
            (
                _name(row, comparison),
                Value(row.right, "count"),
                Value(comparison.photos, "count"),
                Value(row.right / comparison.photos, "percent", row.accuracy_wilson),
            )
            for row in ranked_rows(comparison)
        ),
        note="Groups here hold several photos, which are not independent: trust the intervals of the accuracy above."
        if comparison.several_photos_a_group
        else "",
    )


def differences_table(comparison: Comparison) -> Table:
    """Every row against the reference: the primary comparison, its verdict, and the two secondary tests."""
    found = {one.name: one for one in comparison.differences}
    ordered = [found[row.name] for row in ranked_rows(comparison) if row.name in found]
    photos = f", {INDEPENDENT}" if comparison.several_photos_a_group else ""
    return Table(
        name="differences",
        caption=f"Difference from {comparison.reference}; the verdict rests on the first three columns",
        columns=(
            "Model", "Δ macro F1", "p", "p (Holm)", "Verdict", "Detectable", "Δ over folds",
            "Corrected t: p (Holm)", "Only it right", "Only reference right", f"McNemar{photos}: p (Holm)",
        ),
        rows=tuple(_difference_cells(one) for one in ordered),
        note="Δ macro F1: paired bootstrap over groups. Detectable: the smallest true difference that this design "
        "would find with 80 % power, 2.8 standard errors. Δ over folds: mean over folds and repeats, with Nadeau and "
        "Bengio’s corrected t test. McNemar: exact, on the first seed and repeat; secondary. Each test is corrected "
        "over the rows by Holm’s method.",
    )  # fmt: skip


def per_class_table(comparison: Comparison) -> Table:
    """Recall, precision, F1, AUROC and average precision of every class and row."""
    metrics = {
        "recall": "Recall",
        "precision": "Precision",
        "f1": "F1",
        "auroc": "AUROC",
        "average_precision": "Average precision",
    }
    rows = []
    for row in ranked_rows(comparison):
        for name in comparison.classes:
            photos, groups = comparison.support[name]
            rows.append(
                (
                    Label(name, few=name in comparison.few),
                    row.name,
                    Value(photos, "count"),
                    Value(groups, "count"),
                    *(score(row.per_class[name][metric]) for metric in metrics),
                )
            )
    return Table(
        name="per_class",
        caption=f"Every class and model: estimate and {_level(comparison)} interval",
        columns=("Class", "Model", "Photos", "Groups", *metrics.values()),
        rows=tuple(rows),
        note=f"† Fewer than {FEW} photos." if comparison.few else "",
    )


def confusions_table(arms: Sequence[Arm]) -> Table:
    """Mean number of photos of each true class that were given each name."""
    classes = arms[0].classes
    return Table(
        name="confusions",
        caption="Photos of each true class by the name they were given, mean over seeds and repeats",
        columns=("True class", "Model", *(f"named {name}" for name in classes)),
        rows=tuple(
            (Label(name), arm.name, *(Value(float(count), "number") for count in counts))
            for arm in arms
            for name, counts in zip(classes, mean_confusions(arm), strict=True)
        ),
    )


def subgroups_table(column: str, found: Mapping[str, Subgroups], only: str | None = None) -> Table:
    """Metrics of every value of a column.

    Args:
        column: The column.
        found: By model.
        only: The one model to show; None for all.
    """
    shown = {name: one for name, one in found.items() if only in (None, name)}
    metrics = ("accuracy", "balanced_accuracy", "macro_f1", "brier")
    rows = [
        (
            Label(row.value, few=row.photos < FEW),
            name,
            Value(row.photos, "count"),
            Value(row.groups, "count"),
            *(score(row.metrics[metric]) for metric in metrics),
        )
        for name, one in shown.items()
        for row in one.rows
    ]
    gaps = [f"{name}: {text}" if only is None else text for name, one in shown.items() for text in gap_sentences(one)]
    return Table(
        name=f"subgroups_{column}" + ("" if only is None else "_reference"),
        caption=f"By {column}" + ("" if only is None else f", {only}"),
        columns=(column, "Model", "Photos", "Groups", *(NAMES[metric] for metric in metrics)),
        rows=tuple(rows),
        note=" ".join([*gaps, f"† Fewer than {FEW} photos." if any(cells[0].few for cells in rows) else ""]).strip(),
    )


def gap_sentences(found: Subgroups) -> list[str]:
    """The largest gaps in accuracy and balanced accuracy between values, or why there is none."""
    gaps = [("accuracy", found.accuracy_gap), ("balanced accuracy", found.balanced_accuracy_gap)]
    sentences = [_gap(metric, gap) for metric, gap in gaps if gap is not None]
    return sentences or [f"Fewer than two values have {found.least_groups} groups, so no gap is given."]


def intervals_note(comparison: Comparison) -> str:
    """How the intervals were made."""
    return (
        f"Intervals: {comparison.replicates:,} bootstrap draws of whole groups, stratified by class, bias-corrected and "
        "accelerated (percentile where that cannot be computed)."
    )


def _gap(metric: str, gap: Gap) -> str:
    p = written(gap.p, "p")
    return (
        f"Largest gap in {metric}: {gap.size:.3f}, {gap.best} over {gap.worst} (permutation p "
        f"{p if p.startswith('<') else '= ' + p})."
    )


def _difference_cells(one: Difference) -> tuple[Label | Value | str, ...]:
    t = one.corrected_t
    return (
        Label(one.name),
        score(one.macro_f1, "difference"),
        Value(one.p, "p"),
        Value(one.p_holm, "p"),
        one.verdict,
        Value(one.detectable),
        score(Estimate(t.mean if t else None, None, None, None), "difference"),
        Value(t.p_holm if t else None, "p"),
        Value(one.mcnemar.only_model, "count"),
        Value(one.mcnemar.only_reference, "count"),
        Value(one.mcnemar.exact_p_holm, "p"),
    )


def _name(row: Row, comparison: Comparison) -> Label:
    return Label(row.name, strong=row.name == comparison.reference)


def _level(comparison: Comparison) -> str:
    return f"{100 * comparison.level:.3g} %"
