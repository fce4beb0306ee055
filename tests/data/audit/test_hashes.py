import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from scipy.fft import dctn

from hcoatnet.data.audit import hashes
from hcoatnet.data.audit.hashes import coefficients_of, grey_of, hashes_of, near_pairs, nearest_variant, turn
from hcoatnet.data.audit.pixels import SIDE, thumbnail_of

thumbnails = hnp.arrays(np.uint8, (SIDE, SIDE, 3), elements=st.integers(0, 255), fill=st.integers(0, 255))


def test_coefficients_are_those_of_an_independent_dct():
    grey = grey_of(np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8))
    expected = np.stack([dctn(picture, type=2)[:8, :8] for picture in grey])
    ours = coefficients_of(grey)
    scale = (ours[:, 1:, 1:] * expected[:, 1:, 1:]).sum() / (expected[:, 1:, 1:] ** 2).sum()
    np.testing.assert_allclose(ours / scale, expected, rtol=0.01, atol=0.002 * np.abs(expected[:, 1:, 1:]).max())


@settings(max_examples=50, deadline=None)
@given(thumbnails, st.integers(0, 7))
def test_the_hashes_of_a_turned_thumbnail_are_those_of_the_thumbnail(thumbnail, variant):
    """Also of turned thumbnails as they are computed afresh: exactly, not only up to rounding."""
    turned = turn(thumbnail, variant)
    one, other = hashes_of(np.stack([thumbnail, turned]))
    assert set(one.tolist()) == set(other.tolist())
    assert one[variant] == other[0]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 120), st.integers(2, 120), st.sampled_from(list(Image.Transpose)))
def test_a_flipped_or_turned_photo_of_any_size_has_distance_0(seed, width, height, transpose):
    draws = np.random.default_rng(seed)
    photo = Image.fromarray(draws.integers(0, 256, (height, width, 3), dtype=np.uint8))
    found = hashes_of(np.stack([thumbnail_of(photo), thumbnail_of(photo.transpose(transpose))]))
    assert nearest_variant(found[:1], found[1:]).min() == 0
    assert near_pairs(found, 0).pairs.tolist() == [[0, 1]]


def test_turn_gives_the_eight_different_variants():
    picture = np.arange(9).reshape(3, 3)
    assert len({turn(picture, variant).tobytes() for variant in range(8)}) == 8


def brute_force(found, most):
    count = len(found)
    rows = []
    for one in range(count):
        for other in range(one + 1, count):
            distance = min(int(found[one, 0] ^ found[other, variant]).bit_count() for variant in range(8))
            if distance <= most:
                rows.append([one, other, distance])
    return np.array(rows).reshape(-1, 3)


@pytest.mark.parametrize("block", [7, 64])
def test_the_search_finds_what_a_loop_over_all_pairs_finds(monkeypatch, block):
    monkeypatch.setattr(hashes, "_BLOCK", block)
    draws = np.random.default_rng(1)
    coarse = np.kron(draws.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8), np.ones((1, 8, 8, 1), np.uint8))
    found = hashes_of(coarse)
    near = near_pairs(found, 20)
    rows = brute_force(found, 20)
    assert len(rows) > 20
    assert len(near.crowded) == 0
    np.testing.assert_array_equal(np.column_stack([near.pairs, near.distances]), rows)


def test_many_photos_of_one_hash_keep_a_bounded_number_of_pairs(monkeypatch):
    monkeypatch.setattr(hashes, "_BLOCK", 64)
    found = hashes_of(np.random.default_rng(2).integers(0, 256, (1, SIDE, SIDE, 3), dtype=np.uint8)).repeat(300, axis=0)
    calls = []
    near = near_pairs(found, 10, lambda done, total: calls.append((done, total)))
    assert len(near.pairs) <= 300 * hashes.NEIGHBOURS
    assert near.crowded.tolist() == list(range(300))
    assert calls[-1] == (300, 300)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_photos_have_no_pairs(count):
    assert near_pairs(np.zeros((count, 8), np.uint64), 10).pairs.shape == (0, 2)
