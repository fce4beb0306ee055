"""Checks of the folders that are written to: room, permission, and what runs rely on."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from hcoatnet.doctor.finding import Finding

GIGABYTE = 10**9
LEAST_ROOM = GIGABYTE
GOOD_ROOM = 5 * GIGABYTE
BUSY = 3
"""Exit code of `_SECOND_PROCESS` where the lock kept it out."""

_SECOND_PROCESS = f"""
import sys
from filelock import FileLock, Timeout
try:
    FileLock(sys.argv[1]).acquire(timeout=0)
except Timeout:
    sys.exit({BUSY})
"""
_ACCENTED = "é.txt"


def disk() -> Finding:
    """Whether there is room for runs and for decoded photos."""
    free = {name: shutil.disk_usage(folder).free for name, folder in _places().items()}
    found = ", ".join(f"{left / GIGABYTE:.1f} GB free for {name}" for name, left in free.items())
    if min(free.values()) < LEAST_ROOM:
        return Finding("problem", found, "Make room, or work in a folder on another disk (--out, --cache-folder).")
    if min(free.values()) < GOOD_ROOM:
        advice = "Enough for small sets; give decoded photos a bound with --cache-limit, or none with --no-cache."
        return Finding("warning", found, advice)
    return Finding("ok", found)


def writing() -> Finding:
    """Whether the working folder and the user's cache folder can be written."""
    refused = {name: reason for name, folder in _places().items() if (reason := _write_failure(folder))}
    if not refused:
        return Finding("ok", "the working folder and the cache folder can be written")
    found = "; ".join(f"no file can be made for {name}: {reason}" for name, reason in refused.items())
    if "runs" in refused:
        return Finding("problem", found, "Work in a folder of yours, or have its permissions changed.")
    return Finding("warning", found, "Set XDG_CACHE_HOME to a folder of yours, or give --cache-folder.")


def file_system() -> Finding:
    """Whether the working folder replaces files whole, keeps locks, and tells names apart; each is tried."""
    with tempfile.TemporaryDirectory(prefix=".hcoatnet-doctor-", dir=Path.cwd()) as name:
        folder = Path(name)
        broken = _failing(
            ("a file cannot be replaced by another", _replaces(folder)),
            ("a lock does not keep a second process out", _locks(folder)),
        )
        odd = _failing(
            ("names that differ only in capitals are one file", _tells_case(folder)),
            ("accents in file names are changed", _keeps_accents(folder)),
        )
    if broken:
        return Finding("problem", "; ".join(broken), "Keep runs and studies on a local disk (--out).")
    if odd:
        advice = "Take care with photos from other systems: scan them here, not there."
        return Finding("warning", "; ".join(odd), advice)
    return Finding("ok", "files are replaced whole, locks hold, names are kept as they are")


def _failing(*tried: tuple[str, bool]) -> list[str]:
    return [what for what, works in tried if not works]


def _places() -> dict[str, Path]:
    from hcoatnet.data.cache import user_cache_folder

    return {"runs": Path.cwd(), "the cache": _existing(user_cache_folder())}


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that there is."""
    return next(one for one in (folder, *folder.absolute().parents) if one.is_dir())


def _write_failure(folder: Path) -> str:
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".hcoatnet-doctor-") as stream:
            stream.write(b"x")
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""


def _replaces(folder: Path) -> bool:
    old, new = folder / "old", folder / "new"
    old.write_bytes(b"old")
    new.write_bytes(b"new")
    try:
        new.replace(old)
    except OSError:
        return False
    return old.read_bytes() == b"new" and not new.exists()


def _locks(folder: Path) -> bool:
    from filelock import FileLock

    file = folder / "lock"
    try:
        with FileLock(file, timeout=0):
            second = subprocess.run(
                [sys.executable, "-c", _SECOND_PROCESS, str(file)], capture_output=True, check=False
            )
    except (OSError, NotImplementedError):
        return False
    return second.returncode == BUSY


def _tells_case(folder: Path) -> bool:
    (folder / "Case.txt").write_bytes(b"")
    return not (folder / "case.txt").exists()


def _keeps_accents(folder: Path) -> bool:
    try:
        (folder / _ACCENTED).write_bytes(b"")
    except (OSError, UnicodeEncodeError):
        return False
    return _ACCENTED in {file.name for file in folder.iterdir()}
