"""`hcoatnet compare`: from finished studies to a verdict, on the terminal and as comparison.json."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml

from conftest import TINY
from hcoatnet.evaluation.calibration_file import calibration_of_study
from hcoatnet.evaluation.comparison import compare
from hcoatnet.evaluation.floors import majority
from hcoatnet.evaluation.metrics import score
from hcoatnet.study.ablation import confident_errors
from hcoatnet.study.collect import collect

DRAWS = 200


@pytest.fixture
def copy(study, tmp_path):
    shutil.copytree(study, tmp_path / "copy")
    return tmp_path / "copy"


def check(result, *words):
    code, printed = result
    assert code == 2, printed
    assert "Traceback" not in printed
    for word in words:
        assert word in " ".join(printed.split()), printed


def macro_f1(study, model, subset="test"):
    """Macro F1 of each seed over all its folds, then the mean: written down again, from the tables alone."""
    values = []
    for seed in (1, 2):
        files = sorted((study / "runs").glob(f"{model}-scratch-s{seed}-*/predictions_{subset}.csv"))
        table = pd.concat([pd.read_csv(file) for file in files])
        classes = [name.removeprefix("logit_") for name in table.columns if name.startswith("logit_")]
        logits = table[[f"logit_{name}" for name in classes]].to_numpy()
        values.append(score(table["label"].map(classes.index).to_numpy(), logits).macro_f1)
    return float(np.mean(values))


def test_the_figures_are_those_of_the_predictions_tables(copy, hcoatnet):
    code, printed = hcoatnet("compare", copy, "--draws", DRAWS, "--by", "site")
    assert code == 0, printed
    written = json.loads((copy / "results" / "comparison.json").read_text())
    assert [row["name"] for row in written["rows"]] == ["cnn", "test_vit", "majority"]
    assert (written["reference"], written["photos"], written["groups"]) == ("cnn", 54, 27)
    values = {row["name"]: row["metrics"]["macro_f1"]["value"] for row in written["rows"]}
    for model in ("cnn", "test_vit"):
        assert values[model] == pytest.approx(macro_f1(copy, model))
        line = next(line for line in printed.splitlines() if line.startswith(f"{model} "))
        assert re.search(rf"\b{values[model]:.3f}\b", line)
    (difference,) = [one for one in written["differences"] if one["name"] == "test_vit"]
    assert difference["macro_f1"]["value"] == pytest.approx(values["test_vit"] - values["cnn"])
    assert difference["verdict"] in printed
    assert f"{difference['detectable']:.3f}" in printed


def test_the_file_holds_the_whole_comparison(copy, hcoatnet, tmp_path):
    assert (
        hcoatnet("compare", copy, "--draws", DRAWS, "--seed", 3, "--reference", "test_vit", "--out", tmp_path / "x")[0]
        == 0
    )
    written = json.loads((tmp_path / "x" / "comparison.json").read_text())
    arms = collect([copy])
    arms.append(majority(arms[0]))
    expected = json.loads(json.dumps(compare(arms, "test_vit", replicates=DRAWS, seed=3).to_json()))
    assert {name: written[name] for name in expected} == expected
    calibration = json.loads((tmp_path / "x" / "calibration.json").read_text())["rows"]
    assert calibration == {arm.name: json.loads(json.dumps(calibration_of_study(arm))) for arm in arms[:-1]}
    assert written["confident_errors"] == {
        "threshold": 0.9, "share": {arm.name: confident_errors(arm) for arm in arms}
    }  # fmt: skip
    assert written["sources"] == ["copy"]
    assert not (copy / "results").exists()


def test_what_weakens_the_figures_is_said(copy, hcoatnet):
    _, printed = hcoatnet("compare", copy, "--draws", DRAWS)
    assert "54 test photos of 27 groups, weights from scratch" in " ".join(printed.split())
    assert "Classes with fewer than 30 photos: blue (18), green (18), red (18)" in printed
    assert "Wilson's interval assumes independent photos" in printed
    assert "80 % power" in printed


def test_validation_photos_are_compared_without_a_test_prediction(copy, hcoatnet):
    assert hcoatnet("compare", copy, "--draws", DRAWS)[0] == 0
    on_test = {file: file.read_bytes() for file in (copy / "results").iterdir()}
    for run in (copy / "runs").glob("cnn-*"):  # closed test sets
        (run / "predictions_test.csv").unlink()
        metrics = json.loads((run / "metrics.json").read_text())
        del metrics["subsets"]["test"]
        (run / "metrics.json").write_text(json.dumps(metrics))
    for run in (copy / "runs").glob("test_vit-*"):  # open ones, which nobody may read
        (run / "predictions_test.csv").write_text("unreadable")
    check(hcoatnet("compare", copy), "is closed", "`hcoatnet compare --subset val`")
    code, printed = hcoatnet("compare", copy, "--subset", "val", "--draws", DRAWS, "--by", "site")
    assert code == 0, printed
    for words in ("54 validation photos of 27 groups", "no test prediction was read", "figures are optimistic"):
        assert words in " ".join(printed.split())
    assert {file: file.read_bytes() for file in on_test} == on_test
    assert {file.name for file in (copy / "results").iterdir()} == {file.name for file in on_test} | {
        "comparison_val.json"
    }
    written = json.loads((copy / "results" / "comparison_val.json").read_text())
    assert (written["subset"], written["photos"], list(written["subgroups"])) == ("val", 54, ["site"])
    values = {row["name"]: row["metrics"]["macro_f1"]["value"] for row in written["rows"]}
    assert list(values) == ["cnn", "test_vit", "majority"]
    for model in ("cnn", "test_vit"):
        assert values[model] == pytest.approx(macro_f1(copy, model, "val"))
    difference = written["differences"][0]
    assert difference["macro_f1"]["value"] == pytest.approx(values["test_vit"] - values["cnn"])
    assert difference["corrected_t"]["df"] == 2


def test_settings_of_one_model_are_rows(manifest_file, hcoatnet, in_process, tmp_path):
    """A hold-out split and closed test sets: what a search over settings looks like."""
    settings = yaml.safe_dump({**TINY, "data": str(manifest_file), "evaluate_test": False})
    rows = "models:\n  - {name: lr-3e-3, model: cnn, lr: 3e-3}\n  - {name: ema, model: cnn, ema: 0.9, epochs: 2}\n"
    (tmp_path / "study.yaml").write_text(rows + settings)
    code, printed = hcoatnet("study", "run", "--config", tmp_path / "study.yaml", "--out", tmp_path / "s")
    assert code == 0, printed
    assert not list(tmp_path.rglob("predictions_test.csv"))
    code, printed = hcoatnet("compare", tmp_path / "s", "--subset", "val", "--reference", "ema", "--draws", DRAWS)
    assert code == 0, printed
    written = json.loads((tmp_path / "s" / "results" / "comparison_val.json").read_text())
    assert [row["name"] for row in written["rows"]] == ["lr-3e-3", "ema", "majority"]
    assert [(one["name"], one["corrected_t"]) for one in written["differences"]] == [
        ("lr-3e-3", None),
        ("majority", None),
    ]
    validated = pd.read_csv(tmp_path / "s" / "runs" / "ema-scratch-s42-r0-f0" / "predictions_val.csv")
    assert written["photos"] == len(validated)
    check(hcoatnet("report", tmp_path / "s"), "is closed")


def test_subgroups_are_tables_of_their_own(copy, hcoatnet):
    code, printed = hcoatnet("compare", copy, "--draws", DRAWS, "--by", "site")
    assert code == 0
    written = json.loads((copy / "results" / "comparison.json").read_text())
    assert [part["name"] for part in written["subgroups"]["site"]] == ["cnn", "test_vit"]
    assert [(row["value"], row["photos"]) for row in written["subgroups"]["site"][0]["rows"]] == [
        ("arm", 27),
        ("leg", 27),
    ]
    assert re.search(r"By site, cnn *\n.*\narm +27 +27", printed)
    assert "largest gap by site" in printed


def test_a_share_of_confident_errors_counts_photos(study):
    arm = collect([study])[0]
    threshold = float(np.median(arm.replicates[0].predictions.probabilities.max(axis=1)))
    shares = []
    for one in arm.replicates:
        table = one.predictions
        wrong = [
            table.classes[row.argmax()] != label and row.max() >= threshold
            for row, label in zip(table.probabilities, table.table["label"], strict=True)
        ]
        shares.append(sum(wrong) / len(wrong))
    assert confident_errors(arm, threshold) == pytest.approx(np.mean(shares))
    assert 0 < sum(shares) < confident_errors(arm, 0) * len(shares)


def test_studies_that_do_not_match_are_refused(study, copy, hcoatnet, tmp_path):
    check(hcoatnet("compare", study, copy), "say with --out where the result is to go")
    table = pd.read_csv(copy / "plan.csv")
    table["model"] = table["model"] + "-again"
    table[table["fold"] != 2].to_csv(copy / "plan.csv", index=False)
    check(hcoatnet("compare", study, copy, "--out", tmp_path / "x"), "cnn and cnn-again cannot be compared", "fold 2")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (["--reference", "cnnn"], ["no row 'cnnn'", "cnn"]),
        (["--by", "sites"], ["no metadata column 'sites'", "'site'"]),
        (["--init", "pretrained"], ["No run began from pretrained"]),
        (["--draws", "5"], ["at least 100 draws"]),
    ],
)
def test_a_mistake_is_one_clear_error(study, hcoatnet, tmp_path, tokens, words):
    check(hcoatnet("compare", study, "--out", tmp_path / "x", *tokens), *words)
    assert not (tmp_path / "x").exists()


def test_an_unfinished_study_is_refused(copy, hcoatnet):
    (copy / "runs" / "cnn-scratch-s1-r0-f1" / "metrics.json").unlink()
    check(hcoatnet("compare", copy), "1 of 12 cells are not finished: cnn-scratch-s1-r0-f1", "study status")
