"""Unpacking a zip archive that somebody else made."""

import re
import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hcoatnet.errors import DataError

_BLOCK = 1 << 20
_DRIVE = re.compile(r"[A-Za-z]:")
_ENCRYPTED = 0x1
_LONGEST_NAME, _LONGEST_PATH = 255, 1024
"""Bytes, of a file's name and with its folders: what the usual file systems take."""


@dataclass(frozen=True)
class Limits:
    """What an archive may hold at most: bytes as unpacked, and files."""

    bytes: int = 50_000_000_000
    files: int = 1_000_000


def unpack_zip(
    archive: Path, folder: Path, limits: Limits | None = None, progress: Callable[[int, int], None] | None = None
) -> int:
    """Unpack a zip archive into an existing folder, after every entry's name and kind was checked.

    Args:
        archive: The archive.
        folder: Where its files go.
        limits: What it may hold at most; sizes are counted as they are written, whatever the archive announces.
        progress: Called with the files done and all.

    Returns:
        Number of files.

    Raises:
        DataError: If it is no whole zip archive, or an entry would leave the folder, is a link or another special file,
            is encrypted, stands there twice, or goes beyond the limits. Files unpacked until then stay.
    """
    limits = limits or Limits()
    with _named_errors(archive.name):
        opened = zipfile.ZipFile(archive)
    with opened:
        entries = [entry for entry in opened.infolist() if not entry.orig_filename.endswith("/")]
        _check(entries, archive.name, limits)
        left = limits.bytes
        for done, entry in enumerate(entries, start=1):
            target = folder / entry.filename
            target.parent.mkdir(parents=True, exist_ok=True)
            left = _write(opened, entry, target, left, archive.name)
            if progress is not None:
                progress(done, len(entries))
    return len(entries)


def _check(entries: list[zipfile.ZipInfo], name: str, limits: Limits) -> None:
    if len(entries) > limits.files:
        raise DataError(f"{name}: {len(entries):,} files, more than {limits.files:,}. It was not unpacked.")
    announced = sum(entry.file_size for entry in entries)
    if announced > limits.bytes:
        raise DataError(f"{name}: {announced:,} bytes when unpacked, more than {limits.bytes:,}. It was not unpacked.")
    seen: set[str] = set()
    folders: set[str] = set()
    for entry in entries:
        path = PurePosixPath(entry.filename.casefold())
        fault = _fault(entry)
        above = {str(parent) for parent in path.parents}
        if fault is None and str(path) in seen:
            fault = "stands in the archive twice"
        if fault is None and (str(path) in folders or above & seen):
            fault = "is a file and a folder"
        if fault is not None:
            raise DataError(f"{name}: the entry {entry.filename[:200]!a} {fault}. Nothing of the archive was used.")
        seen.add(str(path))
        folders |= above


def _fault(entry: zipfile.ZipInfo) -> str | None:
    name = entry.orig_filename  # before zipfile cuts it at a NUL or turns its slashes round
    parts = PurePosixPath(name).parts
    if not name.isprintable() or not parts:
        return "has a name of unprintable characters"
    if len(name.encode()) > _LONGEST_PATH or any(len(part.encode()) > _LONGEST_NAME for part in parts):
        return "has a name that is too long"
    if name.startswith("/") or "\\" in name or ".." in parts or _DRIVE.match(name):
        return "would be written outside the folder"
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return "is a link or another special file"
    if entry.flag_bits & _ENCRYPTED:
        return "is encrypted"
    return None


def _write(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, left: int, name: str) -> int:
    """Write one file; returns how many bytes may still follow. Reading it to the end checks its CRC."""
    with target.open("xb") as stream:
        for block in _blocks(opened, entry, name):
            left -= len(block)
            if left < 0:
                raise DataError(f"{name}: it unpacks to more bytes than it announces. Nothing of it was used.")
            stream.write(block)
    return left


def _blocks(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> Iterator[bytes]:
    with _named_errors(name), opened.open(entry) as source:
        while block := source.read(_BLOCK):
            yield block


@contextmanager
def _named_errors(name: str) -> Iterator[None]:
    """Turn whatever zipfile raises on a damaged archive, which is nearly anything, into one kind of error."""
    try:
        yield
    except Exception as error:
        raise DataError(f"{name}: not a whole zip archive ({error}). Download it again.") from error
