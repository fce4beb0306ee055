"""From what a person names (files, folders, patterns, lines of standard input) to photos, one at a time."""

import glob
import os
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from hcoatnet.data.images import PHOTO_SUFFIXES
from hcoatnet.errors import DataProblems, Problem

STANDARD_INPUT = "-"

Found = Path | Problem
"""A file to open, or a place that has no photo to give."""


def find_photos(places: Iterable[str], lines: Iterable[bytes]) -> Iterator[Found]:
    """Photos of several places, in their order.

    A file that is named is taken as it is, whatever its suffix. In a folder, and everything below it, files with the
    suffix of a photo are taken, those of a folder in order of their names, then those of its subfolders. Hidden files
    and folders are left out, and links to folders are not followed. A pattern (``*``, ``?``, ``[…]``, ``**`` for any
    depth) gives files with the suffix of a photo and, without ``**``, folders. Only one folder's names, or one
    pattern's paths, are held at a time.

    Args:
        places: Paths and patterns; ``-`` stands for ``lines``.
        lines: Paths of files and folders, one a line.

    Raises:
        DataProblems: There is no file at all.
    """
    found = chain.from_iterable(_of_place(place, lines) for place in places)
    problems: list[Found] = []
    for one in found:
        if isinstance(one, Path):
            return chain(problems, [one], found)
        problems.append(one)
    raise DataProblems("No photo was found.", [one for one in problems if isinstance(one, Problem)])


def printable(path: Path) -> str:
    """A path as text that can be printed and stored, also where its bytes are no UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _of_place(place: str, lines: Iterable[bytes]) -> Iterator[Found]:
    if place == STANDARD_INPUT:
        for line in lines:
            if path := line.rstrip(b"\r\n"):
                yield from _of_path(Path(os.fsdecode(path)))
    elif glob.has_magic(place) and not os.path.lexists(place):
        yield from _of_pattern(place)
    else:
        yield from _of_path(Path(place))


def _of_path(path: Path) -> Iterator[Found]:
    if not os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises where a name is too long or a folder is closed
        yield path
        return
    empty = True
    for one in _below(path):
        empty = False
        yield one
    if empty:
        yield _nothing(path, "a folder without photos")


def _below(folder: Path) -> Iterator[Found]:
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        files, folders = [], []
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.name)
                    elif _is_photo(entry.name) and entry.is_file():
                        files.append(entry.name)
        except OSError as error:
            yield _nothing(here, f"a folder that cannot be read ({error.strerror})")
        for name in sorted(files):
            yield here / name
        waiting += [here / name for name in sorted(folders, reverse=True)]


def _of_pattern(pattern: str) -> Iterator[Found]:
    empty = True
    for match in sorted(glob.iglob(pattern, recursive=True)):  # noqa: PTH207 - Path.glob takes no absolute pattern
        path = Path(match)
        if os.path.isdir(path) and "**" not in pattern:  # noqa: PTH112 - as above
            empty = False
            yield from _of_path(path)
        elif _is_photo(match) and os.path.isfile(path):  # noqa: PTH113 - as above
            empty = False
            yield path
    if empty:
        yield _nothing(Path(pattern), "a pattern that fits no photo")


def _is_photo(name: str) -> bool:
    return name.lower().endswith(PHOTO_SUFFIXES)


def _nothing(place: Path, found: str) -> Problem:
    return Problem(
        path=printable(place),
        rule="no photos",
        found=found,
        expected=f"files ending in {', '.join(PHOTO_SUFFIXES)}",
        fix="Correct the path, or name the files themselves.",
    )
