"""The course of a training, one row an epoch, in ``history.csv``. It has no test figures, and never will."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hcoatnet.files import append_line, csv_line, write_text

COLUMNS = (
    "epoch",
    "train_loss",
    "val_loss",
    "val_accuracy",
    "val_balanced_accuracy",
    "val_macro_f1",
    "learning_rate",
    "photos_per_second",
    "seconds",
    "best",
)


def start_history(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the header and the rows so far; on resuming this drops what a crash left beyond the last state."""
    lines = [csv_line(list(COLUMNS)), *(_line(row) for row in rows)]
    write_text(path, "\n".join(lines) + "\n")


def append_history(path: Path, row: Mapping[str, Any]) -> None:
    """Append one epoch's row."""
    append_line(path, _line(row))


def _line(row: Mapping[str, Any]) -> str:
    return csv_line([row[name] for name in COLUMNS])
