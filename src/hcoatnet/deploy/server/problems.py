"""What the server refuses, and how it says so: ``application/problem+json`` (RFC 9457)."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hcoatnet.errors import Problem

MEDIA_TYPE = "application/problem+json"


class Refusal(Exception):
    """A request that is not answered.

    Attributes:
        status: HTTP status.
        title: The kind of refusal, in a few words.
        detail: What was found and what to do.
        problems: What is wrong with single photos.
        headers: Further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        problems: Sequence[Problem] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(title)
        self.status = status
        self.title = title
        self.detail = detail
        self.problems = tuple(problems)
        self.headers = dict(headers or {})

    def to_dict(self) -> dict[str, Any]:
        """The body of the answer as plain data."""
        problems = [
            {"name": one.path, "rule": one.rule, "found": one.found, "expected": one.expected, "fix": one.fix}
            for one in self.problems
        ]
        return {"title": self.title, "status": self.status, "detail": self.detail, "problems": problems}

    def to_bytes(self) -> bytes:
        """The body of the answer."""
        return json.dumps(self.to_dict(), ensure_ascii=False).encode("utf-8")
