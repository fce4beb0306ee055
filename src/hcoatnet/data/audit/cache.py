"""Results kept between runs, by the hash of the file they came from."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from hcoatnet.files import replace_file

Row = Mapping[str, NDArray[Any]]
"""What is kept for one key: named arrays, whose shapes and types are the same for all keys of a kind."""

_SHARDS = "0123456789abcdef"
_KEYS = "keys"


class Cache:
    """Rows of arrays on disk, each under a kind and a hexadecimal key.

    A kind is sixteen files, one for each first digit of the keys. Each is written whole, under a lock, after the rows
    that other processes wrote meanwhile were read again, so several processes may use one cache. A file that is damaged
    is taken for empty and written anew. Nothing in it is executed when it is read.

    Attributes:
        folder: Where the files are; made when something is first stored.
        limit_bytes: Size that one kind may reach, before compression by the file system; the oldest rows make room.
    """

    def __init__(self, folder: Path, limit_bytes: int = 2_000_000_000) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes

    def load(self, kind: str, keys: Iterable[str]) -> dict[str, dict[str, NDArray[Any]]]:
        """The rows that are there, by key."""
        wanted = defaultdict(set)
        for key in keys:
            wanted[key[0]].add(key)
        found = {}
        for shard, inside in wanted.items():
            table = self._read(kind, shard)
            for place, key in enumerate(table.pop(_KEYS, np.array([], dtype=str)).tolist()):
                if key in inside:
                    found[key] = {name: column[place] for name, column in table.items()}
        return found

    def store(self, kind: str, rows: Mapping[str, Row]) -> None:
        """Add rows, which replace those of the same keys."""
        by_shard: dict[str, dict[str, Row]] = defaultdict(dict)
        for key, row in rows.items():
            by_shard[key[0]][key] = row
        if by_shard:
            self.folder.mkdir(parents=True, exist_ok=True)
        for shard, added in by_shard.items():
            path = self._path(kind, shard)
            with FileLock(path.with_suffix(".lock")):
                table = self._merge(self._read(kind, shard), added)
                replace_file(path, lambda temporary, table=table: _write(temporary, table))  # type: ignore[misc]

    def _path(self, kind: str, shard: str) -> Path:
        return self.folder / f"{kind}-{shard}.npz"

    def _read(self, kind: str, shard: str) -> dict[str, NDArray[Any]]:
        try:
            with np.load(self._path(kind, shard), allow_pickle=False) as file:
                table = {name: file[name] for name in file.files}
        except Exception:  # a damaged archive raises nearly anything; a missing one is empty too
            return {}
        lengths = {len(column) if column.ndim else -1 for column in table.values()}
        return table if _KEYS in table and len(lengths) == 1 and -1 not in lengths else {}

    def _merge(self, table: dict[str, NDArray[Any]], added: Mapping[str, Row]) -> dict[str, NDArray[Any]]:
        """The table with the added rows last, shortened from its front to the limit."""
        names = sorted(next(iter(added.values())))
        merged = {name: np.stack([row[name] for row in added.values()]) for name in names}
        merged[_KEYS] = np.array(list(added))
        if sorted(table) == sorted(merged):
            kept = ~np.isin(table[_KEYS], merged[_KEYS])
            merged = {name: np.concatenate([table[name][kept], column]) for name, column in merged.items()}
        bytes_a_row = sum(column.nbytes for column in merged.values()) / len(merged[_KEYS])
        most = max(1, int(self.limit_bytes / len(_SHARDS) / bytes_a_row))
        return {name: column[-most:] for name, column in merged.items()}


def _write(path: Path, table: Mapping[str, NDArray[Any]]) -> None:
    with path.open("wb") as stream:
        np.savez(stream, **table)  # type: ignore[arg-type]
