"""Comparisons: estimates, paired tests and verdicts, whatever classes, groups and rows are called."""

import inspect
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from simulated_arms import CLASSES, answer, draw_photos, make_arm
from sklearn.metrics import f1_score
from statsmodels.stats.multitest import multipletests

from hcoatnet.errors import EvidenceError, PredictionsError
from hcoatnet.evaluation.comparison import METRICS, PER_CLASS, Comparison, compare
from hcoatnet.evaluation.evidence import Arm, Cell
from hcoatnet.evaluation.floors import majority
from hcoatnet.evaluation.intervals import Estimate, wilson
from hcoatnet.evaluation.metrics import summarise
from hcoatnet.evaluation.predictions import Predictions, build_predictions

PHOTOS = draw_photos(90, seed=3)
DRAWS = 200
STATISTICS = Path(__file__).parents[2] / "docs" / "explanation" / "statistics.md"


def macro_f1(table: Predictions) -> float:
    return f1_score(table.labels, table.predicted, labels=range(len(table.classes)), average="macro", zero_division=0)


@pytest.fixture(scope="module")
def arms() -> list[Arm]:
    strong = make_arm(PHOTOS, "h_coatnet_atto", 2.0, seeds=(1, 2, 3), noise=1)
    weak = make_arm(PHOTOS, "cnn", 0.7, seeds=(1, 2), noise=2)
    return [weak, strong, make_arm(PHOTOS, "swin", 1.9, seeds=(7,), noise=3), majority(strong)]


@pytest.fixture(scope="module")
def comparison(arms: list[Arm]) -> Comparison:
    return compare(arms, replicates=DRAWS)


def row_of(comparison: Comparison, name: str):
    return next(row for row in comparison.rows if row.name == name)


def difference_of(comparison: Comparison, name: str):
    return next(one for one in comparison.differences if one.name == name)


class TestRows:
    def test_the_estimate_is_the_mean_over_seeds_of_the_pooled_metric(self, arms, comparison) -> None:
        for arm, row in zip(arms, comparison.rows, strict=True):
            assert (row.name, row.init, row.seeds, row.repeats) == (arm.name, arm.init, arm.seeds, (0,))
            assert set(row.metrics) == set(METRICS)
            summaries = [summarise(one.predictions) for one in arm.replicates]
            for name in set(METRICS) & set(summaries[0]):
                expected = np.mean([summary[name]["value"] for summary in summaries])
                assert row.metrics[name].value == pytest.approx(expected, rel=1e-9, abs=1e-12), name
            assert set(row.per_class) == set(CLASSES)
            for name, estimates in row.per_class.items():
                assert set(estimates) == set(PER_CLASS)
                for metric in set(PER_CLASS) & set(summaries[0]["per_class"][name]):
                    values = [summary["per_class"][name][metric] for summary in summaries]
                    expected = None if None in values else pytest.approx(np.mean(values))
                    assert estimates[metric].value == expected, (name, metric)

    def test_spread_of_seeds_and_count_of_the_first(self, arms, comparison) -> None:
        strong = arms[1]
        values = [macro_f1(one.predictions) for one in strong.replicates]
        row = row_of(comparison, strong.name)
        assert row.seed_spread == pytest.approx(np.std(values, ddof=1))
        assert row_of(comparison, "swin").seed_spread is None
        two = [macro_f1(one.predictions) for one in arms[0].replicates]
        assert row_of(comparison, "cnn").seed_spread == pytest.approx(abs(two[0] - two[1]) / np.sqrt(2))
        first = strong.replicates[0].predictions
        assert row.right == (first.predicted == first.labels).sum()
        assert row.accuracy_wilson == wilson(row.right, len(PHOTOS))

    def test_intervals_hold_the_value_and_the_two_kinds_nearly_agree(self, comparison) -> None:
        for name, estimate in row_of(comparison, "h_coatnet_atto").metrics.items():
            if name != "expected_calibration_error":
                for interval in (estimate.percentile, estimate.bca):
                    assert interval.low < estimate.value < interval.high, name
                assert abs(estimate.percentile.low - estimate.bca.low) < 2 * estimate.standard_error, name

    def test_a_class_never_named_has_no_precision(self, comparison) -> None:
        never = row_of(comparison, "majority").per_class["d"]["precision"]
        assert (never.value, never.percentile, never.bca, never.standard_error) == (None, None, None, None)

    def test_repeats_are_averaged_like_seeds(self, arms) -> None:
        def in_repeat(repeat: int, cells: tuple[Cell, ...]) -> list[Cell]:
            return [replace(cell, repeat=repeat, seed=1, split_sha256=f"r{repeat}f{cell.fold}") for cell in cells]

        one, other = (make_arm(PHOTOS, "x", noise=noise).cells for noise in (4, 5))
        repeated = Arm("x", "scratch", (*in_repeat(0, one), *in_repeat(1, other)))
        row = compare([repeated], replicates=100).rows[0]
        assert row.repeats == (0, 1)
        expected = np.mean([macro_f1(one.predictions) for one in repeated.replicates])
        assert row.metrics["macro_f1"].value == pytest.approx(expected)


