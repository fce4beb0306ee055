"""A map lies over its photo as the model saw it, with colours that mean what the scale says."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hcoatnet.explain.overlays import (
    EDGE,
    OPACITY,
    colours_of,
    describe_activation,
    draw_activation,
    relative,
    upsample,
)
from hcoatnet.explain.token_maps import ANCHORS, colour_of


@settings(max_examples=30, deadline=None)
@given(side=st.integers(1, 14), width=st.integers(14, 90), height=st.integers(14, 90), seed=st.integers(0, 99))
def test_stretched_as_torch_stretches_bilinearly(side, width, height, seed):
    shares = np.random.default_rng(seed).random((side, side)).astype(np.float32)
    reference = torch.nn.functional.interpolate(
        torch.from_numpy(shares)[None, None], size=(height, width), mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(upsample(shares, width, height), reference[0, 0].numpy(), atol=1e-4)


def test_negative_places_do_not_count_and_the_largest_is_1():
    assert relative(np.array([[-4.0, 1.0], [2.0, 0.0]])).tolist() == [[0, 0.5], [1, 0]]
    assert not relative(np.array([[-1.0, -2.0]])).any()


def test_the_colours_are_those_of_the_scale_over_grey():
    photo = Image.new("RGB", (40, 40), (100, 100, 100))
    low = np.asarray(draw_activation(photo, np.zeros((2, 2), dtype=np.float32)))
    expected = [(1 - OPACITY) * 100 + OPACITY * channel for channel in ANCHORS[0]]
    np.testing.assert_allclose(low, np.broadcast_to(expected, low.shape), atol=1)
    for share in (0.0, 0.3, 1.0):
        np.testing.assert_allclose(colours_of(np.float32(share)), colour_of(share), atol=0.5)


def test_a_white_line_runs_at_half_of_the_largest_value():
    shares = np.zeros((5, 5), dtype=np.float32)
    shares[2, 2] = 1
    drawn = np.asarray(draw_activation(Image.new("RGB", (100, 100), (90, 60, 50)), shares))
    white = (drawn == 255).all(axis=2)
    fine = upsample(shares, 100, 100)
    assert white.any()
    assert (fine[white] >= EDGE).all()
    assert (fine[white] < EDGE + 0.1).all()
    # Where all or nothing is above it, there is no line: the rim of the photo is none.
    for value in (0.2, 1.0):
        flat = np.asarray(draw_activation(Image.new("RGB", (60, 60)), np.full((3, 3), value, dtype=np.float32)))
        assert not (flat == 255).all(axis=2).any()


def test_the_words_say_where_it_is_highest():
    shares = np.zeros((4, 4), dtype=np.float32)
    shares[0, 3] = 1
    text = describe_activation(shares, "nevus")
    share = (upsample(shares, 64, 64) >= 0.5).mean()
    assert text == (
        f"Class-activation map for nevus: highest in row 1 of 4, column 4 of 4; {share:.0%} of the photo has at least half "
        "of that value."
    )
    assert describe_activation(np.zeros((2, 2)), "nevus").startswith("No place of the photo speaks for nevus")
    assert share == pytest.approx(0.06, abs=0.03)
