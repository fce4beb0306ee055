"""Checks of the machine: device, threads, memory, clock."""

import os
import shutil
import tempfile
import time
import warnings
from pathlib import Path

import hcoatnet
from hcoatnet.doctor.finding import Finding
from hcoatnet.doctor.software import first_line

GIGABYTE = 10**9
LEAST_MEMORY = GIGABYTE
"""Bytes. Importing torch and training the smallest models takes about this much."""

GOOD_MEMORY = 4 * GIGABYTE
GOOD_SHARED_MEMORY = GIGABYTE
"""Bytes. Loader processes hand whole batches over through it; containers give 64 MB unless told otherwise."""

CGROUPS = Path("/sys/fs/cgroup")
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - looked at, not written
DRIVER = Path("/proc/driver/nvidia/version")
DAY = 86_400
CLOCK_TOLERANCE = 10
"""Seconds by which the clock of the disk, which may be another machine's, can differ from ours unnoticed."""


def device() -> Finding:
    """Where training will run, in which precision, and why not on the GPU if there is one."""
    import torch

    if not torch.cuda.is_available():
        if torch.backends.mps.is_available():
            return Finding("ok", "Apple GPU (mps), float32")
        return _unused_card() or Finding(
            "ok", f"CPU, training in {_cpu_precision()}; no GPU is needed for small models"
        )
    name = torch.cuda.get_device_name(0)
    try:
        torch.ones(2, device="cuda").sum().item()
    except RuntimeError as error:
        advice = "Install a torch that supports this card, with its torchvision, or train with --device cpu."
        return Finding("problem", f"{name} cannot be computed on: {first_line(error)}", advice)
    free, total = torch.cuda.mem_get_info(0)
    precision = "bf16" if torch.cuda.is_bf16_supported() else "float32 (it has no bf16)"
    found = f"{torch.cuda.device_count()} × {name}, {_size(free)} of {_size(total)} free, training in {precision}"
    if free < LEAST_MEMORY:
        return Finding("warning", found, "Another program holds the GPU: end it, or train with --device cpu.")
    return Finding("ok", found)


def threads() -> Finding:
    """Whether torch computes with as many threads as there are cores for this process."""
    import joblib
    import torch

    cores, used = int(joblib.cpu_count()), torch.get_num_threads()
    found = f"{used} threads on {cores} usable cores (the machine has {os.cpu_count()})"
    if used > cores:
        return Finding("warning", f"{found}: they wait for each other", f"Set the variable OMP_NUM_THREADS={cores}.")
    asked = os.environ.get("OMP_NUM_THREADS")
    return Finding("ok", f"{found}, as OMP_NUM_THREADS asks" if asked and used < cores else found)


def memory() -> Finding:
    """Whether there is memory to train with, by the machine's and the container's count."""
    import psutil

    left, limit = int(psutil.virtual_memory().available), _container_memory()
    found = f"{_size(left)} free"
    if limit is not None and limit < left:
        left, found = limit, f"{_size(limit)} left of what this container may use"
    if left < LEAST_MEMORY:
        return Finding("problem", found, "End other programs, or give the container more: models will not fit.")
    if left < GOOD_MEMORY:
        return Finding(
            "warning", found, "Large models may not fit: lower --batch-size or --image-size, raise --accumulation."
        )
    return Finding("ok", found)


def shared_memory() -> Finding:
    """Whether loader processes can hand their batches over."""
    if not SHARED_MEMORY.is_dir():
        return Finding("ok", "this system has no limit of its own for loader processes")
    free = shutil.disk_usage(SHARED_MEMORY).free
    found = f"{_size(free)} free for loader processes"
    if free < GOOD_SHARED_MEMORY:
        return Finding("warning", found, "Start the container with --shm-size 1g or more, or train with --workers 0.")
    return Finding("ok", found)


def clock() -> Finding:
    """Whether the clock is right, as far as files tell: their dates say what has changed since."""
    ahead = Path(hcoatnet.__file__).stat().st_mtime - time.time()
    if ahead > DAY:
        found = f"the clock says {time.strftime('%Y-%m-%d')}, {ahead / DAY:.0f} days before hcoatnet was installed"
        return Finding("problem", found, "Set the clock.")
    try:
        with tempfile.NamedTemporaryFile(dir=Path.cwd()) as written:
            skew = Path(written.name).stat().st_mtime - time.time()
    except OSError:
        skew = 0.0
    if abs(skew) > CLOCK_TOLERANCE:
        found = f"the disk's clock is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}"
        return Finding("warning", found, "Set both clocks by the network (NTP): dates of runs are not to be trusted.")
    return Finding("ok", time.strftime("%Y-%m-%d %H:%M %z"))


def _unused_card() -> Finding | None:
    """Why torch does not use the NVIDIA card that there seems to be."""
    import torch

    if not (DRIVER.exists() or shutil.which("nvidia-smi")):
        return None
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1"):
        return Finding("ok", f"CPU, training in {_cpu_precision()}; CUDA_VISIBLE_DEVICES hides the NVIDIA card")
    if torch.version.cuda is None:
        found = f"an NVIDIA driver, but torch {torch.__version__} was built without CUDA: training runs on the CPU"
        advice = "Install the ordinary torch and torchvision again, together."
        return Finding("warning", found, advice)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.cuda.init()  # type: ignore[no-untyped-call]
            reason = "no card is visible"
        except (RuntimeError, AssertionError) as error:
            reason = first_line(error)
    advice = (
        f"Update the NVIDIA driver to one for CUDA {torch.version.cuda}, let the container see the card (--gpus all), "
        "or train with --device cpu."
    )
    return Finding("problem", f"an NVIDIA driver that torch cannot use: {reason}", advice)


def _cpu_precision() -> str:
    from hcoatnet.training.preparation import computes_bf16

    return "bf16" if computes_bf16("cpu") else "float32 (no instructions for bf16)"


def _container_memory() -> int | None:
    """Bytes that the container (cgroup) still allows; None where it sets no limit."""
    for most, used, stat, idle in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
    ):
        try:
            limit, current = (int((CGROUPS / name).read_text(encoding="ascii")) for name in (most, used))
            numbers = dict(line.split() for line in (CGROUPS / stat).read_text(encoding="ascii").splitlines())
        except (OSError, ValueError):  # none, or the word "max"
            continue
        return max(0, limit - current + int(numbers.get(idle, 0)))
    return None


def _size(count: float) -> str:
    return f"{count / GIGABYTE:.1f} GB"
