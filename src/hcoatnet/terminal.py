"""What the command line shows: lines, tables and errors."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any
from unicodedata import category

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hcoatnet.errors import DataProblems, HCoAtNetError

if TYPE_CHECKING:
    import pandas as pd

LONGEST_MESSAGE = 2000
LONGEST_CELL = 500
MOST_PROBLEMS = 1000
"""Characters, and rows, of an error that are shown: a damaged file may hold millions."""

out = Console()
err = Console(stderr=True)


def accept_every_sign() -> None:
    """Show signs such as ² as ? on a terminal or in a file whose encoding has no place for them, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


def say(*lines: str, console: Console = out) -> None:
    """Print lines as they are, unwrapped."""
    for line in lines:
        console.print(visible(line), markup=False, highlight=False, soft_wrap=True)


@contextmanager
def progress_bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """A function of (done, total) that moves a bar on a terminal, and does nothing elsewhere."""
    if not out.is_terminal:
        yield lambda done, total: None
        return
    from rich.progress import Progress

    with Progress(console=out, transient=True) as progress:
        task = progress.add_task(description)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def progress_stages() -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    """For work of several stages: a function that gives each named stage a bar as in `progress_bar`."""
    if not out.is_terminal:
        yield lambda description: lambda done, total: None
        return
    from rich.progress import Progress

    with Progress(console=out, transient=True) as progress:

        def stage(description: str) -> Callable[[int, int], None]:
            task = progress.add_task(description, total=None)
            return lambda done, total: progress.update(task, completed=done, total=total)

        yield stage


def print_error(message: str) -> None:
    """Print one message to standard error."""
    text = visible(shortened(message, LONGEST_MESSAGE))
    err.print(Text.assemble(("Error: ", "bold red"), text), highlight=False, soft_wrap=True)


def report_error(error: HCoAtNetError) -> None:
    """Print the message, and the table of problems where there are several."""
    print_error(str(error))
    if isinstance(error, DataProblems):
        columns = ("path", "rule", "found", "expected", "fix")
        rows = [
            [shortened(getattr(problem, name), LONGEST_CELL) for name in columns]
            for problem in error.problems[:MOST_PROBLEMS]
        ]
        err.print(table("", columns, rows))
        if (more := len(error.problems) - MOST_PROBLEMS) > 0:
            err.print(f"And {more:,} more.")


def print_summary(subsets: Mapping[str, Any]) -> None:
    """Print the headline metrics of each subset."""
    columns = ("", "photos", "groups", "accuracy", "balanced accuracy", "macro F1", "log loss")
    rows = [
        [
            name,
            str(summary["n"]),
            str(summary["groups"]),
            *(f"{summary[key]['value']:.4f}" for key in ("accuracy", "balanced_accuracy", "macro_f1", "log_loss")),
        ]
        for name, summary in subsets.items()
    ]
    out.print(table("", columns, rows, right=range(1, len(columns))))


def print_frame(title: str, frame: "pd.DataFrame") -> None:
    """Print a table with its index as the first column."""
    columns = ["", *map(str, frame.columns)]
    rows = [[str(index), *map(str, row)] for index, row in zip(frame.index, frame.to_numpy(), strict=True)]
    out.print(table(title, columns, rows, right=range(1, len(columns))))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> Table:
    """A plain table; ``right`` numbers the columns that are aligned right."""
    made = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for number, name in enumerate(columns):
        made.add_column(name, justify="right" if number in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(visible(cell)) for cell in row))
    return made


def visible(text: str) -> str:
    """The text with control characters as Python writes them: what stands in a file must not steer a terminal."""
    return "".join(_code(one) if category(one)[0] == "C" and one != "\n" else one for one in text)


def shortened(text: str, most: int) -> str:
    """The text, or its first ``most`` characters and how many there were."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def _code(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
