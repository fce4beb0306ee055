"""A cell's process: the run is that of `hcoatnet train`, and it never outlives what started it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from conftest import TINY
from hcoatnet.config import resolve_config
from hcoatnet.study.cell import Lifelines, _last_error, plain_settings, run_cell
from hcoatnet.training.run_directory import RunDirectory

PATIENCE = 240


def settings(manifest, out, **more):
    return plain_settings(
        resolve_config({**TINY, "model": "cnn", "data": manifest, "out": out, "resume": "auto", **more})
    )


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.05)


def has_epochs(run):
    return run.history_file.exists() and len(run.history_file.read_text().splitlines()) > 2


def test_a_cell_leaves_the_run_that_train_leaves(manifest_file, hcoatnet, tmp_path):
    out = tmp_path / "runs" / "cell"
    outcome = run_cell("cell", settings(manifest_file, out, deterministic=True), Path.cwd(), 1, Lifelines())
    assert (outcome.state, outcome.message) == ("finished", "")
    tokens = ["train", "--data", manifest_file, "--out", tmp_path / "plain", "--config", out / "config.yaml"]
    code, printed = hcoatnet(*tokens)
    assert code == 0, printed
    for name in ("weights.safetensors", "predictions_test.csv", "predictions_val.csv", "split.csv", "manifest.csv"):
        assert (out / name).read_bytes() == (tmp_path / "plain" / name).read_bytes(), name
    assert json.loads((out / "environment.json").read_text())["threads"] == 1


def test_a_cell_that_cannot_train_fails_with_its_last_error(manifest_file, tmp_path):
    given = settings(manifest_file, tmp_path / "cell") | {"data": str(tmp_path / "none.csv")}
    outcome = run_cell("cell", given, Path.cwd(), 1, Lifelines())
    assert outcome.state == "failed"
    assert "none.csv: no such file or folder" in outcome.message


def test_a_cell_that_is_stopped_is_interrupted_and_can_be_continued(manifest_file, tmp_path):
    run, lifelines = RunDirectory(tmp_path / "cell"), Lifelines()
    outcomes = []
    given = settings(manifest_file, run.path, epochs=5000)
    waiter = threading.Thread(target=lambda: outcomes.append(run_cell("cell", given, Path.cwd(), 1, lifelines)))
    waiter.start()
    wait_until(lambda: has_epochs(run))
    lifelines.stop()
    waiter.join(PATIENCE)
    assert outcomes[0].state == "interrupted"
    assert not run.finished
    assert not run.busy
    assert "Interrupted. Continue with" in run.log_file.read_text()
    assert run_cell("next", given, Path.cwd(), 1, lifelines).state == "interrupted"  # nothing starts afterwards


@pytest.mark.skipif(os.name != "posix", reason="kills a process as only POSIX can")
def test_a_cell_ends_when_its_parent_is_killed(manifest_file, tmp_path):
    run = RunDirectory(tmp_path / "cell")
    given = settings(manifest_file, run.path, epochs=5000)
    code = (
        "import json, sys; from pathlib import Path; from hcoatnet.study.cell import Lifelines, run_cell;"
        "run_cell('cell', json.loads(sys.argv[1]), Path.cwd(), 1, Lifelines())"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, json.dumps(given)])
    wait_until(lambda: has_epochs(run))
    assert run.busy
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_until(lambda: not run.busy)
    assert not run.finished
    assert "Interrupted" in run.log_file.read_text()


@pytest.mark.parametrize(
    ("lines", "code", "message"),
    [
        (["Error: no photos", "a warning"], 2, "no photos"),
        (["Traceback", "  File", "ValueError: odd"], 1, "ValueError: odd"),
        ([], 3, "exit code 3"),
        (["Error: x"], -signal.SIGKILL, "killed by SIGKILL (out of memory?)"),
        ([], -signal.SIGTERM, "killed by SIGTERM"),
    ],
)
def test_the_last_error_is_what_a_person_needs(lines, code, message):
    assert _last_error(lines, code) == message
