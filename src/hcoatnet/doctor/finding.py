"""What a check of the machine says."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes:
        status: ``problem`` where something will not work, ``warning`` where it works worse than it could.
        found: One line of what was found. It names no user and no place of this machine, so that it can be shown.
        advice: One line of what to do; empty where nothing need be done.
    """

    status: Status
    found: str
    advice: str = ""
