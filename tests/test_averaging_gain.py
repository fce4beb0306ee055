"""What averaging gains, as the benchmark measures it."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import averaging_gain
from averaging_gain import against, measure, row_name, variants

from hcoatnet.evaluation.evidence import Cell
from hcoatnet.evaluation.metrics import brier_score, expected_calibration_error, log_loss, score
from hcoatnet.evaluation.predictions import build_predictions, read_predictions
from hcoatnet.models.views import MOVES

CLASSES = ("blue", "green", "red")


def figures_of(labels, probabilities):
    logits = np.log(probabilities)
    return {
        "macro_f1": score(labels, logits).macro_f1,
        "log_loss": log_loss(labels, logits),
        "expected_calibration_error": expected_calibration_error(labels, probabilities),
        "brier": brier_score(labels, probabilities),
    }


def some_cells(seeds, folds=2, photos=40, draw=0):
    """Cells of made-up logits, and for each kind of views the logits of each seed, photo by photo."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, photos)
    rows = pd.DataFrame({"path": [f"{i:02}.png" for i in range(photos)], "group": [f"g{i // 2}" for i in range(photos)],
                         "label": np.array(CLASSES)[labels], "subset": "val"})  # fmt: skip
    rng = np.random.default_rng(draw)
    logits = {views: rng.normal(size=(seeds, photos, 3)) + 2 * np.eye(3)[labels] for views in MOVES}
    cells = []
    for seed in range(seeds):
        for fold in range(folds):
            part = rows.index % folds == fold
            tables = {
                views: build_predictions(rows[part].reset_index(drop=True), logits[views][seed, part], CLASSES)
                for views in MOVES
            }
            cells.append({views: Cell("", seed, 0, fold, one, one, (0, 0, 0), "", "") for views, one in tables.items()})
    return cells, labels, logits


def test_each_figure_is_the_mean_over_seeds_and_that_of_the_mean_of_seeds():
    cells, labels, logits = some_cells(seeds=3)
    figures = measure(dict(variants(cells)), draws=200)
    assert list(figures) == [name for views in MOVES for name in (views, f"{views}, mean of 3 seeds")]
    shares = {views: softmax(logits[views], axis=2) for views in MOVES}
    first = {}
    for views in MOVES:
        apart = [figures_of(labels, one) for one in shares[views]]
        expected = {metric: np.mean([one[metric] for one in apart]) for metric in averaging_gain.METRICS}
        first = first or expected
        together = figures_of(labels, shares[views].mean(axis=0))
        for name, wanted in ((views, expected), (f"{views}, mean of 3 seeds", together)):
            for metric, value in wanted.items():
                found = figures[name][metric]
                assert found["value"] == pytest.approx(value)
                assert found["difference"]["value"] == pytest.approx(value - first[metric], abs=1e-12)
    change = figures["one, mean of 3 seeds"]["log_loss"]["difference"]
    assert change["low"] < change["value"] < change["high"] < 0  # the loss is convex: a mean cannot lose
    assert figures["one"]["macro_f1"]["difference"]["low"] is None


def test_a_row_is_compared_with_another_under_the_same_views():
    (cells, labels, logits), (others, _, other_logits) = some_cells(seeds=1), some_cells(seeds=1, draw=1)
    found = against(dict(variants(others)), dict(variants(cells)), draws=100)
    assert list(found) == list(MOVES)
    for views in MOVES:
        mine, theirs = (figures_of(labels, softmax(one[views][0], axis=1)) for one in (other_logits, logits))
        for metric in averaging_gain.METRICS:
            assert found[views][metric]["value"] == pytest.approx(mine[metric] - theirs[metric], abs=1e-12)
        assert found[views]["log_loss"]["low"] < found[views]["log_loss"]["value"] < found[views]["log_loss"]["high"]


def test_the_table_has_the_gain_over_one_view():
    figures = measure(dict(variants(some_cells(seeds=1)[0])), draws=100)
    first, second = averaging_gain.lines({"rows": {"cnn-scratch": {"figures": figures}}})[2:4]
    one, flips = figures["one"], figures["flips"]
    assert first.startswith(
        f"| cnn-scratch | one | {one['macro_f1']['value']:.3f} |  | {one['log_loss']['value']:.3f} |"
    )
    change = flips["macro_f1"]["difference"]
    assert f"| {change['value']:+.3f} ({change['low']:+.3f} to {change['high']:+.3f}) |" in second


def test_a_single_seed_has_no_mean_of_seeds():
    assert [name for name, _ in variants(some_cells(seeds=1)[0])] == list(MOVES)


def test_a_row_is_a_model_and_its_first_weights():
    assert (
        row_name("h_coatnet_atto-scratch-s42-r0-f3")
        == row_name("h_coatnet_atto-scratch-s7")
        == "h_coatnet_atto-scratch"
    )
    assert row_name("a-s3-b-pretrained-s1-r0-f0") == "a-s3-b-pretrained"


@pytest.mark.slow
@pytest.mark.parametrize("subset", ["val", "test"])
def test_runs_of_a_study(subset, study, tmp_path, monkeypatch, capsys):
    runs, out = sorted(study.glob("runs/cnn-*")), tmp_path / "gain.json"
    opened = []
    monkeypatch.setattr(averaging_gain, "record_test_opening", lambda run, config, ledger: opened.append(config.views))
    command = ["averaging_gain.py", *map(str, runs), "--subset", subset, "--draws", "100", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", command)
    averaging_gain.main()
    assert opened == ([*MOVES] * len(runs) if subset == "test" else [])
    found = json.loads(out.read_text())
    ((name, row),) = found["rows"].items()
    assert (found["subset"], name, row["runs"], row["photos"], row["groups"]) == (subset, "cnn-scratch", 6, 54, 27)
    seeds = []
    for seed in (1, 2):
        tables = [read_predictions(run / f"predictions_{subset}.csv") for run in runs if f"-s{seed}-" in run.name]
        labels, shares = (
            np.concatenate([getattr(one, what) for one in tables]) for what in ("labels", "probabilities")
        )
        seeds.append(figures_of(labels, shares))
    for metric in averaging_gain.METRICS:
        expected = np.mean([one[metric] for one in seeds])
        assert row["figures"]["one"][metric]["value"] == pytest.approx(expected, abs=1e-4)
    assert row["figures"]["dihedral"]["log_loss"]["difference"]["value"] != 0
    assert "dihedral, mean of 2 seeds" in capsys.readouterr().out
