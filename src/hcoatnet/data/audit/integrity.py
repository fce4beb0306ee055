"""Whether a photo is whole and ordinary, and what its metadata give away: rules, and one look at each photo."""

from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hcoatnet.data.audit import metadata
from hcoatnet.data.audit.containers import bytes_after_end, what_is_missing
from hcoatnet.data.audit.pixels import features_of
from hcoatnet.data.images import open_photo, read_header
from hcoatnet.errors import Problem

VERSION = "1"
"""Changes whenever `look_at` would find something else, so that cached findings are not mixed with new ones."""

SMALLEST_SIDE = 64
WIDEST_ASPECT = 3.0
LARGEST_FILE = 500_000_000
"""Shorter sides (pixels), wider aspects (long side / short side) and larger files (bytes) are reported."""

_CONSTANT_DEVIATION = 1.0
_GREY_CHROMA = 4
_ORDINARY_MODES = ("RGB", "L")


@dataclass(frozen=True)
class Rule:
    """How weighty a finding is (error, warning, privacy or note), what would be right, and what to do."""

    weight: str
    expected: str
    fix: str


_STRIP = "Make clean copies with --strip-metadata FOLDER."
RULES = {
    "maybe cut": Rule("warning", "a whole file", "Look at it, and copy it again from its source."),
    "changed since the scan": Rule("warning", "the SHA-256 of the manifest", "Scan the photos again."),
    "wrong suffix": Rule("warning", "a suffix that says the format", "Rename the file; other programs may refuse it."),
    "tiny": Rule("warning", f"{SMALLEST_SIDE} pixels or more on the shorter side", "Find a larger copy."),
    "extreme aspect": Rule("warning", f"at most {WIDEST_ASPECT:g} times as long as wide", "Crop it: it gets squeezed."),
    "constant": Rule("warning", "a picture", "Look at it, and take it out if it shows nothing."),
    "grayscale": Rule("warning", "colour", "Look whether grey photos go with a class."),
    "colour mode": Rule("note", "RGB with 8 bits", "Nothing: it is converted here. Other programs may differ."),
    "rotated by EXIF": Rule("note", "upright pixels", "Nothing: it is turned here. Other programs may not."),
    metadata.PLACE: Rule("privacy", "no place", _STRIP),
    metadata.TEXT: Rule("privacy", "no names or texts", _STRIP),
    metadata.SERIAL: Rule("privacy", "no serial numbers", _STRIP),
    metadata.PREVIEW: Rule("privacy", "no second picture", f"It may show what was cropped away. {_STRIP}"),
    "data after the end": Rule("privacy", "nothing after the photo", f"It may be a video or a photo. {_STRIP}"),
    metadata.DATE: Rule("privacy", "no date", _STRIP),
}
"""All findings on photos that can be opened. Those that cannot are errors, described as `open_photo` does."""


