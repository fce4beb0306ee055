"""`hcoatnet train` and `evaluate`, from the command line to the files they leave."""

import csv
import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file

from conftest import flags
from hcoatnet.cli import app, run
from hcoatnet.config import PROTOCOLS, TrainConfig
from hcoatnet.evaluation.calibration_file import calibration_of_run
from hcoatnet.evaluation.metrics import summarise
from hcoatnet.evaluation.predictions import read_predictions
from hcoatnet.files import sha256_of_file

SMALL = {
    "model": "cnn",
    "image_size": 24,
    "epochs": 2,
    "batch_size": 8,
    "device": "cpu",
    "workers": 0,
    "lr": 2e-3,
    "deterministic": True,
}


@pytest.fixture(scope="module")
def finished(manifest_file, tmp_path_factory):
    """A finished run beside a copy of the photos, and what was printed."""
    place = tmp_path_factory.mktemp("project")
    shutil.copytree(manifest_file.parent, place / "photos", ignore=shutil.ignore_patterns("test_ledger.jsonl"))
    run_directory = place / "runs" / "first"
    tokens = ["train", "--data", str(place / "photos" / "manifest.csv"), "--out", str(run_directory), *flags(SMALL)]
    assert run(app, tokens) == 0
    return run_directory


def files_of(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_run_directory_holds_what_the_contract_says(finished):
    figures = {
        f"figures/{name}.{kind}"
        for name in ("confusion_matrix_val", "confusion_matrix_test", "learning_curves")
        for kind in ("png", "svg")
    }
    expected = {
        "config.yaml", "environment.json", "manifest.csv", "split.csv", "history.csv", "weights.safetensors", "state.pt",
        "predictions_val.csv", "predictions_test.csv", "calibration.json", "report.html", "log.txt", "metrics.json",
    } | figures  # fmt: skip
    assert files_of(finished) - {".lock"} == expected


def test_no_file_holds_an_absolute_path_or_a_leftover(finished):
    for path in finished.rglob("*"):
        if path.is_file():
            assert not path.name.endswith(".tmp")
            assert str(finished.parent.parent).encode() not in path.read_bytes(), path


def test_the_manifest_is_copied_byte_for_byte_and_config_finds_the_photos(finished):
    config = yaml.safe_load((finished / "config.yaml").read_text())
    original = finished / config["data"]
    assert original.read_bytes() == (finished / "manifest.csv").read_bytes()
    assert config["data"] == "../../photos/manifest.csv"
    assert set(config) == {one.name for one in dataclasses.fields(TrainConfig)}


def test_metrics_follow_from_the_predictions_tables(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    split = pd.read_csv(finished / "split.csv")
    for subset in ("val", "test"):
        predictions = read_predictions(finished / f"predictions_{subset}.csv")
        assert metrics["subsets"][subset] == summarise(predictions)
        assert set(predictions.table["path"]) == set(split.loc[split["subset"] == subset, "path"])
        assert {"patient_id", "site"} <= set(predictions.table.columns)
    assert metrics["weights_sha256"] == sha256_of_file(finished / "weights.safetensors")
    assert metrics["manifest_sha256"] == sha256_of_file(finished / "manifest.csv")
    assert metrics["split_sha256"] == sha256_of_file(finished / "split.csv")
    assert metrics["parameters"] == sum(
        t.numel()
        for name, t in load_file(finished / "weights.safetensors").items()
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
    )


def test_calibration_follows_from_the_predictions_tables(finished):
    val, test = (read_predictions(finished / f"predictions_{subset}.csv") for subset in ("val", "test"))
    assert json.loads((finished / "calibration.json").read_text()) == calibration_of_run(val, test)


def test_history_has_a_row_an_epoch_and_nothing_of_the_test(finished):
    with (finished / "history.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert not any("test" in name for name in rows[0])
    metrics = json.loads((finished / "metrics.json").read_text())
    best = [row for row in rows if row["best"] == "1"][-1]
    assert metrics["best_epoch"] == int(best["epoch"])
    assert float(best["val_macro_f1"]) == pytest.approx(metrics["subsets"]["val"]["macro_f1"]["value"])
    assert float(best["val_loss"]) == pytest.approx(metrics["subsets"]["val"]["log_loss"]["value"], rel=1e-5)


def test_the_task_is_learnt(finished):
    assert json.loads((finished / "metrics.json").read_text())["subsets"]["test"]["accuracy"]["value"] > 0.6


def test_the_ledger_has_one_line_for_the_opening(finished):
    lines = (finished.parent.parent / "photos" / "test_ledger.jsonl").read_text().splitlines()
    mine = [line for line in map(json.loads, lines) if line["run"] == "first"]
    metrics = json.loads((finished / "metrics.json").read_text())
    assert mine[0]["weights_sha256"] == metrics["weights_sha256"]
    assert mine[0]["config_sha256"] == metrics["config_sha256"]
    assert metrics["test_ledger"] == {"openings": 1, "configurations": 1}


def test_training_again_from_its_own_config_gives_the_same_bits(finished, hcoatnet, tmp_path):
    again = tmp_path / "again"
    code, printed = hcoatnet("train", "--config", finished / "config.yaml", "--out", again, "--no-evaluate-test")
    assert code == 0, printed
    assert (again / "weights.safetensors").read_bytes() == (finished / "weights.safetensors").read_bytes()
    assert (again / "split.csv").read_bytes() == (finished / "split.csv").read_bytes()
    assert (again / "predictions_val.csv").read_bytes() == (finished / "predictions_val.csv").read_bytes()
    assert not (again / "predictions_test.csv").exists()
    metrics = json.loads((again / "metrics.json").read_text())
    assert list(metrics["subsets"]) == ["val"]
    assert metrics["test_ledger"] is None


def test_a_finished_run_is_left_alone_and_an_existing_one_not_overwritten(finished, hcoatnet):
    before = {name: (finished / name).stat().st_mtime_ns for name in files_of(finished)}
    code, printed = hcoatnet("train", "--resume", finished)
    assert (code, "finished already" in printed) == (0, True)
    tokens = ["train", "--data", finished.parent.parent / "photos" / "manifest.csv", "--out", finished, *flags(SMALL)]
    code, printed = hcoatnet(*tokens)
    assert code == 2
    assert "holds a run already" in printed
    assert {name: (finished / name).stat().st_mtime_ns for name in files_of(finished)} == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--model", "test_convnext"], "--model is test_convnext, was cnn"),
        (["--epochs", "5"], "--epochs is 5, was 2"),
        (["--lr", "0.1", "--seed", "1"], "--lr is 0.1, was 0.002; --seed is 1, was 42"),
    ],
)
def test_resuming_with_other_settings_is_refused_and_they_are_named(finished, hcoatnet, changes, words):
    code, printed = hcoatnet("train", "--resume", finished, *changes)
    assert code == 2
    assert words in printed


def test_resuming_with_other_data_is_refused(finished, hcoatnet, tmp_path):
    table = (finished / "manifest.csv").read_text().replace(",red,", ",crimson,")
    shutil.copytree(finished.parent.parent / "photos", tmp_path / "photos")
    (tmp_path / "photos" / "manifest.csv").write_text(table)
    code, printed = hcoatnet("train", "--resume", finished, "--data", tmp_path / "photos" / "manifest.csv")
    assert code == 2
    assert "have changed since" in printed


def test_a_run_of_a_newer_version_is_refused(finished, hcoatnet, tmp_path):
    newer = tmp_path / "newer"
    shutil.copytree(finished, newer)
    environment = json.loads((newer / "environment.json").read_text())
    (newer / "environment.json").write_text(json.dumps({**environment, "format": 9, "hcoatnet": "7.0"}))
    for command in (["train", "--resume", newer], ["evaluate", newer]):
        code, printed = hcoatnet(*command)
        assert code == 2
        assert "hcoatnet 7.0" in printed
        assert "format 9" in printed


def test_evaluate_repeats_the_test_and_is_recorded(finished, hcoatnet):
    ledger = finished.parent.parent / "photos" / "test_ledger.jsonl"
    before = len(ledger.read_text().splitlines())
    own = {name: (finished / name).stat().st_mtime_ns for name in files_of(finished)}
    code, printed = hcoatnet("evaluate", finished)
    assert code == 0, printed
    folder = finished / "evaluations" / "test"
    assert (folder / "predictions.csv").read_bytes() == (finished / "predictions_test.csv").read_bytes()
    assert {"report.html", "metrics.json", "predictions.csv"} <= files_of(folder)
    assert len(ledger.read_text().splitlines()) == before + 1
    assert {name: (finished / name).stat().st_mtime_ns for name in own} == own
    assert hcoatnet("evaluate", finished, "--subset", "val")[0] == 0
    assert len(ledger.read_text().splitlines()) == before + 1
    assert (finished / "evaluations" / "val" / "predictions.csv").read_bytes() == (
        finished / "predictions_val.csv"
    ).read_bytes()


def test_evaluate_on_other_photos_says_what_it_has_seen(finished, hcoatnet, photos, tmp_path):
    shutil.copytree(photos / "red", tmp_path / "new" / "red")
    shutil.copytree(photos / "blue", tmp_path / "new" / "blue")
    code, printed = hcoatnet("evaluate", finished, "--data", tmp_path / "new")
    assert code == 0, printed
    metrics = json.loads((finished / "evaluations" / "new" / "metrics.json").read_text())
    split = pd.read_csv(finished / "split.csv")
    seen = split[(split["subset"] != "test") & ~split["path"].str.contains("green")]
    assert metrics["overlap"]["photos"] == len(seen)
    assert metrics["summary"]["n"] == 36
    count = int(((split["subset"] == "test") & ~split["path"].str.contains("green")).sum())
    assert metrics["overlap"]["test_photos"] == count > 0
    assert f"{count} of these photos are test photos of the run: its test set counts as opened." in " ".join(
        printed.split()
    )
    table = read_predictions(finished / "evaluations" / "new" / "predictions.csv")
    assert set(table.table["subset"]) == {"new"}


def test_test_photos_given_as_other_photos_are_recorded_and_others_are_not(finished, hcoatnet):
    copy = finished.parent / "copy"
    shutil.copytree(finished, copy)
    manifest = finished.parent.parent / "photos" / "manifest.csv"
    ledger = manifest.parent / "test_ledger.jsonl"
    before = len(ledger.read_text().splitlines())
    table, split = pd.read_csv(manifest, dtype=str), pd.read_csv(copy / "split.csv", dtype=str)
    (copy / "manifest.csv").write_text((copy / "manifest.csv").read_text().replace(",", ";"))  # as a spreadsheet saves
    for subset, openings in (("train", 0), ("test", 1)):
        part = manifest.parent / f"{subset}_only.csv"
        table[table["path"].isin(split.loc[split["subset"] == subset, "path"])].to_csv(part, index=False)
        code, printed = hcoatnet("evaluate", copy, "--data", part)
        part.unlink()
        assert code == 0, printed
        assert len(ledger.read_text().splitlines()) == before + openings


def test_evaluate_refuses_classes_it_does_not_know(finished, hcoatnet, photos, tmp_path):
    shutil.copytree(photos / "red", tmp_path / "new" / "crimson")
    shutil.copytree(photos / "blue", tmp_path / "new" / "blue")
    code, printed = hcoatnet("evaluate", finished, "--data", tmp_path / "new")
    assert code == 2
    assert "crimson" in printed
    assert not (finished / "evaluations" / "crimson").exists()


def test_an_evaluation_stays_inside_its_run(finished, hcoatnet):
    code, printed = hcoatnet("evaluate", finished, "--subset", "val", "--name", "../../elsewhere")
    assert code == 2
    assert "--name" in printed
    assert not (finished.parent.parent / "elsewhere").exists()


def test_folds_of_a_split_file_are_obeyed(manifest_file, hcoatnet, tmp_path):
    folds = tmp_path / "folds.csv"
    assert hcoatnet("data", "split", manifest_file, "--folds", 3, "--repeats", 2, "--out", folds)[0] == 0
    out = tmp_path / "run"
    code, printed = hcoatnet(
        "train",
        "--data",
        manifest_file,
        "--split",
        folds,
        "--repeat",
        1,
        "--fold",
        2,
        "--out",
        out,
        *flags(SMALL | {"epochs": 1}),
    )
    assert code == 0, printed
    table = pd.read_csv(folds)
    split = pd.read_csv(out / "split.csv")
    cell = table[table["repeat"] == 1].set_index("path")["fold"]
    for subset, fold in (("test", 2), ("val", 0), ("train", 1)):
        assert set(split.loc[split["subset"] == subset, "path"]) == set(cell.index[cell == fold])
    assert (tmp_path / "test_ledger.jsonl").exists()  # beside the split file given
    code, printed = hcoatnet(
        "train", "--data", manifest_file, "--split", folds, "--fold", 3, "--out", tmp_path / "x", *flags(SMALL)
    )
    assert code == 2
    assert "fold" in printed
    assert not (tmp_path / "x").exists()


def test_every_way_to_train_runs(manifest_file, hcoatnet, tmp_path):
    ways = {
        "sgd": {"optimizer": "sgd", "lr": 0.05, "schedule": "step", "clip_grad": 1},
        "mixed": {"mixup": 0.2, "cutmix": 1, "sampler": "weighted", "class_weights": "none"},
        "averaged": {"ema": 0.9, "accumulation": 2, "class_weights": "effective", "monitor": "loss"},
        "bf16": {"precision": "bf16", "schedule": "poly", "channels_last": False},
        "folder": {"schedule": "constant", "warmup_epochs": 1},
    }
    for name, settings in ways.items():
        out = tmp_path / name
        data = manifest_file.parent if name == "folder" else manifest_file
        if name == "folder":
            shutil.copytree(data, tmp_path / "plain", ignore=shutil.ignore_patterns("*.csv", "*.jsonl"))
            data = tmp_path / "plain"
        code, printed = hcoatnet("train", "--data", data, "--out", out, *flags(SMALL | settings))
        assert code == 0, printed
        weights = load_file(out / "weights.safetensors")
        assert all(bool(torch.isfinite(tensor).all()) for tensor in weights.values())
        history = pd.read_csv(out / "history.csv")
        assert np.isfinite(history.drop(columns="epoch").to_numpy()).all()


def test_every_protocol_trains(manifest_file, hcoatnet, tmp_path):
    assert len(PROTOCOLS) == 3
    for protocol in PROTOCOLS:
        out = tmp_path / protocol
        code, printed = hcoatnet(
            "train", "--data", manifest_file, "--protocol", protocol, "--out", out, "--model", "h_coatnet_atto",
            "--image-size", 32, "--epochs", 1, "--device", "cpu",
        )  # fmt: skip
        assert code == 0, printed
        assert json.loads((out / "metrics.json").read_text())["protocol"] == protocol


def test_weights_of_a_run_start_another(finished, manifest_file, hcoatnet, tmp_path):
    weights = finished / "weights.safetensors"
    out = tmp_path / "second"
    code, printed = hcoatnet(
        "train",
        "--data",
        manifest_file,
        "--out",
        out,
        *flags(SMALL | {"init": f"pretrained:{weights}", "lr": 0, "epochs": 1}),
    )
    assert code == 0, printed
    first, second = load_file(weights), load_file(out / "weights.safetensors")
    assert all(
        torch.equal(first[name], second[name]) for name in first if "running" not in name and "num_batches" not in name
    )
    assert json.loads((out / "metrics.json").read_text())["init"] == "pretrained"
    assert yaml.safe_load((out / "config.yaml").read_text())["init"].startswith("pretrained:../")


@pytest.mark.slow
def test_compiling_changes_nothing_but_the_speed(manifest_file, hcoatnet, tmp_path):
    losses = []
    for compiled in (False, True):
        out = tmp_path / str(compiled)
        settings = SMALL | {
            "model": "test_convnext",
            "image_size": 32,
            "compile": str(compiled).lower(),
            "precision": "fp32",
            "dropout": 0,
            "drop_path": 0,
        }
        code, printed = hcoatnet("train", "--data", manifest_file, "--out", out, *flags(settings))
        assert code == 0, printed
        losses.append(pd.read_csv(out / "history.csv")["train_loss"].to_numpy())
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)


def test_synthetic_photos_are_drawn_when_asked_for_and_used_again(hcoatnet, tmp_path, monkeypatch):
    from functools import partial

    from hcoatnet.data import synthetic

    small = partial(synthetic.draw_synthetic, patients=40, photos_per_patient=2, size=32)
    monkeypatch.setattr(synthetic, "draw_synthetic", small)
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        code, printed = hcoatnet("train", "--data", "synthetic", "--out", name, *flags(SMALL | {"epochs": 1}))
        assert code == 0, printed
        assert "The photos are synthetic" in printed
        assert yaml.safe_load((tmp_path / name / "config.yaml").read_text())["data"] == "../data/synthetic/manifest.csv"
        assert "These photos are synthetic" in (tmp_path / name / "report.html").read_text()
    assert (tmp_path / "one" / "manifest.csv").read_bytes() == (tmp_path / "two" / "manifest.csv").read_bytes()
