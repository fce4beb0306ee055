"""What may be compared with what."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hcoatnet.errors import EvidenceError
from hcoatnet.evaluation.evidence import Arm, Cell, check_comparable
from hcoatnet.evaluation.predictions import build_predictions

CLASSES = ("a", "b", "c")
FOLDS = {0: range(0, 8), 1: range(8, 14), 2: range(14, 20)}


def predictions(numbers, seed=0, classes=CLASSES, **columns):
    photos = pd.DataFrame(
        {
            "path": [f"{number:02}.jpg" for number in numbers],
            "group": [f"patient {number // 2}" for number in numbers],
            "label": [classes[number % len(classes)] for number in numbers],
            "subset": "test",
        }
        | columns
    )
    logits = np.random.default_rng(seed).normal(size=(len(photos), len(classes)))
    return build_predictions(photos, logits, classes)


def cell(fold=0, seed=1, repeat=0, numbers=None, **columns):
    test = predictions(FOLDS[fold] if numbers is None else numbers, seed, **columns)
    return Cell(
        f"run-s{seed}-r{repeat}-f{fold}", seed, repeat, fold, test, test, (9, 8, 7), f"split-{repeat}-{fold}", "c"
    )


def cells(seeds=(1,), folds=(0, 1, 2)):
    return tuple(cell(fold, seed) for seed in seeds for fold in folds)


def arm(name="model", init="scratch", **arguments):
    return Arm(name, init, cells(**arguments))


def test_a_replicate_holds_every_photo_once_with_its_fold():
    replicates = arm(seeds=(2, 1)).replicates
    assert [(one.seed, one.repeat) for one in replicates] == [(1, 0), (2, 0)]
    for one in replicates:
        assert list(one.predictions.table.columns) == list(cell(0).test.table.columns)
        assert list(one.predictions.table["path"]) == [f"{number:02}.jpg" for number in range(20)]
        assert one.folds.tolist() == [0] * 8 + [1] * 6 + [2] * 6
    for fold, numbers in FOLDS.items():
        expected = cell(fold, 1).test.logits
        np.testing.assert_array_equal(replicates[0].predictions.logits[list(numbers)], expected)


def test_the_order_of_the_cells_changes_nothing():
    one, other = arm(), Arm("model", "scratch", cells()[::-1])
    np.testing.assert_array_equal(one.replicates[0].predictions.logits, other.replicates[0].predictions.logits)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: Arm("m", "scratch", ()), "no finished run"),
        (lambda: Arm("m", "scratch", cells(seeds=(1, 2))[:-1]), "lacks 1 of 6 runs: seed 2, repeat 0, fold 2"),
        (lambda: Arm("m", "scratch", (*cells(), cell(1))), "two runs of seed 1, repeat 0, fold 1"),
        (lambda: Arm("m", "scratch", (cell(0), cell(1, numbers=range(6, 14)))), "06.jpg is tested in two folds"),
        (lambda: Arm("m", "scratch", (cell(0), cell(0, seed=2, numbers=range(1, 9)))), "tested different photos"),
        (
            lambda: Arm("m", "scratch", (cell(0), cell(1, numbers=range(7, 14))), "val"),
            "07.jpg is validated in two folds",
        ),
        (
            lambda: Arm("m", "scratch", (cell(0), replace(cell(1), test=predictions(FOLDS[1], classes=("a", "b"))))),
            "the run run-s1-r0-f1 knows the classes a, b, the run run-s1-r0-f0 a, b, c",
        ),
    ],
)
def test_what_is_no_arm(made, said):
    with pytest.raises(EvidenceError, match=said):
        made()


def test_arms_of_one_split_can_be_compared_whatever_their_seeds():
    check_comparable([arm("one"), arm("two", seeds=(1, 2)), arm("floor", init="none")])


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (lambda: arm("one"), "one stands there twice"),
        (lambda: arm("two", init="pretrained"), "one began from scratch, two from pretrained"),
        (lambda: arm("two", folds=(0, 1)), "one has repeat 0, fold 2, which two lacks"),
        (
            lambda: Arm("two", "scratch", (replace(cell(0), fold=3), cell(1), cell(2))),
            "one has repeat 0, fold 0, which two lacks",
        ),
        (lambda: Arm("two", "scratch", (cell(0), cell(1), cell(2, numbers=range(14, 19)))), "first 19.jpg"),
        (
            lambda: Arm("two", "scratch", (cell(0, group="nobody"), *cells()[1:])),
            "the group of 8 photos differs, first 00.jpg: 'patient 0' and 'nobody'",
        ),
        (
            lambda: Arm("two", "scratch", (cell(0, label="b"), *cells()[1:])),
            "the label of 5 photos differs, first 00.jpg: 'a' and 'b'",
        ),
        (
            lambda: Arm("two", "scratch", tuple(replace(one, split_sha256="other") for one in cells())),
            "repeat 0, fold 0 they were trained on different splits",
        ),
        (
            lambda: Arm("two", "scratch", (cell(0), replace(cell(1), split_sha256="other"), cell(2))),
            "repeat 0, fold 1 they were trained on different splits",
        ),
        (
            lambda: Arm(
                "two",
                "scratch",
                tuple(replace(one, test=predictions(FOLDS[one.fold], classes=("a", "b", "x"))) for one in cells()),
            ),
            "one knows the classes a, b, c, two a, b, x",
        ),
    ],
)
def test_what_differs_is_named(other, said):
    with pytest.raises(EvidenceError, match=said):
        check_comparable([arm("one"), other()])
