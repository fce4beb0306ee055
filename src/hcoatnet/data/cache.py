"""Decoded photos kept on disk, so that each is decoded once and not in every epoch.

A cache is a folder of sets, one for each size at which photos are held. A set is two files that only ever grow: the
pixels, one photo after another, which readers map into memory, and an index of fixed-size records. A photo is known by
the SHA-256 of its file, so that runs on other splits of the same photos share a set. Pixels are written before the
record that names them, both under a lock: several processes can fill one set, and what a crash leaves is overwritten. A
record and the pixels each carry a checksum; what does not fit counts as not there and is decoded again.
"""

import os
import random
import re
import shutil
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hcoatnet.files import write_text

Pixels = NDArray[np.uint8]

CACHE_NAME = ".hcoatnet-cache"
FORMAT = 1
GIGABYTE = 10**9
SPARE = GIGABYTE
"""Bytes that the cache leaves free on the disk."""

CHUNK = 64
"""Photos decoded between two visits to the lock."""

RECORD = np.dtype(
    [("sha256", "u1", (32,)), ("offset", "<u8"), ("height", "<u4"), ("width", "<u4"), ("crc", "<u4"), ("check", "<u4")]
)
_SET_NAME = re.compile(r"-v\d+-pillow-[^-]+-jpeg-")
_CHECKED = RECORD.itemsize - 4

PLACE = np.dtype([("offset", "<i8"), ("size", "<i4"), ("height", "<i4"), ("width", "<i4"), ("crc", "<u4")])
"""Where the pixels of one photo lie; a size of 0 says nowhere."""


