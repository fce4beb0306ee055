"""What averaging does to prediction sets, as far as the tables of a study can tell.

    python benchmarks/average_of_folds.py STUDY [--out FILE]

A bundle of a study averages the models of all folds, and no photo is new to all of them. Two can be tested together:
the photos of fold f are the test photos of cell f and the validation photos of cell f − 1, which chose that cell's
checkpoint and nothing else. Printed are single models on their test photos, and the average of the two, both with the
temperature and thresholds that a bundle gets (out of fold, from the single models).
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hcoatnet.deploy.answers import Rules
from hcoatnet.evaluation.calibration_file import calibration_of_study
from hcoatnet.evaluation.evidence import Arm
from hcoatnet.evaluation.prediction_sets import prediction_sets
from hcoatnet.files import write_json
from hcoatnet.study.collect import collect

FIGURES = ("accuracy", "confidence", "log_loss", "coverage", "set_size")


def pairs(arm: Arm) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each fold of the first seed and repeat: logits (n, 2, C) of its photos, and their labels."""
    first = arm.replicates[0]
    cells = {cell.fold: cell for cell in arm.cells if (cell.seed, cell.repeat) == (first.seed, first.repeat)}
    for fold, cell in cells.items():
        other = cells[(fold - 1) % len(cells)].val
        rows = {path: row for row, path in enumerate(other.table["path"])}
        index = [rows[path] for path in cell.test.table["path"]]
        yield np.stack([cell.test.logits, other.logits[index]], axis=1), cell.test.labels


def figures_of(p: np.ndarray, labels: np.ndarray, rules: Rules) -> dict[str, float]:
    """What probabilities (n, C) are worth; coverage and mean size of the sets only where the rules have sets."""
    true = p[np.arange(len(labels)), labels]
    values = [(p.argmax(axis=1) == labels).mean(), p.max(axis=1).mean(), -np.log(true).mean()]
    if rules.thresholds is not None:
        sets = prediction_sets(p, rules.thresholds)
        values += [sets[np.arange(len(labels)), labels].mean(), sets.sum(axis=1).mean()]
    return {name: float(value) for name, value in zip(FIGURES, values, strict=False)}


def main() -> None:
    """Print a line for single models and one for averages of two, for each row of the study."""
    parser = argparse.ArgumentParser(description="Prediction sets of single models and of averages of two.")
    parser.add_argument("study", type=Path)
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    arguments = parser.parse_args()
    print(f"{'row':24} {'':8} " + " ".join(f"{name:>10}" for name in FIGURES))
    rows = {}
    for arm in collect([arguments.study]):
        if len(arm.places) == 1:
            continue
        rules = Rules.read(calibration_of_study(arm, draws=10))
        logits, labels = (np.concatenate(parts) for parts in zip(*pairs(arm), strict=True))
        rows[arm.name] = {
            name: figures_of(rules.probabilities(some), labels, rules)
            for name, some in (("single", logits[:, :1]), ("average", logits))
        }
        for name, figures in rows[arm.name].items():
            print(f"{arm.name:24} {name:8} " + " ".join(f"{value:10.3f}" for value in figures.values()))
    if arguments.out is not None:
        write_json(arguments.out, {"rows": rows})


if __name__ == "__main__":
    main()
