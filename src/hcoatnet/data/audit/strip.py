"""Clean copies: the same photos without the metadata that tell of people, places and cameras."""

import os
import shutil
import tempfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import ExifTags

from hcoatnet.data.audit.containers import bytes_after_end, without_metadata
from hcoatnet.data.audit.metadata import personal_fields
from hcoatnet.data.images import PhotoError, open_photo, read_header
from hcoatnet.data.manifest import Manifest, Progress
from hcoatnet.errors import DataError, Problem
from hcoatnet.files import write_text

_LOSSLESS: dict[str, dict[str, Any]] = {"BMP": {}, "GIF": {}, "TIFF": {"compression": "tiff_deflate"}}
_KEPT_INFO = ("transparency", "icc_profile", "background")


def strip_metadata(photos: Manifest, out: Path, progress: Progress | None = None) -> tuple[int, list[Problem]]:
    """Write a copy of every photo without metadata into a new folder, with a ``table.csv`` that lists them.

    JPEG, PNG and WebP files keep their compressed pixels byte for byte: only metadata are left out, and an orientation
    stays as the only EXIF field. BMP, GIF and TIFF files are written anew without loss, upright, the first picture
    alone. Every copy is opened again: one whose pixels differ, or that still tells something, is not kept but reported.

    Args:
        photos: Photos that can be opened.
        out: New or empty folder. It appears only when all copies are written.
        progress: Called with the photos done and all.

    Returns:
        The number of copies, and what could not be copied.

    Raises:
        DataError: If ``out`` holds something already.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: clean copies go into a new folder, and this one holds something. Name another.")
    root, names = _new_names([photos.folder / path for path in photos.table["path"]])
    out.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent))
    problems: list[Problem] = []
    kept: list[bool] = []
    try:
        for done, (path, name) in enumerate(zip(photos.table["path"], names, strict=True), start=1):
            problem = _copy(root / name, made / name, str(path))
            problems += [problem] if problem else []
            kept.append(problem is None)
            if progress is not None:
                progress(done, len(names))
        table = photos.table.assign(path=names)[kept]
        write_text(made / "table.csv", _as_table(table).to_csv(index=False, lineterminator="\n"))
        made.chmod(0o755)
        if out.exists():
            out.rmdir()
        made.replace(out)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return sum(kept), problems


def _as_table(table: pd.DataFrame) -> pd.DataFrame:
    """The manifest as a table to scan: without what scanning finds, and with the user's columns."""
    return table.drop(columns=["sha256", "width", "height"])


def _new_names(files: Sequence[Path]) -> tuple[Path, list[str]]:
    """The folder that holds all files, and each file's path below it."""
    # A link keeps its own name, which resolve() would not.
    absolute = [Path(os.path.abspath(file)) for file in files]  # noqa: PTH100
    root = Path(os.path.commonpath([file.parent for file in absolute]))
    return root, [file.relative_to(root).as_posix() for file in absolute]


def _copy(source: Path, target: Path, path: str) -> Problem | None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        content = source.read_bytes()
        header = read_header(content, path)
        clean = without_metadata(content, _stored_orientation(content, path)) or _written_anew(content, path)
        if not np.array_equal(np.asarray(open_photo(content, path)), np.asarray(open_photo(clean, path))):
            return _not_copied(path, f"a {header.format} copy would have other pixels")
        left = personal_fields(read_header(clean, path), clean)
    except PhotoError as error:
        return error.problem
    except Exception as error:  # one odd file must not keep the others from being copied
        return _not_copied(path, str(error) or type(error).__name__)
    if left or bytes_after_end(clean):
        return _not_copied(path, f"metadata that could not be taken out: {', '.join(left)}")
    target.write_bytes(clean)
    return None


def _stored_orientation(content: bytes, path: str) -> int:
    try:
        value = int(read_header(content, path).getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged metadata: the pixels are sound, and open_photo takes them as upright
        return 1
    return value if 1 <= value <= 8 else 1


def _written_anew(content: bytes, path: str) -> bytes:
    image = read_header(content, path)
    format = str(image.format)
    plain = image.copy()  # decodes; without the tags that Pillow would write again
    plain.info = {name: value for name, value in image.info.items() if name in _KEPT_INFO}
    buffer = BytesIO()
    plain.save(buffer, format, **_LOSSLESS[format])
    return buffer.getvalue()


def _not_copied(path: str, found: str) -> Problem:
    return Problem(path, "not copied", found, "a clean copy with the same pixels", "Export it again as PNG.")
