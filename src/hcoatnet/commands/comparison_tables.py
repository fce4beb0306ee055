"""What ``compare`` prints: estimates, differences and subgroups, each with its uncertainty."""

from collections.abc import Mapping

from rich.table import Table

from hcoatnet.evaluation.comparison import FEW, SUBSET_NAMES, Comparison
from hcoatnet.evaluation.intervals import Estimate, Interval
from hcoatnet.evaluation.subgroups import Gap, Subgroups
from hcoatnet.terminal import table

NAMING = {
    "macro_f1": "macro F1",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_auroc": "AUROC",
}
PROBABILITIES = {"log_loss": "log loss", "brier": "Brier", "expected_calibration_error": "ECE"}
SUBGROUPS_SHOWN = {"macro_f1": "macro F1", "accuracy": "accuracy", "balanced_accuracy": "balanced accuracy"}
UNDEFINED = "–"


def interval_text(interval: Interval | None) -> str:
    """Such as ``0.412–0.538``; nothing where there is none."""
    return f"{interval.low:.3f}–{interval.high:.3f}" if interval else ""


def estimate_text(estimate: Estimate) -> str:
    """The value, and below it the interval: narrow enough for a terminal of 80 columns."""
    if estimate.value is None:
        return UNDEFINED
    return f"{estimate.value:.3f}\n{interval_text(estimate.interval)}".strip()


def difference_text(estimate: Estimate) -> str:
    """As :func:`estimate_text`, with signs."""
    if estimate.value is None:
        return UNDEFINED
    reach = estimate.interval
    return f"{estimate.value:+.3f}\n" + (f"{reach.low:+.3f} to {reach.high:+.3f}" if reach else "")


def naming_table(comparison: Comparison) -> Table:
    """A row a model: the metrics of ``NAMING``."""
    columns = ("model", *NAMING.values())
    rows = [[row.name, *(estimate_text(row.metrics[name]) for name in NAMING)] for row in comparison.rows]
    title = (
        f"{comparison.photos} {SUBSET_NAMES[comparison.subset]} photos of {comparison.groups} groups, weights from "
        f"{comparison.init}; {comparison.level:.0%} intervals from {comparison.replicates} draws of groups"
    )
    return table(title, columns, rows, right=range(1, len(columns)))


def probabilities_table(comparison: Comparison, confident_errors: Mapping[str, float], confident: float) -> Table:
    """A row a model: the metrics of ``PROBABILITIES`` and the share of photos that are surely wrong."""
    columns = ("model", *PROBABILITIES.values(), f"wrong at p ≥ {confident:g}")
    rows = [
        [row.name, *(estimate_text(row.metrics[name]) for name in PROBABILITIES), f"{confident_errors[row.name]:.1%}"]
        for row in comparison.rows
    ]
    return table("What the probabilities are worth", columns, rows, right=range(1, len(columns)))


def counts_table(comparison: Comparison) -> Table:
    """Seeds and their spread; photos named rightly in the first, with Wilson's interval and what that assumes."""
    assumption = "; Wilson's interval assumes independent photos" if comparison.several_photos_a_group else ""
    rows = [
        [
            row.name,
            str(len(row.seeds)),
            UNDEFINED if row.seed_spread is None else f"{row.seed_spread:.3f}",
            f"{row.right} of {comparison.photos}",
            interval_text(row.accuracy_wilson),
        ]
        for row in comparison.rows
    ]
    columns = ("model", "seeds", "SD of macro F1", "right (first seed)", f"Wilson {comparison.level:.0%}")
    return table(f"Seeds and counts{assumption}", columns, rows, right=(1, 2, 3, 4))


def differences_table(comparison: Comparison) -> Table:
    """A row a model: its macro F1 minus the reference's, and the verdict."""
    rows = [
        [one.name, difference_text(one.macro_f1), _p(one.p_holm), one.verdict, f"{one.detectable:.3f}"]
        for one in comparison.differences
    ]
    columns = ("model", "difference", "p", "verdict", "detectable")
    return table(f"Macro F1 against {comparison.reference}; p after Holm's correction", columns, rows, right=(1, 2, 4))


def tests_table(comparison: Comparison) -> Table:
    """A row a model: the p of the two secondary tests."""
    rows = [
        [
            one.name,
            _p(one.corrected_t.p_holm) if one.corrected_t else UNDEFINED,
            _p(one.mcnemar.exact_p_holm),
        ]
        for one in comparison.differences
    ]
    columns = ("model", "corrected t over folds", "exact McNemar")
    return table("Two more tests; p after Holm's correction", columns, rows, right=(1, 2))


def notes(comparison: Comparison) -> list[str]:
    """What a reader must know of these figures."""
    lines = [
        "Verdicts rest on the difference in macro F1 after Holm's correction. Detectable: the smallest true difference "
        "that this design would find with 80 % power."
    ]
    if comparison.subset == "val":
        lines.append(
            "These are validation photos; no test prediction was read. They chose every checkpoint, so the figures are "
            "optimistic: only the differences between rows are of use, for choosing settings. In a cross-validation "
            "they are test photos of other folds."
        )
    if comparison.few:
        few = ", ".join(f"{name} ({comparison.support[name][0]})" for name in comparison.few)
        lines.append(f"Classes with fewer than {FEW} photos: {few}. Their figures are unsure.")
    if comparison.several_photos_a_group:
        lines.append(
            "Groups hold several photos: Wilson's interval and McNemar's test assume independent ones and are too sure."
        )
    return lines


def subgroups_table(part: Subgroups) -> Table:
    """A row a value of one column, for one model."""
    rows = [
        [row.value, str(row.photos), str(row.groups), *(estimate_text(row.metrics[name]) for name in SUBGROUPS_SHOWN)]
        for row in part.rows
    ]
    columns = (part.column, "photos", "groups", *SUBGROUPS_SHOWN.values())
    return table(f"By {part.column}, {part.name}", columns, rows, right=range(1, len(columns)))


def gap_line(part: Subgroups) -> str:
    """The largest gaps of one model, or why there is none."""
    gaps = {"accuracy": part.accuracy_gap, "balanced accuracy": part.balanced_accuracy_gap}
    told = [_gap(name, gap) for name, gap in gaps.items() if gap is not None]
    if not told:
        return f"{part.name}: no gap by {part.column}: fewer than two values have {part.least_groups} groups."
    return f"{part.name}: largest gap by {part.column}: {'; '.join(told)}."


def _gap(name: str, gap: Gap) -> str:
    if gap.size == 0:
        return f"{name} none"
    return f"{name} {gap.size:.3f} ({gap.best} over {gap.worst}; permutation p {_p(gap.p)})"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
