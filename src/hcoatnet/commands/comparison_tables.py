"""What ``compare`` prints: estimates, differences and subgroups, each with its uncertainty."""

from collections.abc import Mapping, Sequence

from rich.table import Table

from hcoatnet.evaluation.comparison import FEW, Comparison
from hcoatnet.evaluation.intervals import Estimate, Interval
from hcoatnet.evaluation.subgroups import Gap, Subgroups
from hcoatnet.terminal import table

SHOWN = {
    "macro_f1": "macro F1",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_auroc": "AUROC",
    "log_loss": "log loss",
    "expected_calibration_error": "ECE",
}
SUBGROUPS_SHOWN = {"macro_f1": "macro F1", "accuracy": "accuracy", "balanced_accuracy": "balanced accuracy"}
UNDEFINED = "–"


def interval_text(interval: Interval | None, digits: int = 3, sign: str = "") -> str:
    """Such as ``[0.412, 0.538]``."""
    return f"[{interval.low:{sign}.{digits}f}, {interval.high:{sign}.{digits}f}]" if interval else ""


def estimate_text(estimate: Estimate, digits: int = 3, sign: str = "") -> str:
    """The value and its BCa interval; the percentile interval where there is no BCa."""
    if estimate.value is None:
        return UNDEFINED
    return f"{estimate.value:{sign}.{digits}f} {interval_text(estimate.interval, digits, sign)}".strip()


def estimates_table(comparison: Comparison, confident_errors: Mapping[str, float], confident: float) -> Table:
    """A row a model: the metrics of ``SHOWN``, the spread over seeds, the share of photos that are surely wrong."""
    columns = ("model", "seeds", *SHOWN.values(), "SD over seeds", f"wrong at p ≥ {confident:g}")
    rows = [
        [
            row.name,
            str(len(row.seeds)),
            *(estimate_text(row.metrics[name]) for name in SHOWN),
            UNDEFINED if row.seed_spread is None else f"{row.seed_spread:.3f}",
            f"{confident_errors[row.name]:.1%}",
        ]
        for row in comparison.rows
    ]
    title = (
        f"{comparison.photos} photos of {comparison.groups} groups, weights from {comparison.init}; "
        f"{comparison.level:.0%} intervals from {comparison.replicates} draws of groups"
    )
    return table(title, columns, rows, right=range(1, len(columns)))


def counts_table(comparison: Comparison) -> Table:
    """Photos named rightly in the first seed and repeat, with Wilson's interval and what that assumes."""
    assumption = ", assumes independent photos" if comparison.several_photos_a_group else ""
    rows = [
        [row.name, f"{row.right} of {comparison.photos}", interval_text(row.accuracy_wilson)] for row in comparison.rows
    ]
    columns = ("model", "right", f"Wilson {comparison.level:.0%}{assumption}")
    return table("First seed and repeat", columns, rows, right=(1, 2))


def differences_table(comparison: Comparison) -> Table:
    """A row a model: its macro F1 minus the reference's, the verdict, and the two secondary tests."""
    rows = [
        [
            one.name,
            estimate_text(one.macro_f1, sign="+"),
            _p(one.p_holm),
            one.verdict,
            f"{one.detectable:.3f}",
            _p(one.corrected_t.p_holm) if one.corrected_t else UNDEFINED,
            _p(one.mcnemar.exact_p_holm),
        ]
        for one in comparison.differences
    ]
    columns = (
        "model",
        f"macro F1 − {comparison.reference}",
        "p (Holm)",
        "verdict",
        "smallest detectable",
        "corrected t: p (Holm)",
        "McNemar: p (Holm)",
    )
    return table(f"Against {comparison.reference}", columns, rows, right=(1, 2, 4, 5, 6))


def notes(comparison: Comparison) -> list[str]:
    """What a reader must know of these figures."""
    lines = [
        "Verdicts rest on the difference in macro F1 after Holm's correction; the smallest detectable difference is "
        "what this design would find with 80 % power."
    ]
    if comparison.few:
        few = ", ".join(f"{name} ({comparison.support[name][0]})" for name in comparison.few)
        lines.append(f"Classes with fewer than {FEW} photos: {few}. Their figures are unsure.")
    if comparison.several_photos_a_group:
        lines.append(
            "Groups hold several photos: Wilson's interval and McNemar's test assume independent ones and are too sure."
        )
    return lines


def subgroups_table(parts: Sequence[Subgroups]) -> Table:
    """A row a model and value of one column."""
    rows = [
        [
            part.name,
            row.value,
            str(row.photos),
            str(row.groups),
            *(estimate_text(row.metrics[name]) for name in SUBGROUPS_SHOWN),
        ]
        for part in parts
        for row in part.rows
    ]
    columns = ("model", parts[0].column, "photos", "groups", *SUBGROUPS_SHOWN.values())
    return table(f"By {parts[0].column}", columns, rows, right=range(2, len(columns)))


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
