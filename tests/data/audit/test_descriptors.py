import numpy as np
import pytest
from PIL import Image

from hcoatnet.data.audit import descriptors
from hcoatnet.data.audit.changes import CHANGES
from hcoatnet.data.audit.descriptors import AXES, WORDS, codebook, describe, nearest_pairs
from hcoatnet.data.audit.verification import extract_local


@pytest.fixture(scope="module")
def described(skin):
    return np.stack([describe(extract_local(photo)) for photo in skin])


def test_descriptors_have_length_1(described):
    assert described.shape == (40, WORDS * AXES)
    np.testing.assert_allclose(np.linalg.norm(described.astype(float), axis=1), 1, atol=1e-3)


def test_axes_are_orthonormal_and_every_word_is_used():
    book = codebook()
    np.testing.assert_allclose(book.axes.T @ book.axes, np.eye(AXES), atol=1e-5)
    assert len(np.unique(book.words.round(5), axis=0)) == WORDS


@pytest.mark.parametrize("transpose", list(Image.Transpose))
def test_a_flip_or_rotation_changes_little(skin, described, transpose):
    for number in range(3):
        turned = describe(extract_local(skin[number].transpose(transpose))).astype(float)
        cosine = described.astype(float) @ turned
        assert cosine.argmax() == number
        assert cosine[number] > 0.8


@pytest.mark.parametrize("change", ["crop 10–20 %", "rotation ±15°", "stored chain"])
def test_the_original_is_among_the_nearest_of_a_changed_copy(skin, described, change):
    for number in range(6):
        copy = describe(extract_local(CHANGES[change](skin[number], np.random.default_rng([2, number]))))
        assert number in np.argsort(-(described.astype(float) @ copy.astype(float)))[:6]


def test_a_photo_without_features_is_near_nothing(described):
    flat = describe(extract_local(Image.new("RGB", (99, 99), (180, 140, 120))))
    assert not flat.any()
    pairs = nearest_pairs(np.concatenate([described[:5], flat[None]]), 6)
    assert pairs.max() == 4


@pytest.mark.parametrize("cells", [1, 100, 10**6])
def test_pairs_are_those_of_a_full_sort(monkeypatch, cells):
    monkeypatch.setattr(descriptors, "_BLOCK_CELLS", cells)
    rows = np.random.default_rng(0).normal(size=(30, 8)) + 2
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    cosine = rows.astype(np.float32) @ rows.astype(np.float32).T
    np.fill_diagonal(cosine, -2)
    expected = {tuple(sorted((one, int(other)))) for one in range(30) for other in np.argsort(-cosine[one])[:3]}
    assert {tuple(pair) for pair in nearest_pairs(rows, 3).tolist()} == expected


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_photos(count):
    rows = np.ones((count, 1), np.float16)
    assert nearest_pairs(rows, 6).tolist() == ([[0, 1]] if count == 2 else [])
