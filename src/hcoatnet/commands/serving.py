"""A trained model in other hands: ``serve``."""

import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from hcoatnet.errors import BundleError, ConfigError
from hcoatnet.terminal import say

TOKEN_VARIABLE = "HCOATNET_TOKEN"  # noqa: S105 - the name of a variable
MOST_THREADS = 1024
HOST_NAME = re.compile(r"[A-Za-z0-9.-]+")

Names = Annotated[list[str] | None, Parameter(negative_iterable=(), consume_multiple=True, show_default=False)]


def serve(
    bundle: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token_file: Path | None = None,
    allowed_host: Names = None,
    threads: int = 1,
    concurrency: int | None = None,
    queue: int = 32,
    max_photos: int = 16,
    max_megabytes: float = 20,
    max_megapixels: float = 60,
    upload_seconds: float = 60,
    drain_seconds: float = 2,
    method: Literal["lac", "aps"] = "lac",
    class_conditional: bool = False,
    level: float = 0.9,
    error_rate: float = 0.1,
) -> None:
    """Serve a bundle: an API and a page in the browser. Photos stay in memory and are never written or logged.

    Other machines reach it only with --host, and then a token is needed, from --token-file or the environment variable
    HCOATNET_TOKEN. Ctrl+C or SIGTERM stop it after the requests that are running.

    Args:
        bundle: Folder that `hcoatnet bundle` made.
        host: Address to listen at.
        port: Port to listen at; 0 for any free one.
        token_file: File with the token that requests must bring.
        allowed_host: Names under which browsers reach the server, such as that of a proxy before it.
        threads: Threads that one request computes with.
        concurrency: Requests that are computed at once; by default the number of cores / threads.
        queue: Requests that wait; further ones are told to come back.
        max_photos: Photos of one request.
        max_megabytes: Megabytes of one photo.
        max_megapixels: Million pixels of one photo; a quarter of it with transparency or 16 bits.
        upload_seconds: Time in which the photos of a request must have arrived.
        drain_seconds: Time between SIGTERM, when /readyz begins to say no, and the end of taking requests.
        method: Score of the prediction sets: lac or aps.
        class_conditional: A threshold for each class.
        level: Coverage that the prediction sets aim at: 0.9 or 0.95.
        error_rate: Share of wrong answers above the abstain threshold: 0.05 or 0.1.
    """
    _check_installed()
    from hcoatnet.data.images import PIXEL_LIMIT
    from hcoatnet.deploy.server.limits import MEGABYTE, Limits, usable_cores
    from hcoatnet.deploy.server.running import serve_bundle
    from hcoatnet.deploy.server.security import Access

    for flag, value, least, most in (
        ("--threads", threads, 1, MOST_THREADS),
        ("--drain-seconds", drain_seconds, 0, 86_400),
        ("--max-megabytes", max_megabytes, 0, 1000),
        ("--max-megapixels", max_megapixels, 0, PIXEL_LIMIT / MEGABYTE),
    ):
        if not least <= value <= most:
            raise ConfigError(f"{flag} must be from {least} to {most:g}. Got {value} instead.")
    for name in allowed_host or []:
        if not HOST_NAME.fullmatch(name):
            raise ConfigError(f"--allowed-host takes a name such as derm.example.org alone. Got {name!r} instead.")
    limits = Limits(
        photos=max_photos,
        bytes=round(max_megabytes * MEGABYTE),
        pixels=round(max_megapixels * MEGABYTE),
        upload_seconds=upload_seconds,
        concurrency=max(1, usable_cores() // threads) if concurrency is None else concurrency,
        queue=queue,
    )
    serve_bundle(
        bundle,
        host,
        port,
        limits,
        Access(_token(token_file), frozenset(name.lower().rstrip(".") for name in allowed_host or [])),
        drain_seconds=drain_seconds,
        announce=say,
        method=method,
        class_conditional=class_conditional,
        level=level,
        error_rate=error_rate,
        threads=threads,
    )
    say("Stopped.")


def _check_installed() -> None:
    missing = [name for name in ("fastapi", "uvicorn", "python_multipart", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise BundleError(
            f"The server needs {', '.join(missing)}. Install what it needs: pip install 'hcoatnet[serve]'"
        )


def _token(file: Path | None) -> str | None:
    from hcoatnet.deploy.server.security import check_token

    if file is not None:
        try:
            return check_token(file.read_text(encoding="utf-8"), str(file))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise ConfigError(f"The token file {file} cannot be read: {reason}.") from error
    token = os.environ.get(TOKEN_VARIABLE)
    return None if token is None else check_token(token, f"the variable {TOKEN_VARIABLE}")


def register(app: App) -> None:
    """Add these commands to the command line."""
    app.command(serve)
