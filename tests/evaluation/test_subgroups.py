"""Subgroups: every photo counts once, bands are round, and the permutation p moves whole groups."""

import json
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_arms import CLASSES, draw_photos, make_arm

from hcoatnet.errors import EvidenceError
from hcoatnet.evaluation.permutation import Outcome, exchangeable_groups, permute_gaps
from hcoatnet.evaluation.predictions import Predictions, build_predictions
from hcoatnet.evaluation.resampling import find_groups
from hcoatnet.evaluation.subgroups import Subgroups, metadata_columns, subgroups

PHOTOS = draw_photos(120, seed=2)
NUMBER = PHOTOS["group"].str.split().str[1].astype(int).to_numpy()
SEX = np.array(["female", "male", ""])[NUMBER % 3]


def by(values, **options) -> Subgroups:
    arm = make_arm(PHOTOS, seeds=(1, 2), columns={"column": [str(value) for value in values]})
    return subgroups(arm, "column", **{"replicates": 100, "permutations": 99} | options)


class TestRows:
    def test_figures_are_those_of_the_photos_with_the_value(self) -> None:
        found = by(SEX)
        assert [row.value for row in found.rows] == ["female", "male", "not recorded"]
        tables = [one.predictions for one in make_arm(PHOTOS, seeds=(1, 2), columns={"sex": SEX}).replicates]
        for row, value in zip(found.rows, ("female", "male", ""), strict=True):
            chosen = (tables[0].table["sex"] == value).to_numpy()
            labels = tables[0].labels[chosen]
            present = np.unique(labels)
            assert (row.photos, row.groups) == (chosen.sum(), len(set(tables[0].groups[chosen])))
            assert list(row.support.values()) == np.bincount(labels, minlength=4).tolist()
            answers = [table.predicted[chosen] for table in tables]
            expected = {
                "accuracy": [oracle.accuracy_score(labels, one) for one in answers],
                "balanced_accuracy": [
                    oracle.recall_score(labels, one, labels=present, average="macro") for one in answers
                ],
                "macro_f1": [oracle.f1_score(labels, one, labels=present, average="macro") for one in answers],
                "brier": [
                    oracle.brier_score_loss(labels, table.probabilities[chosen], labels=range(4), scale_by_half=False)
                    for table in tables
                ],
            }
            assert set(expected) == set(row.metrics)
            for name, values in expected.items():
                estimate = row.metrics[name]
                assert estimate.value == pytest.approx(np.mean(values)), name
                assert estimate.percentile.low < estimate.value < estimate.percentile.high, name
            for index, name in enumerate(CLASSES):
                recall = [oracle.recall_score(labels == index, one == index, zero_division=np.nan) for one in answers]
                assert row.recall[name].value == pytest.approx(np.mean(recall)), name
        assert sum(row.photos for row in found.rows) == len(PHOTOS)
        json.dumps(found.to_json(), allow_nan=False)

    def test_one_seed_is_enough(self) -> None:
        arm = make_arm(PHOTOS, columns={"sex": SEX})
        table = arm.replicates[0].predictions
        for row in subgroups(arm, "sex", replicates=2, permutations=1).rows:
            chosen = table.table["sex"] == ("" if row.value == "not recorded" else row.value)
            assert row.metrics["accuracy"].value == pytest.approx((table.predicted == table.labels)[chosen].mean())
            assert list(row.support.values()) == np.bincount(table.labels[chosen], minlength=4).tolist()

    def test_macro_f1_leaves_out_classes_that_the_value_lacks(self) -> None:
        only = np.where(PHOTOS["label"] == 0, "common", "rest")
        row = by(only).rows[0]
        assert row.support == {"a": (PHOTOS["label"] == 0).sum(), "b": 0, "c": 0, "d": 0}
        assert row.recall["b"].value is None
        recall = row.metrics["accuracy"].value
        assert row.metrics["balanced_accuracy"].value == row.recall["a"].value == recall
        assert row.metrics["macro_f1"].value > 0.5 * recall

    def test_the_value_may_vary_within_a_group(self) -> None:
        found = by(np.where(np.arange(len(PHOTOS)) % 2, "arm", "leg"))
        assert found.varying_groups == (PHOTOS.groupby("group").size() > 1).sum()
        assert sum(row.groups for row in found.rows) == 120 + found.varying_groups
        assert by(SEX).varying_groups == 0


