"""Evidence: what trained models answered for the same photos, run by run, and what may be compared with what.

A *cell* is one training: one model, seed, repeat and fold. An *arm* is all cells of one model (or variant of one) from
one kind of initial weights: a row of a comparison. A *replicate* is the out-of-fold test predictions of one seed and
repeat: every photo once, whatever the number of folds. Settings are chosen on validation predictions, which are pooled
in the same way.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd

from hcoatnet.errors import EvidenceError
from hcoatnet.evaluation.predictions import Integers, Predictions

Place = tuple[int, int]
"""Repeat and fold."""

Subset = Literal["test", "val"]
"""The photos that a comparison stands on."""

_JUDGED: dict[Subset, str] = {"test": "tested", "val": "validated"}


@dataclass(frozen=True, eq=False)
class Cell:
    """One trained model and its predictions.

    Attributes:
        run: Name of its run directory.
        seed: Seed of the training.
        repeat: Repeat of the cross-validation, 0 for a hold-out split.
        fold: Fold that was tested on, 0 for a hold-out split.
        val: Predictions for the photos that chose the checkpoint.
        test: Predictions for the photos of the fold; ``val`` once more in an arm that is judged on validation photos.
        train_counts: Number of training photos of each class, in the order of the classes.
        split_sha256: Digest of the cell's split file.
        config_sha256: Digest of its recipe (see ``TrainConfig.sha256``).
    """

    run: str
    seed: int
    repeat: int
    fold: int
    val: Predictions
    test: Predictions
    train_counts: tuple[int, ...]
    split_sha256: str
    config_sha256: str

    @property
    def place(self) -> Place:
        """Repeat and fold."""
        return self.repeat, self.fold


@dataclass(frozen=True, eq=False)
class Replicate:
    """The out-of-fold test predictions of one seed and repeat.

    Attributes:
        seed: Seed of the trainings.
        repeat: Repeat of the cross-validation.
        predictions: Each photo once, sorted by path.
        folds: Fold in which each photo was tested, shape (n,).
    """

    seed: int
    repeat: int
    predictions: Predictions
    folds: Integers


@dataclass(frozen=True, eq=False)
class Arm:
    """All cells of one model, or variant of a model, from one kind of initial weights.

    Attributes:
        name: The row's name.
        init: ``scratch``, ``pretrained``, or ``none`` for what is not trained.
        cells: Sorted by seed, repeat and fold.
        subset: Photos that the arm is judged on, which the ``test`` of every cell holds.

    Raises:
        EvidenceError: There is no cell, a fold is missing or stands twice, a photo is judged in two folds of a repeat,
            or the cells know different classes.
    """

    name: str
    init: str
    cells: tuple[Cell, ...]
    subset: Subset = "test"

    def __post_init__(self) -> None:
        if not self.cells:
            raise EvidenceError(f"{self.name} has no finished run. Finish the study with `hcoatnet study run`.")
        for cell in self.cells:
            if cell.test.classes != self.classes:
                raise EvidenceError(
                    f"{self.name}: the run {cell.run} knows the classes {', '.join(cell.test.classes)}, the run "
                    f"{self.cells[0].run} {', '.join(self.classes)}. Train all on the same photos."
                )
        _check_cells(self)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        return self.cells[0].test.classes

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds, sorted."""
        return tuple(sorted({cell.seed for cell in self.cells}))

    @property
    def repeats(self) -> tuple[int, ...]:
        """Repeats of the cross-validation, sorted."""
        return tuple(sorted({cell.repeat for cell in self.cells}))

    @property
    def places(self) -> tuple[Place, ...]:
        """Repeat and fold of every cell of one seed, sorted."""
        return tuple(sorted({cell.place for cell in self.cells}))

    @cached_property
    def replicates(self) -> tuple[Replicate, ...]:
        """Sorted by seed and repeat. All of an arm hold the same photos in the same order."""
        keys = sorted({(cell.seed, cell.repeat) for cell in self.cells})
        return tuple(self._pool(*key) for key in keys)

    def _pool(self, seed: int, repeat: int) -> Replicate:
        cells = [cell for cell in self.cells if (cell.seed, cell.repeat) == (seed, repeat)]
        table = pd.concat([cell.test.table.assign(_fold=cell.fold) for cell in cells]).sort_values("path")
        folds: Integers = table.pop("_fold").to_numpy(dtype=np.int64)
        return Replicate(seed, repeat, Predictions(table.reset_index(drop=True), self.classes), folds)


