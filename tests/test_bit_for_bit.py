"""The same photos, settings and versions give the same bits: twice, with helpers, in any order, and as was recorded.

Where training is meant to give other bits, or the pinned versions have changed, the digests are recorded anew by

    HCOATNET_RECORD_DIGESTS=1 pytest tests/test_bit_for_bit.py -k recorded
"""

import json
import os
import platform
import random
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement

from conftest import flags
from hcoatnet.cli import app, run
from hcoatnet.config import PROTOCOLS, Protocol
from hcoatnet.files import sha256_of_file
from hcoatnet.training.run_directory import RECORDED_PACKAGES

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "tests" / "recorded_digests.json"
SETTINGS = {
    "protocol": "quick", "model": "h_coatnet", "model_options": "backbone=test_convnext", "image_size": 64, "start_size": 32,
    "epochs": 2, "batch_size": 8, "accumulation": 2, "optimizer": "adamw", "lr": 2e-3, "weight_decay": 0.05, "schedule": "cosine",
    "warmup_epochs": 0.5, "min_lr": 1e-5, "clip_grad": 1.0, "ema": 0.5, "monitor": "macro_f1", "seed": 7, "class_weights": "sqrt",
    "sampler": "weighted", "label_smoothing": 0.1, "dropout": 0.3, "drop_path": 0.1, "mixup": 0.2, "cutmix": 0.5, "crop_scale": 0.5,
    "horizontal_flip": 0.5, "vertical_flip": 0.5, "rotation": 30, "trivial_augment": True, "random_erasing": 0.3,
    "precision": "fp32", "channels_last": True, "compile": "false", "deterministic": True, "views": "one", "device": "cpu",
    "workers": 0, "layer_decay": 1, "frozen_epochs": 0, "momentum": 0.9, "initialisation": "published",
}  # fmt: skip
"""Everything that draws random numbers is on, and whatever a protocol may set."""

SAME = ("weights.safetensors", "predictions_val.csv", "predictions_test.csv", "calibration.json", "split.csv")


def digests(folder):
    return {name: sha256_of_file(folder / name) for name in SAME}


def trained(manifest, out, **changes):
    assert run(app, ["train", "--data", str(manifest), "--out", str(out), *flags({**SETTINGS, **changes})]) == 0
    return digests(out)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Sums over several threads may differ in their last bits from those of one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def reference(manifest_file, tmp_path_factory):
    return trained(manifest_file, tmp_path_factory.mktemp("bits") / "run")


def vendor():
    """Maker of the processor, on which libraries choose their instructions, too."""
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"vendor_id\s*: (\S+)", cpuinfo.read_text(encoding="utf-8")) if cpuinfo.exists() else None
    return found[1] if found else platform.machine()


def circumstances():
    """What bits may depend on beyond this repository."""
    versions = {name: metadata.version(name) for name in RECORDED_PACKAGES}
    return {**versions, "instructions": torch.backends.cpu.get_cpu_capability(), "processor": vendor()}


def recorded():
    return json.loads(RECORD.read_text(encoding="utf-8"))


def test_the_digests_are_those_that_were_recorded(reference):
    here = circumstances()
    if os.environ.get("HCOATNET_RECORD_DIGESTS"):
        RECORD.write_text(json.dumps({"circumstances": here, "digests": reference}, indent=2) + "\n", encoding="utf-8")
    known = recorded()
    if known["circumstances"] != here:
        pytest.skip(f"digests were recorded for {known['circumstances']}, and here are {here}")
    assert reference == known["digests"]


def test_no_protocol_can_change_what_was_recorded():
    for protocol in map(Protocol.read, PROTOCOLS):
        assert {*protocol.settings, *protocol.pretrained, *protocol.scratch} <= {*SETTINGS, "init"}


def test_digests_are_recorded_for_the_pinned_versions():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line.rstrip("\\ ")) for line in lines if re.match(r"[a-z0-9-]+==", line)]
    chosen = [one for one in pins if one.marker is None or one.marker.evaluate({"python_full_version": "3.11.7"})]
    pinned = {one.name: str(one.specifier).removeprefix("==") for one in chosen if one.name in RECORDED_PACKAGES}
    assert pinned == {name: recorded()["circumstances"][name] for name in RECORDED_PACKAGES}


@pytest.mark.slow
def test_another_seed_gives_other_bits(reference, manifest_file, tmp_path):
    other = trained(manifest_file, tmp_path / "run", seed=8)
    for name in ("weights.safetensors", "predictions_val.csv", "predictions_test.csv"):
        assert other[name] != reference[name]
    assert other["split.csv"] == reference["split.csv"]


def test_the_order_of_rows_and_of_files_on_disk_changes_nothing(reference, manifest_file, tmp_path):
    header, *rows = manifest_file.read_text(encoding="utf-8").splitlines()
    random.Random(1).shuffle(rows)
    for row in rows:
        path = row.split(",")[0]
        (tmp_path / "photos" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(manifest_file.parent / path, tmp_path / "photos" / path)
    shuffled = tmp_path / "photos" / "manifest.csv"
    shuffled.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    assert trained(shuffled, tmp_path / "run") == reference


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [{"workers": 1}, {"workers": 2}, {"cache": False}, {"cache": False, "workers": 2}], ids=str
)
def test_helpers_and_caches_change_nothing(changes, reference, manifest_file, tmp_path):
    assert trained(manifest_file, tmp_path / "run", **changes) == reference


@pytest.mark.slow
@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_a_fresh_process_gives_the_same_bits(hash_seed, reference, manifest_file, tmp_path):
    """In another working directory, and with another order of Python's sets."""
    tokens = ["train", "--data", str(manifest_file), "--out", str(tmp_path / "run"), *flags(SETTINGS)]
    done = subprocess.run(
        [sys.executable, "-m", "hcoatnet", *tokens],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "run") == reference
