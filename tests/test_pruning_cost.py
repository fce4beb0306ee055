"""The tables of the page on pruning are those of the committed measurement, and its counts are the models'."""
# ruff: noqa: E402

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from hcoatnet.models import registry

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import pruning_cost

PAGE = (ROOT / "docs/explanation/pruning_cost.md").read_text(encoding="utf-8")
MEASURED = json.loads((ROOT / "docs/results/pruning_cost.json").read_text(encoding="utf-8"))


def test_the_page_has_the_tables():
    uncut, window = pruning_cost.tables(MEASURED["rows"])
    assert uncut.count("\n") >= 2
    assert window.count("\n") >= 2
    assert uncut in PAGE
    assert window in PAGE


@pytest.mark.parametrize("model", ["h_coatnet_tiny", "h_coatnet_window_tiny"])
def test_the_counts_are_those_of_the_models(model):
    (row,) = [row for row in MEASURED["rows"] if (row["model"], row["options"], row["image_size"]) == (model, {}, 224)]
    summary = registry.describe(model, 224, 6)
    assert (row["parameters"], row["multiply_adds"]) == (summary.parameters, summary.multiply_adds)


def test_the_page_has_the_figures_of_the_study():
    study = json.loads((ROOT / "docs/results/pad_ufes_20/window.json").read_text(encoding="utf-8"))
    assert f"{study['photos']:,} test photos" in PAGE
    for row in study["rows"][:2]:
        f1, accuracy, log_loss = (row["metrics"][name] for name in ("macro_f1", "accuracy", "log_loss"))
        interval = f1["bca"]
        assert (
            f"| {row['name']} | {f1['value']:.3f} ({interval['low']:.3f}–{interval['high']:.3f}) | "
            f"{accuracy['value']:.3f} | {log_loss['value']:.3f} |"
        ) in PAGE
    (found,) = [one for one in study["differences"] if one["name"] == "h_coatnet_window_atto"]
    value, interval = found["macro_f1"]["value"], found["macro_f1"]["bca"]
    sentence = f"{value:+.3f} ({interval['low']:+.3f} to {interval['high']:+.3f}), {found['verdict']}."
    assert sentence.replace("-", "−") in PAGE
    assert f"(p = {found['corrected_t']['p_holm']:.3f})" in PAGE


def test_a_ratio_compares_the_least_times():
    found = pruning_cost.ratio(np.array([4.0, 2.0, 3.0]), np.array([1.0, 2.0, 1.5]))
    assert found == {"value": 2.0, "low": 1.2, "high": 3.6}


def test_a_small_measurement(tmp_path, monkeypatch, capsys):
    out = tmp_path / "cost.json"
    monkeypatch.setattr("sys.argv", ["pruning_cost.py", "--rounds", "1", "--sizes", "atto:64", "--out", str(out)])
    monkeypatch.setattr(pruning_cost, "peak_memory", lambda *_: {"latency_16": 1, "step_16": 1})
    pruning_cost.main()
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"]
    assert len(rows) == 4
    assert rows[0]["throughput_ratio"]["step_16"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert "h_coatnet_window_atto blocks_before=2 64: 0." in capsys.readouterr().out
