"""Cells on a Dask cluster of two worker processes, one of which is killed in the middle."""

import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from conftest import TINY, flags
from hcoatnet import __version__
from hcoatnet.files import read_json_lines

psutil = pytest.importorskip("psutil")
distributed = pytest.importorskip("distributed")

EPOCHS = 60


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as made:
        yield made


def cells_of(worker):
    """Processes of cells that a worker has started."""
    return [one for one in psutil.Process(worker.pid).children() if "hcoatnet.study.cell" in " ".join(one.cmdline())]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills a process as only POSIX can")
def test_a_killed_worker_loses_and_doubles_nothing(cluster, manifest_file, folds_file, tmp_path):
    out = tmp_path / "s"
    tokens = ["study", "run", "--models", "test_vit", "--data", manifest_file, "--split", folds_file, "--out", out,
              *flags(TINY | {"epochs": EPOCHS}), "--deterministic", "--cluster", cluster.scheduler_address]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "hcoatnet", *map(str, tokens)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 500
    victim = None
    while victim is None:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        begun = [path for path in out.glob("runs/*/history.csv") if len(path.read_text().splitlines()) > 5]
        if len(begun) == 2:
            victim = next(worker for worker in cluster.workers.values() if cells_of(worker))
        time.sleep(0.05)
    (orphan,) = cells_of(victim)
    os.kill(victim.pid, signal.SIGKILL)
    psutil.wait_procs([orphan], timeout=60)
    assert not orphan.is_running()
    printed, _ = process.communicate(timeout=500)
    assert process.returncode == 0, printed

    cells = list(pd.read_csv(out / "plan.csv")["cell"])
    events = read_json_lines(out / "cells.jsonl")
    assert sorted(row["cell"] for row in events if row["event"] == "finished") == sorted(cells)
    assert sum(row["event"] == "resumed" for row in events) >= 1
    opened = [row["run"] for row in read_json_lines(folds_file.parent / "test_ledger.jsonl") if row["study"] == "s"]
    for cell in cells:
        assert pd.read_csv(out / "runs" / cell / "history.csv")["epoch"].tolist() == list(range(1, EPOCHS + 1))
        assert opened.count(cell) == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [(("0.0.1", True), "The worker tcp://w has hcoatnet 0.0.1"), ((__version__, False), "tcp://w does not see")],
)
def test_workers_that_cannot_share_the_work_are_refused(
    cluster, manifest_file, hcoatnet, tmp_path, monkeypatch, answer, words
):
    monkeypatch.setattr("hcoatnet.study.cluster.ClusterRunner._answers", lambda self, plan: {"tcp://w": answer})
    tokens = ["study", "run", "--models", "cnn", "--data", manifest_file, *flags(TINY)]
    code, printed = hcoatnet(*tokens, "--out", tmp_path / "s", "--cluster", cluster.scheduler_address)
    assert code == 2
    assert words in printed
    assert not (tmp_path / "s" / "runs").exists()
