"""Killed at random moments, nothing is lost or half there; and the harness that says so would notice if it were."""
# ruff: noqa: E402

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hcoatnet import files

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from killing import attempt, processor_seconds
from whole_files import CHECKS, TEMPORARY, look_at


def spin():
    while True:
        pass


def write_three(folder):
    files.write_text(folder / "a.json", '{"a": 1}\n')
    files.append_line(folder / "log.txt", "one line")
    files.write_text(folder / "a.json", '{"a": 2}\n')
    return 0


def test_a_fork_is_killed_at_the_processor_time_asked_for(tmp_path):
    done = attempt(spin, tmp_path, processor=0.1)
    assert done.code == -signal.SIGKILL
    assert 0.1 <= done.processor < 1
    assert processor_seconds(os.getpid()) > 0


def test_every_operation_of_a_write_is_a_place_to_die_in(tmp_path):
    """A whole write is: create, write, flush, move; and after a death in any of them the old content is there."""
    (tmp_path / "whole").mkdir()
    whole = attempt(lambda: write_three(tmp_path / "whole"), tmp_path / "whole")
    assert (whole.code, whole.operations, whole.inside) == (0, 10, None)
    kinds = []
    for number in range(1, 11):
        folder = tmp_path / str(number)
        folder.mkdir()
        done = attempt(lambda folder=folder: write_three(folder), folder, operation=number)
        assert done.killed
        kinds.append(done.inside[0])
        there = json.loads((folder / "a.json").read_text())["a"] if (folder / "a.json").exists() else 0
        assert there == (0 if number <= 4 else 1)
        found = look_at(folder, {"a.json", "log.txt"})
        assert found.problems == []
        assert len(found.leftovers) == (number not in (1, 5, 6, 7))
        assert [path.name for path in found.torn] == (["log.txt"] if number == 6 else [])
        assert all(TEMPORARY.fullmatch(path.name) for path in found.leftovers)
    assert kinds == ["create", "write", "flush", "move", "create", "append", "create", "write", "flush", "move"]


def test_a_failing_command_is_no_kill(tmp_path):
    done = attempt(lambda: 1 // 0, tmp_path)
    assert not done.killed
    assert done.code == 70
    assert "ZeroDivisionError" in done.printed


@pytest.fixture
def every_kind(tmp_path):
    """A small whole file of every kind that the harness can judge."""
    import onnx
    import torch
    from safetensors.torch import save

    from hcoatnet.report import drawing
    from hcoatnet.training.checkpoint import save_state

    values = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [values], [
        onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    ])  # fmt: skip
    figure = drawing.new_figure(1, 1)
    texts = {"json": '{"a": 1}', "jsonl": '{"a": 1}', "yaml": "a: 1", "csv": "a,b\n1,2\n3,4", "txt": "said", "md": "# Card",
             "tex": "\\toprule", "html": "<!doctype html>\n<html></html>"}  # fmt: skip
    contents = {suffix: f"{text}\n".encode() for suffix, text in texts.items()}
    contents |= {"svg": drawing.svg(figure), "png": drawing.png(figure), "pdf": drawing.pdf(figure)}
    contents |= {"safetensors": save({"w": torch.zeros(9)}), "onnx": onnx.helper.make_model(graph).SerializeToString()}
    for suffix, content in contents.items():
        (tmp_path / f"file.{suffix}").write_bytes(content)
    save_state({"rows": [1.0]}, tmp_path / "file.pt")
    return tmp_path


