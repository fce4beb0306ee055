"""Arms of simulated models: patients with one to four photos, unequal classes, folds by patient."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from hcoatnet.evaluation.evidence import Arm, Cell
from hcoatnet.evaluation.predictions import Predictions, build_predictions

CLASSES = ("a", "b", "c", "d")
SHARES = (0.45, 0.3, 0.17, 0.08)


def draw_photos(
    groups: int = 60, seed: int = 0, shares: Sequence[float] = SHARES, most: int = 4, mixed: float = 0.1
) -> pd.DataFrame:
    """Columns path, group, label (an index) and fold (of 3); ``mixed`` of the photos are of another class."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, most + 1, groups)
    group = np.repeat(np.arange(groups), sizes)
    label = rng.choice(len(shares), groups, p=shares)[group]
    other = rng.random(len(group)) < mixed
    label[other] = rng.choice(len(shares), other.sum())
    # Every class is there, whatever the seed.
    label[: len(shares)] = np.arange(len(shares))
    return pd.DataFrame(
        {
            "path": [f"{number:04}.jpg" for number in rng.permutation(len(group))],
            "group": [f"patient {number}" for number in group],
            "label": label,
            "fold": group % 3,
        }
    )


def answer(
    photos: pd.DataFrame,
    strength: float = 1.5,
    seed: int = 0,
    classes: Sequence[str] = CLASSES,
    columns: Mapping[str, Sequence[object]] | None = None,
) -> Predictions:
    """Logits with noise of the photo and of its group."""
    rng = np.random.default_rng(seed)
    labels = photos["label"].to_numpy()
    _, group = np.unique(photos["group"], return_inverse=True)
    noise = rng.normal(size=(len(photos), len(classes))) + rng.normal(size=(group.max() + 1, len(classes)))[group]
    noise[np.arange(len(labels)), labels] += strength
    table = photos.assign(label=np.array(classes)[labels], subset="test", **(columns or {}))
    return build_predictions(table.drop(columns="fold"), noise, tuple(classes))


def make_arm(
    photos: pd.DataFrame,
    name: str = "model",
    strength: float = 1.5,
    init: str = "scratch",
    seeds: Sequence[int] = (1,),
    folds: int = 3,
    noise: int = 0,
    classes: Sequence[str] = CLASSES,
    columns: Mapping[str, Sequence[object]] | None = None,
) -> Arm:
    """Every seed answers differently; ``noise`` tells models of one strength apart; one fold is a hold-out split."""
    cells = []
    for seed in seeds:
        answers = answer(photos, strength, 1000 * noise + seed, classes, columns)
        for fold in range(folds):
            rows = photos["fold"].to_numpy() % folds == fold
            test = Predictions(answers.table[rows].reset_index(drop=True), answers.classes)
            train = np.bincount(photos["label"][~rows], minlength=len(classes)) if folds > 1 else [9] * len(classes)
            cells.append(
                Cell(f"{name}-s{seed}-f{fold}", seed, 0, fold, test, test, tuple(map(int, train)), f"split-{fold}", "c")
            )
    return Arm(name, init, tuple(cells))