class TestSet:
    def test_counts(self, comparison) -> None:
        assert (comparison.photos, comparison.groups) == (len(PHOTOS), 90)
        assert comparison.several_photos_a_group
        counts = PHOTOS["label"].value_counts()
        groups = PHOTOS.groupby("label")["group"].nunique()
        assert comparison.support == {name: (counts[index], groups[index]) for index, name in enumerate(CLASSES)}
        assert comparison.few == tuple(name for index, name in enumerate(CLASSES) if counts[index] < 30)
        assert "d" in comparison.few
        assert "a" not in comparison.few

    def test_one_photo_a_group(self) -> None:
        photos = draw_photos(90, most=1)
        assert not compare([make_arm(photos)], replicates=100).several_photos_a_group

    def test_json(self, comparison) -> None:
        text = json.dumps(comparison.to_json(), allow_nan=False)
        content = json.loads(text)
        assert content["rows"][1]["metrics"]["macro_f1"]["value"] == comparison.rows[1].metrics["macro_f1"].value
        assert content["rows"][3]["per_class"]["d"]["precision"]["value"] is None
        assert set(content["definitions"]) == {*METRICS, *PER_CLASS}

    def test_an_infinite_t_becomes_none(self, comparison) -> None:
        one = comparison.differences[0]
        infinite = replace(one, corrected_t=replace(one.corrected_t, t=np.inf))
        content = replace(comparison, differences=(infinite,)).to_json()
        assert content["differences"][0]["corrected_t"]["t"] is None


