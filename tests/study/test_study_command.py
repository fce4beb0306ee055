"""`hcoatnet study run` and `study status`, from the command line to the files they leave."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import yaml

from conftest import TINY, flags
from hcoatnet.files import read_json_lines


@pytest.fixture
def small(manifest_file, folds_file):
    """Flags of a study of one model on three folds."""
    return ["--models", "cnn", "--data", manifest_file, "--split", folds_file, *flags(TINY)]


def plan(folder):
    return pd.read_csv(folder / "plan.csv")


def check(result, *words):
    code, printed = result
    assert code == 2, printed
    assert "Traceback" not in printed
    for word in words:
        assert word in " ".join(printed.split()), printed


def test_a_study_leaves_a_plan_and_finished_runs(study):
    table = plan(study)
    assert len(table) == 2 * 2 * 3
    assert set(zip(table["model"], table["seed"], table["fold"], strict=True)) == {
        (model, seed, fold) for model in ("cnn", "test_vit") for seed in (1, 2) for fold in range(3)
    }
    for row in table.itertuples():
        metrics = json.loads((study / row.run / "metrics.json").read_text())
        assert (metrics["model"], metrics["seed"]) == (row.model, row.seed)
        assert metrics["config_sha256"] == row.config_sha256
        config = yaml.safe_load((study / row.run / "config.yaml").read_text())
        assert config["fold"] == row.fold
    events = read_json_lines(study / "cells.jsonl")
    assert [(row["cell"], row["event"]) for row in events] == [
        (cell, event) for cell in table["cell"] for event in ("started", "finished")
    ]


def test_no_file_of_a_study_holds_an_absolute_path(study, manifest_file):
    for name in ("plan.csv", "study.yaml", "cells.jsonl"):
        assert str(study.parent) not in (study / name).read_text()
        assert str(manifest_file.parent) not in (study / name).read_text()


def test_the_ledger_names_the_study(study, folds_file):
    lines = read_json_lines(folds_file.parent / "test_ledger.jsonl")
    mine = [line for line in lines if line["study"] == "study"]
    assert {line["run"] for line in mine} >= set(plan(study)["cell"])


def test_a_cell_a_line_and_never_a_test_figure(small, hcoatnet, in_process, tmp_path):
    code, printed = hcoatnet("study", "run", *small, "--out", tmp_path / "s")
    assert code == 0, printed
    lines = [line for line in printed.splitlines() if line.startswith("[")]
    for number, (line, cell) in enumerate(zip(lines, plan(tmp_path / "s")["cell"], strict=True), start=1):
        history = pd.read_csv(tmp_path / "s" / "runs" / cell / "history.csv")
        best = history.loc[history["best"] == 1, "val_macro_f1"].iloc[-1]
        assert line.startswith(f"[{number}/3] {cell} finished in 1 s, val macro F1 {best:.4f}")
    assert "about 2 s left" in lines[0]
    assert "test" not in "".join(lines)


def test_finished_cells_are_skipped_and_a_grown_plan_keeps_them(study, hcoatnet, in_process, tmp_path):
    copy = tmp_path / "study"
    shutil.copytree(study, copy)
    relocated = ["--data", yaml.safe_load((study / "study.yaml").read_text())["data"]]
    relocated = [
        "--data",
        study / relocated[1],
        "--split",
        study / yaml.safe_load((study / "study.yaml").read_text())["split"],
    ]
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*.*") if path.name != ".lock"}
    code, printed = hcoatnet("study", "run", "--out", copy, *relocated)
    assert (code, "All 12 cells are finished already" in printed) == (0, True), printed
    changed = {path.name for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert changed <= {"study.yaml"}  # which says where the photos are now
    code, printed = hcoatnet("study", "run", "--out", copy, "--models", "cnn", "--seeds", "1,3", *relocated)
    assert code == 0, printed
    assert "3 of 6 cells are finished already" in printed
    grown = plan(copy)
    assert list(grown["cell"][:12]) == list(plan(study)["cell"])
    assert list(grown["cell"][12:]) == [f"cnn-scratch-s3-r0-f{fold}" for fold in range(3)]
    assert yaml.safe_load((copy / "study.yaml").read_text())["seeds"] == [1, 2, 3]
    code, printed = hcoatnet("study", "run", "--out", copy)
    assert "All 15 cells are finished already" in printed  # and not test_vit with seed 3, which nobody asked for


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--lr", "0.5"], ["cnn-scratch-s1-r0-f0 was begun with something else", "--lr is 0.5, was 0.002"]),
        (["--seeds", "7", "--epochs", "9"], ["was begun with something else", "--epochs is 9, was 1"]),
    ],
)
def test_a_changed_recipe_is_refused_and_named(study, hcoatnet, changes, words):
    before = {path: path.stat().st_mtime_ns for path in study.iterdir()}
    check(hcoatnet("study", "run", "--out", study, *changes), *words)
    assert {path: path.stat().st_mtime_ns for path in study.iterdir()} == before


def test_changed_labels_and_another_split_are_refused(study, manifest_file, hcoatnet, tmp_path):
    shutil.copytree(manifest_file.parent, tmp_path / "photos")
    copy = tmp_path / "photos" / "manifest.csv"
    code, printed = hcoatnet("data", "split", copy, "--folds", 3, "--seed", 5, "--out", tmp_path / "other.csv")
    assert code == 0, printed
    check(hcoatnet("study", "run", "--out", study, "--split", tmp_path / "other.csv"), "the split is another")
    copy.write_text(copy.read_text().replace(",red,", ",crimson,"))
    check(hcoatnet("study", "run", "--out", study, "--data", copy), "photos or labels", "have changed since")


def test_a_manifest_made_by_hand_can_be_continued(manifest_file, hcoatnet, in_process, tmp_path):
    """Its rows stand in another order than this package would write them, and its copy keeps its bytes."""
    header, *rows = manifest_file.read_text().splitlines()
    shutil.copytree(manifest_file.parent, tmp_path / "photos")
    (tmp_path / "photos" / "manifest.csv").write_text("\r\n".join([header, *reversed(rows)]))
    tokens = ["study", "run", "--models", "cnn", "--data", tmp_path / "photos" / "manifest.csv", *flags(TINY)]
    assert hcoatnet(*tokens, "--out", tmp_path / "s")[0] == 0
    metrics = tmp_path / "s" / "runs" / "cnn-scratch-s42-r0-f0" / "metrics.json"
    before = json.loads(metrics.read_text())
    metrics.unlink()
    code, printed = hcoatnet("study", "run", "--out", tmp_path / "s")
    assert code == 0, printed
    assert json.loads(metrics.read_text())["subsets"] == before["subsets"]


def test_a_cell_that_fails_fails_alone(small, hcoatnet, in_process, tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text("models:\n  - {name: wild, model: cnn, lr: 1.0e+30, optimizer: sgd}\n  - test_vit\nfolds: 0\n")
    out = tmp_path / "s"
    code, printed = hcoatnet("study", "run", "--config", file, *small[2:-1], "2e-3", "--out", out)
    assert code == 1, printed
    assert "Failed: wild-scratch-s42-r0-f0: The loss is nan at step" in " ".join(printed.split())
    assert (out / "runs" / "test_vit-scratch-s42-r0-f0" / "metrics.json").exists()
    code, printed = hcoatnet("study", "status", out)
    assert code == 0
    assert "2 cells: 1 finished, 1 failed" in printed
    assert [row["event"] for row in read_json_lines(out / "cells.jsonl")] == [
        "started",
        "failed",
        "started",
        "finished",
    ]


def test_shards_share_the_cells_and_one_plan(small, hcoatnet, in_process, tmp_path):
    out = tmp_path / "s"
    assert hcoatnet("study", "run", *small, "--out", out, "--shard", "2/2")[0] == 0
    assert [path.name for path in (out / "runs").iterdir()] == ["cnn-scratch-s42-r0-f1"]
    assert len(plan(out)) == 3
    assert "3 cells: 1 finished, 2 waiting" in hcoatnet("study", "status", out)[1]
    assert hcoatnet("study", "run", "--out", out, "--shard", "1/2")[0] == 0
    assert "3 cells: 3 finished" in hcoatnet("study", "status", out)[1]


def test_a_holdout_split_is_one_cell_and_no_split_makes_one(manifest_file, hcoatnet, in_process, tmp_path):
    code, printed = hcoatnet(
        "study", "run", "--models", "cnn", "--data", manifest_file, *flags(TINY), "--no-evaluate-test", "--out", tmp_path / "s"
    )  # fmt: skip
    assert code == 0, printed
    assert list(plan(tmp_path / "s")["cell"]) == ["cnn-scratch-s42-r0-f0"]


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        ([], ["No models are named"]),
        (["--models", "cnnn"], ["Unknown model 'cnnn'", "Did you mean cnn"]),
        (["--models", "cnn", "--model-options", "depth=3"], ["takes no option 'depth'"]),
        (["--models", "test_vit", "--image-size", "36"], ["cannot take photos of 36 × 36"]),
        (["--models", "cnn", "--inits", "imagenet"], ["scratch, pretrained or pretrained:FILE"]),
        (["--models", "cnn", "--inits", "pretrained:none.pth"], ["none.pth"]),
        (["--models", "cnn", "--folds", "4"], ["names fold 4", "folds 0 to 2"]),
        (["--models", "cnn", "--shard", "3/2"], ["--shard must be i/n"]),
        (["--models", "cnn", "--jobs", "0"], ["--jobs must be at least 1"]),
        (["--models", "cnn", "--device", "mps"], ["--device mps is not available"]),
        (["--models", "cnn", "--cluster", "tcp://127.0.0.1:1"], ["no Dask scheduler with workers answers there"]),
    ],
)
def test_a_mistake_is_found_before_anything_is_written(
    manifest_file, folds_file, hcoatnet, tmp_path, monkeypatch, tokens, words
):
    monkeypatch.setattr("hcoatnet.study.cluster.PATIENCE", 0.5)
    rest = ["--data", manifest_file, "--split", folds_file, "--out", tmp_path / "s"]
    check(hcoatnet("study", "run", *tokens, *rest), *words)
    assert not (tmp_path / "s").exists()


def test_a_study_needs_photos_a_fitting_split_and_a_place(manifest_file, folds_file, study, hcoatnet, tmp_path):
    check(hcoatnet("study", "run", "--models", "cnn", "--out", tmp_path / "s"), "No photos are named")
    torn = tmp_path / "folds.csv"
    torn.write_text("".join(line for line in folds_file.read_text().splitlines(True) if not line.endswith(",1\n")))
    tokens = ["study", "run", "--models", "cnn", "--data", manifest_file]
    check(hcoatnet(*tokens, "--split", torn, "--out", tmp_path / "s"), "folds.csv", "0, 2")
    assert not (tmp_path / "s").exists()
    check(hcoatnet(*tokens, "--out", tmp_path), "holds files and is not a study: folds.csv")
    check(hcoatnet(*tokens, "--out", torn), "is a file")
    check(hcoatnet("study", "status", tmp_path), "is not a study: it has no plan.csv")


def test_dask_that_is_not_installed_is_said(small, hcoatnet, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    check(
        hcoatnet("study", "run", *small, "--out", tmp_path / "s", "--cluster", "x"), "pip install 'hcoatnet[cluster]'"
    )


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_study_stops_its_cells_and_continues(manifest_file, folds_file, hcoatnet, tmp_path, number, code):
    out = tmp_path / "s"
    settings = TINY | {"epochs": 60, "evaluate_test": False}
    tokens = ["study", "run", "--models", "cnn", "--data", manifest_file, "--split", folds_file, "--folds", "0,1",
              "--out", out, "--jobs", "2", *flags(settings)]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "hcoatnet", *map(str, tokens)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    histories = [out / "runs" / f"cnn-scratch-s42-r0-f{fold}" / "history.csv" for fold in (0, 1)]
    deadline = time.monotonic() + 300
    while not all(path.exists() and len(path.read_text().splitlines()) > 3 for path in histories):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == code, stdout + stderr
    assert "Traceback" not in stderr
    assert f"Continue with: hcoatnet study run --out {out}" in " ".join(stdout.split())
    assert "2 cells: 2 interrupted" in hcoatnet("study", "status", out)[1]
    resumed, printed = hcoatnet("study", "run", "--out", out, "--jobs", "2")
    assert resumed == 0, printed
    for path in histories:
        assert pd.read_csv(path)["epoch"].tolist() == list(range(1, 61))
    events = [row["event"] for row in read_json_lines(out / "cells.jsonl")]
    assert events[:4] == ["started", "started", "interrupted", "interrupted"]
    assert sorted(events[4:]) == ["finished", "finished", "resumed", "resumed"]
