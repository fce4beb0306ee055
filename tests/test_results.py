"""What the figures of result files say together; each of them by itself is checked by test_documented_figures.py."""

import json
import re
from pathlib import Path

import pytest
import yaml

DOCS = Path(__file__).parents[1] / "docs"
FOLDER = DOCS / "results" / "pad_ufes_20"
PAGE = (FOLDER / "README.md").read_text(encoding="utf-8")
STUDY = json.loads((FOLDER / "comparison.json").read_text(encoding="utf-8"))


def cells(name):
    """The cells of the row of the page's tables that begins with this name."""
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def with_interval(estimate):
    interval = estimate["bca"] or estimate["percentile"]
    return f"{estimate['value']:.3f} ({interval['low']:.3f}–{interval['high']:.3f})"


def signed(value):
    return f"{value:+.3f}".replace("-", "−")


def difference_text(difference):
    interval = difference["macro_f1"]["bca"]
    return f"{signed(difference['macro_f1']['value'])} ({signed(interval['low'])} to {signed(interval['high'])})"


@pytest.mark.parametrize("row", STUDY["rows"], ids=lambda row: row["name"])
def test_a_row_of_the_study(row):
    f1, accuracy, auroc, difference, verdict = cells(row["name"])
    metrics = row["metrics"]
    assert f1 == with_interval(metrics["macro_f1"])
    assert accuracy == f"{metrics['accuracy']['value']:.3f}"
    assert auroc == f"{metrics['macro_auroc']['value']:.3f}"
    found = [one for one in STUDY["differences"] if one["name"] == row["name"]]
    assert verdict == (found[0]["verdict"] if found else "reference")
    assert difference == (difference_text(found[0]) if found else "")


def test_the_sentences():
    assert all(0.04 < one["detectable"] < 0.06 for one in STUDY["differences"])
    recalls = [row["per_class"]["SCC"]["recall"]["value"] for row in STUDY["rows"]]
    assert max(recalls) < 0.05
    assert STUDY["support"]["SCC"][0] == int(re.search(r"carcinoma \((\d+) photos\)", PAGE)[1])


def test_the_study_file_is_one_of_the_five_rows():
    names = [
        row if isinstance(row, str) else row["name"]
        for row in yaml.safe_load((FOLDER / "study.yaml").read_text())["models"]
    ]
    assert [*names, "majority"] == [row["name"] for row in STUDY["rows"]]


def test_the_server_answered_all_as_the_loop_does():
    measured = json.loads((DOCS / "results" / "serving_load.json").read_text(encoding="utf-8"))
    page = " ".join((DOCS / "how-to" / "serve.md").read_text(encoding="utf-8").split())
    assert measured["answers_by_status"] == {"200": measured["requests"]}
    assert measured["answers_unlike_the_loop"] == 0 == measured["largest_difference_of_a_probability"]
    assert "every request answered, with the loop's probabilities to the bit" in page


def test_the_kills_survived_are_those_of_the_harness():
    found = json.loads((DOCS / "results" / "crash_safety.json").read_text(encoding="utf-8"))
    page = (DOCS / "explanation" / "reliability.md").read_text(encoding="utf-8")
    parts = found["parts"]
    assert parts.keys() == {"training", "study", "report", "bundle"}
    assert found["kills"] == sum(part["kills"] for part in parts.values()) >= 100
    assert found["faults"] == 0 == sum(len(part["problems"]) + len(part["differences"]) for part in parts.values())
    flat = " ".join(page.split())
    left, torn = (sum(part[name] for part in parts.values()) for name in ("leftovers", "torn"))
    assert f"{left} temporary files and folders and {torn} torn lines were found" in flat
    phases = parts["training"]["phases"]
    assert (
        f"{phases['before it has begun']} fell before the run had begun, {phases['first epoch']} into the first" in flat
    )
    between, after = phases["after the first checkpoint"], phases["tables, figures, report"]
    assert f"{between} between the first checkpoint and the tables, {after} into tables, figures and report" in flat
