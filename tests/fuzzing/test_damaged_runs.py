"""Run directories, studies and ledgers one of whose files is damaged."""

import json

import pytest
import yaml
from damage import as_json, damaged, damaged_tree, explore, outcome, sizes
from hypothesis import strategies as st

from hcoatnet.errors import HCoAtNetError, RunError
from hcoatnet.evaluation.calibration_file import calibration_of_run
from hcoatnet.evaluation.ledger import Openings, count_openings
from hcoatnet.files import write_json
from hcoatnet.report.html import run_report
from hcoatnet.report.record import RunRecord, openings_of
from hcoatnet.study.collect import collect
from hcoatnet.study.definition import StudyConfig, Variant, study_yaml
from hcoatnet.study.plan import StudyDirectory
from hcoatnet.study.status import status_table, study_status
from hcoatnet.training.run_directory import RunDirectory
from report.simulated_study import simulate_arm, simulate_photos, write_run, write_study

FILES = ("config.yaml", "environment.json", "metrics.json", "calibration.json", "history.csv", "manifest.csv", "split.csv",
         "predictions_val.csv", "predictions_test.csv")  # fmt: skip
WORDS = [b'"', b",", b"\n", b"{", b"}", b"[", b"]", b":", b"\0", b"\xff", b"null", b"NaN", b"1e999", b"9" * 25, b"true"]


@pytest.fixture(scope="module")
def evidence():
    """Photos, and what one model answered."""
    photos = simulate_photos(60)
    return photos, simulate_arm("cnn", photos, strength=1.5)


@pytest.fixture
def own(evidence, tmp_path):
    """A finished run, to be damaged."""
    photos, arm = evidence
    cell = arm.cells[0]
    folder = write_run(tmp_path, arm, cell, photos).rename(tmp_path / "run 17")
    write_json(folder / "calibration.json", calibration_of_run(cell.val, draws=1))
    return folder


def read_all(folder):
    """Everything that is read of a run before a model is built."""
    run = RunDirectory(folder)
    for read in (
        run.settings,
        run.results,
        run.calibration,
        lambda: collect([folder]),
        lambda: collect([folder], subset="val"),
    ):
        outcome(read, folder.name)
    record = outcome(lambda: RunRecord.of(folder), folder.name)
    if isinstance(record, RunRecord):
        for name in ("settings", "recipe", "environment", "photos", "history", "photo_folder", "ledger"):
            outcome(lambda name=name: getattr(record, name), folder.name)
        outcome(lambda: openings_of([record]), folder.name)
    return record


def reported(folder):
    def report():
        return run_report(RunRecord.of(folder))

    found = outcome(report, folder.name, mebibytes=1000)
    assert isinstance(found, HCoAtNetError) or found.page.startswith("<!doctype html>")


def tree_of(file):
    read = {".json": json.loads, ".yaml": yaml.safe_load}[file.suffix]
    return read(file.read_text(encoding="utf-8"))


def as_file(tree, suffix):
    return as_json(tree) if suffix == ".json" else yaml.safe_dump(tree).encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("value", [None, "1", True, -1, 1.5, float("nan"), 10**30])
@pytest.mark.parametrize("key", ["seed", "epochs", "best_epoch", "parameters"])
def test_counts_of_a_run_that_are_none(key, value, own):
    tree = tree_of(own / "metrics.json")
    (own / "metrics.json").write_bytes(as_json({**tree, key: value}))
    found = outcome(lambda: RunRecord.of(own), own.name)
    assert isinstance(found, RunError)
    assert key in str(found)


@pytest.mark.parametrize("name", ["split", "data"])
def test_a_run_with_an_empty_path(name, own):
    settings = tree_of(own / "config.yaml")
    (own / "config.yaml").write_bytes(as_file({**settings, name: ""}, ".yaml"))
    record = read_all(own)
    assert record.ledger.parent in (own, own / "..")


def test_a_whole_run_is_read(own):
    assert isinstance(read_all(own), RunRecord)
    assert len(collect([own])) == 1


@sizes(few=6, many=400)
@pytest.mark.parametrize("name", FILES)
def test_files_of_a_run_with_wrong_bytes(name, examples, own):
    whole = (own / name).read_bytes()

    def holds(content):
        (own / name).write_bytes(content)
        read_all(own)

    read_all(own)
    explore(examples, holds, damaged([whole], WORDS))


@sizes(few=6, many=400)
@pytest.mark.parametrize("name", [name for name in FILES if not name.endswith("csv")])
def test_files_of_a_run_with_wrong_values(name, examples, own):
    def holds(tree):
        (own / name).write_bytes(as_file(tree, (own / name).suffix))
        read_all(own)

    whole = tree_of(own / name)
    read_all(own)
    explore(examples, holds, damaged_tree(whole))


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_report_of_a_damaged_run(name, own):
    file = own / name
    whole = file.read_bytes()

    def holds(content):
        file.write_bytes(content)
        reported(own)

    reported(own)
    if file.suffix == ".csv":
        explore(20, holds, damaged([whole], WORDS))
    else:
        explore(20, lambda tree: holds(as_file(tree, file.suffix)), damaged_tree(tree_of(file)))


@pytest.fixture
def own_study(evidence, tmp_path):
    """A finished study, to be damaged."""
    photos, arm = evidence
    folder = write_study(tmp_path, [arm], photos).rename(tmp_path / "study 17")
    rows = StudyConfig((Variant("cnn", {"model": "cnn"}),), seeds=(1, 2), settings={"epochs": 6, "lr": 0.002})
    (folder / "study.yaml").write_text(study_yaml(rows, folder), encoding="utf-8")
    line = {
        "time": "2025-01-01T00:00:00+00:00",
        "cell": arm.cells[0].run,
        "event": "failed",
        "seconds": 1,
        "message": "x",
    }
    (folder / "cells.jsonl").write_text(f"{json.dumps(line)}\n" * 2, encoding="utf-8")
    return folder


@sizes(few=15, many=1500)
@pytest.mark.parametrize("name", ["plan.csv", "study.yaml", "cells.jsonl", "runs/cnn-scratch-s1-r0-f0/history.csv"])
def test_files_of_a_study_with_wrong_bytes(name, examples, own_study):
    directory, whole = StudyDirectory(own_study), (own_study / name).read_bytes()

    def holds(content):
        (own_study / name).write_bytes(content)
        assert isinstance(outcome(directory.plan, own_study.name), (list, RunError))
        outcome(directory.definition, own_study.name)
        found = outcome(lambda: study_status(directory), own_study.name)
        assert isinstance(found, RunError) or status_table("", found).row_count == len(found)
        return found

    assert len(holds(whole)) == 3
    explore(examples, holds, damaged([whole], WORDS))


@sizes(few=15, many=1500)
def test_ledgers_with_wrong_values(examples, tmp_path):
    ledger = tmp_path / "test_ledger.jsonl"
    line = {"time": "2025-01-01T00:00:00+00:00", "run": "a", "split_sha256": "s", "config_sha256": "c", "study": None}

    def holds(trees):
        ledger.write_bytes(b"\n".join([*(as_json(tree) for tree in trees), as_json(line), b'{"torn": ']))
        found = outcome(lambda: count_openings([ledger], {"s"}), ledger.name)
        assert isinstance(found, Openings)
        assert found.openings >= 1

    explore(examples, holds, st.lists(damaged_tree(line), max_size=3))
