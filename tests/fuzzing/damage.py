"""Damaged files as Hypothesis draws them, and what must hold of everything that reads them.

Whatever stands in a file, its reader gives a value or raises an `HCoAtNetError` whose message names the file. It is done
in little processor time and memory, and writes nothing outside the folder that it was given.
"""

import csv
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from copy import deepcopy
from io import StringIO
from pathlib import Path
from typing import Any
from unicodedata import category

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hcoatnet.errors import DataProblems, HCoAtNetError
from hcoatnet.terminal import LONGEST_CELL, LONGEST_MESSAGE, MOST_PROBLEMS, report_error

COUNTS: Counter[str] = Counter()
"""Damaged files that were tried, and how often reading them gave a value or an error of ours."""

FEW = 100

SECONDS = 10
"""Processor time that reading one damaged file may take; whole ones take milliseconds."""

MEBIBYTES = 200
"""Memory that it may take beyond what the process has; whole ones take a few."""

_WRITES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.chmod"}
_watched: list[str] | None = None


class TooLong(BaseException):
    """Nothing that a reader catches."""


def sizes(few: int, many: int) -> pytest.MarkDecorator:
    """A few examples in the fast tests, many in the slow ones."""
    return pytest.mark.parametrize("examples", [few, pytest.param(many, marks=pytest.mark.slow)])