class TestDifferences:
    def test_values_and_verdicts(self, comparison) -> None:
        assert comparison.reference == "h_coatnet_atto"
        assert [one.name for one in comparison.differences] == ["cnn", "swin", "majority"]
        strong = row_of(comparison, "h_coatnet_atto").metrics["macro_f1"].value
        for one in comparison.differences:
            assert one.reference == "h_coatnet_atto"
            expected = row_of(comparison, one.name).metrics["macro_f1"].value - strong
            assert one.macro_f1.value == pytest.approx(expected)
            assert one.detectable == pytest.approx(2.8 * one.macro_f1.standard_error)
        assert [one.verdict for one in comparison.differences] == ["worse", "not distinguishable", "worse"]

    def test_the_other_way_round(self, arms, comparison) -> None:
        turned = difference_of(compare(arms[:2], "cnn", replicates=DRAWS), "h_coatnet_atto")
        there = difference_of(compare(arms[:2], replicates=DRAWS), "cnn")
        assert (turned.verdict, there.verdict) == ("better", "worse")
        assert turned.macro_f1.value == -there.macro_f1.value
        assert (turned.p, turned.detectable) == (there.p, there.detectable)
        assert turned.corrected_t.t == pytest.approx(-there.corrected_t.t)
        assert turned.corrected_t.p == pytest.approx(there.corrected_t.p)
        assert turned.mcnemar.only_model == there.mcnemar.only_reference
        assert turned.mcnemar.exact_p == there.mcnemar.exact_p

    def test_pairing_narrows_the_interval(self, comparison) -> None:
        one, other = (row_of(comparison, name).metrics["macro_f1"] for name in ("swin", "h_coatnet_atto"))
        apart = np.hypot(one.standard_error, other.standard_error)
        assert difference_of(comparison, "swin").macro_f1.standard_error < 0.95 * apart

    def test_a_model_against_itself(self, arms) -> None:
        strong = arms[1]
        one = compare([strong, replace(strong, name="twin")], replicates=DRAWS).differences[0]
        assert (one.macro_f1.value, one.macro_f1.standard_error, one.macro_f1.percentile) == (0, 0, None)
        assert (one.p, one.p_holm, one.detectable, one.verdict) == (1, 1, 0, "not distinguishable")
        assert (one.corrected_t.t, one.corrected_t.p) == (0, 1)
        assert (one.mcnemar.only_model, one.mcnemar.only_reference, one.mcnemar.exact_p) == (0, 0, 1)

    def test_holm_runs_over_each_test_by_itself(self, comparison) -> None:
        pairs = [
            ([one.p for one in comparison.differences], [one.p_holm for one in comparison.differences]),
            *(
                (
                    [getattr(getattr(one, test), p) for one in comparison.differences],
                    [getattr(getattr(one, test), adjusted) for one in comparison.differences],
                )
                for test, p, adjusted in (
                    ("corrected_t", "p", "p_holm"),
                    ("mcnemar", "exact_p", "exact_p_holm"),
                    ("mcnemar", "corrected_p", "corrected_p_holm"),
                )
            ),
        ]
        for plain, adjusted in pairs:
            assert adjusted == pytest.approx(multipletests(plain, method="holm")[1])

    def test_a_verdict_needs_the_corrected_p(self) -> None:
        photos = draw_photos(90, seed=11)
        arms = [make_arm(photos, "reference", 1.5, noise=1), make_arm(photos, "other", 0.9, noise=4)]
        twins = [replace(arms[0], name=f"twin {number}") for number in range(8)]
        alone, crowd = compare(arms, replicates=DRAWS), compare([*arms, *twins], "reference", replicates=DRAWS)
        one, of_many = alone.differences[0], difference_of(crowd, "other")
        assert one.p == of_many.p < 0.05 <= of_many.p_holm == pytest.approx(9 * one.p)
        assert (one.verdict, of_many.verdict) == ("worse", "not distinguishable")

    @pytest.mark.parametrize("reference", ["h_coatnet_atto", "swin"])  # of three seeds, and of one
    def test_corrected_t_averages_seeds_inside_a_cell(self, arms, reference) -> None:
        (strong,) = [arm for arm in arms if arm.name == reference]
        weak = arms[0]
        by_fold = [
            np.mean([macro_f1(cell.test) for cell in weak.cells if cell.fold == fold])
            - np.mean([macro_f1(cell.test) for cell in strong.cells if cell.fold == fold])
            for fold in range(3)
        ]
        ratio = np.mean([len(cell.test) / sum(cell.train_counts) for cell in strong.cells])
        found = difference_of(compare(arms, reference, replicates=100), "cnn").corrected_t
        assert found.df == 2
        assert found.mean == pytest.approx(np.mean(by_fold))
        assert found.standard_error == pytest.approx(np.std(by_fold, ddof=1) * np.sqrt(1 / 3 + ratio))

    def test_a_hold_out_split_has_no_corrected_t(self) -> None:
        arms = [make_arm(PHOTOS, name, noise=noise, folds=1) for noise, name in enumerate(("x", "y"))]
        found = compare(arms, replicates=100)
        assert found.differences[0].corrected_t is None
        json.dumps(found.to_json(), allow_nan=False)

    def test_mcnemar_is_of_the_first_seed(self, arms, comparison) -> None:
        right = [arm.replicates[0].predictions for arm in (arms[0], arms[1])]
        weak, strong = (one.predicted == one.labels for one in right)
        found = difference_of(comparison, "cnn").mcnemar
        assert (found.only_model, found.only_reference) == ((weak & ~strong).sum(), (strong & ~weak).sum())
        assert found.both_right + found.both_wrong + found.only_model + found.only_reference == len(PHOTOS)


class TestReference:
    def test_by_default_ours_else_the_first_trained(self, arms) -> None:
        weak, strong, swin, floor = arms
        assert compare([floor, weak, strong], replicates=100).reference == "h_coatnet_atto"
        assert compare([floor, swin, weak], replicates=100).reference == "swin"
        only = compare([floor], replicates=100)
        assert (only.reference, only.init, only.differences) == ("majority", "none", ())

    def test_an_unknown_one_names_the_nearest(self, arms) -> None:
        with pytest.raises(EvidenceError, match=r"no row 'swim'.*Did you mean 'swin'\? The rows are: cnn, h_coat"):
            compare(arms, "swim")


