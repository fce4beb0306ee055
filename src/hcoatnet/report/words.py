"""Numbers, settings and counts as a reader meets them in running text."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hcoatnet.config import Views

HARD_SPACE = "\N{NO-BREAK SPACE}"
VIEWS: Mapping[Views, str] = {
    "one": "each photo as it is",
    "flips": "4 flips of each photo",
    "dihedral": "all 8 flips and quarter turns of each photo",
}
"""What a model sees, for each value of the setting."""


def counted(n: int, noun: str) -> str:
    """``1 photo``, ``1,015 photos``."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def percent(share: float) -> str:
    """A share as percent with one decimal."""
    return f"{100 * share:.1f}{HARD_SPACE}%"


def whole_percent(share: float) -> str:
    """A share as percent without decimals."""
    return f"{100 * share:.0f}{HARD_SPACE}%"


def times(n: int) -> str:
    """``once``, ``twice``, ``7 times``."""
    return {1: "once", 2: "twice"}.get(n, f"{n:,} times")


def duration(seconds: float) -> str:
    """``6 min 53 s``; whole minutes from an hour up."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest if not hours else 0, "s")]
    return " ".join(f"{value} {unit}" for value, unit in parts if value) or "under a second"


def listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def shown(value: Any) -> str:
    """A setting as it stands in YAML, short enough for a table, and without the folder of an absolute path."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return ", ".join(f"{key}={shown(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(shown(item) for item in value)
    return without_folder(str(value))


def without_folder(text: str) -> str:
    """Only the last part of an absolute path, also after a prefix such as ``pretrained:``."""
    return re.sub(r"(^|(?<=[\s:]))(?:[A-Za-z]:[\\/]|/|\\\\)(?:[^·]*[\\/])?", "", text)
