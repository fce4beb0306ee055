"""What needs no photo at all: the floor that every model must pass."""

from dataclasses import replace

import numpy as np

from hcoatnet.evaluation.evidence import Arm, Cell
from hcoatnet.evaluation.predictions import Floats, Predictions, with_logits

MAJORITY = "majority"


def majority(arm: Arm) -> Arm:
    """The arm that names the most common training class of each cell, with the training shares as probabilities.

    Its logits are the logarithms of the classes' shares among the training photos, so it is calibrated as far as one
    can be without looking. It is the same for every seed: the cells of the arm's first seed stand for all.

    Args:
        arm: Any trained arm; its splits and photos are used, its predictions are not.
    """
    cells = tuple(_majority_cell(cell) for cell in arm.cells if cell.seed == arm.seeds[0])
    return Arm(MAJORITY, "none", cells, arm.subset)


def _majority_cell(cell: Cell) -> Cell:
    counts = np.array(cell.train_counts, dtype=np.float64)
    logits = np.log(counts / counts.sum())
    return replace(
        cell,
        run=MAJORITY,
        val=_same_for_all(cell.val, logits),
        test=_same_for_all(cell.test, logits),
        config_sha256=MAJORITY,
    )


def _same_for_all(predictions: Predictions, logits: Floats) -> Predictions:
    return with_logits(predictions, np.tile(logits, (len(predictions), 1)))
