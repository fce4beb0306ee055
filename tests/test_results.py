"""The figures of the results page are those of the committed comparison."""

import json
import re
from pathlib import Path

import pytest
import yaml

DOCS = Path(__file__).parents[1] / "docs"
FOLDER = DOCS / "results" / "pad_ufes_20"
PAGE = (FOLDER / "README.md").read_text(encoding="utf-8")
STUDY = json.loads((FOLDER / "comparison.json").read_text(encoding="utf-8"))
IMPORTANCE = json.loads((FOLDER / "importance.json").read_text(encoding="utf-8"))


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


@pytest.mark.parametrize(("name", "shown"), [("h_coatnet_atto", "`gradient` (h_coatnet_atto)"), ("A5", "`norm` (A5)")])
def test_a_row_of_the_importance_table(name, shown):
    (row,) = [row for row in IMPORTANCE["rows"] if row["name"] == name]
    f1, *others, confident = cells(shown)
    assert f1 == with_interval(row["metrics"]["macro_f1"])
    names = ("accuracy", "log_loss", "expected_calibration_error")
    assert others == [f"{row['metrics'][metric]['value']:.3f}" for metric in names]
    assert confident == f"{100 * IMPORTANCE['confident_errors']['share'][name]:.1f} %"


def test_the_sentences():
    (norm,) = [one for one in IMPORTANCE["differences"] if one["name"] == "A5"]
    assert f"{difference_text(norm)}, {norm['verdict']}" in PAGE
    (convnext,) = [one for one in STUDY["differences"] if one["name"] == "convnext_atto"]
    assert f"p = {convnext['corrected_t']['p_holm']:.3f} after Holm's correction" in " ".join(PAGE.split())
    assert all(0.04 < one["detectable"] < 0.06 for one in STUDY["differences"])
    recalls = [row["per_class"]["SCC"]["recall"]["value"] for row in STUDY["rows"]]
    assert max(recalls) < 0.05
    assert f"{STUDY['photos']:,} photos of {STUDY['groups']} patients" in PAGE
    assert STUDY["support"]["SCC"][0] == int(re.search(r"carcinoma \((\d+) photos\)", PAGE)[1])


def test_the_study_file_is_one_of_the_five_rows():
    names = [
        row if isinstance(row, str) else row["name"]
        for row in yaml.safe_load((FOLDER / "study.yaml").read_text())["models"]
    ]
    assert [*names, "majority"] == [row["name"] for row in STUDY["rows"]]


def test_the_readme_shows_this_comparison():
    readme = (FOLDER.parents[2] / "README.md").read_text(encoding="utf-8")
    for one in STUDY["differences"]:
        shown = f"{one['name']} {one['macro_f1']['value']:+.3f} {one['p_holm']:.3f} {one['verdict']} {one['detectable']:.3f}"
        low, high = one["macro_f1"]["bca"].values()
        assert f"{shown} {low:+.3f} to {high:+.3f}" in " ".join(readme.split())


def test_the_coverage_of_intervals_is_that_of_the_simulation():
    results = json.loads((FOLDER.parent / "bootstrap_coverage.json").read_text())
    page = (FOLDER.parents[1] / "explanation" / "statistics.md").read_text(encoding="utf-8")
    rows = {
        "groups, percentile": results["fixed"]["groups, percentile"],
        "groups, BCa": results["fixed"]["groups, BCa"],
        "photos, percentile": results["fixed"]["photos, percentile"],
        "groups, BCa, class counts drawn too": results["drawn"]["groups, BCa"],
    }
    for name, row in rows.items():
        shown = [
            f"{100 * row[metric]['coverage']:.1f} %" for metric in ("accuracy", "macro_f1", "difference in macro_f1")
        ]
        assert f"| {name} | {' | '.join(shown)} |" in page
    assert results["sets"] == results["draws"] == 1000


def test_the_load_of_the_server_is_that_of_the_measurement():
    measured = json.loads((DOCS / "results" / "serving_load.json").read_text(encoding="utf-8"))
    page = " ".join((DOCS / "how-to" / "serve.md").read_text(encoding="utf-8").split())
    assert measured["answers_by_status"] == {"200": measured["requests"]}
    assert measured["answers_unlike_the_loop"] == 0 == measured["largest_difference_of_a_probability"]
    server, memory = measured["server"], measured["memory_megabytes"]
    rates = (
        f"{server['requests_per_second']} a second where the loop does {measured['plain_loop']['photos_per_second']}"
    )
    assert f"sends {measured['requests']:,} requests from {measured['clients']} clients" in page
    assert f"photos of {measured['mean_photo_kilobytes']:.0f} kB" in page
    assert rates in page
    times = [f"{server[name]:.0f} ms" for name in ("p50_milliseconds", "p95_milliseconds")]
    assert f"half of the answers came within {times[0]}, 95 % within {times[1]}" in page
    assert f"memory {memory['start']} MB before and {memory['after_each_quarter'][-1]} MB after" in page


def test_the_average_of_two_folds_is_that_of_the_measurement():
    rows = json.loads((DOCS / "results" / "average_of_folds.json").read_text(encoding="utf-8"))["rows"]
    page = (DOCS / "how-to" / "bundle.md").read_text(encoding="utf-8")
    assert len(rows) == 5
    for name, found in rows.items():
        single, average = found["single"], found["average"]
        covered = " | ".join(f"{100 * one['coverage']:.1f} %" for one in (single, average))
        pairs = [f"{single[key]:.{n}f} → {average[key]:.{n}f}" for key, n in (("set_size", 2), ("accuracy", 3))]
        assert f"| {name} | {covered} | {pairs[0]} | {pairs[1]} |" in page


def test_the_kills_survived_are_those_of_the_harness():
    found = json.loads((DOCS / "results" / "crash_safety.json").read_text(encoding="utf-8"))
    page = (DOCS / "explanation" / "reliability.md").read_text(encoding="utf-8")
    shown = {"training": "training", "study": "a study of two cells", "report": "a report",
             "bundle": "a bundle over an earlier one"}  # fmt: skip
    parts = found["parts"]
    assert parts.keys() == shown.keys()
    assert found["kills"] == sum(part["kills"] for part in parts.values()) >= 100
    assert found["faults"] == 0 == sum(len(part["problems"]) + len(part["differences"]) for part in parts.values())
    for name, part in parts.items():
        inside = sum(part["inside"].values())
        counts = f"{part['kills']} | {inside} | {part['finished']} | {part['files_read']:,} | 0 | 0"
        assert f"| {shown[name]} | {counts} |" in page
    flat = " ".join(page.split())
    assert f"{found['kills']} kills in all (seed {found['seed']}," in flat
    left, torn = (sum(part[name] for part in parts.values()) for name in ("leftovers", "torn"))
    assert f"{left} temporary files and folders and {torn} torn lines were found" in flat
    phases = parts["training"]["phases"]
    assert (
        f"{phases['before it has begun']} fell before the run had begun, {phases['first epoch']} into the first" in flat
    )
    between, after = phases["after the first checkpoint"], phases["tables, figures, report"]
    assert f"{between} between the first checkpoint and the tables, {after} into tables, figures and report" in flat
