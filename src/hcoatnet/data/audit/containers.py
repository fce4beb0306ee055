"""The parts of JPEG, PNG and WebP files: whether a file is whole, and the same file without its metadata.

Pillow opens some files that are cut. What libjpeg lacks it fills with grey, and Pillow does not pass its warning on; of
a progressive file cut between two scans it shows a blurred whole. The parts of the file tell.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

SOI, EOI, SOS, COM = 0xD8, 0xD9, 0xDA, 0xFE
_PROGRESSIVE = {0xC2, 0xCA}
_APP0, _APP1, _APP2, _APP14, _APP15 = 0xE0, 0xE1, 0xE2, 0xEE, 0xEF
_STANDALONE = {0x01, *range(0xD0, 0xD8)}
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"sBIT",
               b"bKGD", b"pHYs"}  # fmt: skip
_WEBP_PIXELS = {b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ICCP", b"ANIM", b"ANMF"}
_WEBP_HAS_EXIF, _WEBP_HAS_XMP = 0x08, 0x04


@dataclass(frozen=True)
class Part:
    """A part of a file: its kind (a JPEG marker, or the name of a chunk), and where it begins and ends."""

    kind: int | bytes
    start: int
    end: int


def jpeg_parts(content: bytes) -> Iterator[Part]:
    """Segments of a JPEG file up to and with the end marker; a scan is one part with its compressed data.

    Stops where the file no longer follows the standard (ITU T.81, annex B), which a cut file does not.
    """
    yield Part(SOI, 0, 2)
    start = 2
    while start + 1 < len(content) and content[start] == 0xFF:
        marker = content[start + 1]
        if marker == 0xFF:  # fill byte
            start += 1
            continue
        if marker == EOI or marker in _STANDALONE:
            end = start + 2
        else:
            if start + 4 > len(content):
                return
            end = start + 2 + int.from_bytes(content[start + 2 : start + 4], "big")
            if end > len(content):
                return
        if marker == SOS:
            following = _NEXT_MARKER.search(content, end)
            end = following.start() if following else len(content)
        yield Part(marker, start, end)
        if marker == EOI:
            return
        start = end


def chunks(content: bytes) -> Iterator[Part]:
    """Chunks of a PNG or WebP file, as far as they are whole."""
    png = content.startswith(PNG_SIGNATURE)
    start = 8 if png else 12
    while start + 8 <= len(content):
        if png:
            (length,), kind = struct.unpack(">I", content[start : start + 4]), content[start + 4 : start + 8]
            end = start + 12 + length
        else:
            kind, (length,) = content[start : start + 4], struct.unpack("<I", content[start + 4 : start + 8])
            end = start + 8 + length + length % 2
        if end > len(content):
            return
        yield Part(kind, start, end)
        if kind == b"IEND":
            return
        start = end


def what_is_missing(content: bytes) -> str | None:
    """How a file that may still open shows that it was cut, or None. JPEG, PNG and WebP are looked at."""
    if content.startswith(b"\xff\xd8"):
        parts = list(jpeg_parts(content))
        if parts[-1].kind != EOI:
            return "no end marker"
        return _missing_scans(content, parts)
    if content.startswith(PNG_SIGNATURE):
        return None if any(part.kind == b"IEND" for part in chunks(content)) else "no end chunk"
    if content[8:12] == b"WEBP":
        said = 8 + int.from_bytes(content[4:8], "little")
        return f"{len(content):,} of {said:,} bytes" if len(content) < said else None
    return None


def bytes_after_end(content: bytes) -> int:
    """Bytes after the end that a JPEG or PNG file marks, where phones keep videos and further pictures."""
    parts: list[Part] = []
    if content.startswith(b"\xff\xd8"):
        parts = [part for part in jpeg_parts(content) if part.kind == EOI]
    elif content.startswith(PNG_SIGNATURE):
        parts = [part for part in chunks(content) if part.kind == b"IEND"]
    return len(content[parts[-1].end :].strip(b"\0\xff\r\n ")) if parts else 0


def without_metadata(content: bytes, orientation: int) -> bytes | None:
    """The file without metadata and without what stands after its end; its compressed pixels stay as they are.

    Kept are colour profiles and what decoders need; an orientation other than 1 is kept as the only EXIF field.

    Args:
        content: A whole JPEG, PNG or WebP file.
        orientation: Its EXIF orientation, 1 to 8.

    Returns:
        The new file, or None for other formats.
    """
    exif = _orientation_exif(orientation) if orientation != 1 else b""
    if content.startswith(b"\xff\xd8"):
        return _clean_jpeg(content, exif)
    if content.startswith(PNG_SIGNATURE):
        return _clean_png(content, exif)
    if content[8:12] == b"WEBP":
        return _clean_webp(content, exif)
    return None


def _missing_scans(content: bytes, parts: list[Part]) -> str | None:
    """Of a progressive file, whether every component was refined to its last bit (T.81, annex G)."""
    frames = [part for part in parts if part.kind in _PROGRESSIVE]
    if not frames:
        return None
    header = content[frames[0].start + 4 : frames[0].end]
    components = {header[6 + 3 * number] for number in range(header[5])}
    refined: set[tuple[int, int]] = set()  # component, and whether its DC (0) or AC (1) coefficients are whole
    for scan in (part for part in parts if part.kind == SOS):
        count = content[scan.start + 4]
        names = [content[scan.start + 5 + 2 * number] for number in range(count)]
        first, last, bits = content[scan.start + 5 + 2 * count : scan.start + 8 + 2 * count]
        if bits & 0x0F == 0:
            refined |= {(name, kind) for name in names for kind in (0, 1) if (first == 0 if kind == 0 else last == 63)}
    lacking = len({(name, kind) for name in components for kind in (0, 1)} - refined)
    return f"progressive, {lacking} of {2 * len(components)} parts not refined to the end" if lacking else None


def _orientation_exif(orientation: int) -> bytes:
    """A TIFF header with one directory that holds nothing but the orientation."""
    return b"MM\0*\0\0\0\x08" + struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)


def _clean_jpeg(content: bytes, exif: bytes) -> bytes:
    kept = []
    for part in jpeg_parts(content):
        piece = content[part.start : part.end]
        marker = int(part.kind)
        if marker == COM or (_APP0 <= marker <= _APP15 and not _needed_by_decoders(marker, piece)):
            continue
        kept.append(piece)
        if marker == SOI and exif:
            body = b"Exif\0\0" + exif
            kept.append(b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body)
    return b"".join(kept)


def _needed_by_decoders(marker: int, piece: bytes) -> bool:
    if marker == _APP0:  # without JFXX, which holds a thumbnail
        return piece[4:9] == b"JFIF\0"
    if marker == _APP2:
        return piece[4:16] == b"ICC_PROFILE\0"
    return marker == _APP14 and piece[4:9] == b"Adobe"


def _clean_png(content: bytes, exif: bytes) -> bytes:
    kept = [PNG_SIGNATURE]
    for part in chunks(content):
        if part.kind in _PNG_PIXELS:
            kept.append(content[part.start : part.end])
        if part.kind == b"IHDR" and exif:
            kept.append(struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif)))
    return b"".join(kept)


def _clean_webp(content: bytes, exif: bytes) -> bytes:
    kept = []
    for part in chunks(content):
        if part.kind not in _WEBP_PIXELS:
            continue
        piece = content[part.start : part.end]
        if part.kind == b"VP8X":
            flags = piece[8] & ~(_WEBP_HAS_EXIF | _WEBP_HAS_XMP) | (_WEBP_HAS_EXIF if exif else 0)
            piece = piece[:8] + bytes([flags]) + piece[9:]
        kept.append(piece)
    if exif:
        kept.append(b"EXIF" + struct.pack("<I", len(exif)) + exif + b"\0" * (len(exif) % 2))
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body
