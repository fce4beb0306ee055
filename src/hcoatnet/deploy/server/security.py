"""The outermost layer of the server: who may ask, what every answer carries, and what is logged.

The log holds a line a request: method, path, status, milliseconds. A path that the server does not have is not written
out, nor is a query: clients put file names there. Photos and their names are in no line, not even after an error.
"""

import asyncio
import hmac
import ipaddress
import logging
import secrets
import time
import traceback
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hcoatnet.deploy.server.problems import MEDIA_TYPE, Refusal
from hcoatnet.errors import ConfigError

LOG = logging.getLogger("hcoatnet.server")
API = "/v1/"
TOKEN_LENGTH = 16
LOGGED_FRAMES = 10
HEADER_BYTES = 16_384
"""Of a request's address and headers together."""

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""On every answer, unless it brings its own."""


@dataclass(frozen=True)
class Access:
    """Who may use the server.

    Attributes:
        token: What requests to the API must bring; None for no token.
        hosts: Names, beside ``localhost`` and any address in digits, under which browsers may reach the server.
    """

    token: str | None = field(default=None, repr=False)
    hosts: frozenset[str] = frozenset()

    def check(self, scope: Scope) -> None:
        """Refuse a request under a foreign name, from a foreign page, or to the API without the token.

        A web page that makes its own name point here (DNS rebinding) is stopped by the name in ``Host``, one that sends
        a form here by ``Origin``.

        Raises:
            Refusal: With 421, 403 or 401.
        """
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        if not self._knows(host):
            detail = "The server does not answer under this name. Whoever runs it can add it with --allowed-host."
            raise Refusal(421, "Unknown host", detail)
        origin = headers.get("origin")
        if origin is not None and scope["method"] not in ("GET", "HEAD") and not _same_place(origin, host):
            raise Refusal(403, "Foreign page", "Only pages of this server may send photos from a browser.")
        if self.token is not None and scope["path"].startswith(API) and not self._proves(headers):
            raise Refusal(
                401, "Token needed", "Send the header `Authorization: Bearer TOKEN` with the server's token.",
                headers={"WWW-Authenticate": "Bearer"},
            )  # fmt: skip

    def _knows(self, host: str) -> bool:
        name = _name_of(host)
        return name == "localhost" or name in self.hosts or _is_address(name)

    def _proves(self, headers: Mapping[str, str]) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        expected = (self.token or "").encode("latin-1")
        return hmac.compare_digest(given.strip().encode("latin-1"), expected) and scheme.lower() == "bearer"


def check_token(token: str, where: str) -> str:
    """The token without the white space around it.

    Args:
        token: As it was given.
        where: How errors call its place.

    Raises:
        ConfigError: It is short, or holds what no HTTP header can.
    """
    token = token.strip()
    if len(token) < TOKEN_LENGTH or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            f"The token in {where} must be at least {TOKEN_LENGTH} visible ASCII characters without spaces. Got "
            f"{len(token)} characters. Make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
    return token


class Shield:
    """An ASGI application around another, which does what this module promises.

    Args:
        app: The application.
        access: Who may use it.
        paths: The paths that it has.
    """

    def __init__(self, app: ASGIApp, access: Access, paths: Collection[str]) -> None:
        self._app = app
        self._access = access
        self._paths = frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        start = time.perf_counter()
        try:
            _check_size(scope)
            self._access.check(scope)
            await self._app(scope, receive, answer.send)
        except Refusal as refusal:
            await answer.refuse(refusal)
        except asyncio.CancelledError:
            await answer.refuse(Refusal(503, "Stopping", "The server stops and could not finish this request."))
        except Exception as error:
            await answer.refuse(_failure(error))
        finally:
            path = scope["path"] if scope["path"] in self._paths else "(other)"
            spent = 1000 * (time.perf_counter() - start)
            LOG.info("%s %s %s %.0f ms", scope["method"], path, answer.status, spent)


class _Answer:
    """Passes an answer on with the headers that every answer has."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status: int | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": with_security(message["headers"])}
        await self._send(message)

    async def refuse(self, refusal: Refusal) -> None:
        if self.status is not None:
            return  # too late: a part of another answer has been sent
        body = refusal.to_bytes()
        headers = {**refusal.headers, "Content-Type": MEDIA_TYPE, "Content-Length": str(len(body))}
        start = {"type": "http.response.start", "status": refusal.status, "headers": encoded(headers)}
        await self.send(start)
        await self.send({"type": "http.response.body", "body": body})


def encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Headers as ASGI wants them."""
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


def with_security(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Headers of an answer and those of `HEADERS` that it does not have."""
    own = list(headers)
    names = {name.lower() for name, _ in own}
    return own + [(name, value) for name, value in encoded(HEADERS) if name not in names]


def _check_size(scope: Scope) -> None:
    """Refuse long headers. What reads HTTP looks at their length only while they are not all there."""
    address = len(scope["raw_path"]) + len(scope["query_string"])
    if address + sum(len(name) + len(value) for name, value in scope["headers"]) > HEADER_BYTES:
        raise Refusal(431, "Headers too long", f"Address and headers may have {HEADER_BYTES:,} bytes in all.")


def _failure(error: Exception) -> Refusal:
    """What is said of an error of the server itself. The log gets the place, but no message: that may quote a photo."""
    number = secrets.token_hex(4)
    frames = traceback.extract_tb(error.__traceback__)[-LOGGED_FRAMES:]
    places = "".join(f"\n  {frame.filename}, line {frame.lineno}, in {frame.name}" for frame in frames)
    LOG.error("error %s: %s%s", number, type(error).__name__, places)
    detail = f"The server failed. Its log tells where, under the number {number}."
    return Refusal(500, "Internal error", detail)


def _name_of(host: str) -> str:
    """The name in a ``Host`` header, without port, in lower case; empty where it is malformed."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _same_place(origin: str, host: str) -> bool:
    """Whether a page at ``origin`` was loaded from ``host``; a proxy may have taken the encryption off."""
    try:
        page = urlsplit(origin)
        port = page.port or {"http": 80, "https": 443}.get(page.scheme)
        here = urlsplit(f"//{host}")
        return page.hostname == here.hostname and port in ({here.port} if here.port else {80, 443})
    except ValueError:
        return False