def explore(examples: int, holds: Callable[[Any], object], drawn: st.SearchStrategy[Any]) -> None:
    """Try a property on so many examples: fewer than a hundred are always the same, more are others each time."""

    def tried(example: Any) -> None:
        COUNTS["files"] += 1
        holds(example)

    chosen = settings(
        max_examples=examples,
        derandomize=examples < FEW,
        deadline=None,  # the clock of the wall also counts what other processes take
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    chosen(given(drawn)(tried))()


def outcome(read: Callable[[], Any], name: str, folder: Path | None = None, mebibytes: int = MEBIBYTES) -> Any:
    """What ``read`` gives, or the error that it raises, which must name ``name``.

    Args:
        read: Reads the file.
        name: What the message must hold.
        folder: Where it may write; nowhere by default.
        mebibytes: Memory that it may take.
    """
    with _in_memory(mebibytes), _in_time(), _writing_only_in(folder):
        try:
            found = read()
        except HCoAtNetError as error:
            _check_message(error, name)
            found = error
    COUNTS["refused" if isinstance(found, HCoAtNetError) else "read"] += 1
    return found


def _check_message(error: HCoAtNetError, name: str) -> None:
    """What the command line prints of an error names the file, is of bounded length, and cannot steer a terminal."""
    problems = error.problems if isinstance(error, DataProblems) else ()
    assert name in str(error) or any(name in problem.path for problem in problems), f"{name} is not in: {error}"
    with redirect_stderr(StringIO()) as printed:
        report_error(error)
    shown = printed.getvalue()
    assert shown.startswith("Error: ")
    assert "Traceback" not in shown
    rows = min(len(problems), MOST_PROBLEMS)
    assert len(str(error)) <= LONGEST_MESSAGE or f"({len(str(error)):,} characters)" in shown
    assert len(shown) < 10 * LONGEST_MESSAGE + rows * 100 * LONGEST_CELL
    assert not any(category(one) in ("Cc", "Cf", "Cs") for one in shown if one != "\n"), ascii(shown)


@contextmanager
def _in_time() -> Iterator[None]:
    def stop(number: int, frame: Any) -> None:
        raise TooLong

    before = signal.signal(signal.SIGPROF, stop)
    start = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    assert time.process_time() - start < SECONDS


@contextmanager
def _in_memory(mebibytes: int) -> Iterator[None]:
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the largest size of this process counts from now on
    except OSError:
        yield  # not Linux
        return
    before = _kibibytes("VmRSS:")
    yield
    took = (_kibibytes("VmHWM:") - before) / 1024
    assert took < mebibytes, f"{took:.0f} MiB"


def _kibibytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


@contextmanager
def _writing_only_in(folder: Path | None) -> Iterator[None]:
    global _watched  # noqa: PLW0603 - a hook cannot be taken out, so it is told when to listen
    _watched = []
    try:
        yield
    finally:
        found, _watched = _watched, None
    inside = None if folder is None else folder.resolve()
    outside = [path for path in found if inside is None or inside not in Path(path).resolve().parents]
    assert outside == [], outside


def _listen(event: str, given: tuple[Any, ...]) -> None:
    if _watched is None:
        return
    if event == "open":
        path, mode, flags = given
        writes = any(sign in (mode or "") for sign in "wax+") or (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes and not isinstance(path, int) and "__pycache__" not in os.fsdecode(path):
            _watched.append(os.fsdecode(path))
    elif event in _WRITES:
        _watched.append(os.fsdecode(given[0]))


sys.addaudithook(_listen)


# --- bytes

_Change = Callable[[bytearray], None]


def _place(content: bytearray, share: float) -> int:
    return min(int(share * len(content)), max(len(content) - 1, 0))


def _flip(share: float, bits: int) -> _Change:
    def change(content: bytearray) -> None:
        if content:
            content[_place(content, share)] ^= bits

    return change


def _write(share: float, new: bytes) -> _Change:
    def change(content: bytearray) -> None:
        place = _place(content, share)
        content[place : place + len(new)] = new

    return change


def _insert(share: float, new: bytes) -> _Change:
    def change(content: bytearray) -> None:
        place = _place(content, share)
        content[place:place] = new

    return change


def _double(share: float, length: int) -> _Change:
    def change(content: bytearray) -> None:
        place = _place(content, share)
        content[place:place] = content[place : place + length]

    return change


def _take_out(share: float, length: int) -> _Change:
    def change(content: bytearray) -> None:
        place = _place(content, share)
        del content[place : place + length]

    return change


def _cut(share: float) -> _Change:
    def change(content: bytearray) -> None:
        del content[_place(content, share) :]

    return change


def damaged(whole: Sequence[bytes], words: Sequence[bytes] = (b"\0", b"\xff" * 4)) -> st.SearchStrategy[bytes]:
    """One of several files after up to five changes, or the beginning of one before the end of another.

    Args:
        whole: The files.
        words: What stands in such files and decides how they are read, to be written at other places, too.
    """
    shares = st.one_of(st.floats(0, 1), st.floats(0, 0.02))  # what decides stands at the start of most files
    news = st.one_of(st.sampled_from(words), st.binary(min_size=1, max_size=8))
    lengths = st.integers(1, 64)
    changes = st.one_of(
        st.builds(_flip, shares, st.integers(1, 255)),
        st.builds(_write, shares, news),
        st.builds(_insert, shares, news),
        st.builds(_double, shares, lengths),
        st.builds(_take_out, shares, lengths),
        st.builds(_cut, shares),
    )
    files = st.sampled_from(whole)
    changed = st.builds(_changed, files, st.lists(changes, min_size=1, max_size=5))
    spliced = st.builds(
        lambda one, other, here, there: one[: int(here * len(one))] + other[int(there * len(other)) :],
        files, files, st.floats(0, 1), st.floats(0, 1),
    )  # fmt: skip
    return st.one_of(changed, changed, changed, spliced, st.binary(max_size=200))


def _changed(content: bytes, changes: Sequence[_Change]) -> bytes:
    made = bytearray(content)
    for change in changes:
        change(made)
    return bytes(made)


# --- tables

CELLS = (
    "", " ", "0", "-1", "1.5", "nan", "inf", "1e999", "9" * 30, "9" * 5000, "١", "NA", "true", "=1+1", "\0", "\x1b[31m", "\n",
    "a\nb", '"', ",", ";", "ä" * 300, "\u202e", "../../x", "/etc/passwd", "C:\\x", "x" * 300, "\ud800",
)  # fmt: skip
"""Values that tables hold where something else is expected."""


def damaged_table(rows: Sequence[Sequence[str]]) -> st.SearchStrategy[bytes]:
    """A table as CSV in UTF-8, after cells, rows or columns of it were changed."""
    return st.builds(
        _changed_table,
        st.just(rows),
        st.lists(st.tuples(st.integers(0, 7), st.floats(0, 1), st.floats(0, 1), st.sampled_from(CELLS)), min_size=1, max_size=4),
        st.sampled_from([",", ",", ",", ";", "\t"]),
    )  # fmt: skip


def _changed_table(rows: Sequence[Sequence[str]], changes: Sequence[Any], delimiter: str) -> bytes:
    table = [list(row) for row in rows]
    for kind, down, across, value in changes:
        row = min(int(down * len(table)), len(table) - 1)
        column = min(int(across * len(table[row])), len(table[row]) - 1) if table and table[row] else 0
        _change_table(table, kind, row, column, value)
    return as_csv(table, delimiter)


def as_csv(table: Sequence[Sequence[str]], delimiter: str = ",") -> bytes:
    """The rows as CSV; halves of surrogate pairs, which are no UTF-8, too."""
    buffer = StringIO()
    csv.writer(buffer, delimiter=delimiter, lineterminator="\n").writerows(table)
    return buffer.getvalue().encode("utf-8", "surrogatepass")


def _change_table(table: list[list[str]], kind: int, row: int, column: int, value: str) -> None:
    if not table or not table[row]:
        return
    if kind <= 2:
        table[row][column] = value
    elif kind == 3:  # a column's name
        table[0][min(column, len(table[0]) - 1)] = value
    elif kind == 4:
        table.insert(row, list(table[row]))
    elif kind == 5:
        del table[row]
    elif kind == 6:  # a column
        for cells in table:
            del cells[column : column + 1]
    else:
        for cells in table[1:]:
            cells[column : column + 1] = [value]


# --- trees, as JSON and YAML hold them

VALUES = (
    None, True, False, 0, -1, 3, 1.5, 10**30, 1e308, float("nan"), float("inf"), "", "x", "1e-3", "../../x", "a\0b", "\x1b[31m",
    "y" * 3000, [], [[]], {}, {"a": 1}, ["x", "x"], [1, "x", None],
)  # fmt: skip
"""Values that a file holds where something else is expected."""


def damaged_tree(tree: Any, values: Sequence[Any] = VALUES) -> st.SearchStrategy[Any]:
    """A tree of mappings, lists and values after one to three places of it were changed."""
    changes = st.tuples(
        st.lists(st.floats(0, 1), min_size=1, max_size=5), st.sampled_from(["value", "delete", "rename", "swap"]),
        st.sampled_from(values),
    )  # fmt: skip
    return st.builds(_changed_tree, st.just(tree), st.lists(changes, min_size=1, max_size=3))


def _changed_tree(tree: Any, changes: Sequence[Any]) -> Any:
    made = [deepcopy(tree)]
    for way, kind, value in changes:
        inside: Any = made
        place: Any = 0
        for step in way:
            below = inside[place]
            if not isinstance(below, dict | list) or not below:
                break
            keys = list(below) if isinstance(below, dict) else range(len(below))
            inside, place = below, keys[min(int(step * len(keys)), len(keys) - 1)]
        if kind == "delete" and inside is not made:
            del inside[place]
        elif kind == "rename" and isinstance(inside, dict):
            inside[str(value)] = inside.pop(place)
        elif kind == "swap" and isinstance(inside[place], list):
            inside[place].reverse()
        else:
            inside[place] = deepcopy(value)
    return made[0]


def as_json(tree: Any) -> bytes:
    """The tree as JSON, which Python reads back with NaN and infinity."""
    return json.dumps(tree).encode()
