from io import StringIO

import pytest
from rich.console import Console

from hcoatnet.study import display
from hcoatnet.study.cell import Outcome
from hcoatnet.study.definition import StudyConfig, Variant
from hcoatnet.study.display import Display
from hcoatnet.study.plan import tasks_of
from hcoatnet.training.history import COLUMNS, start_history


@pytest.fixture
def tasks(tmp_path):
    """Four cells; the first is finished."""
    study = StudyConfig((Variant("cnn", {"model": "cnn"}),), settings={"data": "m.csv"})
    made = tasks_of(study, [(0, fold) for fold in range(4)], tmp_path)
    for task in made[:2]:
        task.run.path.mkdir(parents=True)
        row = dict.fromkeys(COLUMNS, 0) | {"epoch": 1, "val_macro_f1": 0.625, "seconds": 30, "best": 1}
        start_history(task.run.history_file, [row])
    made[0].run.metrics_file.write_text("{}")
    return made


@pytest.fixture
def clock(monkeypatch):
    """The time that the display sees."""
    now = [0.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    return now


def render(shown, height=40):
    console = Console(file=StringIO(), width=120, height=height, force_terminal=True, color_system=None)
    shown.console = console
    console.print(shown._table())
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_the_live_table_shows_running_cells_first_and_no_test_figure(tasks, clock):
    with Display(Console(file=StringIO()), tasks, jobs=1) as shown:
        shown.started(tasks[1].cell.cell)
        lines = render(shown)
    assert [line.split()[0] for line in lines[1:5]] == [tasks[index].cell.cell for index in (1, 2, 3, 0)]
    assert lines[1].split()[1:] == ["running", "1", "0.6250", "30", "s"]
    assert lines[-1] == "4 cells: 1 finished, 1 running, 2 waiting"
    assert "test" not in "".join(lines)


def test_a_table_that_does_not_fit_shows_what_matters(tasks, clock):
    shown = Display(Console(file=StringIO()), tasks, jobs=1)
    shown.started(tasks[3].cell.cell)
    lines = render(shown, height=display.OTHER_LINES + 3)
    assert len(lines) == 1 + 3 + 1
    assert lines[1].startswith(tasks[3].cell.cell)


def test_lines_tell_the_time_that_is_left(tasks, clock):
    console = Console(file=StringIO(), width=200)
    with Display(console, tasks, jobs=2) as shown:
        for task in tasks[1:3]:
            shown.started(task.cell.cell)
        clock[0] = 40.0
        shown.ended(Outcome(tasks[1].cell.cell, "finished", 40.0, ""))
        shown.started(tasks[3].cell.cell)
        clock[0] = 50.0
        shown.ended(Outcome(tasks[2].cell.cell, "failed", 50.0, "no memory"))
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "1 of 4 cells are finished already."
    # Two cells of 40 s are left to two jobs, and one has run for 40 s: (80 - 40) / 2.
    assert lines[1] == f"[2/4] {tasks[1].cell.cell} finished in 40 s, val macro F1 0.6250; about 20 s left"
    # One cell of 40 s is left and has run for 10 s.
    assert lines[2] == f"[3/4] {tasks[2].cell.cell} failed in 50 s: no memory; about 30 s left"


def test_a_part_without_cells_says_so():
    console = Console(file=StringIO())
    with Display(console, [], jobs=1):
        pass
    assert "no cells" in console.file.getvalue()
