"""All checks, in the order in which their problems should be mended."""

from collections.abc import Callable, Mapping
from typing import Any

from hcoatnet import __version__
from hcoatnet.doctor import hardware, self_test, software, storage
from hcoatnet.doctor.finding import Finding

CHECKS: Mapping[str, Callable[[], Finding]] = {
    "Python": software.python,
    "dependencies": software.dependencies,
    "torch and torchvision": software.torch_and_torchvision,
    "extras": software.extras,
    "photo formats": software.photo_formats,
    "encoding": software.encoding,
    "device": hardware.device,
    "threads": hardware.threads,
    "memory": hardware.memory,
    "shared memory": hardware.shared_memory,
    "clock": hardware.clock,
    "writing": storage.writing,
    "disk": storage.disk,
    "file system": storage.file_system,
    "self-test": self_test.self_test,
}


def examine() -> dict[str, Finding]:
    """Every check by its name. One that itself fails is a warning, and the others go on."""
    return {name: _outcome(check) for name, check in CHECKS.items()}


def as_json(findings: Mapping[str, Finding]) -> dict[str, Any]:
    """The findings as plain values, with the number of problems and warnings."""
    statuses = [finding.status for finding in findings.values()]
    return {
        "hcoatnet": __version__,
        "problems": statuses.count("problem"),
        "warnings": statuses.count("warning"),
        "checks": [
            {"check": name, "status": finding.status, "found": finding.found, "advice": finding.advice}
            for name, finding in findings.items()
        ],
    }


def _outcome(check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as error:  # a machine can be broken in ways that no check foresees
        found = f"could not be checked: {software.first_line(error)}"
        return Finding("warning", found, "Mend what else is named here first, then run this again.")
