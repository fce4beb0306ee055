"""What is unlike in two runs of the same settings: weights, states, tables and cached pixels, but not times."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hcoatnet.data.cache import PixelSet
from hcoatnet.training.checkpoint import load_state

TIMES = ("photos_per_second", "seconds")
VOLATILE = ("training_seconds", "test_ledger")


def compare_runs(folder: Path, reference: Path) -> Iterator[str]:
    """What is unlike in two finished runs, beyond the files that must have the same bytes anyway."""
    if (folder / "weights.safetensors").read_bytes() != (reference / "weights.safetensors").read_bytes():
        yield "weights.safetensors"
    mine, theirs = (load_state(one / "state.pt") for one in (folder, reference))
    for state in (mine, theirs):
        for row in state["rows"]:
            for name in TIMES:
                row.pop(name)
    if not equal(mine, theirs):
        yield "state.pt"
    rows = []
    for one in (folder, reference):
        with (one / "history.csv").open(encoding="utf-8", newline="") as stream:
            rows.append([{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(stream)])
    if rows[0] != rows[1]:
        yield "history.csv"
    results = [json.loads((one / "metrics.json").read_text(encoding="utf-8")) for one in (folder, reference)]
    if len({json.dumps({k: v for k, v in one.items() if k not in VOLATILE}) for one in results}) > 1:
        yield "metrics.json"


def equal(one: Any, other: Any) -> bool:
    """Whether nested states are equal to the bit."""
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return isinstance(other, list | tuple) and len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    return bool(one == other)


def check_cache(folder: Path, reference: Path, digests: Sequence[str]) -> Iterator[str]:
    """Photos in a cache whose pixels are unlike those in an undisturbed one."""
    for whole in sorted(path for path in reference.glob("*") if path.is_dir()):
        mine, theirs = PixelSet(folder / whole.name), PixelSet(whole)
        for digest, place, right in zip(digests, mine.find(digests), theirs.find(digests), strict=True):
            if place["size"] and not np.array_equal(mine.read(place), theirs.read(right)):  # type: ignore[arg-type]
                yield f"cache: other pixels of {digest[:12]}"
