"""The one way to open and preprocess a photo, with Pillow and NumPy only."""

import hashlib
import re
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from hcoatnet.errors import DataError, Problem

MEAN: NDArray[np.float32] = np.array([0.485, 0.456, 0.406], dtype=np.float32)
STD: NDArray[np.float32] = np.array([0.229, 0.224, 0.225], dtype=np.float32)
"""Mean and standard deviation of ImageNet's colour channels (red, green, blue), for values in [0, 1]."""

PIXEL_LIMIT = 100_000_000
"""A photo whose header announces more pixels is refused before anything is decoded."""

LONGEST_SIDE = 65_535
"""Pixels across or down, as many as a JPEG can have. Pillow's table for resizing holds 32 bytes for each of a side."""

MOST_SCANS = 50
"""A progressive JPEG has about ten passes over its pixels; a hundred thousand empty ones take minutes to decode."""

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")


class _TooManyScansError(Exception):
    pass


class _Jpeg(JpegImagePlugin.JpegImageFile):
    """A JPEG whose passes are counted while it is decoded; what stands after its end does not count."""

    _scans = 0

    def load_read(self, read_bytes: int) -> bytes:
        block = super().load_read(read_bytes)
        self._scans += block.count(b"\xff\xda")
        if self._scans > MOST_SCANS:
            raise _TooManyScansError
        return block


# Readers are called directly rather than through Image.open: that would also try formats we do not accept, and it
# applies Pillow's process-wide pixel limit, which belongs to whoever uses this library.
_READERS: tuple[tuple[re.Pattern[bytes], type[ImageFile.ImageFile]], ...] = (
    (re.compile(rb"\xff\xd8\xff"), _Jpeg),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), PngImagePlugin.PngImageFile),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), WebPImagePlugin.WebPImageFile),
    (re.compile(rb"BM"), BmpImagePlugin.BmpImageFile),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), TiffImagePlugin.TiffImageFile),
    (re.compile(rb"GIF8[79]a"), GifImagePlugin.GifImageFile),
)
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ROWS = 256
"""Rows that are scaled at once, because float64 takes eight times the memory of a photo."""

_warning_filters = threading.Lock()


