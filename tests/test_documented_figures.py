"""Every figure that the documents state is that of a committed result file, or declared to be no measurement."""

import json

import pytest
import yaml

import figures
from figure_advice import advice
from figures import DECLARED, PAGES, ROOT, Page, complaints, flat, text_of

DECLARATIONS = yaml.safe_load(DECLARED.read_text(encoding="utf-8"))


def problems(page, declared):
    """What is wrong with the figures of a page; if that is only that some are not declared, what to declare."""
    return list(complaints(page, declared)) or [advice(page, run, declared) for run in page.unaccounted()]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_figures_of_a_page(path):
    page = Page(path.relative_to(ROOT).as_posix(), text_of(path))
    declared = DECLARATIONS.get(page.name, {})
    common = [fragment for fragment in DECLARATIONS["everywhere"] if fragment in page.text]
    found = problems(page, {**declared, "given": [*declared.get("given", ()), *common]})
    assert not found, "mend the page, or tests/figures.yaml:\n\n" + "\n\n".join(found)


def test_what_is_declared_is_about_pages_that_are_there():
    assert {*DECLARATIONS} - {"everywhere"} <= {path.relative_to(ROOT).as_posix() for path in PAGES}


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Checks a text against two result files."""
    content = {
        "rows": [{"name": "a", "f1": {"bca": None, "percentile": {"low": 0.25}}, "gain": -0.5}],
        "shares": {"left": {"share": 0.125}, "right": {"share": 0.625}},
        "kills": {"early": 1200, "late": 34},
        "memory": [5, 7],
    }
    (tmp_path / "found.json").write_text(json.dumps(content))
    (tmp_path / "printed.txt").write_text("F1 of a\n  0.25")
    monkeypatch.setattr(figures, "RESULTS", tmp_path)

    def checked(text, says, **entry):
        declared = {"measured": [{"file": "found.json", "says": says, **entry}]} if says else {}
        return "\n".join(problems(Page("page.md", flat(text)), declared))

    return checked


@pytest.mark.parametrize(
    ("text", "says", "entry"),
    [
        ("It bears 1,234\n  kills.", "bears {kills/+:,} kills", {}),
        ("| a | 0.250 | −0.50 |", "| {name} | {f1/bca|percentile/low:.3f} | {gain:+.2f} |", {"each": "rows"}),
        ("of a: 0.25", "of a: {rows/a/f1/percentile/low:.2f}", {}),
        ("left 12.5 %, right 62.5 %", "{key} {share:.1 %}", {"each": "shares"}),
        ("left by 12.5 points", "{key} by {share:.1 points}", {"each": "shares", "but": ["right"]}),
        ("the other half: 62 %", "{key}: {share:.0 %}", {"each": "shares", "called": {"right": "the other half"}}),
        ("5 MB before and 7 MB after", ["{memory/0} MB before", "{memory/-1} MB after"], {}),
        ("It says: F1 of a 0.25", "", {"file": "printed.txt", "lines": ["F1 of a 0.25"]}),
    ],
)
def test_figures_of_a_file_are_accepted(text, says, entry, check):
    assert check(text, says or "-", **entry) == ""


@pytest.mark.parametrize(
    ("text", "says", "complaint"),
    [
        (
            "It bears 1,235 kills.",
            "It bears {kills/+:,} kills",
            "has “It bears 1,234 kills”; page.md has “It bears 1,235",
        ),
        ("0 kills", "bears {kills/+:,} kills", "page.md has nothing like it"),
        ("It bears 1,234 kills.", "bears {births:,} kills", "found.json has no births"),
        ("It bears 1,234 kills.", "bears {kills/0:,} kills", "found.json has no kills/0"),
        ("It bears 11,234 kills.", "{kills/+:,} kills", "accounts for 11,234"),
        ("A gain of -0.501", "gain of {rows/a/gain:+.2f}", "accounts for 0.501"),
        ("It bears 1,234 kills.", "{kills/+:,}", "no words to know it by: “1,234”"),
        ("It bears 1,234 kills.", "bears 1,234 kills", "has no figure"),
    ],
)
def test_other_figures_are_refused(text, says, complaint, check):
    assert complaint in check(text, says)


def test_who_wrote_a_figure_without_a_source_is_told_what_to_declare(check):
    text = "What was seen of all shares: F1 of a is 0.250 (gain −0.50), left 12.5 % of them."
    told = check(text, None)
    assert "accounts for 0.250, 0.50, 12.5." in told
    measured, _, given = told.partition("measured:")[2].partition("or, if")
    (declared,) = yaml.safe_load(measured)
    assert declared["file"] == "found.json"
    assert declared["says"] == (
        "all shares: F1 of a is {rows/a/f1/percentile/low:.3f} (gain {rows/a/gain:+.2f}), left {shares/left/share:.1 %} of"
    )
    assert check(text, declared["says"]) == ""
    assert given.endswith('- "all shares: F1 of a is 0.250 (gain -0.50), left 12.5 % of"')


def test_a_figure_of_no_file_can_only_be_given(check):
    told = check("It took 17 minutes", None)
    assert "measured" not in told
    assert told.endswith('given:  # no measurement\n      - "It took 17 minutes"')
    assert problems(Page("page.md", "It took 17 minutes"), {"given": ["It took 17 minutes"]}) == []


def test_what_is_written_in_a_template_is_no_measurement(check):
    assert "accounts for 0.75" in check("from 0.75 to 1,234 kills", "from 0.75 to {kills/+:,} kills")


def test_a_test_that_is_named_must_be_about_the_page():
    for name in ("test_nowhere.py", "test_documented_figures.py"):
        page = Page("docs/statis" + "tics.md", "95 % of it")
        assert problems(page, {"tested": {name: ["95 % of it"]}}) == [
            f"tests/{name} is not there, or is not about {page.name}"
        ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "F1 of 0.41–0.45 in 3 hours, 12 s, 5 GB, 30% or 7 % of 1,015",
            ["0.41", "0.45", "3", "12", "5", "30", "7", "1,015"],
        ),
        ("1.5 times, a 20-minute wait, 3 points, (−0.5), 4 photos a second", ["1.5", "20", "3", "0.5", "4"]),
        ("96 pixels, 24 epochs, 5 samples, A7, x1.5, 2.15.0, `0.5`, [page](0.5.md)", []),
    ],
)
def test_what_counts_as_a_figure(text, found):
    assert [match[0] for run in Page("page.md", flat(text)).unaccounted() for match in run] == found


def test_commands_are_left_out_and_what_they_print_is_not(tmp_path):
    page, protocol = tmp_path / "page.md", tmp_path / "protocol.yaml"
    page.write_text("Before\n```\nprinted 0.25\n```\n```python\nlr = 0.5\n```\nafter\n")
    protocol.write_text("# Time: 3 s\nlr: 0.5\n")
    assert text_of(page) == "Before printed 0.25 after"
    assert text_of(protocol) == "Time: 3 s"
