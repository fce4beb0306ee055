"""The measurement of what pruning costs, and its counts, which are the models'."""
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

MEASURED = json.loads((ROOT / "docs/results/pruning_cost.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("model", ["h_coatnet_tiny", "h_coatnet_window_tiny"])
def test_the_counts_are_those_of_the_models(model):
    (row,) = [row for row in MEASURED["rows"] if (row["model"], row["options"], row["image_size"]) == (model, {}, 224)]
    summary = registry.describe(model, 224, 6)
    assert (row["parameters"], row["multiply_adds"]) == (summary.parameters, summary.multiply_adds)


def test_the_share_of_the_page_on_models():
    full, window = (
        next(row["multiply_adds"] for row in MEASURED["rows"] if (row["model"], row["options"]) == (model, {}))
        for model in ("h_coatnet_tiny", "h_coatnet_window_tiny")
    )
    page = " ".join((ROOT / "docs/explanation/models.md").read_text(encoding="utf-8").split())
    assert f"{100 * window / full:.0f} % of the multiply-adds at 224 × 224" in page


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
