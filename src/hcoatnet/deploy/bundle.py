"""A bundle: a folder with a trained model, all that it takes to use it, and what is known of it. Needs no torch.

Its files are described in ``docs/reference/files.md``. Nothing in a bundle is code, and nothing of it is used before
every file has been compared with its hash.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from hcoatnet.config import LARGEST_SIDE, Views
from hcoatnet.deploy.answers import Rules
from hcoatnet.documents import DocumentError, parse_object
from hcoatnet.errors import BundleError, EvidenceError
from hcoatnet.files import sha256_of_bytes, sha256_of_file

BUNDLE_FORMAT = 1

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
ONNX = "model.onnx"
CALIBRATION = "calibration.json"
README = "README.md"
CARD = "card.json"
HASHES = "hashes.json"
LISTED = (CONFIG, WEIGHTS, ONNX, CALIBRATION, README, CARD)
"""Every file but the list of their hashes."""

FACTS = "hcoatnet"
"""The key of ``config.json`` that holds what this package needs; the rest of the file is timm's."""

LARGEST_TEXT = 16 * 2**20
"""Bytes; none of the files that are read as text comes near it."""

_KINDS: Mapping[str, type] = {
    "name": str, "architecture": str, "options": dict, "classes": list, "image_size": int, "members": int,
    "parameters": int, "init": str, "licence": str, "channels_last": bool, "versions": dict, "trained": list,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle whose files are whole and fit together.

    Attributes:
        folder: Where it lies.
        facts: What ``config.json`` says under ``hcoatnet``.
        calibration: The content of ``calibration.json``.
        card: The content of ``card.json``: ``title`` and ``sections``.
        sha256: Digest of the whole: of ``hashes.json``.
    """

    folder: Path
    facts: Mapping[str, Any]
    calibration: Mapping[str, Any]
    card: Mapping[str, Any]
    sha256: str

    @classmethod
    def open(cls, folder: Path) -> "Bundle":
        """Read a bundle and prove that it is whole.

        Raises:
            BundleError: It is no bundle, a newer version wrote it, or files are missing, changed or not of it. All that
                is wrong is named.
        """
        hashes, digest = _read_hashes(folder)
        if problems := list(_problems(folder, hashes)):
            raise _damaged(folder, problems)
        config, calibration, card = (_read_json(folder, name, hashes[name]) for name in (CONFIG, CALIBRATION, CARD))
        facts = config.get(FACTS)
        if not isinstance(facts, dict):
            raise _damaged(folder, [f"{CONFIG} has no {FACTS!r}"])
        if problems := [*_wrong_facts(facts), *_wrong_calibration(calibration, facts), *_wrong_card(card)]:
            raise _damaged(folder, problems)
        return cls(folder, facts, calibration, card, digest)

    @property
    def name(self) -> str:
        """How the model is called: its row in the study, or its architecture."""
        return str(self.facts["name"])

    @property
    def architecture(self) -> str:
        """Name in timm's registry, once ``hcoatnet.models`` is imported."""
        return str(self.facts["architecture"])

    @property
    def options(self) -> dict[str, Any]:
        """Options with which the architecture is built."""
        return dict(self.facts["options"])

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        return tuple(self.facts["classes"])

    @property
    def image_size(self) -> int:
        """Side of the photos that the model takes, in pixels."""
        return int(self.facts["image_size"])

    @property
    def members(self) -> int:
        """How many models are averaged."""
        return int(self.facts["members"])

    @property
    def views(self) -> Views:
        """How the members see a photo."""
        views: Views = self.facts.get("views", "one")
        return views

    @property
    def parameters(self) -> int:
        """Parameters of one member."""
        return int(self.facts["parameters"])

    @property
    def init(self) -> str:
        """``scratch`` or ``pretrained``."""
        return str(self.facts["init"])

    @property
    def licence(self) -> str:
        """Licence of the weights, or ``not stated``."""
        return str(self.facts["licence"])

    @property
    def versions(self) -> dict[str, str]:
        """Versions of the software that made the bundle."""
        return dict(self.facts["versions"])

    @property
    def weights_file(self) -> Path:
        """The weights for torch."""
        return self.folder / WEIGHTS

    @property
    def onnx_file(self) -> Path:
        """The same model for ONNX Runtime."""
        return self.folder / ONNX


def is_bundle(folder: Path) -> bool:
    """Whether a folder means to be a bundle, whole or not."""
    return (folder / HASHES).is_file()


def _read_hashes(folder: Path) -> tuple[dict[str, str], str]:
    file = folder / HASHES
    if not file.is_file():
        raise BundleError(
            f"{folder} is not a bundle: it has no {HASHES}. Give a folder that `hcoatnet bundle` made, with all its "
            "files."
        )
    content = _bytes_of(file)
    listed = _parsed(content, folder, HASHES)
    if listed.get("format") != BUNDLE_FORMAT:
        raise BundleError(
            f"The bundle {folder} has format {listed.get('format')}; this version reads format {BUNDLE_FORMAT}. Use "
            "the version of hcoatnet that wrote it, or bundle the run or study again."
        )
    hashes = listed.get("sha256")
    if not isinstance(hashes, dict) or not all(isinstance(value, str) for value in hashes.values()):
        raise _damaged(folder, [f"{HASHES} lists no hashes"])
    return hashes, sha256_of_bytes(content)


def _problems(folder: Path, hashes: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with the files: foreign names, links, missing, changed and unlisted ones."""
    for name in hashes.keys() - set(LISTED):
        yield f"{HASHES} names {name!r}, which is no file of a bundle"
    for name in LISTED:
        file = folder / name
        if name not in hashes:
            yield f"{HASHES} does not list {name}"
        elif file.is_symlink():
            yield f"{name} is a link; copy the file itself"
        elif not file.is_file():
            yield f"{name} is missing"
        elif sha256_of_file(file) != hashes[name]:
            yield f"{name} has changed"
    if (folder / HASHES).is_symlink():
        yield f"{HASHES} is a link; copy the file itself"
    # Hidden ones are left alone: a copy from a hub or a repository brings some of its own.
    found = {entry.name for entry in os.scandir(folder) if not entry.name.startswith(".")}
    for name in sorted(found - set(LISTED) - {HASHES}):
        yield f"{name} is not of the bundle; take it out"


def _wrong_facts(facts: Mapping[str, Any]) -> Iterator[str]:
    for key, kind in _KINDS.items():
        value = facts.get(key)
        if not isinstance(value, kind) or (isinstance(value, int) and kind is int and (value is True or value < 1)):
            yield f"{CONFIG} lacks a usable {key!r}"
    if isinstance(facts.get("image_size"), int) and facts["image_size"] > LARGEST_SIDE:
        yield f"{CONFIG} has an 'image_size' above {LARGEST_SIDE:,}"
    if facts.get("views", "one") not in get_args(Views):
        yield f"{CONFIG} lacks usable 'views'"
    classes = facts.get("classes")
    if isinstance(classes, list) and (
        len(classes) < 2 or not all(isinstance(name, str) for name in classes) or len(set(classes)) < len(classes)
    ):
        yield f"{CONFIG} lacks usable 'classes'"


def _wrong_calibration(calibration: Mapping[str, Any], facts: Mapping[str, Any]) -> Iterator[str]:
    if calibration.get("classes") != facts.get("classes"):
        yield f"{CALIBRATION} and {CONFIG} name different classes"
        return
    try:
        Rules.read(calibration)
    except EvidenceError as error:
        yield f"{CALIBRATION} cannot be used ({error})"


def _wrong_card(card: Mapping[str, Any]) -> Iterator[str]:
    try:
        whole = isinstance(card["title"], str) and all(
            isinstance(section["heading"], str)
            and all(isinstance(entry[key], str) for entry in section["entries"] for key in ("name", "value", "source"))
            for section in card["sections"]
        )
    except (KeyError, TypeError):
        whole = False
    if not whole:
        yield f"{CARD} holds no model card"


def _read_json(folder: Path, name: str, digest: str) -> dict[str, Any]:
    """The content of a file, of the very bytes that have this digest."""
    content = _bytes_of(folder / name)
    if sha256_of_bytes(content) != digest:
        raise _damaged(folder, [f"{name} has changed"])
    return _parsed(content, folder, name)


def _bytes_of(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(LARGEST_TEXT)


def _parsed(content: bytes, folder: Path, name: str) -> dict[str, Any]:
    try:
        return parse_object(content)
    except DocumentError as error:
        raise _damaged(folder, [f"{name} {error}"]) from error


def _damaged(folder: Path, problems: list[str]) -> BundleError:
    return BundleError(
        f"The bundle {folder} cannot be used: {'; '.join(problems)}. Copy it again from its source, or bundle the run "
        "or study again."
    )
