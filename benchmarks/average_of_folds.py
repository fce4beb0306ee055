"""What averaging the models of two folds gains, and what it does to prediction sets, as far as tables can tell.

    python benchmarks/average_of_folds.py STUDY [--init scratch pretrained] [--out FILE]

A bundle of a study averages the models of all folds, and no photo is new to all of them. Two can be tested together:
the photos of fold f are the test photos of cell f and the validation photos of cell f − 1, which chose that cell's
checkpoint and nothing else. Printed are single models on their test photos, and the average of the two, both with the
temperature and thresholds that a bundle gets (out of fold, from the single models). The result file also holds, under
``gain``, figures without a temperature, and the differences with their intervals (a bootstrap over groups, paired).
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from averaging_gain import line, measure

from hcoatnet.deploy.answers import Rules
from hcoatnet.evaluation.calibration_file import calibration_of_study
from hcoatnet.evaluation.evidence import Arm
from hcoatnet.evaluation.prediction_sets import prediction_sets
from hcoatnet.evaluation.predictions import Predictions, with_logits
from hcoatnet.files import write_json
from hcoatnet.study.collect import collect

FIGURES = ("accuracy", "confidence", "log_loss", "coverage", "set_size")


def two_models(arm: Arm) -> tuple[Predictions, Predictions]:
    """What cell f says of the photos of fold f, and what cell f − 1 says, in the first seed and repeat, by path."""
    first = arm.replicates[0]
    cells = [cell for cell in arm.cells if (cell.seed, cell.repeat) == (first.seed, first.repeat)]
    other = pd.concat([cell.val.table for cell in cells]).sort_values("path").reset_index(drop=True)
    return first.predictions, Predictions(other, arm.classes)


def gain(single: Predictions, other: Predictions, draws: int) -> dict[str, dict[str, Any]]:
    """Figures of single models and of the mean of two models' probabilities, and how these differ."""
    mean = np.log((single.probabilities + other.probabilities) / 2)
    return measure({"single": [single], "average": [with_logits(single, mean)]}, draws)


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
    parser.add_argument("--init", nargs="+", choices=("scratch", "pretrained"), default=[None], help="only such rows")
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    arguments = parser.parse_args()
    print(f"{'row':24} {'':8} " + " ".join(f"{name:>10}" for name in FIGURES))
    rows = {}
    for arm in (arm for init in arguments.init for arm in collect([arguments.study], init)):
        if len(arm.places) == 1:
            continue
        rules = Rules.read(calibration_of_study(arm, draws=10))
        single, other = two_models(arm)
        logits = np.stack([single.logits, other.logits], axis=1)
        rows[arm.name] = {
            name: figures_of(rules.probabilities(some), single.labels, rules)
            for name, some in (("single", logits[:, :1]), ("average", logits))
        }
        for name, figures in rows[arm.name].items():
            print(f"{arm.name:24} {name:8} " + " ".join(f"{value:10.3f}" for value in figures.values()))
        rows[arm.name]["gain"] = gain(single, other, arguments.draws)
        print(line("average, plain", rows[arm.name]["gain"]["average"]))
    if arguments.out is not None:
        write_json(arguments.out, {"rows": rows})


if __name__ == "__main__":
    main()
