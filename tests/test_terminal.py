"""What stands in a file is shown, and steers no terminal, and an error is of bounded length."""

from unicodedata import category

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hcoatnet.errors import DataError, DataProblems, Problem
from hcoatnet.terminal import LONGEST_CELL, LONGEST_MESSAGE, MOST_PROBLEMS, report_error, say, visible


@given(st.text())
def test_no_control_character_is_shown(text):
    shown = visible(text)
    assert not any(category(one)[0] == "C" for one in shown if one != "\n")
    assert [one for one in shown if category(one)[0] != "C"][:1] or not text.strip("\n")


@given(st.text(st.characters(exclude_categories=("C",))))
def test_everything_else_is_shown_as_it_is(text):
    assert visible(text) == text


def test_codes_are_those_of_python():
    assert visible("a\x1b[31m\tb\u202e\ud800\n²") == "a\\x1b[31m\\tb\\u202e\\ud800\n²"


def test_lines_errors_and_tables_are_made_visible(capsys):
    say("said \x1b[2J")
    problem = Problem("p\x1b", "r\x9b", "f\r", "e\b", "fix\x07")
    report_error(DataProblems("bad \x1b]0;x\x07", [problem]))
    printed = "".join(capsys.readouterr())
    assert not any(category(one) == "Cc" for one in printed if one != "\n")
    for code in ("\\x1b[2J", "\\x1b]0;x\\x07", "p\\x1b", "r\\x9b", "f\\r", "e\\x08", "fix\\x07"):
        assert code in printed


@pytest.mark.parametrize("length", [LONGEST_MESSAGE, LONGEST_MESSAGE + 1, 10**6])
def test_long_messages_are_cut_and_their_length_told(capsys, length):
    report_error(DataError("x" * length))
    printed = capsys.readouterr().err.replace("\n", "")
    assert printed.count("x") == LONGEST_MESSAGE
    assert (f"({length:,} characters)" in printed) == (length > LONGEST_MESSAGE)


def test_long_tables_are_cut_and_the_rest_counted(capsys):
    problems = [Problem(f"photo {number}", "r", "y" * 10_000, "e", "f") for number in range(MOST_PROBLEMS + 7)]
    report_error(DataProblems("lots", problems))
    printed = capsys.readouterr().err
    assert f"photo {MOST_PROBLEMS - 1} " in printed
    assert f"photo {MOST_PROBLEMS} " not in printed
    assert "And 7 more." in printed
    assert printed.count("y") == MOST_PROBLEMS * LONGEST_CELL
