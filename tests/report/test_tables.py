"""One table, four forms: each says the same, and none lets what a user named break out."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from hcoatnet.evaluation.intervals import Estimate, Interval
from hcoatnet.report.tables import Label, Table, Value, plain, score, write_tables, written

HARD = "\N{NO-BREAK SPACE}"


@pytest.fixture
def table() -> Table:
    return Table(
        name="results",
        caption="Figures of a_model & others, 100 %",
        columns=("Model", "Macro F1", "p", "Photos", "Verdict"),
        rows=(
            (Label("a_model", "reference"), Value(1 / 3, "score", Interval(0.25, 0.5)), Value(0.0004, "p"),
             Value(1015, "count"), "better"),
            (Label("<b>|x\\", few=True), Value(None), Value(0.04, "p"), Value(3, "count"), "not distinguishable"),
        ),
        note="50 % of $5 #1",
    )  # fmt: skip


def test_numbers_as_they_are_read() -> None:
    assert written(1015, "count") == "1,015"
    assert written(0.12345) == "0.123"
    assert written(0.72, "percent") == f"72.0{HARD}%"
    assert written(-0.0253, "difference") == "−0.025"
    assert written(0.0253, "difference") == "+0.025"
    assert [written(p, "p") for p in (0.00099, 0.001, 1.0)] == ["<0.001", "0.001", "1.000"]
    assert written(2.9, "size") == "2.90"
    assert [written(value) for value in (None, np.nan)] == ["–", "–"]


def test_intervals_as_they_are_read() -> None:
    assert Value(0.3, "score", Interval(0.25, 0.5)).interval_text == "0.250–0.500"
    assert Value(-0.1, "difference", Interval(-0.2, 0.05)).interval_text == "−0.200 to +0.050"
    assert Value(0.3, "percent", Interval(0.25, 0.5)).interval_text == f"25.0–50.0{HARD}%"
    assert Value(0.3).interval_text == ""
    assert plain(Value(0.3, "score", Interval(0.25, 0.5))) == "0.300 (0.250–0.500)"


def test_the_corrected_interval_is_shown_where_there_is_one() -> None:
    percentile, bca = Interval(0.1, 0.2), Interval(0.12, 0.22)
    assert score(Estimate(0.15, percentile, bca, 0.02)).reach == bca
    assert score(Estimate(0.15, percentile, None, 0.02)).reach == percentile
    assert score(Estimate(None, None, None, None)).text == "–"


def test_csv_reads_back_in_full(table: Table) -> None:
    header, *rows = csv.reader(io.StringIO(table.to_csv()))
    assert header == ["Model", "Macro F1", "Macro F1 low", "Macro F1 high", "p", "Photos", "Verdict"]
    assert [float(value) for value in rows[0][1:5]] == [1 / 3, 0.25, 0.5, 0.0004]
    assert rows[0][5:] == ["1015", "better"]
    assert rows[1] == ["<b>|x\\", "", "", "", "0.04", "3", "not distinguishable"]


def test_latex_escapes(table: Table) -> None:
    text = table.to_latex()
    assert r"a\_model & 0.333 (0.250--0.500) & \textless{}0.001 & 1,015 & better \\" in text
    assert r"\textless{}b\textgreater{}\textbar{}x\textbackslash{} $^\dagger$ & -- &" in text
    assert r"\caption{Figures of a\_model \& others, 100 \%}" in text
    assert r"50 \% of \$5 \#1" in text
    assert r"\begin{tabular}{lrrrl}" in text
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert text.count(rule) == 1
    assert text.count(r"\begin{") == text.count(r"\end{") == 2


@pytest.mark.parametrize("character", list('\\&%$#_{}~^<>|"−†–×κ'))
def test_no_special_character_reaches_latex_bare(character: str) -> None:
    text = Table("t", "c", ("Name", "x"), ((Label(f"a{character}b"), Value(1.0)),)).to_latex()
    (line,) = [line for line in text.splitlines() if line.startswith("a")]
    name = line.split(" & 1.000")[0]
    assert name != f"a{character}b"
    assert name.isascii()


def test_markdown_escapes_and_has_a_cell_for_each_column(table: Table) -> None:
    text = table.to_markdown()
    assert "\\<b>\\|x\\\\ †" in text
    assert "a\\_model" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert lines[1] == "| --- | ---: | ---: | ---: | --- |"
    assert {line.replace("\\|", "").count("|") for line in lines} == {6}


def test_a_table_without_rows_is_written(tmp_path: Path) -> None:
    write_tables([Table("none", "Nothing", ("A", "B"), ())], tmp_path / "tables")
    assert sorted(path.name for path in (tmp_path / "tables").iterdir()) == ["none.csv", "none.md", "none.tex"]
    assert (tmp_path / "tables" / "none.csv").read_text() == "A,B\n"