class TestValues:
    def test_many_numbers_become_round_bands(self) -> None:
        ages = 18 + NUMBER % 70
        found = by(np.where(NUMBER % 7 == 0, "", ages.astype(float).astype(str)))
        assert [row.value for row in found.rows] == [
            *("10–19", "20–29", "30–39", "40–49", "50–59", "60–69", "70–79", "80–89"),
            "not recorded",
        ]
        assert found.rows[1].photos == ((ages // 10 == 2) & (NUMBER % 7 != 0)).sum()

    @pytest.mark.parametrize(
        ("numbers", "names"),
        [
            (np.arange(6) + 1, ["1", "2", "3", "4", "5", "6"]),
            (np.array([10, 9, 8]), ["8", "9", "10"]),
            (
                np.arange(11) / 10,
                [
                    "0 to under 0.2",
                    "0.2 to under 0.4",
                    "0.4 to under 0.6",
                    "0.6 to under 0.8",
                    "0.8 to under 1",
                    "1 to under 1.2",
                ],
            ),
            (np.arange(12) - 6, ["-6–-5", "-4–-3", "-2–-1", "0–1", "2–3", "4–5"]),
            (np.arange(12) * 4, [f"{low}–{low + 4}" for low in range(0, 45, 5)]),
            (
                np.arange(20) * 100,
                [
                    "0–199",
                    "200–399",
                    "400–599",
                    "600–799",
                    "800–999",
                    "1000–1199",
                    "1200–1399",
                    "1400–1599",
                    "1600–1799",
                    "1800–1999",
                ],
            ),
        ],
    )
    def test_order_and_names_of_numbers(self, numbers: np.ndarray, names: list[str]) -> None:
        found = by(numbers[NUMBER % len(numbers)], replicates=2, permutations=1)
        assert [row.value for row in found.rows] == names

    def test_text_that_looks_like_no_number_stays_text(self) -> None:
        found = by(np.array(["nan", "B", "a", "3"])[NUMBER % 4], replicates=2, permutations=1)
        assert [row.value for row in found.rows] == ["3", "a", "B", "nan"]

    def test_too_many_values(self) -> None:
        with pytest.raises(
            EvidenceError, match="has 120 different values, such as 'patient 0'; subgroups need at most 30"
        ):
            by(PHOTOS["group"])

    def test_an_unknown_column_names_the_nearest(self) -> None:
        arm = make_arm(PHOTOS, columns={"fitzpatrick": SEX, "sex": SEX})
        assert metadata_columns(arm.replicates[0].predictions) == ("fitzpatrick", "sex")
        with pytest.raises(
            EvidenceError, match=r"no metadata column 'fitzpatric'. Did you mean 'fitzpatrick'\? They have: f"
        ):
            subgroups(arm, "fitzpatric")
        with pytest.raises(EvidenceError, match="They have none but path, group, label and subset"):
            subgroups(make_arm(PHOTOS), "sex")

    @pytest.mark.parametrize("column", ["label", "group", "p_a", "logit_b"])
    def test_what_is_no_metadata(self, column: str) -> None:
        with pytest.raises(EvidenceError, match="no metadata column"):
            subgroups(make_arm(PHOTOS, columns={"sex": SEX}), column)


class TestGaps:
    def test_largest_less_smallest_of_the_values_with_ten_groups(self) -> None:
        few = np.where(NUMBER < 9, "few", np.where(PHOTOS["label"] == 0, "one class", SEX))
        found = by(few)
        rows = {row.value: row for row in found.rows}
        assert rows["few"].groups == 9
        assert found.compared == ("female", "male", "one class", "not recorded")
        assert rows["female"].support["a"] == 0 < rows["female"].support["b"]
        for gap, name in ((found.accuracy_gap, "accuracy"), (found.balanced_accuracy_gap, "balanced_accuracy")):
            values = {value: rows[value].metrics[name].value for value in found.compared}
            assert gap.best == max(values, key=values.get)
            assert gap.worst == min(values, key=values.get)
            assert gap.size == pytest.approx(values[gap.best] - values[gap.worst])

    def test_ten_groups_are_just_enough_to_be_compared(self) -> None:
        for number, compared in ((10, ("few", "many")), (9, ("many",))):
            assert by(np.where(number > NUMBER, "few", "many"), replicates=2).compared == compared

    def test_one_value_has_no_gap(self) -> None:
        found = by(["x"] * len(PHOTOS))
        assert (found.accuracy_gap, found.balanced_accuracy_gap) == (None, None)

    def test_a_real_gap_is_found_and_an_idle_one_is_not(self) -> None:
        arm = make_arm(PHOTOS)
        table = arm.replicates[0].predictions
        right = pd.Series(table.predicted == table.labels).groupby(table.groups).transform("mean").to_numpy()
        told = dict(zip(table.table["path"], np.where(right > 0.7, "easy", "hard"), strict=True))
        found = by([told[path] for path in PHOTOS["path"]], permutations=499)
        assert found.accuracy_gap.p == found.balanced_accuracy_gap.p == 1 / 500
        assert (found.accuracy_gap.best, found.accuracy_gap.worst) == ("easy", "hard")
        idle = np.random.default_rng(1).integers(0, 3, 120)[NUMBER]
        assert by(idle, permutations=499).accuracy_gap.p > 0.05

    def test_a_gap_that_the_classes_explain_is_not_found(self) -> None:
        # Every class lies nearly whole in one value: accuracies differ as the classes do.
        class_of_group = PHOTOS.groupby("group")["label"].agg(lambda labels: labels.mode()[0])
        main = PHOTOS["group"].map(class_of_group).to_numpy()
        found = by(np.where((main == 0) != (NUMBER % 10 == 0), "one", "other"), permutations=499)
        assert found.accuracy_gap.p > 0.05


class TestPermutation:
    def test_groups_exchange_within_stratum_and_size(self) -> None:
        table = make_arm(PHOTOS).replicates[0].predictions
        groups = find_groups(table)
        cells = exchangeable_groups(groups, table)
        seen = np.concatenate([cell.ravel() for cell in cells])
        assert len(seen) == len(set(seen.tolist()))
        keys = []
        for cell in cells:
            members = groups.of_photo[cell]
            assert (members == members[:, :1]).all()
            assert len(cell) == len(np.unique(members)) > 1
            assert (np.bincount(groups.of_photo)[members[:, 0]] == cell.shape[1]).all()
            paths = table.table["path"].to_numpy()[cell]
            assert (np.sort(paths, axis=1) == paths).all()
            (stratum,) = set(groups.strata[members[:, 0]].tolist())
            keys.append((stratum, cell.shape[1]))
        assert len(set(keys)) == len(keys)
        alone = set(range(len(table))) - set(seen.tolist())
        sizes = np.bincount(groups.of_photo)
        for photo in alone:
            group = groups.of_photo[photo]
            assert ((groups.strata == groups.strata[group]) & (sizes == sizes[group])).sum() == 1

    def test_p_tends_to_the_exact_one(self) -> None:
        # Six single photos of one class: all 6!/(3!3!) exchanges can be counted.
        right = np.array([1.0, 1, 1, 0, 1, 0])
        values = np.array([0, 0, 0, 1, 1, 1])
        outcome = Outcome(right, np.zeros(6, dtype=int), values, 2, (0, 1))
        gaps = [abs(right[list(order[:3])].mean() - right[list(order[3:])].mean()) for order in permutations(range(6))]
        exact = np.mean(np.array(gaps) >= gaps[0] - 1e-12)
        for found in permute_gaps(outcome, [np.arange(6)[:, None]], 20_000, 0):
            assert (found.size, found.best, found.worst) == (pytest.approx(2 / 3), 0, 1)
            assert found.p == pytest.approx(exact, abs=0.01)

    @pytest.mark.parametrize(
        ("right", "values", "p"),
        [
            # Two groups of two photos: they swap or they do not. Swapped, the gap is again 1.
            ([1, 1, 0, 0], [0, 0, 1, 1], 1.0),
            # Swapped, the third photo alone has the value 0, and the gap falls from 1 to 1/3.
            ([1, 0, 0, 0], [0, 1, 1, 1], 0.5),
        ],
    )
    def test_values_of_a_group_move_together(self, right: list[int], values: list[int], p: float) -> None:
        outcome = Outcome(np.array(right, dtype=float), np.zeros(4, dtype=int), np.array(values), 2, (0, 1))
        for found in permute_gaps(outcome, [np.array([[0, 1], [2, 3]])], 2000, 0):
            assert found.size == 1
            assert found.p == pytest.approx(p, abs=0.04)

    @settings(max_examples=20, deadline=None)
    @given(seed=st.integers(0, 1000))
    def test_without_exchangeable_groups_p_is_1(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        outcome = Outcome(rng.random(12), rng.integers(0, 3, 12), np.arange(12) % 2, 2, (0, 1))
        assert [gap.p for gap in permute_gaps(outcome, [], 20, seed)] == [1, 1]

    def test_p_is_uniform_when_the_values_mean_nothing(self) -> None:
        rng = np.random.default_rng(0)
        found = []
        for _ in range(200):
            table = _random_answers(rng)
            groups = find_groups(table)
            values = rng.integers(0, 2, int(groups.of_photo.max()) + 1)[groups.of_photo]
            outcome = Outcome((table.predicted == table.labels).astype(float), table.labels, values, 2, (0, 1))
            found.append([gap.p for gap in permute_gaps(outcome, exchangeable_groups(groups, table), 99, 0)])
        share = (np.array(found) <= 0.1).mean(axis=0)
        # 0.1 + three standard errors; ties make it a little smaller.
        assert (share < 0.164).all()
        assert (share > 0.03).all()


def _random_answers(rng: np.random.Generator) -> Predictions:
    sizes = rng.integers(1, 4, 40)
    group = np.repeat(np.arange(40), sizes)
    label = rng.integers(0, 3, 40)[group]
    photos = pd.DataFrame(
        {
            "path": [f"{number:03}" for number in range(len(group))],
            "group": [f"g{number}" for number in group],
            "label": np.array(["a", "b", "c"])[label],
            "subset": "test",
        }
    )
    noise = rng.normal(size=(len(group), 3)) + rng.normal(size=(40, 3))[group]
    return build_predictions(photos, noise + np.eye(3)[label], ("a", "b", "c"))