class PhotoError(DataError):
    """A photo that cannot be opened.

    Attributes:
        problem: What is wrong with it, as a row of a table of problems.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.path}: {problem.found}. {problem.fix}")
        self.problem = problem

    def __reduce__(self) -> tuple[type["PhotoError"], tuple[Problem]]:
        return type(self), (self.problem,)  # data loaders send errors from one process to another


@dataclass(frozen=True)
class PhotoFacts:
    """What a manifest holds about a photo that was decoded from its first byte to its last.

    Attributes:
        sha256: SHA-256 of the file's bytes, hexadecimal.
        width: Pixels across, as seen upright.
        height: Pixels down, as seen upright.
    """

    sha256: str
    width: int
    height: int


def open_photo(source: Path | bytes, name: str | None = None) -> Image.Image:
    """Open a photo upright, in RGB with 8 bits a channel.

    JPEG, PNG, WebP, BMP, TIFF and GIF are read, whatever the file's suffix says. The EXIF orientation is applied; of an
    animated file the first frame is taken; transparent parts stand on white. Grey photos with 16 bits (also those that
    Pillow holds in 32) are scaled by a fixed factor, round(value / 257), and floating-point ones in [0, 1] by 255:
    never by what a single photo happens to contain. Of 16-bit colour, Pillow itself keeps the upper byte. Safe to call
    from several threads.

    Args:
        source: A file, or the bytes of one.
        name: How errors call the photo; the path by default.

    Raises:
        PhotoError: If there is no such file, or it is empty, not a photo, truncated, damaged, or beyond `PIXEL_LIMIT`,
            `LONGEST_SIDE` or `MOST_SCANS`.
    """
    if isinstance(source, bytes):
        name = name or "photo"
        with _named_errors(name):
            return _decode(BytesIO(source), name)
    name = name or str(source)
    with _named_errors(name), _open_file(source, name) as stream:
        return _decode(stream, name)


def photo_of(image: Image.Image, name: str) -> Image.Image:
    """An image that Pillow holds already, as `open_photo` gives it: upright, in RGB with 8 bits a channel.

    Args:
        image: Any image; it stays as it is.
        name: How errors call it.

    Raises:
        PhotoError: If it is empty, cannot be decoded, or is beyond `PIXEL_LIMIT`.
    """
    with _named_errors(name):
        if not image.width * image.height:
            raise _photo_error(name, "empty", "0 pixels", "a photo", "Give an image with pixels.")
        _check_size(image, name)
        image.load()
        return _upright(image)


def read_header(content: bytes, name: str) -> ImageFile.ImageFile:
    """The format, colour mode, size and metadata of a photo, as Pillow holds them. No pixel is decoded.

    Args:
        content: The file's bytes.
        name: How errors call the photo.

    Raises:
        PhotoError: If it is empty, not a photo, its header is damaged, or it announces too many pixels.
    """
    with _named_errors(name):
        return _read_header(BytesIO(content), name)


def describe_photo(path: Path, name: str | None = None) -> PhotoFacts:
    """Hash a photo and decode it to the end, so that whatever a manifest lists can be opened later.

    Args:
        path: The photo's file.
        name: How errors call the photo; the path by default.

    Raises:
        PhotoError: As `open_photo`.
    """
    name = name or str(path)
    with _named_errors(name), _open_file(path, name) as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
        stream.seek(0)
        photo = _decode(stream, name)
    return PhotoFacts(sha256, photo.width, photo.height)


def resize_photo(photo: Image.Image, size: int) -> NDArray[np.uint8]:
    """Pixels of the whole photo resized to a square, bicubic with Pillow's antialiasing.

    Args:
        photo: An RGB photo, as `open_photo` gives it.
        size: Side S of the square, in pixels.

    Returns:
        Array (S, S, 3), values 0–255.
    """
    return np.array(photo.resize((size, size), Image.Resampling.BICUBIC))


def normalise(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What a model reads: (x / 255 − `MEAN`) / `STD`, channels first.

    Args:
        pixels: Array (S, S, 3), values 0–255.

    Returns:
        Contiguous array (3, S, S).
    """
    scaled = (pixels.astype(np.float32) / np.float32(255) - MEAN) / STD
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))


def preprocess(photo: Image.Image, size: int) -> NDArray[np.float32]:
    """Preprocessing for validation, test, prediction and serving: `normalise` of `resize_photo`, array (3, S, S)."""
    return normalise(resize_photo(photo, size))


def decoded_size(image: Image.Image) -> tuple[int, int]:
    """Width and height in pixels of what decoding holds: of a photo, or of its tiles where those of a TIFF are larger.

    Raises:
        ValueError: If the size of the tiles is no number.
    """
    tags = getattr(image, "tag_v2", {})
    try:
        tile = int(tags.get(322, 0)), int(tags.get(323, 0))
    except (TypeError, ValueError, OverflowError) as error:  # a tag may hold text, several numbers, or NaN
        raise ValueError("tiles of no size") from error
    return max(image.size, tile, key=lambda one: one[0] * one[1])


def _decode(stream: IO[bytes], name: str) -> Image.Image:
    image = _read_header(stream, name)
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.width * image.height > PIXEL_LIMIT // 2:
        with _no_bomb_warning():
            image.load()
    else:
        image.load()
    return _upright(image)


def _check_size(image: Image.Image, name: str) -> None:
    width, height = decoded_size(image)
    limits = []
    if width * height > PIXEL_LIMIT:
        limits.append(f"at most {PIXEL_LIMIT:,} pixels")
    if max(width, height) > LONGEST_SIDE:
        limits.append(f"at most {LONGEST_SIDE:,} across and down")
    if limits:
        found = f"{width:,} × {height:,} pixels"
        raise _photo_error(name, "too many pixels", found, ", ".join(limits), "Scale the photo down.")