def test_every_kind_of_file_is_found_out_when_it_is_cut_short(every_kind):
    names = {path.name for path in every_kind.iterdir()}
    assert {Path(name).suffix for name in names} == set(CHECKS)
    assert look_at(every_kind, names, finished=True).problems == []
    for name in sorted(names):
        content = (every_kind / name).read_bytes()
        for length in (len(content) // 2, len(content) - 2):
            (every_kind / name).write_bytes(content[:length])
            problems = look_at(every_kind, names, finished=True).problems
            assert [problem.partition(":")[0] for problem in problems] == [name], (name, length)
        (every_kind / name).write_bytes(content)


def test_a_row_that_lacks_columns_is_found_out(tmp_path):
    files.write_text(tmp_path / "history.csv", "epoch,loss\n1\n")
    assert "rows of [1, 2] columns" in look_at(tmp_path, {"history.csv"}).problems[0]


def test_a_missing_a_foreign_and_an_altered_file_are_found_out(tmp_path):
    files.write_text(tmp_path / "a.json", "{}\n")
    (tmp_path / "b.part").write_text("")
    found = look_at(tmp_path, {"a.json", "c.csv"}, {"a.json": b"[]\n"}, finished=True)
    assert found.problems == [
        "a.json: other bytes than in an undisturbed run",
        "b.part: nobody expects it",
        "c.csv: missing",
    ]


def test_what_a_killed_process_left_is_removed(tmp_path):
    from hcoatnet.training.run_directory import RunDirectory

    run = RunDirectory(tmp_path / "run")
    run.figures.mkdir(parents=True)
    left = [run.path / ".state.pt.abcd_123.tmp", run.figures / ".roc.svg.abcd_123.tmp"]
    kept = [run.path / ".lock", run.path / "state.pt", run.path / ".notes.tmp"]
    for path in (*left, *kept):
        path.write_text("")
    with run.locked():
        assert [path.exists() for path in (*left, *kept)] == [False, False, True, True, True]


@pytest.mark.parametrize("write", ["file", "folder"])
def test_leftovers_of_a_target_are_removed_when_they_are_a_day_old(tmp_path, write):
    path = tmp_path / "report[1]"
    old, young, other = (
        tmp_path / f".{name}.tmp" for name in ("report[1].abcd_123", "report[1].abcd_124", "x.abcd_123")
    )
    for left in (old, young, other):
        (left / "old").mkdir(parents=True)
    for left in (old, other):
        os.utime(left, (left.stat().st_mtime - files.A_DAY - 60,) * 2)
    if write == "file":
        files.write_text(path, "new")
    else:
        files.replace_folder(path, lambda new: files.write_text(new / "a", "new"))
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted([young.name, other.name, path.name])


SUITE = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import crash_safety
suite = crash_safety.Suite(Path(sys.argv[2]), seed=int(sys.argv[4]), say=lambda line: None)
kills = json.loads(sys.argv[3])
print(json.dumps({name: getattr(suite, name)(number).to_dict() for name, number in kills.items()}))
"""


@pytest.mark.slow
def test_ten_kills(tmp_path):
    kills = {"training": 6, "study": 2, "report": 1, "bundle": 1}
    seed = str(random.randrange(10**6))
    done = subprocess.run(
        [sys.executable, "-c", SUITE, str(BENCHMARKS), str(tmp_path), json.dumps(kills), seed],
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    parts = json.loads(done.stdout)
    assert {name: part["kills"] for name, part in parts.items()} == kills
    for part in parts.values():
        assert (part["problems"], part["differences"]) == ([], []), f"seed {seed}"
        assert part["finished"] > 0
        assert part["files_read"] > 0


SPOILED = """
import json, sys
from pathlib import Path
from unittest import mock
sys.path.insert(0, sys.argv[1])
import crash_safety
from killing import Trap
from hcoatnet.training.loop import Learner

suite = crash_safety.Suite(Path(sys.argv[2]), say=lambda line: None)
place, visited = suite._new_place("run"), []
with Trap(place, lambda number, kind, path, half: visited.append((kind, path.name))).set():
    crash_safety.quietly(suite._train(place))
first, second = [number for number, visit in enumerate(visited, start=1) if visit == ("move", "state.pt")][:2]

def forget_the_moments(learner, state):
    learner.optimizer.state.clear()

def forget_the_average(learner, state):
    learner.average.module.load_state_dict(state["model"])

def count_an_update_twice(learner, state):
    learner.updates += 1

def repeat_the_finished_epoch(learner, state):
    learner.rows.pop()

def nothing(learner, state):
    pass

restore, found = Learner.restore, {}
for spoil in (nothing, forget_the_moments, forget_the_average, count_an_update_twice, repeat_the_finished_epoch):
    def spoiled(learner, state, spoil=spoil):
        restore(learner, state)
        spoil(learner, state)

    moment = {"operation": suite.draws.randint(first + 1, second)}
    with (
        mock.patch.object(Learner, "restore", spoiled),
        mock.patch.object(crash_safety, "chosen_moment", lambda *_: moment),
        mock.patch.object(crash_safety, "KILLS_PER_RUN", 1),
    ):
        found[spoil.__name__] = suite.training(1).to_dict()
print(json.dumps(found))
"""


@pytest.mark.slow
def test_a_resume_that_goes_wrong_is_found_out(tmp_path):
    """Killed in the second of four epochs and continued with one thing not restored, a run has other bits."""
    done = subprocess.run(
        [sys.executable, "-c", SPOILED, str(BENCHMARKS), str(tmp_path)], capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert all(part["phases"] == {"after the first checkpoint": 1} for part in found.values()), found
    right = found.pop("nothing")
    assert right["problems"] == right["differences"] == []
    assert len(found) == 4
    for name, part in found.items():
        assert {"state.pt", "history.csv"} <= set(part["differences"]), name
        assert all(problem.endswith("other bytes than in an undisturbed run") for problem in part["problems"]), name