def check_comparable(arms: Sequence[Arm]) -> None:
    """Refuse to compare what differs in more than the model.

    Initial weights ``none`` go with any other; seeds may differ in number.

    Raises:
        EvidenceError: Two arms share a name, or differ in initial weights, classes, repeats and folds, splits, photos,
            labels or groups. The message names what differs.
    """
    names = Counter(arm.name for arm in arms)
    if twice := [name for name, count in names.items() if count > 1]:
        raise EvidenceError(f"{twice[0]} stands there twice. Compare each model once, or rename one in its study.")
    trained = [arm for arm in arms if arm.init != "none"]
    for other in trained[1:]:
        _check_init(trained[0], other)
    for other in arms[1:]:
        _check_pair(arms[0], other)


def _check_cells(arm: Arm) -> None:
    found = Counter((cell.seed, *cell.place) for cell in arm.cells)
    if twice := [key for key, count in found.items() if count > 1]:
        seed, repeat, fold = twice[0]
        raise EvidenceError(f"{arm.name} has two runs of seed {seed}, repeat {repeat}, fold {fold}. Leave one out.")
    expected = {(seed, *place) for seed in arm.seeds for place in arm.places}
    if missing := sorted(expected - set(found)):
        named = "; ".join(f"seed {seed}, repeat {repeat}, fold {fold}" for seed, repeat, fold in missing[:5])
        raise EvidenceError(
            f"{arm.name} lacks {len(missing)} of {len(expected)} runs: {named}. Finish the study with "
            "`hcoatnet study run`; `hcoatnet study status` lists what is left."
        )
    for replicate_cells in _by_replicate(arm.cells):
        paths = Counter(path for cell in replicate_cells for path in cell.test.table["path"])
        if again := [path for path, count in paths.items() if count > 1]:
            runs = [cell.run for cell in replicate_cells if again[0] in set(cell.test.table["path"])]
            raise EvidenceError(
                f"{arm.name}: the photo {again[0]} is {_JUDGED[arm.subset]} in two folds of one repeat "
                f"({', '.join(runs)}). The folds are not of one split file: train them again with the same --split."
            )
    photos = {
        frozenset(path for cell in cells for path in cell.test.table["path"]) for cells in _by_replicate(arm.cells)
    }
    if len(photos) > 1:
        raise EvidenceError(
            f"{arm.name}: its seeds and repeats {_JUDGED[arm.subset]} different photos. Use one split file for all."
        )


def _by_replicate(cells: Sequence[Cell]) -> list[list[Cell]]:
    keys = sorted({(cell.seed, cell.repeat) for cell in cells})
    return [[cell for cell in cells if (cell.seed, cell.repeat) == key] for key in keys]


def _check_init(one: Arm, other: Arm) -> None:
    if one.init != other.init:
        raise EvidenceError(
            f"{_pair(one, other)}: {one.name} began from {one.init}, {other.name} from {other.init}. Initial weights "
            "are part of a result; compare arms of one kind, chosen with --init."
        )


def _pair(one: Arm, other: Arm) -> str:
    return f"{one.name} and {other.name} cannot be compared"


def _check_pair(one: Arm, other: Arm) -> None:
    pair = _pair(one, other)
    if one.classes != other.classes:
        raise EvidenceError(
            f"{pair}: {one.name} knows the classes {', '.join(one.classes)}, {other.name} {', '.join(other.classes)}."
        )
    if one.places != other.places:
        odd = sorted(set(one.places) ^ set(other.places))
        repeat, fold = odd[0]
        has, lacks = (one, other) if odd[0] in one.places else (other, one)
        raise EvidenceError(
            f"{pair}: {has.name} has repeat {repeat}, fold {fold}, which {lacks.name} lacks. Finish both studies on "
            "the same split file."
        )
    _check_photos(one, other, pair)
    for place in one.places:
        splits = {next(cell.split_sha256 for cell in arm.cells if cell.place == place) for arm in (one, other)}
        if len(splits) > 1:
            raise EvidenceError(
                f"{pair}: in repeat {place[0]}, fold {place[1]} they were trained on different splits of the same "
                "photos. Train both with the same --split."
            )


def _check_photos(one: Arm, other: Arm, pair: str) -> None:
    mine, theirs = (arm.replicates[0].predictions.table for arm in (one, other))
    if odd := sorted(set(mine["path"]) ^ set(theirs["path"])):
        raise EvidenceError(
            f"{pair}: {len(odd)} photos were {_JUDGED[one.subset]} by one of them only, first {odd[0]}. Train both on "
            "the same manifest with the same --split."
        )
    for column in ("label", "group"):
        differing = (mine[column] != theirs[column]).to_numpy()
        if differing.any():
            row = int(differing.argmax())
            raise EvidenceError(
                f"{pair}: the {column} of {int(differing.sum())} photos differs, first {mine['path'][row]}: "
                f"{mine[column][row]!r} and {theirs[column][row]!r}. Train both on the same manifest."
            )
