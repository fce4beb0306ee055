"""The commands of the original description, run from the repository's root."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMANDS = {
    "proposed_model.train_h_coatnet": ("h_coatnet_tiny", 29_010_000),
    "baselines.train_cnn": ("cnn", 241_000),
    "baselines.train_efficientnet": ("efficientnet_b0", 4_011_000),
    "baselines.train_vit": ("vit_tiny_patch16_224", 5_525_000),
    "baselines.train_swin": ("swin_tiny_patch4_window7_224", 27_521_000),
    "baselines.train_coatnet": ("coatnet_0_rw_224", 26_668_000),
    "baselines.train_gft": ("gft_tiny", 4_191_000),
}


def call(module, *flags, cwd=ROOT):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, flags)], capture_output=True, text=True, cwd=cwd, env=environment
    )


def test_there_is_one_for_each_of_the_seven_models():
    files = [*ROOT.glob("proposed_model/train_*.py"), *ROOT.glob("baselines/train_*.py")]
    assert {f"{path.parent.name}.{path.stem}" for path in files} == set(COMMANDS)
    assert len(COMMANDS) == 7


@pytest.mark.parametrize("module", COMMANDS)
def test_without_photos_it_says_how_to_get_them(module, tmp_path):
    done = call(module, cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for word in ("data/ichthyosis", "Roboflow", "hi-l9ueo", "--data FOLDER", "--data synthetic"):
        assert word in " ".join(done.stderr.split())
    assert list(tmp_path.iterdir()) == []


def test_the_model_is_fixed_and_the_protocol_is_the_paper_s(manifest_file, tmp_path):
    done = call(
        "baselines.train_cnn",
        "--data",
        manifest_file,
        "--out",
        tmp_path / "run",
        "--epochs",
        1,
        "--image-size",
        24,
        "--device",
        "cpu",
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["model"], metrics["protocol"]) == ("cnn", "paper")
    assert call("baselines.train_cnn", "--model", "vit").returncode == 2


@pytest.mark.slow
@pytest.mark.parametrize("module", COMMANDS)
def test_all_seven_train_at_full_size(module, pad_ufes, tmp_path):
    """A few steps at 224² on real photos: 12 of each class, 4 of them for training."""
    import pandas as pd

    table = pd.read_csv(pad_ufes / "metadata.csv")
    table = table.drop_duplicates("patient_id").groupby("label").head(6)
    table["path"] = [str(pad_ufes / path) for path in table["path"]]
    table.to_csv(tmp_path / "table.csv", index=False)
    scan = call(
        "hcoatnet",
        "data",
        "scan",
        tmp_path / "table.csv",
        "--group-column",
        "patient_id",
        "--out",
        tmp_path / "manifest.csv",
    )
    assert scan.returncode == 0, scan.stderr
    done = call(
        module, "--data", tmp_path / "manifest.csv", "--out", tmp_path / "run", "--epochs", 1, "--batch-size", 8
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    model, parameters = COMMANDS[module]
    assert metrics["model"] == model
    assert abs(metrics["parameters"] - parameters) < 6000  # six classes here
    assert metrics["subsets"]["test"]["n"] == 6
