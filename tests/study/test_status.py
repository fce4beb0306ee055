import json

import pytest

from hcoatnet.study.plan import PlannedCell, StudyDirectory, write_plan
from hcoatnet.study.status import (
    Progress,
    counts_line,
    duration,
    read_progress,
    seconds_left,
    study_status,
)
from hcoatnet.training.history import COLUMNS, start_history
from hcoatnet.training.run_directory import RunDirectory


def epoch(number, macro_f1, best):
    return dict.fromkeys(COLUMNS, 0) | {"epoch": number, "val_macro_f1": macro_f1, "seconds": 2.5, "best": best}


def test_progress_is_the_best_epoch_so_far_and_a_torn_line_is_skipped(tmp_path):
    run = RunDirectory(tmp_path)
    assert read_progress(run) == Progress(0, None, 0.0)
    start_history(run.history_file, [epoch(1, 0.2, 1), epoch(2, 0.6, 1), epoch(3, 0.5, 0)])
    assert read_progress(run) == Progress(3, 0.6, 7.5)
    with run.history_file.open("a") as stream:
        stream.write("4,0.1,0.")
    assert read_progress(run) == Progress(3, 0.6, 7.5)


def test_the_state_of_a_cell_is_what_its_directory_shows(tmp_path):
    directory = StudyDirectory(tmp_path)
    names = ("done", "busy", "broken", "stopped", "later")
    write_plan(directory, [PlannedCell(name, "cnn", "scratch", 1, 0, 0, "0", f"runs/{name}") for name in names])
    for name in names[:-1]:
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.yaml").write_text("")
    (tmp_path / "runs" / "done" / "metrics.json").write_text("{}")
    events = [("broken", "failed", "no memory"), ("stopped", "failed", "old"), ("stopped", "resumed", "")]
    lines = [json.dumps({"cell": cell, "event": event, "message": message}) for cell, event, message in events]
    directory.events_file.write_text("\n".join(lines) + "\n" + '{"cell": "sto')
    with RunDirectory(tmp_path / "runs" / "busy").locked():
        found = study_status(directory)
    assert [one.state for one in found] == ["finished", "running", "failed", "interrupted", "waiting"]
    assert [one.message for one in found] == ["", "", "no memory", "", ""]
    assert study_status(directory)[1].state == "interrupted"


def test_time_left_is_the_median_of_the_row_shared_by_the_jobs():
    done = {"fast": [10, 12, 500], "slow": [100]}
    assert seconds_left({}, ["fast"], 1) is None
    assert seconds_left(done, [], 2) == 0
    assert seconds_left(done, ["fast", "slow"], 1) == pytest.approx(12 + 100)
    assert seconds_left(done, ["fast", "slow"], 2) == pytest.approx((12 + 100) / 2)
    assert seconds_left(done, ["fast"], 8) == pytest.approx(12)  # one cell cannot be shared
    assert seconds_left(done, ["new"], 1) == pytest.approx((12 + 100) / 2)  # median of 10, 12, 100, 500


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (89.4, "89 s"), (90, "2 min"), (5460, "1 h 31 min"), (36000, "10 h 00 min")],
)
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text


def test_counts_name_only_what_there_is():
    assert counts_line(["waiting", "finished", "waiting"]) == "3 cells: 1 finished, 2 waiting"
    assert counts_line(["running"]) == "1 cell: 1 running"
