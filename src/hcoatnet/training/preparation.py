"""Everything that is settled before the first step: photos, split, proof, ledger, device."""

from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs

from hcoatnet.config import TrainConfig
from hcoatnet.data.cache import GIGABYTE, PhotoCache, cache_folder
from hcoatnet.data.manifest import Manifest, read_manifest
from hcoatnet.data.proof import SplitProof
from hcoatnet.data.sources.source import load_data
from hcoatnet.data.splits import Folds, Split, hold_out, prove, read_split
from hcoatnet.errors import ConfigError, RunError
from hcoatnet.evaluation.ledger import ledger_beside
from hcoatnet.files import write_bytes, write_text
from hcoatnet.settings import SYNTHETIC
from hcoatnet.training.journal import Journal
from hcoatnet.training.run_directory import RunDirectory

PATIENCE = timedelta(hours=6)
"""How long processes wait for each other: one of them may be reading a hundred thousand photos."""

SYNTHETIC_FOLDER = Path("data/synthetic")


@dataclass(frozen=True)
class Prepared:
    """Photos and split of a run.

    Attributes:
        manifest: The photos.
        split: Which subset each stands in.
        proof: That nothing straddles.
        ledger: Where an opening of the test set is recorded.
        notes: What a person should know about how this came about.
    """

    manifest: Manifest
    split: Split
    proof: SplitProof
    ledger: Path
    notes: tuple[str, ...]


def prepare_data(config: TrainConfig) -> Prepared:
    """Read or scan the photos, read or make the split, and prove it.

    Raises:
        ConfigError: No data is named.
        DataError: The photos or the split cannot be used.
    """
    if config.data is None:
        raise ConfigError(
            "No photos are named. Give --data with a folder that holds a folder of photos a class, a manifest made by "
            "`hcoatnet data scan`, or `synthetic`."
        )
    manifest, notes = load_data(config.data)
    split = _chosen_split(config, manifest)
    return Prepared(manifest, split, prove(split, manifest), ledger_of(config), notes)


def stored_data(config: TrainConfig, run: RunDirectory) -> Prepared:
    """Photos and split of a run that was begun, as they were then.

    Raises:
        RunError: The photos' folder or the split is no longer what the run began with.
    """
    if config.data is None or not config.data.exists():
        raise RunError(
            f"The photos of {run.path} were at {config.data}, which is not there. Put them back, or correct `data:` in "
            f"{run.config_file}."
        )
    folder = config.data if config.data.is_dir() else config.data.parent
    manifest = replace(read_manifest(run.manifest_file), folder=folder)
    split = read_split(run.split_file, manifest)
    if isinstance(split, Folds):
        raise RunError(f"{run.split_file} holds folds, not the run's own subsets. Restore it, or start a new run.")
    return Prepared(manifest, split, prove(split, manifest), ledger_of(config), ())


def check_unchanged(config: TrainConfig, stored: TrainConfig, run: RunDirectory) -> None:
    """Refuse to continue a run with other settings, photos or split than it began with.

    Raises:
        RunError: Naming all that differs.
    """
    differences = config.differences(stored)
    if config.data is not None and config.data.exists():
        manifest, _ = load_data(config.data)
        if manifest.to_csv() != read_manifest(run.manifest_file).to_csv():
            differences.append(f"the photos or labels in {config.data} have changed since")
        if config.split is not None and _chosen_split(config, manifest).to_csv() != run.split_file.read_text("utf-8"):
            differences.append(f"the split {config.split} is another")
    if differences:
        raise RunError(
            f"Cannot continue {run.path}: {'; '.join(differences)}. Continue with what it began with, or start a new "
            "run with another --out."
        )


def store_data(prepared: Prepared, config: TrainConfig, run: RunDirectory) -> None:
    """Copy the manifest (byte for byte where it is a file) and write the resolved split."""
    if config.data is not None and config.data.is_file():
        write_bytes(run.manifest_file, config.data.read_bytes())
    else:
        write_text(run.manifest_file, prepared.manifest.to_csv())
    write_text(run.split_file, prepared.split.to_csv())


def with_drawn_photos(config: TrainConfig) -> tuple[TrainConfig, tuple[str, ...]]:
    """Where ``data`` is ``synthetic``: the same settings with the drawn set, which is drawn if it is not there."""
    if config.data != SYNTHETIC:
        return config, ()
    from hcoatnet.data.synthetic import draw_synthetic

    manifest = SYNTHETIC_FOLDER / "manifest.csv"
    if not manifest.exists():
        draw_synthetic(SYNTHETIC_FOLDER)
    note = f"The photos are synthetic, drawn into {SYNTHETIC_FOLDER}; figures on them say nothing about patients."
    return replace(config, data=manifest), (note,)


def ledger_of(config: TrainConfig) -> Path:
    """The test ledger: beside the split file given, or beside the manifest, or in the folder of photos."""
    return ledger_beside(config.split, config.data)


def usable_device(config: TrainConfig) -> str:
    """The device that ``config`` asks for, or the best one where it leaves the choice.

    Raises:
        ConfigError: It is not to be had here.
    """
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    device = config.device
    if device == "auto":
        device = "cuda" if present["cuda"] else "mps" if present["mps"] else "cpu"
    if not present[device]:
        usable = ", ".join(name for name, there in present.items() if there)
        raise ConfigError(f"--device {device} is not available here. Usable: {usable}, or auto.")
    return device


def computes_bf16(device: str) -> bool:
    """Whether a device has instructions for bf16; without them bf16 is slower than float32."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # not in every version of torch
    return device == "cpu" and any(getattr(torch.cpu, name, lambda: False)() for name in names)


def build_accelerator(config: TrainConfig) -> Accelerator:
    """accelerate, on the device and with the precision asked for.

    Raises:
        ConfigError: The device, or the precision on it, is not to be had here.
    """
    device = usable_device(config)
    precision = config.precision
    if precision == "auto":
        precision = "bf16" if computes_bf16(device) else "fp32"
    if precision == "fp16" and device == "cpu":
        raise ConfigError("--precision fp16 needs a GPU. Use fp32 or bf16 on a CPU.")
    AcceleratorState._reset_state()  # one process may train several times, with other precisions
    return Accelerator(
        mixed_precision="no" if precision == "fp32" else precision,
        cpu=device == "cpu",
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )


def build_cache(config: TrainConfig, journal: Journal) -> PhotoCache | None:
    """The cache of decoded photos; None where it is off."""
    if not config.cache or config.data is None:
        return None
    folder = config.cache_folder or cache_folder(config.data)
    return PhotoCache(folder, config.cache_limit * GIGABYTE, journal, torch.get_num_threads())


def _chosen_split(config: TrainConfig, manifest: Manifest) -> Split:
    if config.split is None:
        return hold_out(manifest, val_share=config.val_share, test_share=config.test_share, seed=config.split_seed)
    split = read_split(config.split, manifest)
    return split.cell(config.repeat, config.fold) if isinstance(split, Folds) else split
