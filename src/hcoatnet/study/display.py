"""What ``study run`` shows: a live table of cells on a terminal, a line a cell elsewhere. Never a test figure."""

import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from hcoatnet.study.cell import Outcome
from hcoatnet.study.plan import Task
from hcoatnet.study.status import (
    CellStatus,
    State,
    counts_line,
    duration,
    read_progress,
    seconds_left,
    status_table,
)
from hcoatnet.terminal import say

SHOWN_FIRST: tuple[State, ...] = ("running", "failed", "interrupted", "waiting", "finished")

OTHER_LINES = 8
"""Lines of a terminal that the table leaves free."""


class Display:
    """Follows the cells of one call of ``study run``.

    Args:
        console: Where to speak.
        tasks: The cells, finished ones among them.
        jobs: How many run at a time.
    """

    def __init__(self, console: Console, tasks: Sequence[Task], jobs: int) -> None:
        self.console = console
        self.tasks = {task.cell.cell: task for task in tasks}
        self.jobs = jobs
        self.states: dict[str, State] = {
            name: "finished" if task.run.finished else "waiting" for name, task in self.tasks.items()
        }
        self.messages: dict[str, str] = {}
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)
        self.since: dict[str, float] = {}
        self._lock = threading.Lock()
        self._live = (
            Live(console=console, get_renderable=self._table, refresh_per_second=1, transient=True)
            if console.is_terminal
            else None
        )

    def __enter__(self) -> Self:
        finished = sum(state == "finished" for state in self.states.values())
        if not self.states:
            self.say("This part of the study has no cells; nothing to do.")
            return self
        if finished == len(self.states):
            self.say(f"All {finished} cells are finished already; nothing to do.")
            return self
        if finished:
            self.say(f"{finished} of {len(self.states)} cells are finished already.")
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, line: str) -> None:
        """Print one line, above the table where there is one."""
        say(line, console=self.console)

    def started(self, name: str) -> None:
        """A cell's process starts."""
        with self._lock:
            self.states[name] = "running"
            self.since[name] = time.monotonic()

    def ended(self, outcome: Outcome) -> None:
        """A cell's process is gone."""
        with self._lock:
            self.states[outcome.cell] = outcome.state
            self.messages[outcome.cell] = outcome.message
            if outcome.state == "finished":
                self.seconds[self.tasks[outcome.cell].cell.model].append(outcome.seconds)
        if outcome.state == "interrupted":
            return
        done = sum(state in ("finished", "failed") for state in self.states.values())
        line = f"[{done}/{len(self.states)}] {outcome.cell} {outcome.state} in {duration(outcome.seconds)}"
        best = read_progress(self.tasks[outcome.cell].run).val_macro_f1
        if outcome.state == "finished" and best is not None:
            line += f", val macro F1 {best:.4f}"
        if outcome.message:
            line += f": {outcome.message}"
        left = self._time_left()
        self.say(line + (f"; about {duration(left)} left" if left else ""))

    def running(self) -> list[str]:
        """Cells whose process has started and not ended."""
        return [name for name, state in self.states.items() if state == "running"]

    def _time_left(self) -> float | None:
        with self._lock:
            open_cells = [name for name, state in self.states.items() if state in ("waiting", "running")]
            rows = [self.tasks[name].cell.model for name in open_cells]
            spent = sum(time.monotonic() - self.since[name] for name in self.running())
        left = seconds_left(self.seconds, rows, self.jobs)
        return None if left is None else max(0.0, left - spent / max(1, min(self.jobs, len(rows))))

    def _table(self) -> RenderableType:
        shown = sorted(self.states, key=lambda name: SHOWN_FIRST.index(self.states[name]))
        room = max(3, self.console.height - OTHER_LINES)
        cells = [
            CellStatus(task.cell, self.states[name], read_progress(task.run), self.messages.get(name, ""))
            for name, task in ((name, self.tasks[name]) for name in shown[:room])
        ]
        left = self._time_left()
        summary = counts_line(list(self.states.values()))
        if left:
            summary += f"; about {duration(left)} left"
        return Group(status_table("", cells), Text(summary))
