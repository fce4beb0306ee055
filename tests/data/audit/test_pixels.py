import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hcoatnet.data.audit.pixels import SIDE, features_of, thumbnail_of


def random_photo(seed, width, height):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_a_thumbnail_of_whole_cells_is_the_mean_of_each_cell():
    photo = random_photo(0, 3 * SIDE, 2 * SIDE)
    means = np.asarray(photo, dtype=float).reshape(SIDE, 2, SIDE, 3, 3).mean(axis=(1, 3))
    np.testing.assert_array_equal(thumbnail_of(photo), np.rint(means))


def test_cells_that_cut_pixels_take_their_shares():
    photo = random_photo(1, 30, 25)
    repeated = np.asarray(photo).repeat(SIDE, axis=0).repeat(SIDE, axis=1).astype(float)  # whole cells of 25 by 30
    means = repeated.reshape(SIDE, 25, SIDE, 30, 3).mean(axis=(1, 3))
    assert np.abs(thumbnail_of(photo) - means).max() <= 0.5


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 90), st.integers(1, 90), st.sampled_from(list(Image.Transpose)))
def test_the_thumbnail_of_a_turned_photo_is_the_turned_thumbnail_to_the_bit(seed, width, height, turn):
    photo = random_photo(seed, width, height)
    expected = np.asarray(Image.fromarray(thumbnail_of(photo)).transpose(turn))
    np.testing.assert_array_equal(thumbnail_of(photo.transpose(turn)), expected)


def test_equal_pixels_of_another_shape_hash_differently():
    photo = random_photo(2, 8, 6)
    reshaped = Image.fromarray(np.asarray(photo).reshape(8, 6, 3))
    assert features_of(photo)["pixel_sha256"].tobytes() != features_of(reshaped)["pixel_sha256"].tobytes()
    assert features_of(photo)["pixel_sha256"].tobytes() == hashlib.sha256(b"8x6 RGB " + photo.tobytes()).digest()


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (3000, 2)])
def test_any_size_has_a_thumbnail(size):
    assert thumbnail_of(Image.new("RGB", size, (10, 20, 30))).tolist() == [[[10, 20, 30]] * SIDE] * SIDE
