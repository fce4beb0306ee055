"""Corrupted copies of photos: what disks, cards, transfers and programs do to files, and some that are made to deceive.

Every function takes a file's bytes and gives other ones; all chance comes from the ``random.Random`` that it is given.
"""

import random
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO

from PIL import ExifTags, Image, ImageCms

SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "TIFF": ".tiff", "BMP": ".bmp", "GIF": ".gif"}
KINDS = tuple(SUFFIXES)
_SECTOR = 512


@dataclass(frozen=True)
class Original:
    """A whole photo, and another of the same kind.

    Attributes:
        kind: Its format, as Pillow names it.
        content: Its bytes.
        other: The bytes of the other.
    """

    kind: str
    content: bytes
    other: bytes


Damage = Callable[[random.Random, Original], bytes]


def encoded(content: bytes, kind: str) -> bytes:
    """A JPEG's bytes as they are, or its pixels in another format."""
    if kind == "JPEG":
        return content
    buffer = BytesIO()
    with Image.open(BytesIO(content)) as photo:
        photo.convert("RGB").save(buffer, kind, **({"compression": "tiff_lzw"} if kind == "TIFF" else {}))
    return buffer.getvalue()


def cut_short(draws: random.Random, photo: Original) -> bytes:
    return photo.content[: draws.randrange(1, len(photo.content))]


def flipped_bytes(draws: random.Random, photo: Original) -> bytes:
    made = bytearray(photo.content)
    for _ in range(draws.choice((1, 2, 5, 20, 100))):
        made[draws.randrange(len(made))] ^= draws.randrange(1, 256)
    return bytes(made)


def flipped_in_the_header(draws: random.Random, photo: Original) -> bytes:
    made = bytearray(photo.content)
    for _ in range(draws.choice((1, 2, 5))):
        made[draws.randrange(min(200, len(made)))] ^= draws.randrange(1, 256)
    return bytes(made)


def zeroed_sectors(draws: random.Random, photo: Original) -> bytes:
    made = bytearray(photo.content)
    start = draws.randrange(0, len(made), _SECTOR)
    length = min(draws.choice((1, 4, 16)) * _SECTOR, len(made) - start)
    made[start : start + length] = bytes(length)
    return bytes(made)


def lost_sectors(draws: random.Random, photo: Original) -> bytes:
    start = draws.randrange(0, len(photo.content), _SECTOR)
    return photo.content[:start] + photo.content[start + draws.choice((1, 4)) * _SECTOR :]


def spliced(draws: random.Random, photo: Original) -> bytes:
    """The beginning of one photo and the rest of another, as files that were recovered from a card."""
    return photo.content[: draws.randrange(1, len(photo.content))] + photo.other[draws.randrange(len(photo.other)) :]


def header_of_another(draws: random.Random, photo: Original) -> bytes:
    length = draws.randrange(16, 640)
    return photo.other[:length] + photo.content[length:]


def appended_rubbish(draws: random.Random, photo: Original) -> bytes:
    return photo.content + draws.randbytes(draws.choice((1, 100, 10_000, 1_000_000)))


def shifted(draws: random.Random, photo: Original) -> bytes:
    return draws.randbytes(draws.choice((1, 2, 16))) + photo.content


def sent_as_text(draws: random.Random, photo: Original) -> bytes:
    """Line ends turned as a transfer in text mode does."""
    old, new = draws.choice(((b"\n", b"\r\n"), (b"\r\n", b"\n"), (b"\r", b"\n")))
    return photo.content.replace(old, new)


def nothing_but_zeros(draws: random.Random, photo: Original) -> bytes:
    """A file that a crash left at its size and without its content, in part or in whole."""
    kept = draws.choice((0, 0, 4, 4096))
    return photo.content[:kept] + bytes(max(0, len(photo.content) - kept))


def wrong_suffix(_: random.Random, photo: Original) -> bytes:
    """Whole; its name is what is wrong."""
    return photo.content