class TestInvariances:
    @pytest.mark.parametrize("seed", range(5))
    def test_names_of_classes_and_groups_and_the_order_of_rows(self, seed: int) -> None:
        photos = draw_photos(30, seed)
        rng = np.random.default_rng(seed)
        order, names = rng.permutation(len(CLASSES)), rng.permutation(30)

        def rename(table: Predictions) -> Predictions:
            rows = rng.permutation(len(table))
            renamed = table.table.iloc[rows][["path", "group", "label", "subset"]]
            renamed["label"] = [f"new {name}" for name in renamed["label"]]
            renamed["group"] = [f"g{names[int(group.split()[1])]}" for group in renamed["group"]]
            return build_predictions(renamed, table.logits[rows][:, order], [f"new {CLASSES[one]}" for one in order])

        def rename_arm(arm: Arm) -> Arm:
            return replace(
                arm, cells=tuple(replace(cell, test=rename(cell.test), val=rename(cell.val)) for cell in arm.cells)
            )

        arms = [make_arm(photos, "x", 1.5, noise=1), make_arm(photos, "y", 1.0, noise=2)]
        before, after = compare(arms, replicates=100), compare([rename_arm(arm) for arm in arms], replicates=100)
        for one, other in zip(before.rows, after.rows, strict=True):
            for name in METRICS:
                assert _figures(other.metrics[name]) == close(one.metrics[name]), name
            for name in CLASSES:
                for metric in PER_CLASS:
                    mine, theirs = one.per_class[name][metric], other.per_class[f"new {name}"][metric]
                    assert _figures(theirs) == close(mine), (name, metric)
        assert _figures(after.differences[0].macro_f1) == close(before.differences[0].macro_f1)
        assert after.differences[0].p == before.differences[0].p


def _figures(estimate: Estimate) -> list[float]:
    parts = [estimate.value, estimate.standard_error]
    for interval in (estimate.percentile, estimate.bca):
        parts += [None, None] if interval is None else [interval.low, interval.high]
    return [np.nan if part is None else part for part in parts]


def close(estimate: Estimate) -> object:
    return pytest.approx(_figures(estimate), rel=1e-6, abs=1e-9, nan_ok=True)


class TestRefusals:
    def test_nothing(self) -> None:
        with pytest.raises(EvidenceError, match="nothing to compare"):
            compare([])

    @pytest.mark.parametrize("numbers", [{"replicates": 99}, {"level": 1.0}, {"level": 1.5}, {"level": 0.4}])
    def test_numbers_out_of_range(self, arms, numbers) -> None:
        with pytest.raises(EvidenceError, match=r"at least 100 draws and a level from 0\.5 up to 1"):
            compare(arms, **numbers)

    def test_a_class_without_test_photos(self) -> None:
        photos = PHOTOS[PHOTOS["label"] != 3]
        with pytest.raises(EvidenceError, match="No test photo is of the class d"):
            compare([make_arm(photos)])

    def test_a_missing_class_in_one_table(self, arms) -> None:
        photos = PHOTOS[PHOTOS["label"] != 3]
        with pytest.raises(EvidenceError, match="knows the classes a, b, c"):
            compare([arms[0], make_arm(photos, "three", classes=CLASSES[:3])])

    def test_scratch_against_pretrained(self, arms) -> None:
        with pytest.raises(EvidenceError, match=r"cnn began from scratch, x from pretrained"):
            compare([arms[0], make_arm(PHOTOS, "x", init="pretrained")])

    def test_a_floor_of_other_photos(self, arms) -> None:
        other = make_arm(draw_photos(60, seed=8))
        with pytest.raises(EvidenceError, match="cnn and majority cannot be compared"):
            compare([arms[0], majority(other)])

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda table: table.assign(p_a=np.nan), "NaN or infinity"),
            (lambda table: table.assign(p_a=table["p_a"] + 0.01), "do not sum to 1"),
            (lambda table: table.assign(path=table["path"].iloc[0]), "more than once"),
            (lambda table: table.drop(columns=["logit_d", "p_d"]), "label that the model does not know"),
        ],
    )
    def test_a_bad_table_is_refused_before_anything_is_computed(self, change, said) -> None:
        table = change(answer(PHOTOS).table)
        classes = tuple(name.removeprefix("p_") for name in table.columns if name.startswith("p_"))
        with pytest.raises(PredictionsError, match=said):
            Predictions(table, classes)


def test_the_page_on_statistics_says_how_many_draws_there_are() -> None:
    draws = inspect.signature(compare).parameters["replicates"].default
    assert f"All intervals are from {draws:,} draws of *groups*" in STATISTICS.read_text(encoding="utf-8")


@pytest.mark.parametrize("init", ["scratch", "pretrained"])
def test_the_kind_of_initial_weights_is_that_of_the_trained_arms(init: str) -> None:
    arm = make_arm(PHOTOS, init=init)
    for arms in ([arm, majority(arm)], [majority(arm), arm]):
        assert compare(arms, replicates=100).init == init
    assert compare([majority(arm)], replicates=100).init == "none"
