"""A run directory: where its files lie, who may write to it, and what it says about itself."""

import os
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import UnionType
from typing import Any

from hcoatnet import __version__
from hcoatnet.config import TrainConfig, naming, resolve_config, stored_settings, write_settings
from hcoatnet.documents import DocumentError, parse_object
from hcoatnet.errors import RunError
from hcoatnet.files import remove_leftovers, write_json

RUN_FORMAT = 1
LOCK_NAME = ".lock"
LOCK_PATIENCE = 1
"""Seconds: a look at whether the directory is busy holds the lock for a moment, too."""
DIGESTED = ("config", "manifest", "split", "weights")
"""What metrics.json holds digests of, each as ``<name>_sha256``."""
RECORDED_PACKAGES = (
    "accelerate",
    "numpy",
    "pandas",
    "pillow",
    "safetensors",
    "scikit-learn",
    "scipy",
    "timm",
    "torch",
    "torchvision",
)


@dataclass(frozen=True)
class RunDirectory:
    """The files of one run.

    Attributes:
        path: The directory.
    """

    path: Path

    @property
    def name(self) -> str:
        """The directory's own name."""
        return self.path.resolve().name

    @property
    def config_file(self) -> Path:
        """Every setting, in a form that ``--config`` takes."""
        return self.path / "config.yaml"

    @property
    def environment_file(self) -> Path:
        """Versions and hardware."""
        return self.path / "environment.json"

    @property
    def manifest_file(self) -> Path:
        """A copy of the manifest, byte for byte."""
        return self.path / "manifest.csv"

    @property
    def split_file(self) -> Path:
        """The resolved split: path, group, subset."""
        return self.path / "split.csv"

    @property
    def history_file(self) -> Path:
        """One row an epoch."""
        return self.path / "history.csv"

    @property
    def weights_file(self) -> Path:
        """The best weights."""
        return self.path / "weights.safetensors"

    @property
    def state_file(self) -> Path:
        """What is needed to continue, as of the latest epoch's end."""
        return self.path / "state.pt"

    @property
    def calibration_file(self) -> Path:
        """Temperature, conformal and abstain thresholds, from the validation photos."""
        return self.path / "calibration.json"

    @property
    def metrics_file(self) -> Path:
        """The results; its presence marks a finished run."""
        return self.path / "metrics.json"

    @property
    def log_file(self) -> Path:
        """What was said while it ran."""
        return self.path / "log.txt"

    @property
    def figures(self) -> Path:
        """Folder of the figures."""
        return self.path / "figures"

    def predictions_file(self, subset: str) -> Path:
        """The predictions table of ``val`` or ``test``."""
        return self.path / f"predictions_{subset}.csv"

    @property
    def study(self) -> str | None:
        """Name of the study whose cell this run is, if it is one: it lies in ``runs/`` beside a ``plan.csv``."""
        folder = self.path.resolve().parent
        return folder.parent.name if folder.name == "runs" and (folder.parent / "plan.csv").exists() else None

    @property
    def busy(self) -> bool:
        """Whether a process is at work in the directory now."""
        if not (self.path / LOCK_NAME).exists():
            return False
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / LOCK_NAME)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
        return False

    @property
    def started(self) -> bool:
        """Whether a run was begun here."""
        return self.config_file.exists()

    @property
    def finished(self) -> bool:
        """Whether it came to its end."""
        return self.metrics_file.exists()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process out of the directory, and remove what a killed one left half-written.

        Raises:
            RunError: Another process is at work in it.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / LOCK_NAME)
        try:
            lock.acquire(timeout=LOCK_PATIENCE)
        except Timeout:
            raise RunError(
                f"Another process is training in {self.path}. Wait for it, or choose another directory with --out."
            ) from None
        try:
            for folder in (self.path, self.figures):
                remove_leftovers(folder)
            yield
        finally:
            lock.release()

    def begin(self, config: TrainConfig, device: str, precision: str) -> None:
        """Write the environment and the settings. The settings come last: they mark a run that was begun."""
        write_json(self.environment_file, environment(device, precision))
        write_settings(config, self.config_file)

    def settings(self) -> TrainConfig:
        """The settings of the run, its paths as seen from the working directory.

        Raises:
            RunError: No run was begun here, or a newer version wrote it.
        """
        if not self.started:
            raise RunError(f"{self.path} is not a run directory: it has no config.yaml. Give one that `train` made.")
        self.check_format()
        with naming(self.config_file):
            return resolve_config(stored_settings(self.config_file))

    def results(self) -> dict[str, Any]:
        """The content of metrics.json of a finished run.

        Raises:
            RunError: It is missing or damaged.
        """
        if not self.finished:
            raise RunError(
                f"The run {self.path} is not finished: it has no metrics.json. Finish it with "
                f"`hcoatnet train --resume {self.path}`."
            )
        content = _read_json(self.metrics_file, "train again")
        if wrong := list(_wrong_results(content)):
            raise RunError(f"{self.metrics_file} lacks usable {', '.join(wrong)}. Restore it, or train again.")
        return content

    def calibration(self) -> dict[str, Any]:
        """The content of calibration.json of a finished run.

        Raises:
            RunError: It is missing or damaged.
        """
        return _read_json(self.calibration_file, "train again")

    def environment(self) -> dict[str, Any]:
        """The content of environment.json.

        Raises:
            RunError: It is missing or damaged.
        """
        content = _read_json(self.environment_file, "start a new run")
        if not isinstance(content.get("packages", {}), dict):
            raise RunError(f"{self.environment_file} lacks usable packages. Restore it, or start a new run.")
        return content

    def check_format(self) -> None:
        """Refuse what a newer version wrote.

        Raises:
            RunError: The run's format is not the one this version reads.
        """
        found = self.environment()
        if found.get("format") != RUN_FORMAT:
            raise RunError(
                f"The run {self.path} was written by hcoatnet {found.get('hcoatnet', '?')} in format "
                f"{found.get('format')}; this is hcoatnet {__version__}, which reads format {RUN_FORMAT}. "
                "Use the version that wrote it."
            )


