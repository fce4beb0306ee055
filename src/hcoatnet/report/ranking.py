"""In which order a report names models, and which interval it shows."""

from hcoatnet.evaluation.comparison import Comparison, Row
from hcoatnet.evaluation.intervals import Estimate, Interval


def ranked_rows(comparison: Comparison) -> list[Row]:
    """Rows by macro F1, the largest first; equal ones by name."""
    return sorted(comparison.rows, key=lambda row: (-(row.metrics["macro_f1"].value or 0.0), row.name))


def interval(estimate: Estimate) -> Interval | None:
    """The BCa interval, or the percentile interval where the correction cannot be computed."""
    return estimate.bca or estimate.percentile
