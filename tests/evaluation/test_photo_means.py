"""Means with weights are numpy's over copies of the photos."""

import numpy as np
import pytest

from hcoatnet.evaluation.photo_means import photo_means


@pytest.mark.parametrize("seed", range(5))
def test_weights_are_copies(seed):
    rng = np.random.default_rng(seed)
    groups = np.concatenate([np.arange(6), rng.integers(0, 6, 30)])
    values = {"one": rng.normal(size=36), "two": rng.uniform(size=36)}
    parts = np.stack([np.ones(36, dtype=bool), rng.uniform(size=36) < 0.4])
    weights = rng.integers(1, 4, size=(6, 7)).astype(float)
    found = photo_means(values, parts, groups).on(weights)
    for name, value in values.items():
        for row, part in enumerate(parts):
            for column in range(7):
                expected = np.average(value[part], weights=weights[groups[part], column])
                assert found[name][row, column] == pytest.approx(expected, rel=1e-12)


@pytest.mark.filterwarnings("error")
def test_a_part_without_photos_is_undefined():
    parts = np.array([[True, True], [False, False], [True, False]])
    found = photo_means({"x": np.array([2.0, 4.0])}, parts, np.array([0, 1])).on(np.array([[1.0, 0.0], [1.0, 1.0]]))
    np.testing.assert_array_equal(found["x"], [[3.0, 4.0], [np.nan, np.nan], [2.0, np.nan]])
