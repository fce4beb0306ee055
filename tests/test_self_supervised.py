"""The comparison of a self-supervised start: its loss, whose photos it sees, and the whole of it on tiny photos."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import self_supervised
from self_supervised import COVARIANCE, INVARIANCE, VARIANCE, lines, off_diagonal, summary, training_photos, vicreg_loss

from hcoatnet.config import resolve_config
from hcoatnet.data.manifest import read_manifest
from hcoatnet.data.splits import read_split
from hcoatnet.training.preparation import prepare_data


def test_the_loss_is_its_three_terms():
    rng = np.random.default_rng(0)
    one, other = rng.normal(0, 0.7, (2, 30, 5))
    expected = INVARIANCE * ((one - other) ** 2).mean()
    for z in (one, other):
        expected += VARIANCE / 2 * np.maximum(0, 1 - np.sqrt(z.var(axis=0, ddof=1) + 1e-4)).mean()
        covariance = np.cov(z, rowvar=False)
        expected += COVARIANCE * ((covariance**2).sum() - (np.diag(covariance) ** 2).sum()) / 5
    assert vicreg_loss(torch.tensor(one), torch.tensor(other)).item() == pytest.approx(expected)


def test_views_that_agree_and_vary_without_correlation_cost_nothing_and_one_point_for_all_the_most():
    z = 2 * torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    assert off_diagonal(z) == 0 == vicreg_loss(z, z)
    assert vicreg_loss(torch.zeros(4, 2), torch.zeros(4, 2)).item() == pytest.approx(VARIANCE * 0.99)


def test_the_summary_pairs_folds_and_corrects_for_training_sets_in_common():
    rows = [
        {"model": "cnn", "arm": arm, "fold": fold, "seed": seed, "macro_f1": value + seed / 100, "log_loss": 1.5,
         "photos": 20, "training_photos": 60}
        for seed in (0, 1)
        for arm, values in {"scratch": (0.4, 0.5), "half": (0.2, 0.2), "self_supervised": (0.5, 0.8)}.items()
        for fold, value in enumerate(values)
    ]  # fmt: skip
    first, second = summary(rows, ["cnn"])
    assert (first["against"], second["against"], first["folds"]) == ("scratch", "half", 2)
    correction = (1 + 2 * 20 / 60) ** 0.5
    assert (first["mean"], first["standard_error"]) == (pytest.approx(0.2), pytest.approx(0.1 * correction))
    assert (second["mean"], second["standard_error"]) == (pytest.approx(0.45), pytest.approx(0.15 * correction))
    assert summary(rows[:1], ["cnn"]) == []
    table = lines({"rows": rows, "summary": [first, second]})
    assert table[2] == "| cnn | 0 | 0 | 0.400 (1.50) | 0.200 (1.50) | 0.500 (1.50) |"
    assert table[6] == "| cnn | difference |  | -0.200 ± 0.129 | -0.450 ± 0.194 |  |"


def test_only_photos_of_the_training_part_are_seen(manifest_file, folds_file, monkeypatch):
    seen = []
    hold = self_supervised.held_photos
    monkeypatch.setattr(
        self_supervised,
        "held_photos",
        lambda prepared, rows, *rest: seen.extend(rows["path"]) or hold(prepared, rows, *rest),
    )
    settings = {"data": manifest_file, "split": folds_file, "fold": 1, "image_size": 32, "model": "test_convnext"}
    config = resolve_config(settings)
    photos = training_photos(config, prepare_data(config))
    manifest = read_manifest(manifest_file)
    assert tuple(sorted(seen)) == read_split(folds_file, manifest).cell(0, 1).paths("train")
    assert len(photos) == len(seen) < len(manifest.table)
    assert {(photo.dtype, photo.shape[0]) for photo in photos} == {(torch.uint8, 3)}


@pytest.mark.slow
def test_the_three_arms_on_tiny_photos_and_again_without_training(manifest_file, folds_file, tmp_path, monkeypatch):
    command = ["self_supervised.py", str(manifest_file), str(folds_file), "--models", "test_convnext", "--folds", "0",
               "--image-size", "64", "--batch", "8", "--work", str(tmp_path / "work"), "--out"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", [*command, str(tmp_path / "one.json")])
    self_supervised.main()
    rows = json.loads((tmp_path / "one.json").read_text())["rows"]
    assert [row["arm"] for row in rows] == [*self_supervised.ARMS]
    config = (tmp_path / "work" / "test_convnext-self_supervised-64px-b8-s42-f0" / "config.yaml").read_text()
    for line in ("epochs: 24", "lr: 0.0015", "warmup_epochs: 4.0", "evaluate_test: false"):
        assert f"{line}\n" in config
    assert rows[2]["pretraining"]["loss_last"] < rows[2]["pretraining"]["loss_first"]
    monkeypatch.setattr(self_supervised, "measured", None)
    monkeypatch.setattr(sys, "argv", [*command, str(tmp_path / "two.json")])
    self_supervised.main()
    assert (tmp_path / "two.json").read_bytes() == (tmp_path / "one.json").read_bytes()
