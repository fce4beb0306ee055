"""In which order a report names models."""

from hcoatnet.evaluation.comparison import Comparison, Row


def ranked_rows(comparison: Comparison) -> list[Row]:
    """Rows by macro F1, the largest first; equal ones by name."""
    return sorted(comparison.rows, key=lambda row: (-(row.metrics["macro_f1"].value or 0.0), row.name))
