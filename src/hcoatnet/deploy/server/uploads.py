"""Reading the photos of a request into memory, counting while they arrive. Nothing is written anywhere.

Starlette's own form parser puts larger files into temporary files; this one has none.
"""

import asyncio
import unicodedata
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from hcoatnet.deploy.server.limits import MEGABYTE, Limits, Share
from hcoatnet.deploy.server.problems import Refusal
from hcoatnet.errors import Problem

FIELD = "photos"
NAME_LENGTH = 100
HOW = f"Send multipart/form-data with the field `{FIELD}`, or one photo as the body with its type, such as image/jpeg."


@dataclass(frozen=True)
class Upload:
    """A photo as it came.

    Attributes:
        name: Its file name, made safe to show.
        content: Its bytes.
    """

    name: str
    content: bytes


async def read_uploads(request: Request, limits: Limits, share: Share) -> list[Upload]:
    """Read the photos of a request.

    Args:
        request: With a body of multipart/form-data or image/*.
        limits: What is let in.
        share: Counts the bytes that are held.

    Raises:
        Refusal: The body is too large, too slow, of another type, malformed, or holds no photo.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    try:
        async with asyncio.timeout(limits.upload_seconds):
            if kind == b"multipart/form-data":
                return await _read_form(request, options.get(b"boundary", b""), limits, share)
            if kind.startswith(b"image/"):
                return await _read_one(request, limits, share)
    except TimeoutError:
        detail = f"The photos did not arrive within {limits.upload_seconds:g} seconds. Send fewer or smaller ones."
        raise Refusal(408, "Too slow", detail, headers={"Connection": "close"}) from None
    except ClientDisconnect:
        raise Refusal(400, "Cut short", "The connection was closed before the photos had arrived.") from None
    raise Refusal(415, "Not a photo", f"The body is of another type. {HOW}")


def safe_name(name: str, number: int) -> str:
    """A file name without folders, control characters, invisible characters and angle brackets.

    Args:
        name: As the client gave it.
        number: Which photo of the request it is, from 1, for those without a name.
    """
    base = name.replace("\\", "/").rpartition("/")[2]
    shown = "".join("_" if one in "<>" else one for one in base if unicodedata.category(one)[0] != "C")
    shown = shown.strip()[:NAME_LENGTH]
    return shown if shown.strip(". ") else f"photo {number}"


async def _read_one(request: Request, limits: Limits, share: Share) -> list[Upload]:
    content = bytearray()
    name = safe_name("", 1)
    async for chunk in _counted(request, limits.bytes, share):
        content += chunk
        if len(content) > limits.bytes:
            raise _too_large(name, limits)
    return [Upload(name, bytes(content))]


async def _read_form(request: Request, boundary: bytes, limits: Limits, share: Share) -> list[Upload]:
    form = _Form(limits)
    try:
        parser = MultipartParser(boundary, form.callbacks()) if boundary else None  # type: ignore[arg-type]
        if parser is None:
            raise _malformed("its type names no boundary")
        async for chunk in _counted(request, limits.request_bytes, share):
            parser.write(chunk)
    except FormParserError:
        raise _malformed("its parts cannot be told apart") from None
    if not form.ended:
        raise _malformed("it ends before its last boundary")
    if not form.uploads:
        raise Refusal(422, "No photo", f"The field `{FIELD}` is empty or missing. {HOW}")
    return form.uploads


async def _counted(request: Request, most: int, share: Share) -> AsyncIterator[bytes]:
    """The body as it arrives; a body that announces too much is refused before it is read."""
    announced = request.headers.get("content-length")
    if announced is not None and int(announced) > most:
        raise _body_too_large(most)
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > most:
            raise _body_too_large(most)
        share.take(len(chunk))
        yield chunk


class _Form:
    """Collects the parts of a form while they arrive."""

    def __init__(self, limits: Limits) -> None:
        self.uploads: list[Upload] = []
        self.ended = False
        self._limits = limits
        self._field = b""
        self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self._name = ""
        self._content = bytearray()

    def callbacks(self) -> dict[str, Any]:
        """What the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._take_field,
            "on_header_value": self._take_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._start_photo,
            "on_part_data": self._take_content,
            "on_part_end": self._end_photo,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.uploads) >= self._limits.photos:
            detail = f"A request may hold {self._limits.photos} photos. Send the others in another one."
            raise Refusal(413, "Too many photos", detail)
        self._headers = {}
        self._content = bytearray()

    def _take_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _take_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field = self._value = b""

    def _start_photo(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        if options.get(b"name") != FIELD.encode():
            raise Refusal(422, "Unknown field", f"The form has a field that is not `{FIELD}`. {HOW}")
        name = options.get(b"filename", b"").decode("utf-8", "replace")
        self._name = safe_name(name, len(self.uploads) + 1)

    def _take_content(self, data: bytes, start: int, end: int) -> None:
        self._content += data[start:end]
        if len(self._content) > self._limits.bytes:
            raise _too_large(self._name, self._limits)

    def _end_photo(self) -> None:
        self.uploads.append(Upload(self._name, bytes(self._content)))
        self._content = bytearray()

    def _end(self) -> None:
        self.ended = True


def _too_large(name: str, limits: Limits) -> Refusal:
    most = f"{limits.bytes / MEGABYTE:g} MB"
    fix = "Save it with a stronger compression or with fewer pixels."
    problem = Problem(name, "too large", f"more than {most}", f"at most {most}", fix)
    return Refusal(413, "Too large", f"A photo may have at most {most}.", [problem])


def _body_too_large(most: int) -> Refusal:
    detail = f"A request may have {most / MEGABYTE:g} MB in all. Send fewer or smaller photos."
    return Refusal(413, "Too large", detail)


def _malformed(why: str) -> Refusal:
    return Refusal(400, "Malformed form", f"The body is no sound multipart/form-data: {why}. {HOW}")
