import json
import shutil

import pandas as pd
import pytest
from rich.console import Console

from hcoatnet import demo
from hcoatnet.demo import DemoScale, leakage_lines, run_demo
from hcoatnet.errors import ConfigError
from hcoatnet.report.demonstration import Trained

TINY = DemoScale(40, 2, {"image_size": 32, "epochs": 1, "device": "cpu", "workers": 0})


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """The demonstration at a small scale: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("demo") / "demo"
    console = Console(record=True, width=200, quiet=False, file=(folder.parent / "printed.txt").open("w"))
    page = run_demo(folder, console, TINY)
    return folder, page, console.export_text()


def test_the_page_shows_the_figures_of_the_runs(shown):
    folder, page, printed = shown
    html = page.read_text()
    assert page == folder / "index.html"
    assert html.count("<strong>These photos are synthetic.</strong>") == 1
    for name in ("by-patient-h_coatnet_atto", "by-patient-cnn", "by-file-cnn"):
        metrics = json.loads((folder / "runs" / name / "metrics.json").read_text())
        assert f"{metrics['subsets']['test']['macro_f1']['value']:.3f}" in html
        assert (folder / "runs" / name / "report.html").exists()
        assert f"runs/{name}/report.html" in html
    for name in ("by-patient-cnn", "by-file-cnn"):
        trained = Trained.of(folder / "runs" / name)
        assert f"macro F1 {trained.macro_f1:.3f} on {trained.photos} test photos" in printed


def test_only_the_split_by_file_shows_patients_seen_before(shown):
    folder, _, _ = shown
    assert Trained.of(folder / "runs" / "by-patient-cnn").seen_patients == 0
    leaky = folder / "runs" / "by-file-cnn"
    split = pd.read_csv(leaky / "split.csv").merge(pd.read_csv(leaky / "manifest.csv"), on="path")
    seen = set(split.loc[split["subset"] != "test", "patient_id"])
    expected = int(split.loc[split["subset"] == "test", "patient_id"].isin(seen).sum())
    assert Trained.of(leaky).seen_patients == expected > 0


def test_both_splits_hold_the_same_photos(shown):
    folder, _, _ = shown
    tables = [pd.read_csv(folder / "runs" / name / "manifest.csv") for name in ("by-patient-cnn", "by-file-cnn")]
    assert set(tables[0]["sha256"]) == set(tables[1]["sha256"])
    assert set(tables[0]["source"]) == {"synthetic"}


def test_the_lines_name_model_and_patients_seen():
    honest = Trained("a", "cnn", 0.5, 0.5, 0.4, 50, 0, 0.3)
    leaky = Trained("b", "cnn", 0.9, 0.9, 0.8, 48, 47, 0.3)
    text = "\n".join(leakage_lines(honest, leaky))
    for word in ("cnn", "0.400 on 50", "0.800 on 48", "47 of them"):
        assert word in text


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ConfigError, match="not a demonstration"):
        run_demo(tmp_path, Console(quiet=True), TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("mine", ["thesis.txt", "runs/first/weights.safetensors", "split.csv"])
def test_an_earlier_demonstration_with_other_things_in_it_is_left_alone(mine, tmp_path):
    for name in ("demo.json", "index.html", "runs/by-patient-cnn/metrics.json", mine):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match="not a demonstration's: " + "/".join(mine.split("/")[:2])):
        run_demo(tmp_path, Console(quiet=True), TINY)
    assert sorted(tmp_path.rglob("*")) == before


def test_all_that_a_demonstration_leaves_is_its_own(shown, tmp_path):
    shutil.copytree(shown[0], tmp_path / "demo")
    demo._clear(tmp_path / "demo")
    assert list((tmp_path / "demo").iterdir()) == []
