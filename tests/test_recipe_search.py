"""The screening of settings: its design, its study file, and what it makes of figures."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.stats import t as student_t

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import recipe_search
from recipe_search import FACTORS, PRETRAINED, SCRATCH, Trained, design, effects, margin

from hcoatnet.config import resolve_config
from hcoatnet.study.definition import read_study

DOCS = Path(__file__).parents[1] / "docs"


def test_each_level_stands_in_half_the_runs_and_beside_each_level_of_another_equally_often():
    signs = 2 * design() - 1
    assert signs.shape == (12, len(FACTORS)) == (12, 11)
    assert (signs.sum(axis=0) == 0).all()
    assert (signs.T @ signs == 12 * np.eye(11)).all()


def test_the_plan_is_a_study_of_every_arm_with_every_run_and_closed_test_sets(tmp_path):
    (tmp_path / "search.yaml").write_text(recipe_search.plan("lite.pth"))
    assert len(read_study(tmp_path / "search.yaml").variants) == 72
    content = yaml.safe_load(recipe_search.plan("lite.pth"))
    rows = content.pop("models")
    assert len(rows) == len({row["name"] for row in rows}) == 12 * (len(SCRATCH) + len(PRETRAINED))
    common = {key: value for key, value in content.items() if key not in ("seeds", "inits")}
    configs = [
        resolve_config({**common, **{key: value for key, value in row.items() if key != "name"}}) for row in rows
    ]
    assert not any(config.evaluate_test for config in configs)
    assert len({config.sha256 for config in configs}) == len(rows)
    for kind, epochs, rates in (("scratch", {16, 32}, {0.0005, 0.0015}), ("pretrained", {8, 16}, {0.0002, 0.0006})):
        mine = [config for config in configs if config.init_kind == kind]
        assert {config.epochs for config in mine} == epochs
        assert {config.lr for config in mine} == rates
    assert len(yaml.safe_load(recipe_search.plan(None))["models"]) == 12 * len(SCRATCH)


def made_up(noise=0.0, seed=0):
    """Runs of two arms whose figures are a level of their own plus known effects, and those effects."""
    rng = np.random.default_rng(seed)
    known = rng.normal(0, 0.05, len(FACTORS))
    runs = []
    for arm, level in (("h_coatnet", 0.4), ("vit", 0.3)):
        for run, levels in enumerate(design()):
            value = level + levels @ known + noise * rng.normal()
            runs.append(Trained(arm, run, {"macro_f1": value, "log_loss": 1 - value}, 1.0))
    return runs, known


def test_effects_without_noise_are_found_as_they_are():
    runs, known = made_up()
    for metric, sign in (("macro_f1", 1), ("log_loss", -1)):
        found = effects(runs, metric)
        assert [row["name"] for row in found] == [factor.name for factor in FACTORS]
        for row, value in zip(found, sign * known, strict=True):
            assert row["mean"] == pytest.approx(value)
            assert row["arms"] == {"h_coatnet": pytest.approx(value), "vit": pytest.approx(value)}


def test_the_interval_is_that_of_two_means_with_the_deviation_of_what_is_not_explained():
    runs, _ = made_up(noise=0.03)
    found = effects(runs, "macro_f1")
    by_arm = np.array([list(row["arms"].values()) for row in found])
    values = np.array([one.figures["macro_f1"] for one in runs]).reshape(2, 12)
    centred = values - values.mean(axis=1, keepdims=True)
    signs = design() - 0.5
    left = centred - by_arm.mean(axis=1) @ signs.T
    freedom = 24 - 2 - len(FACTORS)
    half = student_t.ppf(0.975, freedom) * np.sqrt((left**2).sum() / freedom) * np.sqrt(1 / 12 + 1 / 12)
    for row, mean in zip(found, by_arm.mean(axis=1), strict=True):
        assert row["mean"] == pytest.approx(mean)
        assert (row["low"], row["high"]) == (pytest.approx(mean - half), pytest.approx(mean + half))


def test_the_margin_follows_the_small_effects_and_not_the_large():
    small = [0.01, -0.02, 0.03, -0.03, 0.02, -0.01, 0.02, 0.01, -0.03]
    # The median of all eleven sizes is 0.02; what lies beyond 2.5 × 1.5 × 0.02 is left out, and the median stays.
    expected = student_t.ppf(0.975, 11 / 3) * 1.5 * 0.02
    assert margin([*small, 0.2, -0.4]) == pytest.approx(expected)
    assert margin([*small, 2.0, -4.0]) == pytest.approx(expected)
    assert margin([10 * one for one in (*small, 0.2, -0.4)]) == pytest.approx(10 * expected)


def test_a_study_is_read_and_an_unfinished_one_refused(tmp_path):
    runs, _ = made_up(noise=0.03)
    digested = ("config", "manifest", "split", "weights")
    for one in runs:
        folder = tmp_path / "runs" / f"{one.arm}-{one.run + 1:02}-scratch-s42-r0-f0"
        folder.mkdir(parents=True)
        figures = {metric: {"value": value} for metric, value in one.figures.items()}
        texts = dict.fromkeys(["model", "init", "protocol", "monitor", *(f"{name}_sha256" for name in digested)], "")
        numbers = dict.fromkeys(["parameters", "best_epoch", "epochs", "seed", "training_seconds"], 1)
        content = {**texts, **numbers, "classes": [], "notes": [], "subsets": {"val": figures}}
        (folder / "metrics.json").write_text(json.dumps(content))
    result = recipe_search.found(tmp_path)
    assert recipe_search.read(tmp_path) == runs
    assert result["macro_f1"]["effects"] == effects(runs, "macro_f1")
    table = recipe_search.lines(result)
    assert len(table) == 2 + len(FACTORS) + 1
    assert "`ema 0.0 → 0.98`" in "\n".join(table)
    folder.joinpath("metrics.json").unlink()
    with pytest.raises(ValueError, match="vit has 11 of 12 runs"):
        recipe_search.read(tmp_path)


def test_the_page_and_the_study_file_are_those_of_the_screening():
    folder = DOCS / "results" / "pad_ufes_20"
    assert (folder / "search_study.yaml").read_text(encoding="utf-8") == recipe_search.plan("efficientnet-lite0.pth")
    table = recipe_search.lines(json.loads((folder / "search.json").read_text(encoding="utf-8")))
    assert "\n".join(table) in (DOCS / "explanation" / "small-data.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["scratch", "pretrained"])
def test_the_page_shows_every_row_of_the_second_study(kind):
    folder = DOCS / "results" / "pad_ufes_20"
    page = (DOCS / "explanation" / "small-data.md").read_text(encoding="utf-8")
    rows = json.loads((folder / f"refine_{kind}.json").read_text(encoding="utf-8"))["rows"]
    study = read_study(folder / "refine_study.yaml")
    planned = [one.name for one in study.variants if study.inits_of(one)[0].partition(":")[0] == kind]
    assert [row["name"] for row in rows] == [*planned, "majority"]
    for row in rows[:-1]:
        f1, loss = row["metrics"]["macro_f1"], row["metrics"]["log_loss"]["value"]
        interval = f"{f1['bca']['low']:.3f}–{f1['bca']['high']:.3f}"
        assert f"| {row['name']} | {f1['value']:.3f} ({interval}) | {loss:.2f} |" in page


def test_the_protocol_has_the_levels_that_the_studies_chose():
    folder = DOCS / "results" / "pad_ufes_20"
    strict = resolve_config({"protocol": "strict"})
    study = read_study(folder / "refine_study.yaml")
    chosen = study.train_config(study.variant("h_coatnet-weights"), "scratch")
    free = {"protocol", "model", "image_size", "evaluate_test"}
    assert {**strict.recipe(), **dict.fromkeys(free)} == {**chosen.recipe(), **dict.fromkeys(free)}
    found = json.loads((folder / "search.json").read_text(encoding="utf-8"))["macro_f1"]["effects"]
    means = {row["name"]: row["mean"] for row in found}
    for factor in FACTORS:
        if factor.name not in ("class weights", "twice the epochs"):  # asked again, and made longer
            level = factor.high if means[factor.name] > 0 else factor.low
            assert {key: getattr(strict, key) for key in level} == dict(level), factor.name