def _wrong_results(content: Mapping[str, Any]) -> Iterator[str]:
    """Keys of a metrics.json that are missing, or hold another kind of thing."""
    texts = ("model", "init", "protocol", "monitor", *(f"{name}_sha256" for name in DIGESTED))
    yield from (key for key in texts if not isinstance(content.get(key), str))
    yield from (key for key in ("parameters", "best_epoch", "epochs", "seed") if not _is_number(content.get(key), int))
    if not _is_number(content.get("training_seconds"), int | float):
        yield "training_seconds"
    for key in ("classes", "notes"):
        values = content.get(key)
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            yield key
    subsets = content.get("subsets")
    if not isinstance(subsets, dict) or set(subsets) not in ({"val"}, {"val", "test"}):
        yield "subsets"
    ledger = content.get("test_ledger")
    counts = [ledger.get(key) for key in ("openings", "configurations")] if isinstance(ledger, dict) else []
    if not (ledger is None or (counts and all(_is_number(count, int) for count in counts))):
        yield "test_ledger"


def _is_number(value: object, kind: type | UnionType) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and 0 <= value <= sys.maxsize  # type: ignore[operator]


def _read_json(path: Path, otherwise: str) -> dict[str, Any]:
    try:
        return parse_object(path.read_bytes())
    except OSError as error:
        raise RunError(f"Cannot read {path}: {error.strerror}. Restore it, or {otherwise}.") from error
    except DocumentError as error:
        raise RunError(f"{path} {error}. Restore it, or {otherwise}.") from error


def environment(device: str, precision: str) -> dict[str, Any]:
    """Versions and hardware that a result depends on; nothing that identifies the user or the machine."""
    import torch

    return {
        "format": RUN_FORMAT,
        "hcoatnet": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device,
        "precision": precision,
        "packages": {name: metadata.version(name) for name in RECORDED_PACKAGES},
    }


def processor_name() -> str:
    """The processor's marketing name where the system tells it, else its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
