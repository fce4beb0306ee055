"""A command run to its end: wall seconds, processor seconds, peak memory."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from contestant import last_words

# A small process in between: the peak of a child counts what its parent held when it forked.
_WATCH = """
import json, os, sys, time
report, *command = sys.argv[1:]
start = time.perf_counter()
pid = os.posix_spawnp(command[0], command, os.environ)
_, status, used = os.wait4(pid, 0)
seconds = time.perf_counter() - start
unit = 2**20 if sys.platform == "darwin" else 1024
found = {"seconds": seconds, "processor": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss / unit,
         "code": os.waitstatus_to_exitcode(status)}
open(report, "w").write(json.dumps(found))
"""


class CommandError(Exception):
    """A command failed."""


@dataclass(frozen=True)
class Measured:
    """What a command took.

    Attributes:
        seconds: By the clock.
        processor: Processor seconds, its children's included.
        peak: Largest resident size, in MiB.
    """

    seconds: float
    processor: float
    peak: float


def measured(command: Sequence[str], threads: int, log: Path) -> Measured:
    """Run a command to its end.

    Raises:
        CommandError: It ended with another exit code than 0.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    report = log.with_suffix(".json")
    variables = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    with log.open("w", encoding="utf-8") as stream:
        subprocess.run(
            [sys.executable, "-S", "-E", "-c", _WATCH, str(report), *command],
            stdout=stream,
            stderr=subprocess.STDOUT,
            check=True,
            env={**os.environ, **variables},
        )
    found = json.loads(report.read_text(encoding="utf-8"))
    if found["code"]:
        said = last_words(log.read_text(encoding="utf-8", errors="replace"))
        raise CommandError(said or f"exit code {found['code']}")
    return Measured(found["seconds"], found["processor"], found["peak"])


def python(*arguments: str) -> list[str]:
    """A command of this interpreter."""
    return [sys.executable, *arguments]


def hcoatnet(*arguments: str) -> list[str]:
    """A command line of the package."""
    return python("-m", "hcoatnet", *arguments)
