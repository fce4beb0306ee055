"""Draws hold whole groups, as many of each stratum as the sample, and depend on nothing but the photos."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_arms import CLASSES, answer, draw_photos

from hcoatnet.evaluation.predictions import Predictions, build_predictions
from hcoatnet.evaluation.resampling import BLOCK, find_groups, resample


def table_of(rows: list[tuple[str, str, str]], classes: str = "abc") -> Predictions:
    photos = pd.DataFrame(rows, columns=["path", "group", "label"]).assign(subset="test")
    return build_predictions(photos, np.zeros((len(rows), len(classes))), tuple(classes))


class TestGroups:
    def test_the_stratum_is_the_rarest_label_of_the_whole_set(self) -> None:
        table = table_of(
            [("1", "x", "a"), ("2", "x", "b"), ("3", "y", "a"), ("4", "z", "a"), ("5", "z", "c"), ("6", "w", "b")]
        )
        # Photos: a 3, b 2, c 1. Groups in the order of their paths: x (a, b), y (a), z (a, c), w (b).
        groups = find_groups(table)
        assert groups.of_photo.tolist() == [0, 0, 1, 2, 2, 3]
        assert groups.strata.tolist() == [1, 2, 0, 1]

    def test_of_two_classes_with_equally_many_photos_that_of_fewer_groups_is_rarer(self) -> None:
        table = table_of([("1", "x", "b"), ("2", "x", "b"), ("3", "y", "a"), ("4", "z", "a")], "ab")
        assert find_groups(table).strata.tolist() == [0, 1, 1]

    @settings(max_examples=30, deadline=None)
    @given(seed=st.integers(0, 10_000))
    def test_names_and_order_change_nothing(self, seed: int) -> None:
        table = answer(draw_photos(20, seed), seed=seed)
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(table))
        renamed = dict(zip(sorted(set(table.groups)), rng.permutation(len(set(table.groups))), strict=True))
        classes = rng.permutation(len(CLASSES))
        photos = table.table.iloc[order][["path", "group", "label", "subset"]]
        photos["group"] = [f"g{renamed[group]}" for group in photos["group"]]
        photos["label"] = [f"new {CLASSES.index(label)}" for label in photos["label"]]
        other = build_predictions(photos, table.logits[order][:, classes], [f"new {index}" for index in classes])
        before, after = resample(table, 50, seed), resample(other, 50, seed)
        np.testing.assert_array_equal(after.groups.of_photo, before.groups.of_photo[order])
        np.testing.assert_array_equal(after.groups.strata, before.groups.strata)
        np.testing.assert_array_equal(after.counts, before.counts)


class TestDraws:
    def test_every_draw_holds_as_many_groups_of_each_stratum(self) -> None:
        resampling = resample(answer(draw_photos(40)), 3 * BLOCK + 7, 0)
        assert resampling.counts.shape == (3 * BLOCK + 7, 40)
        for stratum in np.unique(resampling.groups.strata):
            members = resampling.groups.strata == stratum
            assert (resampling.counts[:, members].sum(axis=1) == members.sum()).all()
        assert len(np.unique(resampling.counts, axis=0)) == len(resampling.counts)

    def test_counts_are_multinomial(self) -> None:
        table = table_of([(str(number), str(number), "ab"[number % 2]) for number in range(20)], "ab")
        counts = resample(table, 40_000, 1).counts.astype(float)
        covariance = np.cov(counts.T)
        stratum = np.arange(20) % 2
        same = stratum[:, None] == stratum
        expected = np.where(np.eye(20, dtype=bool), 0.9, np.where(same, -0.1, 0.0))
        np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.02)
        np.testing.assert_allclose(covariance, expected, atol=0.03)

    def test_the_seed_tells_draws_apart(self) -> None:
        table = answer(draw_photos(30))
        np.testing.assert_array_equal(resample(table, 20, 4).counts, resample(table, 20, 4).counts)
        assert (resample(table, 20, 4).counts != resample(table, 20, 5).counts).any()


class TestValues:
    def test_the_sample_then_the_draws_then_the_sample_without_each_group(self) -> None:
        resampling = resample(answer(draw_photos(30)), BLOCK + 3, 0)
        sizes = np.bincount(resampling.groups.of_photo)
        photos = SimpleNamespace(
            on=lambda weights: {"photos": sizes @ weights, "pair": np.stack([weights[0], weights[1]])}
        )
        values = resampling.values_of(photos)
        assert values["pair"].shape == (2, 1 + BLOCK + 3 + 30)
        statistic = resampling.statistic(values["photos"])
        assert statistic.value == sizes.sum()
        np.testing.assert_array_equal(statistic.draws, resampling.counts @ sizes)
        np.testing.assert_array_equal(statistic.without, sizes.sum() - sizes)

    @pytest.mark.parametrize("undefined", [False, True])
    def test_mean_over_replicates(self, undefined: bool) -> None:
        resampling = resample(answer(draw_photos(30)), 20, 0)
        replicates = [
            SimpleNamespace(on=lambda weights, by=by: {"x": by * weights.sum(axis=0)})
            for by in (1.0, 2.0, np.nan if undefined else 6.0)
        ]
        found = resampling.mean_of(replicates)["x"]
        expected = resampling.values_of(replicates[0])["x"] * 3
        np.testing.assert_allclose(found, np.nan if undefined else expected)
