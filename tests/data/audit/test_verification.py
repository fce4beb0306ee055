import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw

from hcoatnet.data.audit import verification
from hcoatnet.data.audit.changes import CHANGES
from hcoatnet.data.audit.verification import (
    NO_ALIGNMENT,
    align,
    extract_local,
    local_of_grey,
    mirror_descriptors,
    root_sift,
)
from hcoatnet.errors import DataError


@pytest.fixture(scope="module")
def local(skin):
    return [extract_local(photo) for photo in skin]


def test_mirrored_descriptors_are_those_of_the_mirrored_photo(skin):
    grey = np.asarray(skin[0].convert("L"))
    one, other = local_of_grey(grey), local_of_grey(np.ascontiguousarray(grey[:, ::-1]))
    back = np.column_stack([grey.shape[1] - 1 - other.points[:, 0], other.points[:, 1]])
    distance = np.linalg.norm(one.points[:, None] - back[None], axis=2)
    nearest = distance.argmin(axis=1)
    same = np.flatnonzero(distance.min(axis=1) < 1)
    mirrored = root_sift(mirror_descriptors(other.descriptors))[nearest[same]]
    likeness = (root_sift(one.descriptors)[same] * mirrored).sum(axis=1)
    assert len(same) > 0.6 * len(one.points)
    assert np.median(likeness) > 0.98


@pytest.mark.parametrize("change", list(CHANGES))
def test_changed_copies_are_confirmed(skin, local, change):
    for number in range(4):
        copy = CHANGES[change](skin[number], np.random.default_rng([1, number]))
        assert align(local[number], extract_local(copy)).is_copy, number


def test_different_photos_are_not(local):
    assert not any(align(local[one], local[other]).is_copy for one in range(12) for other in range(one))


def test_other_photos_with_the_same_logo_are_not(skin):
    def with_logo(photo):
        marked = photo.copy()
        pen = ImageDraw.Draw(marked)
        pen.rectangle([10, 10, 100, 60], fill="white")
        for row in range(4):
            pen.text((14, 12 + 11 * row), f"DERMATOLOGY {row}", fill=(20, 20, 120))
        return marked

    one, other = (extract_local(with_logo(photo)) for photo in skin[:2])
    found = align(one, other)
    assert found.inliers >= verification.LEAST_INLIERS  # the logo itself does match
    assert not found.is_copy
    assert align(one, extract_local(with_logo(skin[0]).rotate(8))).is_copy


def test_masked_parts_have_no_features(skin):
    mask = np.zeros((64, 64), bool)
    mask[:, :40] = True
    seen = extract_local(skin[0], mask)
    assert len(seen.points)
    assert seen.points[:, 0].min() > 160 * 39 / 64
    assert not seen.visible[:, :99].any()


def test_corners_that_a_rotation_left_black_are_not_looked_at(skin):
    turned = extract_local(skin[0].rotate(15))
    assert not turned.visible[0, 0]
    assert turned.visible[80, 80]


def test_the_result_is_the_same_on_every_run(skin, local):
    copy = extract_local(CHANGES["stored chain"](skin[5], np.random.default_rng(0)))
    assert align(local[5], copy) == align(local[5], copy)


def test_a_photo_without_features_matches_nothing(local):
    flat = extract_local(Image.new("RGB", (200, 150), (180, 140, 120)))
    assert len(flat.points) == 0
    assert align(flat, local[0]) == align(local[0], flat) == NO_ALIGNMENT


def test_a_copy_stretched_to_another_shape_is_confirmed(skin, local):
    assert align(local[3], extract_local(skin[3].resize((160, 110)))).is_copy


def test_without_opencv_the_way_to_it_is_told(monkeypatch, skin):
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    assert not verification.opencv_is_installed()
    with pytest.raises(DataError, match=r"hcoatnet\[audit\]"):
        extract_local(skin[0])


def test_matches_are_those_of_opencvs_matcher(local):
    first, second = verification._matches(local[0].descriptors, local[1].descriptors)
    one, other = root_sift(local[0].descriptors), root_sift(local[1].descriptors)
    matcher = cv2.BFMatcher(cv2.NORM_L2)
    back = {match.queryIdx: match.trainIdx for (match,) in matcher.knnMatch(other, one, 1)}
    expected = {
        (near.queryIdx, near.trainIdx)
        for near, next_ in matcher.knnMatch(one, other, 2)
        if near.distance < 0.9 * next_.distance and back[near.trainIdx] == near.queryIdx
    }
    assert set(zip(first.tolist(), second.tolist(), strict=True)) == expected
    assert expected
