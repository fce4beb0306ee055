"""Every number that is computed on the page about the description is what our own functions compute."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.stats import beta

from hcoatnet.evaluation.conformal import least_n
from hcoatnet.evaluation.intervals import wilson
from hcoatnet.evaluation.significance import correction_factor, mcnemar

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/explanation/reproduction.md").read_text(encoding="utf-8")
STATISTICS = (ROOT / "docs/explanation/statistics.md").read_text(encoding="utf-8")
TEXT, STATISTICS_TEXT = (" ".join(page.split()) for page in (PAGE, STATISTICS))
TEST_PHOTOS = 158


def rows_after(heading):
    """Rows of the first table under a heading, without its header."""
    lines = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0].splitlines()
    table = [line for line in lines if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def percent(share, places=1):
    return f"{100 * share:.{places}f}"


def interval(successes, n):
    found = wilson(successes, n)
    return f"{percent(found.low)}–{percent(found.high)}"


def exact_p(better, worse):
    """Of two models that disagree on ``better + worse`` of the 158 photos."""
    right = np.arange(TEST_PHOTOS)
    return mcnemar(right >= worse, (right < worse) | (right >= worse + better)).exact_p


def test_the_classes_add_up():
    counts = [int(row[1]) for row in rows_after("The task")]
    assert counts == [32, 45, 46, 22, 13]
    assert sum(counts) == TEST_PHOTOS
    assert f"Test set: {TEST_PHOTOS} photos" in TEXT


def test_published_accuracies_are_counts_and_their_intervals_wilsons():
    rows = rows_after("Published results")
    assert len(rows) == 7
    for model, accuracy, macro_f1, weighted_f1, right, shown in rows:
        fitting = [k for k in range(TEST_PHOTOS + 1) if f"{percent(k / TEST_PHOTOS, 2)} %" == accuracy]
        assert fitting == [int(right)], model
        assert shown == f"{interval(int(right), TEST_PHOTOS)} %", model
        assert 0.5 < float(macro_f1) < float(weighted_f1) < 1, model
    assert "is a whole number of right answers out of 158" in TEXT


def test_numbers_of_photos():
    assert 3 * 732 == 2196
    assert "number 2,196 = 3 × 732" in TEXT
    assert 732 + 154 + TEST_PHOTOS == 1044
    assert "732 + 154 + 158 = 1,044 unique photos" in TEXT
    assert TEST_PHOTOS == 0.1 * 1580
    assert "158 is 10 % of 1,580" in TEXT


def test_precision():
    found = wilson(143, TEST_PHOTOS)
    assert 0.09 < found.high - found.low < 0.11
    assert "90.51 % of 158 is uncertain by about five points in each direction" in TEXT
    assert f"one photo is {percent(1 / 13)} points of recall" in TEXT
    assert f"8 right of 13 would be {percent(8 / 13)} %, with a Wilson interval of {interval(8, 13)} %" in TEXT


def test_discordant_pairs():
    assert exact_p(15, 5) < 0.05 < exact_p(14, 6)
    assert "from 15 to 5 on" in TEXT
    assert f"a difference of 10 photos, {percent(10 / TEST_PHOTOS)} points" in TEXT
    assert f"With 14 to 6, {percent(8 / TEST_PHOTOS)} points, p is {exact_p(14, 6):.2f}" in TEXT


def test_ablations():
    assert [percent(k / TEST_PHOTOS, 2) for k in (140, 143)] == ["88.61", "90.51"]
    assert "between 88.61 % and 90.51 %: 140 to 143 right answers, three photos apart" in TEXT


def test_tokens_kept():
    assert (49 * 3 // 4, 49 // 2) == (36, 24)
    assert "⌊0.75 · 49⌋ = 36, then ⌊0.5 · 49⌋ = 24" in TEXT


def test_the_protocols_differ_in_what_the_table_says_and_share_what_the_text_says():
    paper, strict = (yaml.safe_load((ROOT / f"configs/{name}.yaml").read_text()) for name in ("paper", "strict"))
    shown = {
        row[0].strip("`"): [yaml.safe_load(cell) for cell in row[1:]] for row in rows_after("`paper` and `strict`")
    }
    differing = {key: [paper[key], strict[key]] for key in paper if key != "protocol" and paper[key] != strict[key]}
    assert {key: [str(one) for one in values] for key, values in shown.items()} == {
        key: [str(one) for one in values] for key, values in differing.items()
    }
    assert set(paper) == set(strict) - {"pretrained", "scratch"}
    shared = {
        "optimizer": "adamw",
        "schedule": "cosine",
        "image_size": 224,
        "crop_scale": 0.8,
        "horizontal_flip": 0.5,
        "monitor": "macro_f1",
        "seed": 42,
    }
    for protocol in (paper, strict):
        assert {key: protocol[key] for key in shared} == shared
    assert strict["pretrained"] == {"epochs": 20, "lr": 0.0006, "warmup_epochs": 2}
    assert {key: value for key, value in strict["scratch"].items() if key != "models"} == {"lr": 0.0005}


@pytest.mark.parametrize(
    "sentence",
    [
        f"with 13 photos moves by {percent(1 / 13)} points",
        "such as 143 right of 158",
        f"With five folds the factor is {correction_factor(5, 1 / 4):.2f} ({correction_factor(5, 1 / 3):.2f} where",
        f"90 % needs at least {least_n(0.9)} calibration groups, 95 % needs {least_n(0.95)}",
        f"its standard deviation is {100 * beta(9, 1).std():.0f} points with 9 groups at 90 %, "
        f"{100 * beta(19, 1).std():.0f} points with 19 groups at 95 %",
        f"With 2,000 draws it cannot be below {2 / 2001:.3f}",
    ],
)
def test_numbers_of_the_page_about_statistics(sentence):
    assert sentence in STATISTICS_TEXT
