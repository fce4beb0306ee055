"""What the server lets in: how large, how many, for how long, and how many at once."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields

from hcoatnet.deploy.server.problems import Refusal
from hcoatnet.errors import ConfigError

MEGABYTE = 1_000_000
PIXEL_LIMIT = 60_000_000
"""The largest ordinary phone photos have 50 million. Pillow needs up to a gigabyte to decode and turn 60 million."""

OVERHEAD = 100_000
"""Bytes that a multipart body may hold beside its photos."""

RETRY_SECONDS = 2


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Limits:
    """What the server lets in.

    Attributes:
        photos: Photos of one request.
        bytes: Bytes of one photo.
        pixels: Pixels of one photo, width × height.
        upload_seconds: Time in which a request's body must have arrived.
        concurrency: Requests that are computed at once; each decodes one photo at a time.
        queue: Requests that wait for that.
    """

    photos: int = 16
    bytes: int = 20 * MEGABYTE
    pixels: int = PIXEL_LIMIT
    upload_seconds: float = 60
    concurrency: int = 2
    queue: int = 32

    def __post_init__(self) -> None:
        for field in fields(self):
            value, least = getattr(self, field.name), 0 if field.name == "queue" else 1e-3
            if not least <= value < float("inf"):
                kind = "0 or more" if least == 0 else "above 0"
                raise ConfigError(f"The limit of {field.name.replace('_', ' ')} must be {kind}. Got {value} instead.")

    @property
    def request_bytes(self) -> int:
        """Bytes of a whole body: at most five photos of the full size."""
        return min(self.photos, 5) * self.bytes + OVERHEAD

    @property
    def held_bytes(self) -> int:
        """Bytes of all bodies that are in memory at once."""
        return 4 * self.request_bytes


def busy(detail: str) -> Refusal:
    """The answer to a request that there is no room for now."""
    return Refusal(503, "Busy", detail, headers={"Retry-After": str(RETRY_SECONDS)})


class Gate:
    """Lets so many requests compute at once and so many wait for it, in the order in which they came.

    For one event loop; not for several threads.
    """

    def __init__(self, limits: Limits) -> None:
        self._most = limits.concurrency + limits.queue
        self._inside = 0
        self._running = asyncio.Semaphore(limits.concurrency)

    def check(self) -> None:
        """Refuse at once where the queue is full.

        Raises:
            Refusal: With 503.
        """
        if self._inside >= self._most:
            raise busy("The server works on other requests and its queue is full. Try again shortly.")

    @asynccontextmanager
    async def enter(self) -> AsyncIterator[None]:
        """Wait in the queue, then hold a place while computing.

        Raises:
            Refusal: With 503, where the queue is full.
        """
        self.check()
        self._inside += 1
        try:
            async with self._running:
                yield
        finally:
            self._inside -= 1


class Memory:
    """Counts the bytes of all bodies that are held at once."""

    def __init__(self, limits: Limits) -> None:
        self._free = limits.held_bytes

    @asynccontextmanager
    async def share(self) -> AsyncIterator["Share"]:
        """What one request may take from it; given back at the end."""
        share = Share(self)
        try:
            yield share
        finally:
            self._free += share.taken

    def take(self, count: int) -> None:
        """Take bytes.

        Raises:
            Refusal: With 503, where so many are not free.
        """
        if count > self._free:
            raise busy("The server holds as many photos of other requests as it may. Try again shortly.")
        self._free -= count


class Share:
    """The bytes that one request holds."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self.taken = 0

    def take(self, count: int) -> None:
        """Take bytes, as `Memory.take`."""
        self._memory.take(count)
        self.taken += count
