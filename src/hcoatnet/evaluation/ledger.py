"""The test ledger: every opening of a test set leaves a line, so that nobody can look often and report once."""

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hcoatnet.errors import RunError
from hcoatnet.files import append_line, read_json_lines

LEDGER_NAME = "test_ledger.jsonl"


@dataclass(frozen=True)
class Openings:
    """How often the test sets of one or several splits were opened.

    Attributes:
        openings: Lines of the ledgers for these splits.
        configurations: Different configurations among them; seeds and folds of one configuration count once.
    """

    openings: int
    configurations: int


def ledger_beside(split: Path | None, data: Path | None) -> Path:
    """The ledger of a run: beside its split file, or else beside its manifest, or in its folder of photos."""
    if split is not None:
        return split.parent / LEDGER_NAME
    place = data or Path()
    return (place if place.is_dir() else place.parent) / LEDGER_NAME


def check_ledger(ledger: Path) -> None:
    """Make sure, before any computing, that an opening can be recorded.

    Raises:
        RunError: The ledger's folder cannot be written to.
    """
    try:
        with ledger.open("a", encoding="utf-8"):
            pass
    except OSError as error:
        raise RunError(
            f"Cannot write the test ledger {ledger}: {error.strerror}. It records every opening of the test set, "
            "beside the split file or the data: give --split with a file in a folder you can write to, or leave the "
            "test set closed with --no-evaluate-test."
        ) from error


def record_opening(
    ledger: Path, *, run: str, weights_sha256: str, split_sha256: str, config_sha256: str, study: str | None = None
) -> None:
    """Append one line for the run named ``run``."""
    line = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": run,
        "weights_sha256": weights_sha256,
        "split_sha256": split_sha256,
        "config_sha256": config_sha256,
        "study": study,
    }
    append_line(ledger, json.dumps(line))


def count_openings(ledgers: Iterable[Path], splits: Collection[str]) -> Openings:
    """Count the lines of the ledgers that belong to any of the splits with these digests, such as a study's."""
    rows = [row for ledger in ledgers for row in read_json_lines(ledger) if str(row.get("split_sha256")) in splits]
    return Openings(len(rows), len({str(row.get("config_sha256")) for row in rows}))
