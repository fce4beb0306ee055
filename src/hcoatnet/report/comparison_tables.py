"""Tables of a comparison: results, differences, classes, confusions and subgroups."""

from collections.abc import Mapping, Sequence

from hcoatnet.evaluation.comparison import FEW, Comparison, Difference, Row
from hcoatnet.evaluation.evidence import Arm
from hcoatnet.evaluation.subgroups import Gap, Subgroups
from hcoatnet.report.comparison_figures import mean_confusions
from hcoatnet.report.ranking import ranked_rows
from hcoatnet.report.tables import Cell, Label, Table, Value, score, written
from hcoatnet.study.ablation import CONFIDENT

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


def probabilities_table(comparison: Comparison, confident_errors: Mapping[str, float]) -> Table:
    """Metrics of the probabilities as trained, every row with intervals.

    Args:
        comparison: The rows.
        confident_errors: By row, the share of photos that are wrong with a probability of at least ``CONFIDENT``.
    """
    return Table(
        name="results_probabilities",
        caption=f"What the probabilities are worth, as trained: estimate and {_level(comparison)} interval",
        columns=("Model", *(NAMES[metric] for metric in PROBABILITIES), "Confident errors"),
        rows=tuple(
            (
                _name(row, comparison),
                *(score(row.metrics[metric]) for metric in PROBABILITIES),
                Value(confident_errors[row.name], "percent"),
            )
            for row in ranked_rows(comparison)
        ),
        note="AUROC and average precision: larger is better. Brier score, log loss and calibration error: smaller is "
        "better; chance alone makes the calibration error larger than 0, and its intervals lie high. Confident errors: "
        f"share of photos that are wrong with a probability of at least {CONFIDENT}.",
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
    """Every row against the reference: the primary comparison and its verdict."""
    return Table(
        name="differences",
        caption=f"Difference in macro F1 from {comparison.reference}",
        columns=("Model", "Difference", "p", "p (Holm)", "Verdict", "Detectable"),
        rows=tuple(
            (
                Label(one.name),
                score(one.macro_f1, "difference"),
                Value(one.p, "p"),
                Value(one.p_holm, "p"),
                one.verdict,
                Value(one.detectable),
            )
            for one in _ranked_differences(comparison)
        ),
        note="Paired bootstrap over groups; the verdict rests on p after Holm’s correction over the rows. Detectable: "
        "the smallest true difference that this design would find with 80 % power, before that correction: 2.8 "
        "standard errors.",
    )


def tests_table(comparison: Comparison) -> Table:
    """Every row against the reference: the corrected t test over folds and McNemar's test."""
    independent = f" They {INDEPENDENT.replace('assumes', 'assume')}." if comparison.several_photos_a_group else ""
    return Table(
        name="tests",
        caption=f"Two more tests against {comparison.reference}",
        columns=(
            "Model",
            "Mean over folds",
            "t",
            "Degrees of freedom",
            "p (Holm), corrected t",
            "Only it right",
            "Only reference right",
            "p (Holm), exact McNemar",
            "p (Holm), corrected McNemar",
        ),
        rows=tuple(_tests(one) for one in _ranked_differences(comparison)),
        note="Corrected t: Nadeau and Bengio’s test of the mean difference in macro F1 over folds and repeats. "
        "McNemar’s tests: photos that only one of the two names rightly, in the first seed and repeat; secondary."
        + independent,
    )


def per_class_table(comparison: Comparison) -> Table:
    """Recall, precision, F1, AUROC and average precision of every class and row."""
    metrics = {
        "recall": "Recall",
        "precision": "Precision",
        "f1": "F1",
        "auroc": "AUROC",
        "average_precision": "Average precision",
    }
    rows: list[tuple[Cell, ...]] = []
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
    rows: list[tuple[Cell, ...]] = [
        (
            Label(row.value, few=row.photos < FEW),
            *([name] if only is None else []),
            Value(row.photos, "count"),
            Value(row.groups, "count"),
            *(score(row.metrics[metric]) for metric in metrics),
        )
        for name, one in shown.items()
        for row in one.rows
    ]
    few = any(row.photos < FEW for one in shown.values() for row in one.rows)
    gaps = [f"{name}: {text}" if only is None else text for name, one in shown.items() for text in gap_sentences(one)]
    return Table(
        name=f"subgroups_{column}" + ("" if only is None else "_reference"),
        caption=f"By {column}" + ("" if only is None else f", {only}"),
        columns=(column, *(["Model"] if only is None else []), "Photos", "Groups", *(NAMES[name] for name in metrics)),
        rows=tuple(rows),
        note=" ".join([*gaps, f"† Fewer than {FEW} photos." if few else ""]).strip(),
    )


def gap_sentences(found: Subgroups) -> list[str]:
    """The largest gaps in accuracy and balanced accuracy between values, or why there is none."""
    gaps = [("accuracy", found.accuracy_gap), ("balanced accuracy", found.balanced_accuracy_gap)]
    sentences = [_gap(metric, gap) for metric, gap in gaps if gap is not None]
    return sentences or [f"Fewer than two values have {found.least_groups} groups, so no gap is given."]


def intervals_note(comparison: Comparison) -> str:
    """How the intervals were made."""
    return (
        f"{_level(comparison)} intervals: {comparison.replicates:,} bootstrap draws of whole groups, stratified by "
        "class; bias-corrected and accelerated, or percentile where that cannot be computed."
    )


def _gap(metric: str, gap: Gap) -> str:
    p = written(gap.p, "p")
    return (
        f"Largest gap in {metric}: {gap.size:.3f}, {gap.best} over {gap.worst} (permutation p "
        f"{p if p.startswith('<') else '= ' + p})."
    )


def _ranked_differences(comparison: Comparison) -> list[Difference]:
    found = {one.name: one for one in comparison.differences}
    return [found[row.name] for row in ranked_rows(comparison) if row.name in found]


def _tests(one: Difference) -> tuple[Label | Value, ...]:
    t, mcnemar = one.corrected_t, one.mcnemar
    return (
        Label(one.name),
        Value(t.mean if t else None, "difference"),
        Value(t.t if t else None, "size"),
        Value(t.df if t else None, "count"),
        Value(t.p_holm if t else None, "p"),
        Value(mcnemar.only_model, "count"),
        Value(mcnemar.only_reference, "count"),
        Value(mcnemar.exact_p_holm, "p"),
        Value(mcnemar.corrected_p_holm, "p"),
    )


def _name(row: Row, comparison: Comparison) -> Label:
    return Label(row.name, "reference" if row.name == comparison.reference else "")


def _level(comparison: Comparison) -> str:
    return f"{100 * comparison.level:.3g} %"
