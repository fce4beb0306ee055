"""Do the bootstrap's 95 % intervals hold the truth 95 % of the time? A simulation in which the truth is known.

    python benchmarks/bootstrap_coverage.py --out docs/results/bootstrap_coverage.json

Each simulated set holds 300 groups (patients) with one to four photos, in six unequal classes, the rarest with 12
groups. One photo in ten is of another class than its group's. Two models answer: their logits favour the true class and
carry noise of each photo and noise that all photos of a group share, part of it common to both models. So the errors
within a group, and those of the two models, go together, as they do in real studies. The truth is the value of each
metric in 300,000 such groups.

Two ways of collecting are simulated: ``fixed`` (as many groups of each class in every set, as when one collects by
diagnosis; what the stratified bootstrap describes) and ``drawn`` (the class of each group is a matter of chance).
Beside the bootstrap over groups stand what ignores the groups: the same bootstrap over photos, and Wilson's interval.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

from hcoatnet.evaluation.intervals import Resampled, estimate, wilson
from hcoatnet.evaluation.predictions import Predictions, build_predictions
from hcoatnet.evaluation.resampling import resample
from hcoatnet.evaluation.weighted_metrics import photo_metrics
from hcoatnet.files import write_json

CLASSES = tuple("abcdef")
GROUPS_OF_CLASS = np.array([108, 75, 54, 33, 18, 12])
PHOTOS = np.array([0.4, 0.3, 0.2, 0.1])
"""Shares of the groups with one, two, three and four photos."""
OTHER_CLASS = 0.1
STRENGTH = np.array([2.2, 1.8, 1.6, 1.6, 1.3, 1.5])
ADVANTAGE = 0.25
GROUP_NOISE, PHOTO_NOISE = 1.0, 1.0
COMMON = 0.5
"""Share of the variance of either noise that both models have in common."""
METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "brier")
DIFFERENCE = "difference in macro_f1"
TRUTH_GROUPS = 300_000


def simulate(groups: int, fixed: bool, rng: np.random.Generator) -> tuple[Predictions, Predictions]:
    """Answers of the two models to one set of photos."""
    shares = GROUPS_OF_CLASS / GROUPS_OF_CLASS.sum()
    if fixed:
        class_of_group = np.repeat(np.arange(len(CLASSES)), np.round(groups * shares).astype(int))
    else:
        class_of_group = rng.choice(len(CLASSES), size=groups, p=shares)
    sizes = 1 + rng.choice(len(PHOTOS), size=len(class_of_group), p=PHOTOS)
    group_of_photo = np.repeat(np.arange(len(class_of_group)), sizes)
    n = len(group_of_photo)
    other = rng.random(n) < OTHER_CLASS
    labels = np.where(other, rng.choice(len(CLASSES), size=n, p=shares), class_of_group[group_of_photo])
    photos = pd.DataFrame(
        {
            "path": [f"{number:07}" for number in range(n)],
            "group": group_of_photo.astype(str),
            "label": np.array(CLASSES)[labels],
            "subset": "test",
        }
    )

    def noise(count: int) -> np.ndarray:
        return rng.normal(size=(count, len(CLASSES)))

    common = GROUP_NOISE * noise(len(sizes))[group_of_photo] + PHOTO_NOISE * noise(n)
    answers = []
    for advantage in (ADVANTAGE, 0.0):
        own = GROUP_NOISE * noise(len(sizes))[group_of_photo] + PHOTO_NOISE * noise(n)
        logits = np.sqrt(COMMON) * common + np.sqrt(1 - COMMON) * own
        logits[np.arange(n), labels] += STRENGTH[labels] + advantage
        answers.append(build_predictions(photos, logits, CLASSES))
    return answers[0], answers[1]


def statistics(model: Predictions, other: Predictions, draws: int, seed: int) -> dict[str, Resampled]:
    """All statistics of one set, resampled."""
    resampling = resample(model, draws, seed)
    of_photo = resampling.groups.of_photo
    mine, theirs = (resampling.values_of(photo_metrics(one, of_photo, ranked=False)) for one in (model, other))
    found = {name: resampling.statistic(mine[name]) for name in METRICS}
    return found | {DIFFERENCE: resampling.statistic(mine["macro_f1"]) - resampling.statistic(theirs["macro_f1"])}


def true_values(model: Predictions, other: Predictions) -> dict[str, float]:
    """The statistics of a set so large that it stands for the population."""
    together = np.zeros(len(model), dtype=np.int64)
    mine, theirs = (photo_metrics(one, together, ranked=False).on(np.ones((1, 1))) for one in (model, other))
    found = {name: float(mine[name][0]) for name in METRICS}
    return found | {DIFFERENCE: float(mine["macro_f1"][0] - theirs["macro_f1"][0])}


def ungroup(predictions: Predictions) -> Predictions:
    """The same table, each photo a group of its own."""
    return Predictions(predictions.table.assign(group=predictions.table["path"]), predictions.classes)


def simulate_coverage(sets: int, draws: int, fixed: bool, seed: int) -> dict[str, dict[str, dict[str, float]]]:
    """Share of the sets whose interval holds the truth, and mean width, by method and statistic."""
    rng = np.random.default_rng([seed, fixed])
    truth = true_values(*simulate(TRUTH_GROUPS, fixed, rng))
    intervals: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for number in range(sets):
        model, other = simulate(int(GROUPS_OF_CLASS.sum()), fixed, rng)
        by_group = statistics(model, other, draws, number)
        by_photo = statistics(ungroup(model), ungroup(other), draws, number)
        for name, statistic in by_group.items():
            found = estimate(statistic)
            for method, interval in (("percentile", found.percentile), ("BCa", found.bca)):
                intervals.setdefault((f"groups, {method}", name), []).append((interval.low, interval.high))
            interval = estimate(by_photo[name]).percentile
            intervals.setdefault(("photos, percentile", name), []).append((interval.low, interval.high))
        right = int((model.predicted == model.labels).sum())
        interval = wilson(right, len(model))
        intervals.setdefault(("photos, Wilson", "accuracy"), []).append((interval.low, interval.high))
    table: dict[str, dict[str, dict[str, float]]] = {}
    for (method, name), found in intervals.items():
        low, high = np.array(found).T
        held = (low <= truth[name]) & (truth[name] <= high)
        table.setdefault(method, {})[name] = {
            "coverage": round(float(held.mean()), 4),
            "missed_below": round(float((truth[name] < low).mean()), 4),
            "missed_above": round(float((truth[name] > high).mean()), 4),
            "mean_width": round(float((high - low).mean()), 4),
        }
    return {"truth": {name: {"value": round(value, 4)} for name, value in truth.items()}} | table


def main() -> None:
    parser = argparse.ArgumentParser(description="Coverage of the bootstrap's 95 % intervals in a simulation.")
    parser.add_argument("--sets", type=int, default=1000, help="simulated sets (default 1000)")
    parser.add_argument("--draws", type=int, default=1000, help="bootstrap draws for each (default 1000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    arguments = parser.parse_args()
    started = time.perf_counter()
    result = {
        "sets": arguments.sets,
        "draws": arguments.draws,
        "seed": arguments.seed,
        "level": 0.95,
        "simulation_error": round(float(np.sqrt(0.95 * 0.05 / arguments.sets)), 4),
    }
    for name, fixed in (("fixed", True), ("drawn", False)):
        result[name] = simulate_coverage(arguments.sets, arguments.draws, fixed, arguments.seed)
        print(f"\nClasses {name}: coverage (mean width) over {arguments.sets} sets")
        for method, row in result[name].items():
            if method != "truth":
                figures = (f"{key} {one['coverage']:.3f} ({one['mean_width']:.3f})" for key, one in row.items())
                print(f"  {method:20}", "; ".join(figures))
    print(f"\n{time.perf_counter() - started:.0f} s")
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(arguments.out, result)


if __name__ == "__main__":
    main()
