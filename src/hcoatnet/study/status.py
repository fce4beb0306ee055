"""How far a study is, read from its run directories, and the table that shows it."""

import csv
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.table import Table

from hcoatnet.files import read_json_lines
from hcoatnet.study.plan import PlannedCell, StudyDirectory
from hcoatnet.terminal import table
from hcoatnet.training.run_directory import RunDirectory

State = Literal["finished", "running", "failed", "interrupted", "waiting"]
STATES: tuple[State, ...] = ("finished", "running", "failed", "interrupted", "waiting")


@dataclass(frozen=True)
class Progress:
    """The course of one run so far.

    Attributes:
        epoch: Epochs done.
        val_macro_f1: Macro F1 on the validation photos at the best epoch; None before the first.
        seconds: Time spent in training.
    """

    epoch: int
    val_macro_f1: float | None
    seconds: float


@dataclass(frozen=True)
class CellStatus:
    """One cell as it stands.

    Attributes:
        cell: Its row of the plan.
        state: Where it is.
        progress: Its course so far.
        message: Why it failed, if it did.
    """

    cell: PlannedCell
    state: State
    progress: Progress
    message: str = ""


def study_status(directory: StudyDirectory) -> list[CellStatus]:
    """Every cell of a study as it stands now.

    Raises:
        RunError: The directory is no study.
    """
    cells = directory.plan()
    failures = last_failures(directory)
    return [cell_status(directory.run(cell), cell, failures) for cell in cells]


def cell_status(run: RunDirectory, cell: PlannedCell, failures: Mapping[str, str]) -> CellStatus:
    """One cell as its directory shows it; ``failures`` tells what the directory cannot."""
    progress = read_progress(run)
    if run.finished:
        return CellStatus(cell, "finished", progress)
    if run.busy:
        return CellStatus(cell, "running", progress)
    if cell.cell in failures:
        return CellStatus(cell, "failed", progress, failures[cell.cell])
    return CellStatus(cell, "interrupted" if run.started else "waiting", progress)


def last_failures(directory: StudyDirectory) -> dict[str, str]:
    """The message of every cell whose last event was that it failed."""
    last = {str(row.get("cell")): row for row in read_json_lines(directory.events_file)}
    return {cell: str(row.get("message", "")) for cell, row in last.items() if row.get("event") == "failed"}


def read_progress(run: RunDirectory) -> Progress:
    """Epochs, validation macro F1 and time of a run, from its history; a torn last line is skipped."""
    try:
        with run.history_file.open(encoding="utf-8", newline="") as stream:
            rows = [row for row in csv.DictReader(stream) if row.get("best") in ("0", "1")]
        best = [float(row["val_macro_f1"]) for row in rows if row["best"] == "1"]
        seconds = sum(float(row["seconds"]) for row in rows)
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return Progress(0, None, 0.0)
    return Progress(len(rows), best[-1] if best else None, seconds if math.isfinite(seconds) else 0.0)


def counts_line(states: Sequence[State]) -> str:
    """Such as ``20 cells: 3 finished, 1 running, 16 waiting``."""
    counted = Counter(states)
    return f"{len(states)} cell{'s' * (len(states) != 1)}: " + ", ".join(
        f"{counted[state]} {state}" for state in STATES if counted[state]
    )


def seconds_left(done: Mapping[str, Sequence[float]], left: Sequence[str], jobs: int) -> float | None:
    """Time that the cells left will take, from those done.

    Args:
        done: Seconds of the cells that were done, by row.
        left: Row of every cell that is left.
        jobs: How many cells run at a time.

    Returns:
        The sum over the cells left of the median time of their row (of all rows, where none of theirs is done), shared
        by ``jobs``; None before the first cell is done.
    """
    everything = [seconds for times in done.values() for seconds in times]
    if not everything:
        return None
    typical = statistics.median(everything)
    expected = [statistics.median(done[row]) if done.get(row) else typical for row in left]
    return sum(expected) / max(1, min(jobs, len(left)))


def duration(seconds: float) -> str:
    """Such as ``45 s``, ``12 min`` or ``3 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def status_table(title: str, cells: Sequence[CellStatus]) -> Table:
    """State, epoch, validation macro F1 and training time of each cell. Nothing of the test."""
    rows = []
    for one in cells:
        best = one.progress.val_macro_f1
        rows.append(
            [
                one.cell.cell,
                one.state,
                str(one.progress.epoch) if one.progress.epoch else "",
                f"{best:.4f}" if best is not None else "",
                duration(one.progress.seconds) if one.progress.seconds else "",
                one.message,
            ]
        )
    return table(title, ("cell", "state", "epoch", "val macro F1", "time", ""), rows, right=(2, 3, 4))
