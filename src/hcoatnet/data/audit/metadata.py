"""What a photo's metadata tell of people, places and cameras. Values are never returned, only the names of fields."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from PIL import ExifTags, Image

from hcoatnet.data.audit.containers import PNG_SIGNATURE, chunks

PLACE, TEXT, SERIAL, DATE, PREVIEW = (
    "place in metadata",
    "name or text in metadata",
    "serial number in metadata",
    "date in metadata",
    "embedded preview",
)

_EXIF = {
    TEXT: ("ImageDescription", "DocumentName", "Artist", "HostComputer", "Copyright", "XPTitle", "XPComment",
           "XPAuthor", "XPKeywords", "XPSubject", "UserComment", "CameraOwnerName"),
    SERIAL: ("BodySerialNumber", "LensSerialNumber", "CameraSerialNumber", "MakerNote"),
    DATE: ("DateTime", "DateTimeOriginal", "DateTimeDigitized"),
}  # fmt: skip
_KIND_OF_TAG = {ExifTags.Base[name].value: (kind, name) for kind, names in _EXIF.items() for name in names}
_XMP = {
    PLACE: re.compile(rb"exif:GPS[A-Z]\w+|photoshop:City|Iptc4xmpCore:Location"),
    TEXT: re.compile(
        rb"dc:(?:creator|description|title|rights|subject)|photoshop:(?:Credit|Headline)|aux:OwnerName|tiff:Artist"
        rb"|exifEX:CameraOwnerName|mwg-rs:Name|Iptc4xmpExt:PersonInImage|xmpRights:Owner"
    ),
    SERIAL: re.compile(rb"(?:aux|exifEX):\w*SerialNumber"),
    DATE: re.compile(rb"exif:DateTimeOriginal|xmp:CreateDate|photoshop:DateCreated"),
}
_IPTC = {
    TEXT: {5: "title", 25: "keywords", 80: "by-line", 105: "headline", 110: "credit", 116: "copyright", 120: "caption"},
    PLACE: {90: "city", 92: "location", 95: "state", 101: "country"},
    DATE: {55: "date created"},
}
_IPTC_RESOURCE = 0x0404
_PNG_TEXT = {b"tEXt", b"zTXt", b"iTXt"}
_PREVIEW_TAG = 0x0201


def personal_fields(image: Image.Image, content: bytes) -> dict[str, list[str]]:
    """Fields that may tell who a person is, where and when a photo was taken, and with which camera.

    Looked at are EXIF, XMP, IPTC, JPEG and GIF comments and PNG texts; damaged metadata are passed over.

    Args:
        image: The photo's header, as `hcoatnet.data.images.read_header` gives it.
        content: The file's bytes.

    Returns:
        For each kind of information that is there, the names of its fields, sorted.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for source in (_exif_fields(image), _xmp_fields(image), _iptc_fields(image), _text_fields(image, content)):
        with suppress(Exception):  # metadata are written by anything, and Pillow raises nearly anything on them
            for kind, name in source:
                found[kind].add(name)
    return {kind: sorted(names) for kind, names in sorted(found.items())}


def _exif_fields(image: Image.Image) -> Iterator[tuple[str, str]]:
    exif = image.getexif()
    yield from _named(exif)
    yield from _named(exif.get_ifd(ExifTags.IFD.Exif))
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    if any(tag in gps for tag in (ExifTags.GPS.GPSLatitude, ExifTags.GPS.GPSLongitude, ExifTags.GPS.GPSDestLatitude)):
        yield PLACE, "EXIF GPS position"
    if _PREVIEW_TAG in exif.get_ifd(ExifTags.IFD.IFD1):
        yield PREVIEW, "EXIF thumbnail"


def _named(tags: Mapping[int, Any]) -> Iterator[tuple[str, str]]:
    for tag, value in tags.items():
        if tag in _KIND_OF_TAG and not _is_blank(value):
            kind, name = _KIND_OF_TAG[tag]
            yield kind, f"EXIF {name}"


def _is_blank(value: object) -> bool:
    text = value if isinstance(value, bytes) else str(value).encode("utf-8", errors="replace")
    return not text.removeprefix(b"ASCII\0\0\0").removeprefix(b"UNICODE\0").strip(b"\0 \t\r\n:0")


def _xmp_fields(image: Image.Image) -> Iterator[tuple[str, str]]:
    packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    packet = packet.encode() if isinstance(packet, str) else bytes(packet)
    for kind, pattern in _XMP.items():
        for name in set(pattern.findall(packet)):
            yield kind, f"XMP {name.decode()}"


def _iptc_fields(image: Image.Image) -> Iterator[tuple[str, str]]:
    record = image.info.get("photoshop", {}).get(_IPTC_RESOURCE, b"")
    place = 0
    while record[place : place + 1] == b"\x1c" and place + 5 <= len(record):
        kind_of_record, number = record[place + 1], record[place + 2]
        length = int.from_bytes(record[place + 3 : place + 5], "big")
        if kind_of_record == 2 and record[place + 5 : place + 5 + length].strip():
            for kind, names in _IPTC.items():
                if number in names:
                    yield kind, f"IPTC {names[number]}"
        place += 5 + length


def _text_fields(image: Image.Image, content: bytes) -> Iterator[tuple[str, str]]:
    if image.info.get("comment"):
        yield TEXT, f"{image.format} comment"
    if content.startswith(PNG_SIGNATURE):
        for part in chunks(content):
            if part.kind in _PNG_TEXT:
                keyword = content[part.start + 8 : part.end - 4].partition(b"\0")[0].decode("latin-1")
                if keyword != "XML:com.adobe.xmp":
                    yield TEXT, f"PNG text {ascii(keyword)[1:-1]}"
            elif part.kind == b"tIME":
                yield DATE, "PNG time"