@dataclass(frozen=True)
class Facts:
    """What one file holds, whatever it is called.

    Attributes:
        size: Bytes.
        format: As Pillow names it, such as JPEG.
        mode: Colour mode as stored.
        width: Pixels across, upright.
        height: Pixels down, upright.
        orientation: EXIF orientation, 1 to 8.
        quantisation: Mean of a JPEG's luminance quantisation table (the larger, the coarser); 0 for other formats.
        findings: Pairs of a rule and what was found.
    """

    size: int
    format: str
    mode: str
    width: int
    height: int
    orientation: int
    quantisation: float
    findings: tuple[tuple[str, str], ...]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; ``Facts.of`` reads it."""
        return asdict(self)

    @classmethod
    def of(cls, content: dict[str, Any]) -> "Facts":
        """From what `to_json` gave."""
        pairs = tuple((str(rule), str(found)) for rule, found in content["findings"])
        return cls(**{**content, "findings": pairs})


def look_at(content: bytes, name: str) -> tuple[Facts, dict[str, NDArray[np.uint8]]]:
    """Open a photo once and take down what is odd about it.

    Args:
        content: The file's bytes.
        name: How errors call the photo.

    Returns:
        The facts, and what `hcoatnet.data.audit.pixels.features_of` gives.

    Raises:
        PhotoError: If it cannot be opened.
    """
    header = read_header(content, name)
    photo = open_photo(content, name)
    features = features_of(photo)
    orientation = _orientation(header)
    findings = [
        *_cut(content, photo, orientation),
        *_shape(photo),
        *_colour(header, features["thumbnail"]),
        *([("rotated by EXIF", f"orientation {orientation}")] if orientation != 1 else []),
        *((kind, ", ".join(names)) for kind, names in metadata.personal_fields(header, content).items()),
    ]
    if surplus := bytes_after_end(content):
        findings.append(("data after the end", f"{surplus:,} bytes"))
    tables = getattr(header, "quantization", None) or {}
    facts = Facts(
        size=len(content),
        format=str(header.format),
        mode=header.mode,
        width=photo.width,
        height=photo.height,
        orientation=orientation,
        quantisation=float(np.mean(tables[0])) if 0 in tables else 0.0,
        findings=tuple(findings),
    )
    return facts, features


def problems_of(facts: Facts, path: str) -> list[Problem]:
    """The findings on one file as rows of the table of problems, with what its name adds."""
    findings = list(facts.findings)
    suffix = PurePosixPath(path).suffix.lower()
    registered = Image.registered_extensions()
    if registered.get(suffix) not in {facts.format, "JPEG" if facts.format == "MPO" else facts.format}:
        findings.insert(0, ("wrong suffix", f"{facts.format} called {suffix or 'nothing'}"))
    return [Problem(path, rule, found, RULES[rule].expected, RULES[rule].fix) for rule, found in findings]


def weight_of(rule: str) -> str:
    """How weighty a rule is: error, warning, privacy or note."""
    return RULES[rule].weight if rule in RULES else "error"


def _cut(content: bytes, photo: Image.Image, orientation: int) -> list[tuple[str, str]]:
    missing = what_is_missing(content)
    if missing is None and content.startswith(b"\xff\xd8") and _ends_in_grey(photo, orientation):
        missing = "the last pixels are the flat grey that decoders fill gaps with"
    return [("maybe cut", missing)] if missing else []


def _ends_in_grey(photo: Image.Image, orientation: int) -> bool:
    """Whether the corner that is stored last is exactly the grey of absent coefficients, and the photo is not."""
    width, height = photo.width, photo.height
    wide, high = min(16, width), min(4, height)
    if orientation >= 5:
        wide, high = min(4, width), min(16, height)
    left = orientation in (2, 3, 6, 7)  # which sides the stored right and bottom sides are turned to
    top = orientation in (3, 4, 7, 8)
    x, y = (0 if left else width - wide), (0 if top else height - high)
    corner = photo.crop((x, y, x + wide, y + high)).getextrema()
    return corner == ((128, 128),) * 3 and photo.getextrema() != corner


def _shape(photo: Image.Image) -> list[tuple[str, str]]:
    short, long = sorted(photo.size)
    found = f"{photo.width} × {photo.height} pixels"
    odd = [("tiny", found)] if short < SMALLEST_SIDE else []
    return odd + ([("extreme aspect", found)] if long > WIDEST_ASPECT * short else [])


def _colour(header: Image.Image, thumbnail: NDArray[np.uint8]) -> list[tuple[str, str]]:
    odd = []
    if thumbnail.std(axis=(0, 1)).max() < _CONSTANT_DEVIATION:
        mean = ", ".join(f"{value:.0f}" for value in thumbnail.mean(axis=(0, 1)))
        odd.append(("constant", f"one colour (red, green, blue {mean})"))
    elif int((thumbnail.max(axis=2) - thumbnail.min(axis=2)).max()) <= _GREY_CHROMA:
        odd.append(("grayscale", "red, green and blue alike everywhere"))
    if header.mode not in _ORDINARY_MODES:
        odd.append(("colour mode", f"mode {header.mode}"))
    return odd


def _orientation(header: Image.Image) -> int:
    try:
        value = int(header.getexif().get(0x0112, 1))
    except Exception:
        return 1
    return value if 1 <= value <= 8 else 1
