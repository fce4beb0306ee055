"""How long the intervals of a comparison take, beside a plain loop over scikit-learn.

    python benchmarks/bootstrap_speed.py --out docs/results/bootstrap_speed.json

Seven models answer 1,000 photos of six classes (groups of one to four photos); every metric and every metric of a class
gets its intervals from 2,000 draws, with the jackknife for BCa, the tests against the reference and all. The plain loop
computes the same metrics of one model with ``sample_weight`` on a few draws; its time for all models, draws and
left-out groups is extrapolated, as each costs the same. On a busy machine the clock says little: read the processor
seconds, and the load average beside them.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import sklearn.metrics as plain

from hcoatnet.evaluation.comparison import compare
from hcoatnet.evaluation.evidence import Arm, Cell
from hcoatnet.evaluation.predictions import Predictions, build_predictions
from hcoatnet.evaluation.resampling import resample
from hcoatnet.files import write_json

CLASSES = tuple("abcdef")
SHARES = (0.31, 0.23, 0.21, 0.15, 0.05, 0.05)
FOLDS = 5


def simulate_arms(models: int, photos: int, seed: int) -> list[Arm]:
    """Models of rising strength, tested in five folds by group."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(photos), rng.integers(1, 5, photos))[:photos]
    labels = rng.choice(len(CLASSES), size=photos, p=SHARES)[group]
    table = pd.DataFrame(
        {
            "path": [f"{number:05}" for number in range(photos)],
            "group": group.astype(str),
            "label": np.array(CLASSES)[labels],
            "subset": "test",
        }
    )
    arms = []
    for model in range(models):
        logits = rng.normal(size=(photos, len(CLASSES))) + (0.5 + 0.2 * model) * np.eye(len(CLASSES))[labels]
        cells = []
        for fold in range(FOLDS):
            rows = group % FOLDS == fold
            test = build_predictions(table[rows], logits[rows], CLASSES)
            train = tuple(int(count) for count in np.bincount(labels[~rows], minlength=len(CLASSES)))
            cells.append(Cell(f"m{model}-f{fold}", 1, 0, fold, test, test, train, f"split-{fold}", "config"))
        arms.append(Arm(f"model {model}", "scratch", tuple(cells)))
    return arms


def plain_metrics(table: Predictions, weights: np.ndarray) -> list[float]:
    """All metrics and metrics of a class by scikit-learn; the calibration error, which it lacks, is left out."""
    y, predicted, p, every = table.labels, table.predicted, table.probabilities, range(len(CLASSES))
    weighted = {"sample_weight": weights}
    _, recall, f1, support = plain.precision_recall_fscore_support(
        y, predicted, labels=every, zero_division=0, **weighted
    )
    areas = [plain.roc_auc_score(y == index, p[:, index], **weighted) for index in every]
    precisions = [plain.average_precision_score(y == index, p[:, index], **weighted) for index in every]
    return [
        plain.accuracy_score(y, predicted, **weighted),
        float(np.mean(recall)),
        float(np.mean(f1)),
        float(np.average(f1, weights=support)),
        plain.matthews_corrcoef(y, predicted, **weighted),
        float(np.mean(areas)),
        float(np.mean(precisions)),
        plain.brier_score_loss(y, p, labels=every, scale_by_half=False, **weighted),
        plain.log_loss(y, p, labels=every, **weighted),
    ]


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and processor seconds of this process."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - processor


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of a comparison's intervals beside a loop over scikit-learn.")
    parser.add_argument("--models", type=int, default=7)
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--plain-draws", type=int, default=20, help="draws of the plain loop (default 20)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    arguments = parser.parse_args()
    arms = simulate_arms(arguments.models, arguments.photos, arguments.seed)
    table = arms[0].replicates[0].predictions
    resampling = resample(table, arguments.plain_draws, arguments.seed)
    weights = resampling.counts[:, resampling.groups.of_photo]
    plain_metrics(table, weights[0])
    ours = min(timed(lambda: compare(arms, replicates=arguments.draws)) for _ in range(3))
    loop = timed(lambda: [plain_metrics(table, one) for one in weights])
    groups = len(resampling.groups.strata)
    times = arguments.models * (arguments.draws + groups) / arguments.plain_draws
    result = {
        "models": arguments.models,
        "photos": arguments.photos,
        "groups": groups,
        "classes": len(CLASSES),
        "draws": arguments.draws,
        "compare_seconds": round(ours[0], 2),
        "compare_processor_seconds": round(ours[1], 2),
        "load_average": round(os.getloadavg()[0], 1),
        "cores": os.cpu_count(),
        "plain_loop_measured_draws_of_one_model": arguments.plain_draws,
        "plain_loop_measured_processor_seconds": round(loop[1], 2),
        "plain_loop_extrapolated_processor_seconds": round(loop[1] * times),
        "ratio_of_processor_seconds": round(loop[1] * times / ours[1]),
    }
    for name, value in result.items():
        print(f"{name:45}{value}")
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(arguments.out, result)


if __name__ == "__main__":
    main()
