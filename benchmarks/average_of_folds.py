"""What averaging does to prediction sets, as far as the tables of a study can tell.

    python benchmarks/average_of_folds.py STUDY

A bundle of a study averages the models of all folds, and no photo is new to all of them. Two can be tested together:
the photos of fold f are the test photos of cell f and the validation photos of cell f − 1, which chose that cell's
checkpoint and nothing else. Printed are single models on their test photos, and the average of the two, both with the
temperature and thresholds that a bundle gets (out of fold, from the single models).
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hcoatnet.deploy.answers import Rules
from hcoatnet.evaluation.calibration_file import calibration_of_study
from hcoatnet.evaluation.evidence import Arm
from hcoatnet.evaluation.prediction_sets import prediction_sets
from hcoatnet.study.collect import collect


def pairs(arm: Arm) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each fold of the first seed and repeat: logits (n, 2, C) of its photos, and their labels."""
    first = arm.replicates[0]
    cells = {cell.fold: cell for cell in arm.cells if (cell.seed, cell.repeat) == (first.seed, first.repeat)}
    for fold, cell in cells.items():
        other = cells[(fold - 1) % len(cells)].val
        rows = {path: row for row, path in enumerate(other.table["path"])}
        index = [rows[path] for path in cell.test.table["path"]]
        yield np.stack([cell.test.logits, other.logits[index]], axis=1), cell.test.labels


def main() -> None:
    """Print a line for single models and one for averages of two, for each row of the study."""
    print(f"{'row':24} {'':8} {'accuracy':>8} {'confidence':>10} {'log loss':>8} {'coverage':>8} {'set size':>8}")
    for arm in collect([Path(sys.argv[1])]):
        if len(arm.places) == 1:
            continue
        rules = Rules.read(calibration_of_study(arm, draws=10))
        logits, labels = (np.concatenate(parts) for parts in zip(*pairs(arm), strict=True))
        for name, some in (("single", logits[:, :1]), ("average", logits)):
            p = rules.probabilities(some)
            true = p[np.arange(len(labels)), labels]
            figures = [(p.argmax(axis=1) == labels).mean(), p.max(axis=1).mean(), -np.log(true).mean()]
            if rules.thresholds is not None:
                sets = prediction_sets(p, rules.thresholds)
                figures += [sets[np.arange(len(labels)), labels].mean(), sets.sum(axis=1).mean()]
            print(
                f"{arm.name:24} {name:8} "
                + " ".join(f"{one:{w}.3f}" for one, w in zip(figures, (8, 10, 8, 8, 8), strict=False))
            )


if __name__ == "__main__":
    main()
