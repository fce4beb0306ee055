"""The benchmark suite measures what it says, on photos of no size; how long anything takes is not looked at."""
# ruff: noqa: E402

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import time_to_target
import training_speed
from collection import SUBSETS, collect, read_photos, thin
from contestant import alternate, epoch_facts
from measured import CommandError, measured, python
from results import Part, Raw, spread
from setting import FULL, QUICK, Setting
from speed import PARTS, run_parts
from training_speed import same_step

TINY_SCALE = replace(
    QUICK,
    subjects=(("test_convnext", 32),),
    train_photos=12,
    val_photos=9,
    batch_size=4,
    rounds=2,
    compiled=False,
    steps=(("test_convnext", 32),),
    step_rounds=2,
    inference=(("test_convnext", 32),),
    inference_rounds=2,
    inference_seconds=0.01,
    start_rounds=1,
    read_photos=(20, 40),
    predict_photos=(4, 8),
    scaling_model="test_convnext",
    scaling_rounds=2,
    grid_photos=(6, 12),
    grid_sizes=(32, 64),
    grid_classes=(2, 3),
    target=("test_convnext", 64),
    target_epochs=2,
)
positive = st.floats(0.001, 1e6)


@pytest.fixture
def setting(manifest_file: Path, tmp_path: Path) -> Setting:
    return Setting(manifest_file, None, tmp_path / "work", 1, "cpu", "strong", TINY_SCALE)


def check_ratios(part: dict) -> None:
    """Every ratio is its two raw figures, divided round by round, and every spread is that of the values beside it."""
    raw = {one["name"]: one for one in part["raw"]}
    assert len(raw) == len(part["raw"])
    for one in part["raw"]:
        assert one["values"]
        assert {key: one[key] for key in ("min", "median", "max")} == spread(one["values"])
    for one in part["ratios"]:
        over, under = raw[one["over"]], raw[one["under"]]
        assert over["unit"] == under["unit"]
        expected = [top / bottom for top, bottom in zip(over["values"], under["values"], strict=True)]
        assert one["values"] == pytest.approx(expected)
        assert {key: one[key] for key in ("min", "median", "max")} == spread(one["values"])
        if "target" in one:
            assert one["met"] == (one["median"] >= one["target"] if one["at_least"] else one["median"] <= one["target"])


def check_training(part: dict) -> None:
    label, contestants = (
        "test_convnext 32²",
        ("ours", "plain script", "timm-style", "ours, fp32", "ours, photos for nothing"),
    )
    assert [note for note in part["notes"] if "not measured" in note] == []
    check_ratios(part)
    assert {one["name"] for one in part["raw"]} >= {f"{label} / {name} / epochs 2+" for name in contestants}
    assert {f"{label} / {name} / after 2 epochs" for name in contestants} == part["checks"].keys()
    ratios = {one["name"]: one for one in part["ratios"]}
    assert ratios.keys() >= {f"{label} / ours to {other} / run of 10 epochs" for other in contestants[1:3]}
    waiting = ratios[f"{label} / share of time waiting for photos"]
    assert 0 <= waiting["median"] <= ratios[f"{label} / share of time outside the steps"]["median"] < 1
    assert 0 < ratios[f"{label} / share of peak that the steps reach"]["median"] < 1


def made_up_reports(entrants: dict, rounds: int, *_: object) -> tuple[dict, dict]:
    """An epoch of one second; the first takes five with its setup."""
    epochs = [
        epoch_facts(number + 1, float(number == 0), (3.0, 4.0), (4.0 if number == 0 else 1.0, 2.0), 1.0, 1.0, 0.5)
        for number in range(rounds)
    ]
    ours = {"step_seconds": 0.75, "waiting_seconds": 0.125, "multiply_adds": 10**9, "precision": "bf16"}
    reports = {name: [{**one, **(ours if name.startswith("ours") else {})} for one in epochs] for name in entrants}
    return {**reports, training_speed.PEAK: [{"fp32": 5e10, "bf16": 1e11}] * rounds}, {}


