"""Deletion and insertion do what they say, down to each cell, and reward maps that deserve it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from torch.nn.functional import avg_pool2d, interpolate

from hcoatnet.data.images import MEAN, STD
from hcoatnet.explain.faithfulness import (
    BATCH,
    BLUR,
    GRID,
    RANDOM_ORDERS,
    STEPS,
    Curves,
    area_under,
    by_importance,
    play,
)

SIDE = 35


def photo(seed=0):
    return np.random.default_rng(seed).integers(0, 256, size=(SIDE, SIDE, 3), dtype=np.uint8)


def brightness_of(cells):
    """A model whose answer is the brightness of some cells, and which looks at nothing else."""

    def ask(photos):
        assert len(photos) <= BATCH
        assert photos.dtype == np.float32
        pixels = (photos * STD[:, None, None] + MEAN[:, None, None]).mean(axis=1)
        blocks = pixels.reshape(len(photos), GRID, SIDE // GRID, GRID, SIDE // GRID).mean(axis=(2, 4))
        return blocks.reshape(len(photos), -1)[:, cells].mean(axis=1)

    return ask


def played_slowly(pixels, order, game, ask):
    """The curve of one order, cell by cell and photo by photo, and the area under it."""
    cell = SIDE // GRID
    if game == "deletion":
        current = pixels.copy()
        other = np.empty_like(pixels)
        other[:] = np.round(pixels.mean(axis=(0, 1)))
    else:
        current = np.array(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(BLUR * SIDE)))
        other = pixels
    curve, shares, done = [], [], 0
    for step in range(STEPS + 1):
        until = round(step * GRID * GRID / STEPS)
        while done < until:
            row, column = divmod(int(order[done]), GRID)
            where = (slice(row * cell, (row + 1) * cell), slice(column * cell, (column + 1) * cell))
            current[where] = other[where]
            done += 1
        normalised = ((current / 255 - MEAN) / STD).transpose(2, 0, 1).astype(np.float32)
        curve.append(float(ask(normalised[None])[0]))
        shares.append(until / (GRID * GRID))
    area = sum((shares[i + 1] - shares[i]) * (curve[i] + curve[i + 1]) / 2 for i in range(STEPS))
    return curve, area


@pytest.mark.parametrize("seed", [0, 1])
def test_curves_and_areas_are_those_of_a_plain_computation(seed):
    importance = np.random.default_rng(seed).random((GRID, GRID))
    ask = brightness_of([3, 10, 11, 40])
    draws = np.random.default_rng(5)
    orders = [by_importance(importance, draws), *(draws.permutation(GRID * GRID) for _ in range(3))]
    for curves in play(photo(seed), importance, ask, random_orders=3, seed=5):
        slow = [played_slowly(photo(seed), order, curves.game, ask) for order in orders]
        np.testing.assert_allclose(curves.by_map, slow[0][0], atol=1e-5)
        np.testing.assert_allclose(curves.by_chance, [curve for curve, _ in slow[1:]], atol=1e-5)
        assert curves.area == pytest.approx(slow[0][1], abs=1e-5)
        np.testing.assert_allclose(curves.chance_areas, [area for _, area in slow[1:]], atol=1e-5)


def bright(cells):
    """A dark photo with some bright cells."""
    picture = np.full((GRID, GRID), 20, dtype=np.uint8)
    picture.flat[cells] = 250
    return np.repeat(picture.repeat(SIDE // GRID, axis=0).repeat(SIDE // GRID, axis=1)[..., None], 3, axis=2)


def test_a_map_of_what_the_model_looks_at_beats_chance_and_its_opposite_loses():
    cells = [8, 24, 40]
    importance = np.zeros((GRID, GRID))
    importance.flat[cells] = 1
    for curves in play(bright(cells), importance, brightness_of(cells)):
        assert curves.gain > 0.1
        assert curves.beaten == RANDOM_ORDERS
        assert len(curves.chance_areas) == RANDOM_ORDERS
    for curves in play(bright(cells), 1 - importance, brightness_of(cells)):
        assert curves.gain < -0.1
        assert curves.beaten == 0


def test_a_model_that_looks_at_nothing_gives_flat_curves_and_no_gain():
    for curves in play(photo(), np.eye(GRID), lambda photos: np.full(len(photos), 0.25)):
        assert curves.area == pytest.approx(0.25)
        assert curves.gain == pytest.approx(0)
        assert curves.beaten == 0


def test_every_order_begins_and_ends_the_same_and_a_seed_repeats_it():
    one = play(photo(), np.eye(GRID), brightness_of([0, 20]))
    two = play(photo(), np.eye(GRID), brightness_of([0, 20]))
    other = play(photo(), np.eye(GRID), brightness_of([0, 20]), seed=1)
    for curves, again, differing in zip(one, two, other, strict=True):
        assert (curves.by_chance[:, 0] == curves.by_map[0]).all()
        assert (curves.by_chance[:, -1] == curves.by_map[-1]).all()
        assert np.array_equal(curves.by_map, again.by_map)
        assert np.array_equal(curves.by_chance, again.by_chance)
        assert not np.array_equal(curves.by_chance, differing.by_chance)
    deletion, insertion = one
    assert insertion.by_map[-1] == deletion.by_map[0]  # both are the whole photo
    assert deletion.shares[0] == 0
    assert deletion.shares[-1] == 1


@settings(max_examples=30, deadline=None)
@given(side=st.integers(1, 14), seed=st.integers(0, 999))
def test_cells_are_ordered_by_the_map(side, seed):
    importance = np.random.default_rng(seed).random((side, side)).astype(np.float32)
    order = by_importance(importance, np.random.default_rng(0))
    assert sorted(order) == list(range(GRID * GRID))
    shown = interpolate(torch.from_numpy(importance)[None, None], size=(56, 56), mode="bilinear")
    means = avg_pool2d(shown, 8).flatten()
    assert (means[order.tolist()].diff() <= 1e-6).all()


def test_cells_that_the_map_does_not_tell_apart_come_in_random_order():
    flat = np.zeros((3, 3))
    firsts = {int(by_importance(flat, np.random.default_rng(seed))[0]) for seed in range(200)}
    assert len(firsts) > 40


def test_the_area_under_a_straight_line_is_its_mean():
    shares = np.array([0.0, 0.1, 0.7, 1.0])
    np.testing.assert_allclose(area_under(shares, np.stack([shares, 1 - 0.5 * shares])), [0.5, 0.75])
    curves = Curves("deletion", shares, shares, np.stack([shares**0, 0 * shares]))
    assert curves.gain == pytest.approx(0.0)
    assert curves.beaten == 1
