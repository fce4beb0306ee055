"""What the figures of result files say together; each of them by itself is checked by test_documented_figures.py."""

import json
import re
from pathlib import Path

import pytest

from hcoatnet.study.definition import read_study

DOCS = Path(__file__).parents[1] / "docs"
FOLDER = DOCS / "results" / "pad_ufes_20"
PAGE = (FOLDER / "README.md").read_text(encoding="utf-8")
STUDY, PRETRAINED = (
    json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")) for name in ("scratch", "pretrained")
)


PAGE_ROWS = [
    row["name"]
    for study in (STUDY, PRETRAINED)
    for row in study["rows"]
    if row["name"] not in ("majority", "random_probe", "imagenet_probe")
]


def cells(name):
    """The cells of the row that begins with this name in the tables of comparisons, which have seven columns."""
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| {name} |") and line.count("|") == 8]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def with_interval(estimate):
    interval = estimate["bca"] or estimate["percentile"]
    return f"{estimate['value']:.3f} ({interval['low']:.3f}–{interval['high']:.3f})"


def signed(value):
    return f"{value:+.3f}".replace("-", "−")


def difference_text(difference):
    interval = difference["macro_f1"]["bca"]
    return f"{signed(difference['macro_f1']['value'])} ({signed(interval['low'])} to {signed(interval['high'])})"


@pytest.mark.parametrize(
    ("study", "row"),
    [
        (study, row)
        for study in (STUDY, PRETRAINED)
        for row in study["rows"]
        if (study["init"], row["name"]) != ("pretrained", "majority")
    ],
    ids=lambda value: value.get("name", value.get("init")),
)
def test_a_row_of_the_study(study, row):
    f1, accuracy, auroc, loss, difference, verdict = cells(row["name"])
    metrics = row["metrics"]
    assert f1 == with_interval(metrics["macro_f1"])
    assert accuracy == f"{metrics['accuracy']['value']:.3f}"
    assert auroc == f"{metrics['macro_auroc']['value']:.3f}"
    assert loss == f"{metrics['log_loss']['value']:.3f}"
    found = [one for one in study["differences"] if one["name"] == row["name"]]
    assert verdict == (found[0]["verdict"] if found else "reference")
    assert difference == (difference_text(found[0]) if found else "")


def test_the_sentences():
    assert all(0.04 < one["detectable"] < 0.065 for one in STUDY["differences"])
    f1 = {row["name"]: row["metrics"]["macro_f1"]["value"] for row in STUDY["rows"]}
    assert set(sorted(f1, key=f1.get)[-2:]) == {"coatnet_pico_rw_224", "h_coatnet_atto"}
    assert set(sorted(f1, key=f1.get)[:2]) == {"majority", "random_probe"}
    verdicts = {one["name"]: one["verdict"] for one in STUDY["differences"]}
    alike = [name for name, verdict in verdicts.items() if verdict == "not distinguishable"]
    assert set(alike) == {"coatnet_pico_rw_224", "efficientnet_b0", "convnext_atto", "swin_atto"}
    by_fold = [one["name"] for one in STUDY["differences"] if one["corrected_t"]["p_holm"] < 0.05]
    assert set(by_fold) == {"vit_tiny_patch16_224", "cnn", "random_probe", "majority"}
    recalls = [row["per_class"]["SCC"]["recall"]["value"] for study in (STUDY, PRETRAINED) for row in study["rows"]]
    assert max(recalls) < 0.2
    assert STUDY["support"]["SCC"][0] == int(re.search(r"carcinoma \((\d+) photos\)", PAGE)[1])
    gains = json.loads((DOCS / "results" / "average_of_folds.json").read_text(encoding="utf-8"))["rows"]
    for name in PAGE_ROWS:
        change = gains[name]["gain"]["average"]
        assert change["macro_f1"]["difference"]["value"] > 0 > change["log_loss"]["difference"]["high"]
        assert (change["expected_calibration_error"]["difference"]["high"] < 0) == (name != "cnn")


def test_what_averages_of_views_do():
    """The log loss falls for all four, macro F1 rises beyond chance for the two H-CoAtNets on test photos, for none on validation."""
    test, validation = {}, {}
    for found, names in ((test, ("views_scratch", "views_pretrained")), (validation, ("views_validation",))):
        for name in names:
            content = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
            found |= {row: value["figures"]["dihedral"] for row, value in content["rows"].items()}
    assert test.keys() == validation.keys() and len(test) == 4
    assert all(one["log_loss"]["difference"]["high"] < 0 for one in (*test.values(), *validation.values()))
    assert {name for name, one in test.items() if one["macro_f1"]["difference"]["low"] > 0} == {
        name for name in test if name.startswith("h_coatnet")
    }
    assert not any(one["macro_f1"]["difference"]["low"] > 0 for one in validation.values())


def test_the_study_files_are_those_of_the_rows_and_can_be_read():
    study = read_study(FOLDER / "study.yaml")
    by_init = {
        init: [one.name for one in study.variants if study.inits_of(one)[0].startswith(init)]
        for init in ("scratch", "pretrained")
    }
    for content in (STUDY, PRETRAINED):
        assert {row["name"] for row in content["rows"]} == {*by_init[content["init"]], "majority"}
    files = sorted((DOCS / "results").rglob("*study.yaml"))
    assert len(files) == 8
    for file in files:
        assert read_study(file).variants


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