class PixelSet:
    """The cached photos of one size.

    Args:
        folder: The set's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.index_file = folder / "index"
        self.pixel_file = folder / "pixels"
        self._memory: np.memmap[Any, np.dtype[np.uint8]] | None = None
        self._known: dict[bytes, tuple[int, int, int, int, int]] = {}
        self._read = self._end = 0
        self._inode = -1  # no file has it

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}  # a memory map would be copied whole into another process

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"])  # type: ignore[misc]

    def find(self, sha256: Sequence[str]) -> NDArray[Any]:
        """Where the photos with these digests lie: `PLACE` records, of size 0 where they are not in the set."""
        self.refresh()
        places = np.zeros(len(sha256), PLACE)
        for number, digest in enumerate(sha256):
            place = self._known.get(bytes.fromhex(digest))
            if place is not None:
                places[number] = place
        return places

    def read(self, place: Any) -> Pixels | None:
        """The pixels (H, W, 3) at a place; None where there are none or their checksum is wrong."""
        size = int(place["size"])
        if not size:
            return None
        if self._memory is None:
            try:
                self._memory = np.memmap(self.pixel_file, dtype=np.uint8, mode="r")
            except (OSError, ValueError):  # removed meanwhile, or empty
                return None
        pixels = self._memory[int(place["offset"]) : int(place["offset"]) + size]
        if len(pixels) < size or zlib.crc32(pixels.data) != place["crc"]:
            return None
        return np.asarray(pixels).reshape(int(place["height"]), int(place["width"]), 3)

    def append(self, photos: Iterable[tuple[str, Pixels]], *, again: bool = False) -> None:
        """Add photos by their digest; those that are in the set already are left out unless ``again``.

        Raises:
            OSError: The folder cannot be written, as on a full disk.
        """
        with self._locked():
            self.refresh()
            new = [(bytes.fromhex(digest), pixels) for digest, pixels in photos]
            if not again:
                new = [(digest, pixels) for digest, pixels in new if digest not in self._known]
            if not new:
                return
            records = np.zeros(len(new), RECORD)
            end = self._end
            with self.pixel_file.open("r+b" if self.pixel_file.exists() else "w+b") as stream:
                stream.seek(end)
                for record, (digest, pixels) in zip(records, new, strict=True):
                    content = np.ascontiguousarray(pixels)
                    stream.write(content.data)
                    record["sha256"] = np.frombuffer(digest, np.uint8)
                    record["offset"], record["height"], record["width"] = end, *content.shape[:2]
                    record["crc"] = zlib.crc32(content.data)
                    record["check"] = zlib.crc32(record.tobytes()[:_CHECKED])
                    end += content.nbytes
            with self.index_file.open("r+b" if self.index_file.exists() else "w+b") as stream:
                stream.seek(self._read)  # over a record that a crash cut short
                stream.write(records.tobytes())
            self.refresh()

    def refresh(self) -> None:
        """Take in what was added to the index since it was last read."""
        try:
            found = self.index_file.stat()
        except OSError:
            self.forget()
            return
        if found.st_ino != self._inode or found.st_size < self._read:
            self.forget()
            self._inode = found.st_ino
        with self.index_file.open("rb") as stream:
            stream.seek(self._read)
            content = stream.read()
        whole = len(content) // RECORD.itemsize * RECORD.itemsize
        records = np.frombuffer(content[:whole], RECORD)
        stored = self.pixel_file.stat().st_size if self.pixel_file.exists() else 0
        for number, record in enumerate(records.tolist()):
            _, offset, height, width, crc, check = record
            start, size = number * RECORD.itemsize, 3 * height * width
            if zlib.crc32(content[start : start + _CHECKED]) == check and offset + size <= stored:
                self._known[content[start : start + 32]] = (offset, size, height, width, crc)
                self._end = max(self._end, offset + size)
        self._read += whole

    def forget(self) -> None:
        """Let go of the index: whoever has found the places of its photos needs it no longer."""
        self._memory = None
        self._known = {}
        self._read = self._end = 0
        self._inode = -1

    def __contains__(self, sha256: str) -> bool:
        return bytes.fromhex(sha256) in self._known

    @contextmanager
    def _locked(self) -> Iterator[None]:
        from filelock import FileLock

        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(_lock_of(self.folder)):
            self.folder.mkdir(exist_ok=True)
            yield


class Counter(Protocol):
    """Counts what is done."""

    def advance(self) -> None:
        """One more is done."""


class Listener(Protocol):
    """Who is told what the cache does."""

    def say(self, line: str) -> None:
        """Tell a person."""

    def steps(self, description: str, total: int) -> AbstractContextManager[Counter]:
        """Show the progress of ``total`` steps while the context lasts."""


class PhotoCache:
    """A folder of sets, bounded in size.

    Args:
        folder: Where it lies.
        limit: Most bytes that all sets may take together.
        listener: Is told what a person should know.
        threads: Threads that decode.
    """

    def __init__(self, folder: Path, limit: float, listener: Listener, threads: int = 1) -> None:
        self.folder = folder
        self.limit = limit
        self.listener = listener
        self.threads = threads
        self.in_use: set[Path] = set()

    def prepare(
        self, name: str, sha256: Sequence[str], need: Sequence[int], decode: Callable[[int], Pixels]
    ) -> PixelSet | None:
        """The set of this name with these photos in it, decoding those that are not.

        Sets that were used longest ago are removed where room is needed.

        Args:
            name: What is held, such as ``square-224``.
            sha256: Digest of each photo.
            need: Bytes that each takes.
            decode: Gives the pixels of the photo with this index.

        Returns:
            None where the photos do not fit, or the folder cannot be written: they are then decoded each time.

        Raises:
            PhotoError: A photo cannot be read.
        """
        chosen = PixelSet(self.folder / f"{name}-{_decoder()}")
        self.in_use.add(chosen.folder)
        try:
            places = chosen.find(sha256)
            unknown = {sha256[index]: index for index in np.flatnonzero(places["size"] == 0).tolist()}
            missing = list(unknown.values())  # equal photos once
            if missing:
                self._make_folder()
                if not self._make_room(sum(need[index] for index in missing)):
                    return None
                self._fill(chosen, sha256, missing, decode)
            with suppress(OSError):  # where it is another user's, or empty
                os.utime(chosen.folder)
        except OSError as error:
            reason = error.strerror or str(error)
            self.listener.say(f"The photo cache cannot be used ({reason}): photos are decoded in each epoch.")
            return None
        return chosen

    def _fill(
        self, chosen: PixelSet, sha256: Sequence[str], missing: list[int], decode: Callable[[int], Pixels]
    ) -> None:
        """Decode chunk by chunk, in an order of its own: processes that do the same at once share the work."""
        started = time.monotonic()
        chunks = [missing[start : start + CHUNK] for start in range(0, len(missing), CHUNK)]
        random.Random(os.urandom(8)).shuffle(chunks)
        with self.listener.steps("decoding photos", len(missing)) as steps, ThreadPoolExecutor(self.threads) as pool:
            for chunk in chunks:
                chosen.refresh()
                wanted = [index for index in chunk if sha256[index] not in chosen]
                decoded = list(pool.map(decode, wanted))
                chosen.append(zip([sha256[index] for index in wanted], decoded, strict=True))
                for _ in chunk:
                    steps.advance()
        seconds = time.monotonic() - started
        self.listener.say(f"Decoded {len(missing):,} photos into the cache in {seconds:.1f} s (--no-cache: no cache).")

    def _make_room(self, wanted: int) -> bool:
        """Whether ``wanted`` bytes fit, after removing sets that are not in use, the least recently used first."""
        taken = {one: _bytes_in(one) for one in self.folder.iterdir() if _is_set(one)}
        spare = sorted(taken.keys() - self.in_use, key=_last_used)
        room = min(self.limit - sum(taken.values()), shutil.disk_usage(self.folder).free - SPARE)
        if room + sum(taken[one] for one in spare) >= wanted:
            while room < wanted and spare:
                oldest = spare.pop(0)
                room += taken[oldest] if _remove(oldest) else 0
        if room < wanted:
            self.listener.say(
                f"Decoded, the photos take {wanted / GIGABYTE:.2g} GB, for which there is no room in the cache (of "
                f"{self.limit / GIGABYTE:.2g} GB, --cache-limit) or on the disk: they are decoded in each epoch."
            )
        return room >= wanted

    def _make_folder(self) -> None:
        """Make the folder, and mark it for backup programs and git as what may be lost and must not be published."""
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True, exist_ok=True)
            protection = self.folder.parent.stat().st_mode & 0o777 if self.folder.name == CACHE_NAME else 0o700
            self.folder.chmod(protection)
        for name, content in (
            ("CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n# Decoded photos of hcoatnet.\n"),
            (".gitignore", "*\n"),
        ):
            if not (self.folder / name).exists():
                write_text(self.folder / name, content)


def cache_folder(data: Path) -> Path:
    """Where photos of a folder or a manifest are cached: beside them, or in the user's cache folder where that fails.

    Beside them, copies of patients' photos stay under the same protection as the photos. A link that photos from
    elsewhere bring along is not followed.
    """
    place = data if data.is_dir() else data.parent
    beside = place / CACHE_NAME
    if not beside.is_symlink() and os.access(beside if beside.is_dir() else place, os.W_OK):
        return beside
    return user_cache_folder()


def user_cache_folder() -> Path:
    """The folder for this package in the user's cache folder, whether it is there or not."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hcoatnet"


def _decoder() -> str:
    """Another version of the decoder may give other pixels, so its version is part of a set's name."""
    from PIL import __version__, features

    jpeg = features.version("libjpeg_turbo") or features.version("jpg")
    return f"v{FORMAT}-pillow-{__version__}-jpeg-{jpeg}"


def _is_set(folder: Path) -> bool:
    """Whether this is a set of a cache, which may be removed to make room, and not somebody's own folder."""
    return _SET_NAME.search(folder.name) is not None and folder.is_dir() and not folder.is_symlink()


def _lock_of(folder: Path) -> str:
    return f"{folder}.lock"


def _bytes_in(folder: Path) -> int:
    total = 0
    with suppress(FileNotFoundError):  # another process removes it
        for file in folder.iterdir():
            total += file.stat().st_size
    return total


def _last_used(folder: Path) -> float:
    return folder.stat().st_mtime if folder.exists() else 0.0


def _remove(folder: Path) -> bool:
    """Remove a set, unless a process is adding to it; whoever has mapped it into memory keeps it until it ends."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(_lock_of(folder), timeout=0):
            shutil.rmtree(folder, ignore_errors=True)
    except Timeout:
        return False
    return not folder.exists()
