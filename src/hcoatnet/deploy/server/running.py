"""Running the application: the port, the connections, and stopping without cutting anyone off."""

import asyncio
import errno
import ipaddress
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from hcoatnet.deploy.server.app import Readiness, create_app
from hcoatnet.deploy.server.limits import Limits
from hcoatnet.deploy.server.pages import page_routes
from hcoatnet.deploy.server.problems import MEDIA_TYPE, Refusal
from hcoatnet.deploy.server.schemas import NOTICE
from hcoatnet.deploy.server.security import HEADER_BYTES, Access, encoded, with_security
from hcoatnet.deploy.server.served import Served
from hcoatnet.errors import ConfigError

CONNECTIONS = 512
HEADER_SECONDS = 10
"""Time for the headers of a request, and for the rest of a body that was refused while it arrived."""

KEEP_ALIVE_SECONDS = 5
"""Time between two requests of a connection."""

FLUSH_SECONDS = 120
"""Time for a client to fetch its answer."""

FINISH_SECONDS = 30
"""Time for running requests when the server stops."""


class Connection(H11Protocol):
    """A connection that cannot be held open by sending or reading very slowly."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start its clock, or drop it where there are too many."""
        super().connection_made(transport)
        self.access_log = False  # it would hold the addresses that were asked for, whatever they are
        if len(self.connections) > CONNECTIONS:
            transport.abort()
            return
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Stop its clock when a request has begun, start it when another one begins to arrive."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        super().connection_lost(exc)
        self._set_deadline(None)

    def timeout_keep_alive_handler(self) -> None:
        """Close it after an answer; even where the answer is never fetched."""
        self._set_deadline(FLUSH_SECONDS)
        super().timeout_keep_alive_handler()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP as everything else is answered."""
        refusal = Refusal(400, "Malformed request", "The request is no valid HTTP, or its headers are too long.")
        body = refusal.to_bytes()
        headers = {"Content-Type": MEDIA_TYPE, "Content-Length": str(len(body)), "Connection": "close"}
        lines = [name + b": " + value for name, value in with_security(encoded(headers))]
        self.transport.write(b"\r\n".join([b"HTTP/1.1 400 Bad Request", *lines, b"", body]))
        self.transport.close()

    def _watch(self) -> None:
        busy = self.cycle is not None and not self.cycle.response_complete
        if busy:
            self._set_deadline(None)
        elif self._deadline is None:
            self._set_deadline(HEADER_SECONDS)

    def _set_deadline(self, seconds: float | None) -> None:
        """Drop the connection after so long, or never."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self.transport.abort)


class Server(uvicorn.Server):
    """Stops in two steps: ``/readyz`` says so first, and some time later no connection is taken any more.

    Args:
        config: Of uvicorn.
        readiness: What ``/readyz`` reads.
        drain_seconds: Time between the two, after SIGTERM.
    """

    def __init__(self, config: uvicorn.Config, readiness: Readiness, drain_seconds: float) -> None:
        super().__init__(config)
        self._readiness = readiness
        self._drain_seconds = drain_seconds
        self._stop_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; a second signal stops at once."""
        if self._readiness.draining:
            self.force_exit = True
        wait = self._drain_seconds if sig == signal.SIGTERM and not self._readiness.draining else 0
        self._readiness.draining = True
        self._stop_at = time.monotonic() + wait

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second; whether to stop."""
        if self._stop_at is not None and time.monotonic() >= self._stop_at:
            self.should_exit = True
        return await super().on_tick(counter)


def serve_bundle(
    folder: Path,
    host: str,
    port: int,
    limits: Limits,
    access: Access,
    *,
    drain_seconds: float,
    announce: Callable[..., None],
    **settings: Any,
) -> None:
    """Serve a bundle until the process is told to stop.

    Args:
        folder: The bundle.
        host: Where to listen.
        port: Where to listen; 0 for any free port.
        limits: What is let in.
        access: Who may ask; the host is added to its names.
        drain_seconds: See :class:`Server`.
        announce: Gets lines for a person.
        settings: See :meth:`Served.open`.

    Raises:
        ConfigError: The host is open to other machines and there is no token, or the port cannot be used.
        BundleError: The bundle cannot be used.
    """
    if access.token is None and not is_loopback(host):
        raise ConfigError(
            f"Other machines could reach {host}, so a token is needed. Put one into a file for --token-file, or into "
            "the environment variable HCOATNET_TOKEN. Make one with: python -c 'import secrets; "
            "print(secrets.token_urlsafe(32))'"
        )
    with bind(host, port) as listener:
        served = Served.open(folder, **settings)
        readiness = Readiness()
        access = replace(access, hosts=access.hosts | {host.lower()})
        app = create_app(served, limits, access, readiness, page_routes())
        address = f"[{host}]" if ":" in host else host
        announce(
            f"{served.facts['name']} is served at http://{address}:{listener.getsockname()[1]} (stop with Ctrl+C).",
            NOTICE,
        )
        set_up_logging()
        make_server(app, readiness, drain_seconds).run(sockets=[listener])


def make_server(app: ASGIApp, readiness: Readiness, drain_seconds: float = 0) -> Server:
    """A server around an application, with every limit of HTTP itself."""
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http=Connection,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=HEADER_BYTES,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=FINISH_SECONDS,
    )
    return Server(config, readiness, drain_seconds)


def bind(host: str, port: int) -> socket.socket:
    """Take a port.

    Args:
        host: Name or address to listen at.
        port: 0 for any free one.

    Raises:
        ConfigError: The address is not of this machine, or the port is taken or may not be used.
    """
    advice = "--port takes 0 (any free one) to 65535, --host an address of this machine."
    if not 0 <= port <= 65535:
        raise ConfigError(f"There is no port {port}: {advice}")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=128)
    except UnicodeError as error:
        raise ConfigError(f"{host!r} cannot be the name of a machine: {advice}") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"Port {port} of {host} is taken. Stop the program that uses it: {advice}") from error
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise ConfigError(f"Cannot listen at port {port} of {host} ({reason}): {advice}") from error


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine reach a server at ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def set_up_logging() -> None:
    """One line a request to standard error; of uvicorn and the libraries, nothing that could quote a photo."""
    logging.captureWarnings(True)
    logging.basicConfig(level=logging.ERROR, format="%(asctime)s %(message)s", force=True)
    logging.getLogger("hcoatnet.server").setLevel(logging.INFO)
    for name in ("uvicorn", "uvicorn.error", "python_multipart", "PIL"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
