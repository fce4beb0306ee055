"""Writing files so that a reader finds the old content or the new one, never half of it."""

import csv
import errno
import glob
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import Any

from hcoatnet.documents import DocumentError, parse_object

A_DAY = 24 * 60 * 60


def sha256_of_bytes(content: bytes) -> str:
    """Hexadecimal SHA-256 of ``content``."""
    return hashlib.sha256(content).hexdigest()


def sha256_of_file(path: Path) -> str:
    """Hexadecimal SHA-256 of the file's bytes, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def replace_file(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, flush it to disk, then move it over ``path``.

    If ``write`` fails (a full disk, an interrupt), ``path`` is as it was and the temporary file is gone. What a killed
    process left of an earlier attempt is removed when it is a day old: a younger one may be another's, at work.
    """
    remove_leftovers(path.parent, path.name, A_DAY)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, name):
            error.filename = str(path)
        raise


def replace_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Let ``fill`` write into a new folder beside ``path``, then move it to where ``path`` is.

    What was in ``path`` is gone afterwards. If ``fill`` fails, ``path`` is as it was and the new folder is gone. What a
    killed process left is removed as in :func:`replace_file`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent, path.name, A_DAY)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    made, old = temporary / "new", temporary / "old"
    try:
        made.mkdir()
        fill(made)
        if path.exists():
            path.rename(old)
        try:
            made.rename(path)
        except BaseException:
            if old.exists():
                old.rename(path)
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(folder: Path, name: str | None = None, age: float = 0) -> None:
    """Remove temporary files and folders that a killed process left in ``folder``.

    Args:
        folder: Where they lie; what is in its folders stays.
        name: Name of the file or folder that they were to become; any by default.
        age: Seconds for which they must have been left alone. With 0 nobody else may be writing there.
    """
    pattern = "*" if name is None else glob.escape(name)
    for left in folder.glob(f".{pattern}.????????.tmp"):
        with suppress(OSError):  # gone meanwhile, or another user's
            if time.time() - left.lstat().st_mtime < age:
                continue
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            else:
                left.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file at once (see :func:`replace_file`)."""
    replace_file(path, lambda temporary: _write_all(temporary, content))


def write_text(path: Path, content: str) -> None:
    """Write a whole UTF-8 text file at once (see :func:`replace_file`)."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write indented JSON at once. NaN and infinity are refused, because JSON has no such numbers."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def append_line(path: Path, line: str) -> None:
    """Append one line in a single write, so that two processes never mix their lines.

    A torn last line, left by a crash, is closed first: it stays a line of its own that readers skip.

    Raises:
        OSError: The line could not be written whole, as on a full disk.
    """
    torn = path.exists() and path.stat().st_size > 0 and _last_byte(path) != b"\n"
    binary = getattr(os, "O_BINARY", 0)  # Windows would write its own line ends
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | binary, 0o666)
    content = (("\n" if torn else "") + line + "\n").encode("utf-8")
    try:
        if os.write(handle, content) < len(content):  # the last bytes of the disk were enough for a part
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        os.close(handle)


def csv_line(values: list[Any]) -> str:
    """One CSV row without its line end."""
    buffer = StringIO()
    csv.writer(buffer, lineterminator="").writerow(values)
    return buffer.getvalue()


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Rows of an append-only JSON-lines file; empty if there is none. Torn lines are skipped."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_bytes().splitlines():
        with suppress(DocumentError):
            rows.append(parse_object(line))
    return rows


def _write_all(path: Path, content: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(content)


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read(1)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