def wrong_length(draws: random.Random, photo: Original) -> bytes:
    """A part of the file that announces another length than it has."""
    made = bytearray(photo.content)
    form, places = _lengths(photo)
    place = draws.choice(places)
    right = struct.unpack_from(form, made, place)[0]
    top = 256 ** struct.calcsize(form) - 1
    wrong = draws.choice((0, 1, right - 1, right + 1, right * 2, right + 1000, top // 2, top, draws.randrange(top)))
    struct.pack_into(form, made, place, min(max(wrong, 0), top))
    return bytes(made)


def changed_dimensions(draws: random.Random, photo: Original) -> bytes:
    """A header that announces other pixels than there are, with a checksum that fits."""
    made = bytearray(photo.content)
    form, places = _dimensions(photo)
    top = 2 ** (8 * struct.calcsize(form) - (form in ("<i", ">I"))) - 1
    for place in draws.sample(places, draws.choice((1, 2))):
        right = struct.unpack_from(form, made, place)[0]
        wrong = draws.choice((0, 1, right // 2, right - 1, right + 1, right * 2, 65_535, 100_000, top))
        struct.pack_into(form, made, place, min(max(wrong, 0), top))
    if photo.kind == "PNG":
        struct.pack_into(">I", made, 29, zlib.crc32(made[12:29]))
    return bytes(made)


def damaged_exif(draws: random.Random, photo: Original) -> bytes:
    return _with_metadata(photo, exif=_spoilt(draws, _exif()))


def damaged_profile(draws: random.Random, photo: Original) -> bytes:
    return _with_metadata(photo, profile=_spoilt(draws, _profile()))


ANYWHERE: tuple[Damage, ...] = (
    cut_short, flipped_bytes, flipped_in_the_header, zeroed_sectors, lost_sectors, spliced, header_of_another,
    appended_rubbish, shifted, sent_as_text, nothing_but_zeros, wrong_suffix,
)  # fmt: skip
DAMAGES: dict[str, tuple[Damage, ...]] = {
    "JPEG": (*ANYWHERE, wrong_length, changed_dimensions, damaged_exif, damaged_profile),
    "PNG": (*ANYWHERE, wrong_length, changed_dimensions, damaged_exif, damaged_profile),
    "WEBP": (*ANYWHERE, wrong_length, damaged_exif, damaged_profile),
    "TIFF": (*ANYWHERE, damaged_profile),
    "BMP": (*ANYWHERE, changed_dimensions),
    "GIF": (*ANYWHERE, changed_dimensions),
}
"""What can happen to a file of each format."""


def _lengths(photo: Original) -> tuple[str, Sequence[int]]:
    """How lengths of parts are written in a file, and where."""
    content, places = photo.content, []
    if photo.kind == "JPEG":
        place = 2
        while content[place] == 0xFF and content[place + 1] != 0xDA:
            places.append(place + 2)
            place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
        return ">H", [*places, place + 2]
    form, place = (">I", 8) if photo.kind == "PNG" else ("<I", 12)
    while place + 8 <= len(content):
        length = struct.unpack_from(form, content, place + (0 if photo.kind == "PNG" else 4))[0]
        places.append(place if photo.kind == "PNG" else place + 4)
        place += length + (12 if photo.kind == "PNG" else 8 + length % 2)
    return form, places


def _dimensions(photo: Original) -> tuple[str, list[int]]:
    """How width and height are written in a file's header, and where."""
    if photo.kind == "JPEG":
        place = 2
        while not (0xC0 <= photo.content[place + 1] <= 0xC2):
            place += 2 + int.from_bytes(photo.content[place + 2 : place + 4], "big")
        return ">H", [place + 5, place + 7]
    return {"PNG": (">I", [16, 20]), "BMP": ("<i", [18, 22]), "GIF": ("<H", [6, 8])}[photo.kind]


def _with_metadata(photo: Original, exif: bytes = b"", profile: bytes = b"") -> bytes:
    if photo.kind == "JPEG":  # the compressed pixels stay as they are
        body = b"Exif\0\0" + exif if exif else b"ICC_PROFILE\0\1\1" + profile
        marker = b"\xff\xe1" if exif else b"\xff\xe2"
        return photo.content[:2] + marker + struct.pack(">H", len(body) + 2) + body + photo.content[2:]
    buffer = BytesIO()
    with Image.open(BytesIO(photo.content)) as image:
        image.save(buffer, photo.kind, **({"exif": exif} if exif else {"icc_profile": profile}))
    return buffer.getvalue()


def _spoilt(draws: random.Random, content: bytes) -> bytes:
    made = bytearray(content)
    for _ in range(draws.choice((1, 5, 50))):
        made[draws.randrange(len(made))] = draws.choice((0, 255, draws.randrange(256)))
    return bytes(made[: draws.choice((len(made), len(made), draws.randrange(1, len(made))))])


def _exif() -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Make], exif[ExifTags.Base.DateTime] = "Maker", "2020:01:01 12:00:00"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = (48.0, 8.0, 0.0)
    return exif.tobytes().removeprefix(b"Exif\0\0")


def _profile() -> bytes:
    made = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    struct.pack_into(">6H", made, 24, 2020, 1, 1, 12, 0, 0)  # when it was made: now, otherwise
    return bytes(made)
