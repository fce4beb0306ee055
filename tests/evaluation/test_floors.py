"""The majority floor: what a model must pass that looks at no photo."""

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier

from hcoatnet.evaluation.evidence import Arm, Cell
from hcoatnet.evaluation.floors import majority
from hcoatnet.evaluation.metrics import summarise
from hcoatnet.evaluation.predictions import build_predictions

CLASSES = ("a", "b", "c")
TRAIN = np.array([0] * 5 + [1] * 9 + [2] * 2)


def cell(fold, seed, labels):
    photos = pd.DataFrame(
        {
            "path": [f"{fold}/{number}.jpg" for number in range(len(labels))],
            "group": [f"{fold}-{number}" for number in range(len(labels))],
            "label": [CLASSES[label] for label in labels],
            "subset": "test",
            "site": "arm",
        }
    )
    logits = np.random.default_rng(seed + fold).normal(size=(len(labels), 3))
    table = build_predictions(photos, logits, CLASSES)
    return Cell(f"run-{seed}-{fold}", seed, 0, fold, table, table, tuple(np.bincount(TRAIN)), f"split-{fold}", "config")


@pytest.fixture
def arm():
    rng = np.random.default_rng(3)
    labels = [rng.integers(0, 3, size=20) for _ in range(2)]
    return Arm("model", "scratch", tuple(cell(fold, seed, labels[fold]) for seed in (1, 2) for fold in (0, 1)))


def test_it_answers_as_scikit_learns_prior_classifier(arm):
    floor = majority(arm).replicates[0].predictions
    prior = DummyClassifier(strategy="prior").fit(np.zeros((len(TRAIN), 1)), TRAIN)
    expected = prior.predict_proba(np.zeros((len(floor), 1)))
    np.testing.assert_allclose(floor.probabilities, expected, rtol=1e-12)
    np.testing.assert_allclose(floor.logits, np.log(expected), rtol=1e-12)
    assert set(floor.predicted) == {1}


def test_it_stands_for_every_seed_once_and_keeps_photos_and_further_columns(arm):
    floor = majority(arm)
    assert (floor.name, floor.init, floor.seeds, floor.places) == ("majority", "none", (1,), arm.places)
    mine, theirs = (one.replicates[0].predictions.table for one in (floor, arm))
    for column in ("path", "group", "label", "site"):
        assert list(mine[column]) == list(theirs[column])


def test_its_accuracy_is_the_share_of_the_common_class(arm):
    table = majority(arm).replicates[0].predictions
    assert summarise(table)["accuracy"]["value"] == pytest.approx(np.mean(table.table["label"] == "b"))