def test_the_training_part_prints_and_saves_what_follows_from_the_times(setting, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training_speed, "alternate", made_up_reports)
    out = tmp_path / "speed.json"
    run_parts(setting, ["training"], out)
    printed = capsys.readouterr().out
    found = json.loads(out.read_text())
    assert found["machine"]["versions"]["torch"]
    part = found["parts"]["training"]
    check_training(part)
    values = {one["name"]: one["median"] for one in [*part["raw"], *part["ratios"]]}
    assert values["test_convnext 32² / ours / epoch 1"] == pytest.approx(12 / 5)
    assert values["test_convnext 32² / ours / epochs 2+"] == pytest.approx(12)
    assert values["test_convnext 32² / ours / run of 10 epochs"] == pytest.approx(120 / 14)
    assert values["test_convnext 32² / share of time waiting for photos"] == pytest.approx(0.125)
    assert values["test_convnext 32² / share of time outside the steps"] == pytest.approx(0.25)
    assert values["test_convnext 32² / share of peak that the steps reach"] == pytest.approx(3 * 12 / 0.75 / 100)
    for name in values:
        assert name in printed


def test_our_training_and_the_plain_script_train_the_same(setting, tmp_path):
    made = collect(read_photos(setting.data, None), tmp_path / "photos", train=12, val=9)
    settings = {**same_step("test_convnext", 32, setting), "epochs": 2, "compile": "false"}
    entrants = {
        "ours": training_speed.product(made, "ours", settings),
        "plain": training_speed.script("plain_script.py", made, "test_convnext", 32, setting, 2),
    }
    reports, failed = alternate(entrants, 2, 1, tmp_path / "logs")
    assert failed == {}
    for found in reports.values():
        assert [report["epoch"] for report in found] == [1, 2]
        assert found[0]["setup_seconds"] > found[1]["setup_seconds"] == 0
        for report in found:
            assert 0 < report["training_seconds"] < report["seconds"]
            assert 0.3 < report["train_loss"] < 3  # about log 3: three classes, hardly a step
    for report in reports["ours"]:
        assert 0 < report["step_seconds"] < report["training_seconds"]
        assert 0 <= report["waiting_seconds"] < report["training_seconds"]
        assert report["precision"] in ("fp32", "bf16")


@pytest.mark.slow  # each part begins up to some twenty processes that import torch
@pytest.mark.parametrize("part", PARTS)
def test_every_part_measures_something(part, setting, tmp_path):
    assert len(PARTS) == 7
    found = run_parts(setting, [part], tmp_path / "speed.json")["parts"][part]
    assert found["raw"]
    assert [note for note in found["notes"] if "not measured" in note] == []
    check_ratios(found)
    if part == "training":
        check_training(found)