def _upright(image: Image.Image) -> Image.Image:
    photo = _to_rgb(image)
    turn = _UPRIGHT.get(_orientation(image))
    if turn is None:
        return photo
    upright = photo.transpose(turn)
    upright.info.clear()  # it holds the orientation, by which a second reader would turn the photo again
    return upright


def _read_header(stream: IO[bytes], name: str) -> ImageFile.ImageFile:
    image = _reader_of(stream, name)
    _check_size(image, name)
    return image


def _reader_of(stream: IO[bytes], name: str) -> ImageFile.ImageFile:
    start = stream.read(12)
    if not start:
        raise _photo_error(name, "empty", "0 bytes", "a photo", "Replace the file, or take it out.")
    stream.seek(0)
    for magic, reader in _READERS:
        if magic.match(start):
            if reader is GifImagePlugin.GifImageFile:
                with _no_bomb_warning():
                    return reader(stream)
            return reader(stream)
    if start[4:8] == b"ftyp":
        fix = "It may be a HEIC or AVIF photo, or a video: export it as JPEG or PNG."
    else:
        fix = "Export it as JPEG or PNG, or take it out."
    found = f"the file begins with {start[:8]!r}, which is no photo"
    raise _photo_error(name, "not an image", found, "JPEG, PNG, WebP, BMP, TIFF or GIF", fix)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        image = _scale_to_8_bit(image)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


def _scale_to_8_bit(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image)
    top = 1.0 if image.mode == "F" else 65535.0
    if not (pixels.min() >= 0 and pixels.max() <= top):  # written so that NaN is caught too
        raise ValueError(f"pixel values from {pixels.min():g} to {pixels.max():g}, beyond 0 to {top:g}")
    scaled = np.empty(pixels.shape, np.uint8)
    for start in range(0, len(pixels), _ROWS):
        scaled[start : start + _ROWS] = np.rint(pixels[start : start + _ROWS].astype(np.float64) * (255 / top))
    return Image.fromarray(scaled)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, or 1 (upright) where there is none or the metadata are damaged: the pixels are sound."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return 1


@contextmanager
def _open_file(path: Path, name: str) -> Iterator[IO[bytes]]:
    if not path.is_file():
        found = "not a file" if path.exists() else "no such file"
        raise _photo_error(name, "missing", found, "a photo", "Correct the path, or take the row out.")
    with path.open("rb") as stream:
        yield stream


@contextmanager
def _named_errors(name: str) -> Iterator[None]:
    """Turn whatever Pillow raises on a damaged file, which is nearly anything, into one kind of error."""
    try:
        yield
    except PhotoError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        limit = f"at most {PIXEL_LIMIT:,} pixels"
        raise _photo_error(name, "too many pixels", str(error), limit, "Scale the photo down.") from error
    except _TooManyScansError as error:
        expected, fix = f"at most {MOST_SCANS} scans", "Save it again as an ordinary JPEG."
        raise _photo_error(name, "too many scans", "more scans than a photo has", expected, fix) from error
    except Exception as error:
        cut = isinstance(error, EOFError | struct.error) or "truncated" in str(error).lower()
        found = f"{'cut short' if cut else 'cannot be read'} ({str(error) or type(error).__name__})"
        fix = "Copy it again from its source, or take it out."
        raise _photo_error(name, "truncated" if cut else "unreadable", found, "a whole photo", fix) from error


@contextmanager
def _no_bomb_warning() -> Iterator[None]:
    """Silence Pillow's own pixel limit, which is lower than ours; filters are shared by all threads, hence the lock."""
    with _warning_filters, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _photo_error(name: str, rule: str, found: str, expected: str, fix: str) -> PhotoError:
    return PhotoError(Problem(path=name, rule=rule, found=found, expected=expected, fix=fix))
