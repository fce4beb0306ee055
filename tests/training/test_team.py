"""Several processes that train one model, against one process on the same batches."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch

from conftest import TINY
from hcoatnet.config import resolve_config
from hcoatnet.training.preparation import build_accelerator
from hcoatnet.training.run_directory import RunDirectory

DOUBLE = """
import json, sys
from rich.console import Console
from hcoatnet.config import resolve_config
from hcoatnet.training import run

def in_double(config, classes, plain=run.build_model):
    model, notes = plain(config, classes)
    return model.double(), notes

run.build_model = in_double
run.train(resolve_config(json.loads(sys.argv[1])), Console(file=sys.stderr))
"""
SETTINGS = {
    **TINY, "model": "test_convnext", "epochs": 2, "dropout": 0, "drop_path": 0, "accumulation": 2, "clip_grad": 1,
    "ema": 0.5, "label_smoothing": 0.1, "precision": "fp32",
}  # fmt: skip


def command(processes, *tokens):
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [*(start if processes > 1 else [sys.executable]), *map(str, tokens)]


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}


def in_double(processes, out, script, manifest, **settings):
    given = json.dumps({**SETTINGS, "data": str(manifest), "out": str(out), **settings})
    done = subprocess.run(
        command(processes, script, given), capture_output=True, text=True, env=environment(), timeout=600
    )
    assert done.returncode == 0, done.stderr
    return RunDirectory(out), done.stderr


@pytest.fixture(scope="module")
def runs(manifest_file, tmp_path_factory):
    """The same training by one process with batches of 6 and by two with batches of 3."""
    folder = tmp_path_factory.mktemp("team")
    script = folder / "in_double.py"
    script.write_text(DOUBLE)
    alone, _ = in_double(1, folder / "alone", script, manifest_file, batch_size=6)
    pair, said = in_double(2, folder / "pair", script, manifest_file, batch_size=3)
    return alone, pair, said


def test_two_processes_reach_the_weights_of_one(runs):
    alone, pair, _ = runs
    states = [torch.load(run.state_file, weights_only=True) for run in (alone, pair)]
    assert states[0]["updates"] == states[1]["updates"] > 4
    for part in ("model", "average"):
        for name, one in states[0][part].items():
            assert one.dtype == torch.float64
            torch.testing.assert_close(states[1][part][name], one, rtol=1e-8, atol=1e-12)


def test_history_and_predictions_are_those_of_one(runs):
    alone, pair, _ = runs
    history = [pd.read_csv(run.history_file).drop(columns=["photos_per_second", "seconds"]) for run in (alone, pair)]
    np.testing.assert_allclose(history[1], history[0], rtol=1e-5)
    for subset in ("val", "test"):
        tables = [pd.read_csv(run.predictions_file(subset)) for run in (alone, pair)]
        assert tables[0]["path"].is_unique
        assert list(tables[1]["path"]) == list(tables[0]["path"])
        logits = [table.filter(like="logit_").to_numpy() for table in tables]
        np.testing.assert_allclose(logits[1], logits[0], atol=1e-4)


def test_one_of_them_speaks_and_writes(runs):
    alone, pair, said = runs
    names = [sorted(path.name for path in run.path.rglob("*") if path.is_file()) for run in (alone, pair)]
    assert names[0] == names[1]
    assert said.count("epoch 1/2  train loss") == 1
    assert pair.log_file.read_text().count("epoch 1/2  train loss") == 1
    assert len(pd.read_csv(pair.history_file)) == 2


def test_one_opening_of_the_test_set_is_recorded(runs, manifest_file):
    _, pair, _ = runs
    lines = [json.loads(line) for line in (manifest_file.parent / "test_ledger.jsonl").read_text().splitlines()]
    weights = json.loads(pair.metrics_file.read_text())["weights_sha256"]
    assert sum(line["weights_sha256"] == weights for line in lines) == 1


def hcoatnet(processes, *tokens):
    module = ["-m", "hcoatnet"]
    return subprocess.Popen(
        command(processes, *module, *tokens), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment(), start_new_session=True,
    )  # fmt: skip


FLAGS = ["--model", "cnn", "--image-size", "32", "--batch-size", "4", "--device", "cpu", "--workers", "0"]


@pytest.mark.slow
def test_a_model_with_a_parameter_out_of_use_trains(manifest_file, tmp_path):
    tokens = ["train", "--data", manifest_file, "--out", tmp_path / "run", "--no-evaluate-test", "--epochs", "1"]
    process = hcoatnet(2, *tokens, "--model", "gft_tiny", "--image-size", "64", *FLAGS[4:])
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr


@pytest.mark.slow
def test_an_error_of_one_ends_all(manifest_file, tmp_path):
    held = RunDirectory(tmp_path / "held")
    held.path.mkdir()
    with held.locked():
        process = hcoatnet(2, "train", "--data", manifest_file, "--out", held.path, *FLAGS)
        _, stderr = process.communicate(timeout=120)
    assert process.returncode != 0
    assert stderr.count("Another process is training in") == 1
    assert not (held.path / "config.yaml").exists()


@pytest.mark.slow
def test_a_photo_that_only_one_of_them_meets_ends_all(manifest_file, tmp_path):
    import shutil

    shutil.copytree(manifest_file.parent, tmp_path / "photos")
    out = tmp_path / "run"
    tokens = ["train", "--data", tmp_path / "photos" / "manifest.csv", "--out", out, *FLAGS, "--no-cache"]
    victim = sorted((tmp_path / "photos" / "blue").glob("*.png"))[0]
    victim.write_bytes(b"no photo")
    process = hcoatnet(2, *tokens, "--no-evaluate-test", "--epochs", "2")
    _, stderr = process.communicate(timeout=120)
    if "changed since" in stderr:  # it stands in training or validation
        assert process.returncode != 0
        assert stderr.count("changed since the manifest") == 1
        assert not (out / "metrics.json").exists()
    else:
        assert process.returncode == 0, stderr


@pytest.mark.slow
def test_ctrl_c_stops_all_and_the_run_goes_on(manifest_file, tmp_path):
    out = tmp_path / "run"
    tokens = ["train", "--data", manifest_file, "--out", out, *FLAGS, "--epochs", "40", "--no-evaluate-test"]
    process = hcoatnet(2, *tokens)
    deadline = time.monotonic() + 120
    while not (out / "history.csv").exists() or len((out / "history.csv").read_text().splitlines()) < 3:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode != 0
    assert "Interrupted. Continue with" in (out / "log.txt").read_text()
    assert not RunDirectory(out).busy
    assert [path.name for path in out.rglob("*.tmp")] == []
    rows = len(pd.read_csv(out / "history.csv"))
    state = torch.load(out / "state.pt", weights_only=True)
    assert len(state["rows"]) in (rows, rows - 1)
    resumed = hcoatnet(2, "train", "--resume", out)
    _, stderr = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, stderr
    assert "Continuing after epoch" in (out / "log.txt").read_text()
    assert len(pd.read_csv(out / "history.csv")) == 40


def test_a_run_goes_on_with_as_many_processes_as_before(runs, tmp_path):
    import shutil

    from hcoatnet.errors import RunError
    from hcoatnet.training.loop import stored_state
    from hcoatnet.training.team import Team

    _, pair, _ = runs
    alone = Team(build_accelerator(resolve_config({"device": "cpu"})))
    shutil.copytree(pair.path, tmp_path / "run")
    with pytest.raises(RunError, match="were 2, and now they are 1"):
        stored_state(RunDirectory(tmp_path / "run"), alone)
    assert stored_state(RunDirectory(tmp_path / "nothing"), alone) is None


def test_commands_for_one_process_refuse_several(manifest_file, tmp_path, monkeypatch):
    from types import SimpleNamespace

    from hcoatnet.errors import ConfigError
    from hcoatnet.training import run
    from hcoatnet.training.team import require_one_process

    with pytest.raises(ConfigError, match="without torchrun"):
        require_one_process("evaluate", SimpleNamespace(num_processes=2))
    several = SimpleNamespace(num_processes=2, process_index=0, device=torch.device("cpu"))
    monkeypatch.setattr(run, "build_accelerator", lambda config: several)
    with pytest.raises(ConfigError, match="--probe works in one process"):
        run.train(resolve_config({**TINY, "data": manifest_file, "out": tmp_path / "run", "probe": True}))
    assert not (tmp_path / "run").exists()
