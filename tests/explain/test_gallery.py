"""The gallery shows the photos that it says it shows, and counts as a look at them."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from hcoatnet.evaluation.ledger import LEDGER_NAME
from hcoatnet.evaluation.predictions import build_predictions, read_predictions
from hcoatnet.explain.gallery import choose
from hcoatnet.files import read_json_lines
from report_pages import Page, check_structure


def table(labels, logits):
    rows = pd.DataFrame(
        {
            "path": [f"{number:02d}.png" for number in range(len(labels))],
            "group": [str(number) for number in range(len(labels))],
            "label": labels,
            "subset": "val",
        }
    )
    return build_predictions(rows, np.array(logits), ("a", "b"))


def test_the_parts_are_chosen_as_they_say():
    labels = ["a", "a", "a", "b", "b", "a", "b"]
    logits = [[3.0, 0], [2.0, 0], [0.1, 0], [0, 1.0], [4.0, 0], [0, 2.5], [0, 1.0]]
    predictions = table(labels, logits)
    parts = choose(predictions, predictions.probabilities, 3)
    assert parts["wrong"] == [4, 5]
    assert parts["uncertain"] == [2, 3, 6]  # equal ones in order of their paths
    assert parts["right"] == [0, 3, 1]  # the surest of each class in turn
    assert choose(predictions, predictions.probabilities, 1)["right"] == [0]


@pytest.fixture(scope="module")
def gallery(pruning_run, manifest_file, tmp_path_factory):
    """The gallery of the test photos, of a copy of the run beside the same photos."""
    from hcoatnet.cli import app, run

    place = tmp_path_factory.mktemp("gallery")
    shutil.copytree(manifest_file.parent, place / "photos")
    copied = place / "run"
    shutil.copytree(pruning_run, copied)
    config = copied / "config.yaml"
    lines = [
        "data: ../photos/manifest.csv" if line.startswith("data:") else line for line in config.read_text().splitlines()
    ]
    config.write_text("\n".join(lines) + "\n")
    ledger = place / "photos" / LEDGER_NAME
    ledger.unlink(missing_ok=True)
    (place / "photos" / read_predictions(copied / "predictions_test.csv").table["path"].iloc[0]).write_bytes(
        b"no photo"
    )
    code = run(app, ["explain", str(copied), "--gallery", "--count", "4"])
    return code, copied, ledger


def test_a_look_at_the_test_photos_is_recorded_once(gallery):
    code, copied, ledger = gallery
    assert code == 1  # one photo is damaged
    (line,) = read_json_lines(ledger)
    assert line["run"] == copied.name
    assert sorted(path.name for path in (copied / "gallery").iterdir()) == ["gallery_test.html", "gallery_test.json"]
    assert "one line in the test ledger" in Page(copied / "gallery/gallery_test.html").text


def test_the_page_shows_them(gallery):
    _, copied, _ = gallery
    page = Page(copied / "gallery/gallery_test.html")
    check_structure(page)
    found = json.loads((copied / "gallery/gallery_test.json").read_text())
    predictions = read_predictions(copied / "predictions_test.csv")
    damaged = predictions.table["path"].iloc[0]
    right = int((predictions.predicted == predictions.labels).sum())
    assert f"{right} of {len(predictions)} photos named rightly" in page.text
    captions = 0
    for part in found["parts"].values():
        assert len(part) <= 4
        for one in part:
            captions += one["path"] != damaged
            row = predictions.table[predictions.table["path"] == one["path"]].iloc[0]
            assert row["label"] == one["label"]
    assert len(page.all("figcaption")) == captions
    assert len(page.source) < 1_000_000
    assert "Checked on photos drawn at random" in page.text
    assert found["checks"]["photos"] == len(predictions) - 1
    for game, numbers in found["checks"]["games"].items():
        row = page.row(game.capitalize())
        assert row[1] == f"{numbers['area']:.3f}"
        assert row[2] == f"{numbers['chance_area']:.3f}"
        assert row[3].startswith(f"{numbers['gain']:+.3f}".replace("-", "−"))


def test_a_look_at_the_validation_photos_is_not_recorded(hcoatnet, gallery, tmp_path):
    _, copied, ledger = gallery
    before = ledger.read_text()
    code, _ = hcoatnet("explain", copied, "--gallery", "--subset", "val", "--no-checks", "--out", tmp_path)
    assert code == 0
    assert ledger.read_text() == before
    page = Page(tmp_path / "gallery_val.html")
    assert "test ledger" not in page.text
    assert "Whether the maps can be believed" not in page.text
    assert json.loads((tmp_path / "gallery_val.json").read_text())["checks"] is None


def test_a_closed_test_set_stays_closed(hcoatnet, gallery, tmp_path):
    _, copied, ledger = gallery
    closed = copied.parent / "closed"
    shutil.copytree(copied, closed)
    (closed / "predictions_test.csv").unlink()
    before = ledger.read_text()
    code, printed = hcoatnet("explain", closed, "--gallery", "--out", tmp_path / "out")
    assert code == 2
    assert "its test set was left closed. Use --subset val." in printed
    assert ledger.read_text() == before
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_both_pages_are_accessible(hcoatnet, gallery, photos, tmp_path):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or pytest.skip("there is no Chromium")
    _, copied, _ = gallery
    assert hcoatnet("explain", copied, photos / "red/p0_0.png", photos / "blue/p0_0.png", "--out", tmp_path)[0] == 0
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for path in (copied / "gallery/gallery_test.html", tmp_path / "explanations.html"):
            for scheme in ("light", "dark"):
                page = browser.new_page(color_scheme=scheme, viewport={"width": 400, "height": 800})
                page.goto(path.as_uri())
                found = axe.Axe().run(page)
                assert found.violations_count == 0, found.generate_report()
                assert page.evaluate("document.documentElement.scrollWidth") <= 400
                page.close()
