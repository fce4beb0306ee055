"""Photos from Roboflow: the export of one version of a project, as a folder a class.

The SDK names the archive. Downloading and unpacking are done here: the SDK's own would write into a folder that looks
finished while it is not, without limits and without a hash. The key comes from the environment alone. It stands in the
address of every request that the SDK makes, so no text of an error of the SDK reaches the user unread, and the log of
addresses of its HTTP library is kept shut meanwhile.
"""

import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from hcoatnet.data.sources.archive import Limits, unpack_zip
from hcoatnet.data.sources.folder import list_folder
from hcoatnet.data.sources.scan import Listing
from hcoatnet.errors import ConfigError, DataError, HCoAtNetError
from hcoatnet.files import write_json

KEY_VARIABLE = "ROBOFLOW_API_KEY"
ARCHIVE_LIMIT = 20_000_000_000
"""Bytes of an archive at most."""

_BLOCK = 1 << 20
_TIMEOUT_S = 60
_LONGEST_WAIT_S = 1800
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True)
class Export:
    """Which photos: by default those of the description of H-CoAtNet."""

    workspace: str = "hi-l9ueo"
    project: str = "ich-s-7lnsj"
    version: int = 1
    format: str = "folder"


@dataclass(frozen=True)
class Progresses:
    """Called with what is done and all: bytes while downloading, files while unpacking."""

    download: Callable[[int, int], None] | None = None
    unpack: Callable[[int, int], None] | None = None


def download(
    out: Path, export: Export | None = None, progress: Progresses | None = None, limit: int = ARCHIVE_LIMIT
) -> tuple[str, ...]:
    """Download an export and unpack it into a new folder, which appears only when everything is there.

    ``download.json`` in it records which export it is, and size and SHA-256 of the archive.

    Args:
        out: New or empty folder.
        export: Which photos.
        progress: How far it is.
        limit: Bytes of the archive at most.

    Returns:
        Notes to be shown to the user.

    Raises:
        ConfigError: If there is no key, or no SDK.
        DataError: If the folder holds something, the service refuses, or what comes is not a whole, harmless archive of
            photos.
    """
    export, progress = export or Export(), progress or Progresses()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: the download goes into a new folder, and this one holds something. Name another.")
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key:
        raise ConfigError(f"No key for Roboflow. Put yours into the environment variable {KEY_VARIABLE}.")
    link = _export_link(export, key)
    out.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent))
    try:
        archive = made / "export.zip"
        sha256, size = _fetch(link, archive, key, limit, progress.download)
        photos = made / "photos"
        photos.mkdir()
        files = unpack_zip(archive, photos, Limits(), progress.unpack)
        listing = _listing(photos, files)
        record = {"source": "roboflow", **asdict(export), "sha256": sha256, "bytes": size, "files": files}
        write_json(photos / "download.json", record)
        photos.chmod(0o755)
        if out.exists():
            out.rmdir()
        photos.replace(out)
    except DataError as error:
        raise DataError(f"{_named(export)}: {error}") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
    counted = f"{len(listing.table):,} photos in {listing.table['label'].nunique()} classes."
    return (counted, *listing.notes, f"Archive: {size:,} bytes, SHA-256 {sha256}.")


def _listing(photos: Path, files: int) -> Listing:
    try:
        listing = list_folder(photos)
    except DataError:
        listing = None
    if listing is None or listing.table.empty:
        raise DataError(f"The archive's {files:,} files are no folders of photos, one a class. Nothing was kept.")
    return listing


def _named(export: Export) -> str:
    return f"Roboflow {export.workspace}/{export.project}/{export.version}"


def _export_link(export: Export, key: str) -> str:
    """Address of the archive. The service may still be making it, which is waited for."""
    try:
        from roboflow.adapters import rfapi
    except ImportError:
        raise ConfigError("The Roboflow SDK is not installed. Install hcoatnet[roboflow].") from None
    end = time.monotonic() + _LONGEST_WAIT_S
    while True:
        with _requests_of(export, key):
            answer: Any = rfapi.get_version_export(
                key, export.workspace, export.project, str(export.version), export.format
            )
        ready = not (isinstance(answer, dict) and answer.get("ready") is False)
        if ready or time.monotonic() > end:
            break
        time.sleep(1)
    link = answer.get("export", {}).get("link") if isinstance(answer, dict) and ready else None
    if not isinstance(link, str):
        raise DataError(f"{_named(export)}: the service named no archive of the format {export.format!r}.")
    parts = urlsplit(link)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise DataError(f"{_named(export)}: the archive is not offered over https. It was not downloaded.")
    return link


def _fetch(
    link: str, target: Path, key: str, limit: int, progress: Callable[[int, int], None] | None
) -> tuple[str, int]:
    """Download to a file; returns the SHA-256 and the size."""
    import requests

    digest, size = hashlib.sha256(), 0
    with _requests_of(None, key), requests.get(link, stream=True, timeout=_TIMEOUT_S) as answer:
        if answer.status_code != 200:
            raise DataError(f"The archive could not be downloaded (HTTP status {answer.status_code}).")
        announced = int(answer.headers.get("Content-Length") or 0)
        if announced > limit:
            raise DataError(f"The archive has {announced:,} bytes, more than {limit:,}. It was not downloaded.")
        with target.open("wb") as stream:
            for block in answer.iter_content(_BLOCK):
                size += len(block)
                if size > limit:
                    raise DataError(f"The archive has more than {limit:,} bytes. It was not kept.")
                digest.update(block)
                stream.write(block)
                if progress is not None:
                    progress(size, announced or size)
    if announced and size != announced:
        raise DataError(f"The download broke off after {size:,} of {announced:,} bytes. Run the command again.")
    return digest.hexdigest(), size


@contextmanager
def _requests_of(export: Export | None, key: str) -> Iterator[None]:
    """Say what went wrong with a request without the address, which holds the key, and keep it out of the log."""
    import requests
    from roboflow.adapters.rfapi import RoboflowError

    log = logging.getLogger("urllib3")
    level = log.level
    log.setLevel(logging.CRITICAL)
    where = f"{_named(export)}: " if export else ""
    try:
        yield
    except RoboflowError as error:
        told = " ".join(str(error).replace(key, "…").replace(quote(key), "…").split())[:200]
        raise DataError(
            f"{where}the service refused: {told or 'no reason given'}. Check {KEY_VARIABLE} and the names."
        ) from None
    except requests.RequestException as error:
        kind = type(error).__name__
        raise DataError(
            f"{where}the service cannot be reached, or broke off ({kind}). Run the command again."
        ) from None
    except (HCoAtNetError, OSError):
        raise
    except Exception as error:  # of the SDK; its message may hold the address
        kind = type(error).__name__
        raise DataError(f"{where}the service's answer could not be used ({kind}). Run the command again.") from None
    finally:
        log.setLevel(level)