def test_nothing_heavy_is_imported_before_a_part_runs():
    modules = [path.stem for path in BENCHMARKS.glob("*.py") if path.stem in {*PARTS.values(), "speed", "contestant"}]
    assert len(modules) == len(PARTS) + 2
    code = (
        f"import sys, {', '.join(modules)}; print({{'torch', 'timm', 'pandas', 'sklearn', 'scipy'}} & {{*sys.modules}})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=BENCHMARKS, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_an_unknown_part_is_named():
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "speed.py", "--data", "x.csv", "--only", "speeed"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "unknown part 'speeed'; choose from step" in done.stderr


@given(st.lists(st.tuples(positive, positive), min_size=1, max_size=9), positive)
def test_a_ratio_is_formed_round_by_round(pairs, target):
    part = Part("title")
    part.add(Raw("a", "s", tuple(one for one, _ in pairs)), Raw("b", "s", tuple(other for _, other in pairs)))
    part.compare("a to b", "a", "b", target)
    part.compare("a to b at most", "a", "b", target, at_least=False)
    part.compare("a to what was not measured", "a", "c")
    assert len(part.ratios) == 2
    check_ratios(json.loads(json.dumps(part.to_dict())))


def test_figures_of_other_rounds_have_no_ratio():
    part = Part("title", [Raw("a", "s", (1.0, 2.0)), Raw("b", "s", (1.0,))])
    with pytest.raises(ValueError, match="shorter"):
        part.compare("a to b", "a", "b")


def test_a_thinned_collection_keeps_every_class_and_split(manifest_file, tmp_path):
    photos = read_photos(manifest_file, None)
    made = collect(photos, tmp_path / "photos", train=7, val=3)
    assert (made.count("train"), made.count("val"), made.count("test")) == (7, 3, 3)
    for subset in SUBSETS:
        assert {photo.label for photo in made.photos if photo.subset == subset} == {"blue", "green", "red"}
    manifest, split = made.tables("ours")
    again = read_photos(manifest, split)
    assert {(one.file.resolve(), one.label, one.subset) for one in again} == {
        (one.file.resolve(), one.label, one.subset) for one in made.photos
    }
    assert all(one.file.read_bytes() for one in again)
    assert len(thin(photos, None)) == len(photos)


FAKE = """
import sys
from contestant import Pace
pace = Pace("--paced" in sys.argv)
pace.report(ready=True)
for number in range(int(sys.argv[2])):
    pace.wait()
    print("noise on standard output")
    with open(sys.argv[1], "a") as stream:
        stream.write(sys.argv[3])
    pace.report(number=number)
sys.exit("no more")
"""


def test_contestants_take_turns_and_each_begins_once(tmp_path, monkeypatch):
    script, order = tmp_path / "fake.py", tmp_path / "order"
    script.write_text(f"import sys\nsys.path.insert(0, {str(BENCHMARKS)!r})\n{FAKE}")
    entrants = {name: [str(script), str(order), "3", name] for name in "abc"}
    reports, failed = alternate(entrants, 3, 1, tmp_path / "logs")
    assert order.read_text() == "abcbcacab"
    assert failed == {}
    assert reports == {name: [{"number": 0}, {"number": 1}, {"number": 2}] for name in "abc"}
    entrants["b"][2] = "1"
    reports, failed = alternate(entrants, {"a": 3, "b": 2, "c": 1}, 1, tmp_path / "logs")
    assert failed == {"b": "b: no more"}
    assert {name: len(found) for name, found in reports.items()} == {"a": 3, "c": 1}


def test_a_command_is_measured_and_its_failure_told(tmp_path):
    found = measured(python("-c", "x = bytearray(80 * 2**20)"), 1, tmp_path / "a.log")
    assert 80 < found.peak < 200
    assert found.processor > 0
    with pytest.raises(CommandError, match="broken"):
        measured(python("-c", "raise SystemExit('broken')"), 1, tmp_path / "b.log")


def test_a_race_ends_where_the_best_score_of_the_script_is_reached():
    def course(scores):
        return [{"seconds": 2.0, "processor_seconds": 3.0, "val_macro_f1": score} for score in scores]

    part = Part("title")
    races = [
        {"plain script": course([0.2, 0.5, 0.4, 0.5]), "ours": course([0.5, 0.1, 0.9, 0.9])},
        {"plain script": course([0.2, 0.5, 0.6]), "ours": course([0.3, 0.5, 0.5])},
    ]
    time_to_target._add_races(part, "model", "ours", races)
    found = {one.name: one for one in part.raws}
    assert found["model / plain script, where ours arrived"].values == (4.0,)
    assert found["model / ours"].values == (2.0,)
    assert found["model / ours"].processor == (3.0,)
    assert part.ratios[0].values == (0.5,)
    assert part.ratios[0].met
    assert part.checks["ours: races in which it arrived"] == "1 of 2; best macro F1 0.900 of 0.500, 0.500 of 0.600"
    time_to_target._add_races(part, "other", "ours", races[1:])
    assert len(part.ratios) == 1
    assert "missed" in part.notes[-1]


def test_the_quick_suite_is_a_part_of_the_full_one():
    assert {*QUICK.subjects} < {*FULL.subjects}
    assert {*QUICK.inference} < {*FULL.inference}


def test_the_page_names_every_part():
    page = (BENCHMARKS.parent / "docs/how-to/benchmark.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE) == [*PARTS]
