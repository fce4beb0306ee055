import pytest
from hypothesis import given
from hypothesis import strategies as st

from hcoatnet.data.audit.names import LARGEST_FAMILY, name_pairs, stem_of


@pytest.mark.parametrize(
    ("path", "stem"),
    [
        ("a/IMG_7_aug1.jpg", "img_7"),
        ("IMG_7-augmented-12.png", "img_7"),
        ("Copy of IMG_7.jpg", "img_7"),
        ("Copy (2) of IMG_7.jpg", "img_7"),
        ("IMG_7 (1).jpg", "img_7"),
        ("IMG_7 - Copy (3).jpg", "img_7"),
        ("IMG_7 copy 2.jpg", "img_7"),
        ("IMG_7_jpg.rf.0a1b2c3d.jpg", "img_7"),
        ("IMG_7_flip_rot90.jpg", "img_7"),
        ("IMG_7_rot-15_crop.jpg", "img_7"),
        ("IMG_7_aug1_jpg.rf.ffee.jpg", "img_7"),
    ],
)
def test_marks_of_copying_are_taken_off(path, stem):
    assert stem_of(path) == (stem, True)


@pytest.mark.parametrize("path", ["IMG_7.jpg", "PAT_8_15_820.png", "(1).jpg", "copy.jpg", "aug1.jpg", "rotation.jpg"])
def test_other_names_stay_whole(path):
    assert stem_of(path) == (path.rpartition(".")[0].casefold(), False)


@given(st.text("abc_1 -().", min_size=1).map(lambda name: f"{name}.jpg"))
def test_a_stem_is_a_stem(path):
    stem, _ = stem_of(path)
    if "." not in stem and "/" not in stem and stem.strip():
        assert stem_of(f"{stem}.jpg") == (stem, False)


def test_pairs_need_one_mark_and_one_label():
    paths = ["A/1.jpg", "A/1_aug1.jpg", "A/1_aug2.jpg", "B/1.jpg", "B/2.jpg", "C/1.jpg", "C/x/1.jpg"]
    labels = ["A", "A", "A", "B", "B", "C", "C"]
    assert name_pairs(paths, labels) == [(0, 1), (0, 2), (1, 2)]


def test_a_numbered_series_says_nothing():
    paths = [f"photo ({number}).jpg" for number in range(LARGEST_FAMILY + 1)]
    assert name_pairs(paths, ["A"] * len(paths)) == []
    assert len(name_pairs(paths[1:], ["A"] * LARGEST_FAMILY)) == LARGEST_FAMILY * (LARGEST_FAMILY - 1) // 2
