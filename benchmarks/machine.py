"""The machine and the versions that figures hold for."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("hcoatnet", "torch", "torchvision", "timm", "numpy", "pillow", "accelerate", "onnxruntime")


def machine_facts(threads: int) -> dict[str, Any]:
    """Processor, cores, memory, load, GPU and versions."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gib": round(_memory(), 1),
        "load_average_at_start": [round(one, 2) for one in os.getloadavg()],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "gpu": _gpu(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
    }


RESET = Path("/proc/self/clear_refs")
"""Where Linux is told to forget the largest size of this process so far."""


def resident(name: str, reset: bool = False) -> int:
    """Memory of this process in bytes, now (``VmRSS``) or at most since the last reset (``VmHWM``).

    0 where the system does not tell.
    """
    try:
        if reset:
            RESET.write_text("5", encoding="ascii")
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def cuda_present() -> bool:
    """Whether torch would find a CUDA device, without importing torch into this process."""
    return bool(_gpu())


def _gpu() -> str | None:
    import subprocess

    try:
        found = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip().splitlines()[0] if found.stdout.strip() else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _memory() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
