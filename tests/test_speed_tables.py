"""The tables of the page on speed are those of the committed measurement."""
# ruff: noqa: E402

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

from results import Part, Raw
from speed_tables import tables

PAGE = (ROOT / "docs/explanation/speed.md").read_text(encoding="utf-8")
MEASURED = json.loads((ROOT / "docs/results/speed.json").read_text(encoding="utf-8"))


def test_the_page_has_the_tables():
    found = tables(MEASURED["parts"])
    assert [table.count("\n") > 2 for table in found] == [True] * 3
    for table in found:
        assert table in PAGE


def test_medians_ratios_and_targets():
    step = Part(
        "",
        [
            Raw(f"net 32² / {way}", "ms", (time, 3 * time))
            for way, time in zip(("float32", "bf16", "products"), (30, 20, 15), strict=True)
        ],
    )
    training = Part("")
    for number, contestant in enumerate(("ours", "plain script", "timm-style"), start=1):
        training.add(
            Raw(f"net 32² / {contestant} / epochs 2+", "photos/s", (10.0 * number, 30.0 * number)),
            Raw(f"net 32² / {contestant} / run of 10 epochs", "photos/s", (5.0 * number,)),
        )
    training.compare("ours to plain", "net 32² / ours / epochs 2+", "net 32² / plain script / epochs 2+", 0.4)
    training.compare(
        "ours to timm", "net 32² / ours / epochs 2+", "net 32² / timm-style / epochs 2+", 0.3, at_least=False
    )
    training.compare("no target", "net 32² / ours / epochs 2+", "net 32² / timm-style / epochs 2+")
    steps, rates, targets = tables({"step": step.to_dict(), "training": training.to_dict()})
    assert steps.splitlines()[2:] == ["| net 32² | 60 ms | 40 ms | 30 ms | 2.00 |"]
    assert rates.splitlines()[2:] == [
        "| net 32² | ours | 20 (10–30) | 5 |",
        "| net 32² | plain script | 40 (20–60) | 10 |",
        "| net 32² | timm-style | 60 (30–90) | 15 |",
    ]
    assert targets.splitlines()[2:] == [
        "| ours to plain | ≥ 0.4 | 0.5 (0.5–0.5) | met |",
        "| ours to timm | ≤ 0.3 | 0.333 (0.333–0.333) | missed |",
    ]
