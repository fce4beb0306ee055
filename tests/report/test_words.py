"""Numbers and names in running text."""

import pytest

from hcoatnet.report.words import counted, duration, listed, percent, shown, times, without_folder


def test_counts_and_lists() -> None:
    assert [counted(n, "photo") for n in (0, 1, 1015)] == ["0 photos", "1 photo", "1,015 photos"]
    assert [times(n) for n in (1, 2, 7)] == ["once", "twice", "7 times"]
    assert [listed(names) for names in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
    assert percent(0.725) == "72.5\N{NO-BREAK SPACE}%"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "under a second"), (59.6, "1 min"), (412.7, "6 min 53 s"), (3600, "1 h"), (7325, "2 h 2 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_settings() -> None:
    assert [shown(value) for value in (None, True, [0.8, 1.0], {}, {"importance": "norm"})] == [
        "not set", "true", "0.8, 1.0", "none", "importance=norm",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("/home/someone/best.pth", "best.pth"),
        ("pretrained:/home/a b/best.pth", "pretrained:best.pth"),
        (r"C:\Users\someone\x", "x"),
        ("../../photos", "../../photos"),
        ("a/b", "a/b"),
    ],
)
def test_no_absolute_path_is_shown(text: str, left: str) -> None:
    assert without_folder(text) == left
