"""What a run says while it works: a progress bar on a terminal, plain lines elsewhere, both kept in log.txt."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hcoatnet.files import append_line
from hcoatnet.terminal import say


class Journal:
    """Speaks to a console and writes the same lines to a log file.

    Args:
        console: Where a person reads.
        log: The file, or None for none.
    """

    def __init__(self, console: Console, log: Path | None = None) -> None:
        self.console = console
        self.log = log

    def say(self, line: str) -> None:
        """Print one line and keep it."""
        say(line, console=self.console)
        self.log_only(line)

    def log_only(self, line: str) -> None:
        """Keep a line that somebody else prints."""
        if self.log is not None:
            append_line(self.log, f"{datetime.now(UTC).isoformat(timespec='seconds')} {line}")

    @contextmanager
    def steps(self, description: str, total: int) -> Iterator["Steps"]:
        """A bar for ``total`` steps while the context lasts, on a terminal only; it leaves nothing behind."""
        if not self.console.is_terminal:
            yield Steps(None, 0)
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self.console, transient=True) as progress:
            yield Steps(progress, progress.add_task(description, total=total))


class Steps:
    """Counts the steps of one bar."""

    def __init__(self, progress: Progress | None, task: int) -> None:
        self.progress = progress
        self.task = task

    def advance(self) -> None:
        """One step is done."""
        if self.progress is not None:
            self.progress.advance(self.task)  # type: ignore[arg-type]  # TaskID is an int
