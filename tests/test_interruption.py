"""Ctrl-C, SIGTERM and SIGKILL: the right exit code, and a resumed run that equals one never stopped, bit for bit."""

import signal
import subprocess
import sys
import time

import pytest

FLAGS = ["--model", "test_convnext", "--image-size", "32", "--epochs", "20", "--batch-size", "6", "--device", "cpu",
         "--workers", "0", "--deterministic", "--ema", "0.9", "--mixup", "0.2", "--dropout", "0.3", "--drop-path", "0.1",
         "--no-evaluate-test"]  # fmt: skip


def start(manifest, out, *more):
    command = [sys.executable, "-m", "hcoatnet", "train", "--data", str(manifest), "--out", str(out), *FLAGS, *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_epoch(out, epoch, process):
    """Wait until the history has that many rows and the next epoch is under way."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        history = out / "history.csv"
        if history.exists() and len(history.read_text().splitlines()) > epoch:
            return
        if process.poll() is not None:
            raise AssertionError(process.communicate())
        time.sleep(0.01)
    raise AssertionError("no progress")


@pytest.fixture(scope="module")
def undisturbed(manifest_file, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    process = start(manifest_file, out)
    printed = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    return out


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_stopped_and_resumed_run_equals_one_never_stopped(undisturbed, manifest_file, tmp_path, number, code):
    out = tmp_path / "run"
    process = start(manifest_file, out)
    wait_for_epoch(out, 2, process)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stdout + stderr
    assert "Traceback" not in stderr
    if code > 0:
        assert f"hcoatnet train --resume {out}" in " ".join(stdout.split())
    assert not (out / "metrics.json").exists()
    assert [path.name for path in out.rglob("*.tmp")] == []
    resumed = start(manifest_file, out, "--resume", "auto")
    stdout, stderr = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, stderr
    assert "Continuing after epoch" in stdout
    for name in ("weights.safetensors", "predictions_val.csv"):
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes(), name
    mine, theirs = ((folder / "history.csv").read_text().splitlines() for folder in (out, undisturbed))
    assert [line.split(",")[:7] for line in mine] == [line.split(",")[:7] for line in theirs]
