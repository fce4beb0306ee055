"""Simulated answers with several photos a group, for tests."""

import numpy as np
import pandas as pd

from hcoatnet.evaluation.evidence import Arm, Cell
from hcoatnet.evaluation.predictions import Predictions, build_predictions

SHARES = (0.35, 0.25, 0.2, 0.12, 0.08)


def labelled(labels, logits, groups=None, prefix="", classes=None) -> Predictions:
    """A table of photos with these labels, logits and groups (each photo its own by default)."""
    classes = classes or tuple("abcdefghij"[: np.shape(logits)[1]])
    paths = [f"{number:05d}{prefix}.jpg" for number in range(len(labels))]  # folds interleave when sorted
    photos = pd.DataFrame(
        {
            "path": paths,
            "group": paths if groups is None else [f"{prefix}{group}" for group in groups],
            "label": [classes[label] for label in labels],
            "subset": "test",
        }
    )
    return build_predictions(photos, np.asarray(logits, dtype=float), classes)


def simulated(seed, n=120, classes=5, signal=1.5, scale=1.0, photos_a_group=2, prefix="") -> Predictions:
    """Answers of a model that knows something; ``scale`` multiplies its logits."""
    rng = np.random.default_rng(seed)
    shares = np.array(SHARES[:classes]) / sum(SHARES[:classes])
    labels = rng.choice(classes, size=n, p=shares)
    labels[:classes] = range(classes)
    logits = scale * (rng.normal(size=(n, classes)) + signal * np.eye(classes)[labels])
    return labelled(labels, logits, np.arange(n) // photos_a_group, prefix)


def simulated_arm(seed=0, folds=3, seeds=(1,), n=120, val_n=150, **options) -> Arm:
    """An arm whose cells each have photos of their own."""
    cells = [
        Cell(
            run=f"run-s{one}-f{fold}",
            seed=one,
            repeat=0,
            fold=fold,
            val=simulated([seed, one, fold, 1], val_n, prefix=f"v{fold}-", **options),
            test=_same_photos(simulated([seed, fold], n, prefix=f"t{fold}-", **options), [seed, one, fold]),
            train_counts=(50, 40, 30, 20, 10),
            split_sha256=f"split {fold}",
            config_sha256="config",
        )
        for one in seeds
        for fold in range(folds)
    ]
    return Arm("simulated", "scratch", tuple(cells))


def _same_photos(table: Predictions, seed) -> Predictions:
    """The same photos, answered by another training."""
    noise = 0.5 * np.random.default_rng(seed).normal(size=table.logits.shape)
    photos = table.table[["path", "group", "label", "subset"]]
    return build_predictions(photos, table.logits + noise, table.classes)
