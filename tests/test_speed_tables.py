"""How the tables of the page on speed follow from raw figures; that the page has them is tested by test_documented_figures.py."""
# ruff: noqa: E402

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import timm
from results import Part, Raw
from speed_tables import tables

import hcoatnet.models  # noqa: F401  (registers them)
from hcoatnet.data.pixels import MARGIN


def test_sizes_of_the_page():
    page = " ".join((ROOT / "docs/explanation/speed.md").read_text(encoding="utf-8").split())
    side = round(MARGIN * 224)
    assert f"a shorter side of {MARGIN} times the model's input" in page
    assert f"At 224 pixels a photo of 4:3 takes about {3 * side * side * 4 / 3 / 1e6:.2f} MB" in page
    megabytes = []
    for name, pixels in (("h_coatnet_atto", 128), ("h_coatnet_tiny", 224)):
        (heads,) = {getattr(one, "num_heads", None) for one in timm.create_model(name).modules()} - {None}
        megabytes.append(24 * heads * ((pixels // 8) ** 2) ** 2 * 2 / 1e6)
    assert f"{megabytes[0]:.0f} MB for H-CoAtNet-Atto at 128 pixels and 24 photos" in page
    assert f"{round(megabytes[1], -1):.0f} MB for H-CoAtNet-Tiny at 224" in page


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
