"""Photos of every kind that is read, with bytes flipped, moved, doubled, cut out, or of two files joined."""

import struct
import warnings
from io import BytesIO

import numpy as np
import pytest
from damage import damaged, explore, outcome, sizes
from PIL import Image, ImageCms

from hcoatnet.data.audit.integrity import look_at
from hcoatnet.data.images import PhotoError, describe_photo, open_photo, read_header

NAME = "photo 17"
MOST = 2048
"""Mebibytes: a changed header may announce 100 million pixels, and the photo still open."""


def encoded(image, kind, **options):
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def whole_photos():
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    photo = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x0132] = 6, "Maker", "2020:01:01 00:00:00"
    exif.get_ifd(0x8825)[2] = (48.0, 8.0, 0.0)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    grey, clear = photo.convert("L"), photo.convert("RGBA")
    sixteen = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    real = Image.fromarray(pixels[..., 0].astype(np.float32) / 255)
    return {
        "JPEG": [encoded(photo, "JPEG", exif=exif, icc_profile=profile), encoded(photo, "JPEG", progressive=True),
                 encoded(grey, "JPEG"), encoded(photo.convert("CMYK"), "JPEG"), encoded(photo, "JPEG", restart_marker_blocks=1)],
        "PNG": [encoded(photo, "PNG", exif=exif, icc_profile=profile), encoded(clear, "PNG"), encoded(sixteen, "PNG"),
                encoded(photo.convert("P"), "PNG", transparency=0), encoded(photo, "PNG", save_all=True, append_images=[photo])],
        "WEBP": [encoded(photo, "WEBP", exif=exif, icc_profile=profile), encoded(clear, "WEBP", lossless=True),
                 encoded(photo, "WEBP", save_all=True, append_images=[clear])],
        "BMP": [encoded(photo, "BMP"), encoded(photo.convert("P"), "BMP"), encoded(photo.convert("1"), "BMP"), run_lengths()],
        "TIFF": [encoded(photo, "TIFF", exif=exif), encoded(photo, "TIFF", compression="tiff_lzw"), encoded(sixteen, "TIFF"),
                 encoded(real, "TIFF"), encoded(photo, "TIFF", compression="jpeg"), encoded(photo, "TIFF", big_tiff=True),
                 encoded(photo, "TIFF", compression="tiff_adobe_deflate", save_all=True, append_images=[photo])],
        "GIF": [encoded(photo, "GIF"), encoded(photo.convert("P"), "GIF", transparency=0, interlace=1),
                encoded(photo, "GIF", save_all=True, append_images=[clear], disposal=2)],
    }  # fmt: skip


def run_lengths():
    """A BMP of runs of one colour: whole rows, a jump, single pixels."""
    row = b"\x20\x07\0\0"
    runs = row * 10 + b"\0\2\0\3" + b"\0\4\1\2\3\4\0\0" + row * 10 + b"\0\1"
    palette = bytes(range(256)) * 4
    header = struct.pack("<IiiHHIIiiII", 40, 32, 24, 1, 8, 1, len(runs), 0, 0, 256, 0)
    start = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(runs), 0, 0, start) + header + palette + runs


WHOLE = whole_photos()
WORDS = {
    "JPEG": [b"\xff\xd8", b"\xff\xd9", b"\xff\xda", b"\xff\xc0", b"\xff\xc2", b"\xff\xe1", b"\xff\xdd", b"\xff\xff", b"\0\0"],
    "PNG": [b"IHDR", b"IDAT", b"PLTE", b"tRNS", b"iCCP", b"zTXt", b"eXIf", b"acTL", b"fdAT", b"IEND", b"\xff" * 4, b"\0" * 4],
    "WEBP": [b"RIFF", b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"EXIF", b"ICCP", b"\xff" * 4, b"\0" * 3],
    "BMP": [b"\xff" * 4, b"\0" * 4, b"\0\0", b"\0\2\xff\xff", b"\x7f\xff\xff\xff"],
    "TIFF": [b"\xff" * 4, b"\0" * 4, b"\0\0\0\x08", b"\x01\x01", b"\x00\x01", b"\x42\x01", b"\x11\x01", b"\x17\x01", b"\x7f"],
    "GIF": [b"\x2c", b"\x21\xf9\x04", b"\x3b", b"\xff\xff", b"\0\0", b"GIF87a"],
}  # fmt: skip


def test_every_whole_photo_is_read():
    for content in (content for group in WHOLE.values() for content in group):
        assert open_photo(content).size in {(32, 24), (24, 32)}


@sizes(few=80, many=4000)
@pytest.mark.parametrize("kind", WHOLE)
def test_a_damaged_photo_opens_or_is_refused(kind, examples, tmp_path):
    path = tmp_path / f"{NAME}.jpg"
    path.touch()

    def holds(content):
        path.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = outcome(lambda: open_photo(content, NAME), NAME, mebibytes=MOST)
            described = outcome(lambda: describe_photo(path), NAME, mebibytes=MOST)
            headed = outcome(lambda: read_header(content, NAME), NAME)
            seen = outcome(lambda: look_at(content, NAME), NAME, mebibytes=MOST)
        if isinstance(found, PhotoError):
            assert isinstance(described, PhotoError)
            assert isinstance(seen, PhotoError)
            assert (described.problem.rule, seen.problem.rule) == (found.problem.rule, found.problem.rule)
        else:
            assert found.mode == "RGB"
            assert (described.width, described.height) == found.size == (seen[0].width, seen[0].height)
            assert not isinstance(headed, PhotoError)

    explore(examples, holds, damaged(WHOLE[kind], WORDS[kind]))
