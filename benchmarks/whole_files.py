"""Whether the files of a directory are whole: each is read to its end by what reads its kind."""

import csv
import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import yaml
from PIL import Image

TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}\.tmp")
"""What `hcoatnet.files` writes to before it moves a file or folder into its place."""

LOCKS = (".lock", ".plan.lock")
GROWING = ("history.csv", "log.txt", "cells.jsonl", "test_ledger.jsonl")
"""Only ever appended to: while nobody has continued, a kill may have left a torn last line, which readers skip."""


class NotWhole(Exception):
    """A file that is damaged or cut short."""


@dataclass
class Findings:
    """What a look at a directory found.

    Attributes:
        files: Files that were read.
        problems: What is wrong, a line a file.
        leftovers: Temporary files and folders.
        torn: Append-only files whose last line is torn.
    """

    files: int = 0
    problems: list[str] = field(default_factory=list)
    leftovers: list[Path] = field(default_factory=list)
    torn: list[Path] = field(default_factory=list)


def look_at(
    folder: Path, known: Collection[str], same: Mapping[str, bytes] | None = None, *, finished: bool = False
) -> Findings:
    """Read every file below ``folder``.

    Args:
        folder: The directory.
        known: Names, relative to it, of the files that may be there.
        same: Files that hold these bytes wherever they are there.
        finished: All of ``known`` must be there, and no line may be torn.
    """
    found = Findings()
    names = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if any(TEMPORARY.fullmatch(part) for part in name.parts):
            if TEMPORARY.fullmatch(path.name):
                found.leftovers.append(path)
            continue
        if path.is_dir() or path.name in LOCKS:
            continue
        found.files += 1
        names.append(str(name))
        if str(name) not in known:
            found.problems.append(f"{name}: nobody expects it")
            continue
        if path.name in GROWING and not finished and not path.read_bytes().endswith(b"\n"):
            found.torn.append(path)
        try:
            check_whole(path, torn=path in found.torn)
        except Exception as error:
            found.problems.append(f"{name}: {type(error).__name__}: {error}")
            continue
        if same is not None and str(name) in same and path.read_bytes() != same[str(name)]:
            found.problems.append(f"{name}: other bytes than in an undisturbed run")
    if finished:
        found.problems += [f"{name}: missing" for name in sorted(set(known) - set(names))]
    return found


def check_whole(path: Path, torn: bool = False) -> None:
    """Read a file to its end.

    Args:
        path: The file.
        torn: Leave out its last line.

    Raises:
        Exception: It is not whole, or nothing here can tell.
    """
    content = path.read_bytes()
    if torn:
        content = content[: content.rfind(b"\n") + 1]
    CHECKS[path.suffix](content, path)


def _json(content: bytes, _: Path) -> None:
    json.loads(_text(content))


def _yaml(content: bytes, _: Path) -> None:
    if not isinstance(yaml.safe_load(_text(content)), dict):
        raise NotWhole("no mapping")


def _csv(content: bytes, _: Path) -> None:
    lengths = {len(row) for row in csv.reader(_text(content).splitlines(), strict=True)}
    if len(lengths) > 1:
        raise NotWhole(f"rows of {sorted(lengths)} columns")


def _text(content: bytes, _: Path | None = None) -> str:
    if content and not content.endswith(b"\n"):
        raise NotWhole("the last line has no end")
    return content.decode("utf-8")


def _html(content: bytes, _: Path) -> None:
    text = content.decode("utf-8").strip().lower()
    if not (text.startswith("<!doctype html>") and text.endswith("</html>")):
        raise NotWhole("no page from <!doctype html> to </html>")


def _svg(content: bytes, _: Path) -> None:
    ElementTree.fromstring(content)


def _picture(_: bytes, path: Path) -> None:
    with Image.open(path) as picture:
        picture.load()
    if not path.read_bytes().rstrip().endswith(b"IEND\xaeB`\x82"):
        raise NotWhole("no IEND at its end")


def _pdf(content: bytes, _: Path) -> None:
    if not (content.startswith(b"%PDF") and content.rstrip().endswith(b"%%EOF")):
        raise NotWhole("no %%EOF at its end")


def _safetensors(content: bytes, _: Path) -> None:
    from safetensors.torch import load

    load(content)


def _state(_: bytes, path: Path) -> None:
    from hcoatnet.training.checkpoint import load_state

    load_state(path)


def _onnx(content: bytes, _: Path) -> None:
    import onnx

    onnx.checker.check_model(onnx.load_from_string(content))


CHECKS: dict[str, Callable[[bytes, Path], Any]] = {
    ".json": _json, ".jsonl": _text, ".yaml": _yaml, ".csv": _csv, ".txt": _text, ".md": _text, ".tex": _text,
    ".html": _html, ".svg": _svg, ".png": _picture, ".pdf": _pdf, ".safetensors": _safetensors, ".pt": _state,
    ".onnx": _onnx,
}  # fmt: skip
