"""Which model is better, and how sure that is: estimates with intervals, and paired tests against one reference.

An arm's estimate is the metric of each (seed, repeat) over the pooled out-of-fold predictions, then the mean. Groups
are drawn once for all arms, seeds and metrics, so every difference is paired. The primary comparison is the difference
in macro F1; its verdict rests on the bootstrap p after Holm's correction over the comparison. The corrected t test and
McNemar's stand beside it, each with Holm's correction of its own.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal

import numpy as np

from hcoatnet.errors import EvidenceError
from hcoatnet.evaluation.evidence import Arm, Place, Subset, check_comparable
from hcoatnet.evaluation.intervals import Estimate, Interval, Resampled, estimate, wilson
from hcoatnet.evaluation.metrics import score
from hcoatnet.evaluation.predictions import Floats, Predictions
from hcoatnet.evaluation.resampling import Resampling, resample
from hcoatnet.evaluation.significance import CorrectedT, McNemar, bootstrap_p, corrected_t, holm, mcnemar
from hcoatnet.evaluation.weighted_metrics import DEFINITIONS, METRICS, PER_CLASS, photo_metrics

PRIMARY = "macro_f1"
FEW = 30
"""A class with fewer photos is marked."""
DETECTABLE = 2.8
"""Standard errors that a true difference must measure to be found with 80 % power at the 5 % level: 1.96 + 0.84."""

SUBSET_NAMES: Mapping[Subset, str] = {"test": "test", "val": "validation"}

Verdict = Literal["better", "worse", "not distinguishable"]


@dataclass(frozen=True)
class Row:
    """One arm.

    Attributes:
        name: The arm's name.
        init: Its initial weights.
        seeds: Its seeds.
        repeats: Its repeats of the cross-validation.
        metrics: One estimate for each of ``METRICS``.
        per_class: For each class, one estimate for each of ``PER_CLASS``.
        seed_spread: Standard deviation of macro F1 over the seeds, each averaged over its repeats; None with one seed.
        right: Photos named rightly in the first seed and repeat.
        accuracy_wilson: Wilson's interval of that accuracy; it assumes independent photos.
    """

    name: str
    init: str
    seeds: tuple[int, ...]
    repeats: tuple[int, ...]
    metrics: Mapping[str, Estimate]
    per_class: Mapping[str, Mapping[str, Estimate]]
    seed_spread: float | None
    right: int
    accuracy_wilson: Interval


@dataclass(frozen=True)
class Difference:
    """One arm against the reference.

    Attributes:
        name: The arm's name.
        reference: The reference's name.
        macro_f1: The arm's macro F1 − the reference's, with paired intervals.
        p: Two-sided bootstrap p of "no difference in macro F1".
        p_holm: ``p`` after Holm's correction over the comparison.
        detectable: The least true difference in macro F1 that this design would find with 80 % power, before Holm's
            correction: 2.8 × the bootstrap standard error of the difference.
        verdict: ``better`` or ``worse`` where ``p_holm`` < 1 − level.
        corrected_t: Over the folds and repeats; None with fewer than two of them.
        mcnemar: On the first seed and repeat of both; secondary.
    """

    name: str
    reference: str
    macro_f1: Estimate
    p: float
    p_holm: float
    detectable: float
    verdict: Verdict
    corrected_t: CorrectedT | None
    mcnemar: McNemar


@dataclass(frozen=True)
class Comparison:
    """Several arms on the same photos.

    Attributes:
        init: Initial weights of the trained arms; ``none`` if no arm is trained.
        subset: ``test`` or ``val``: the photos that all figures stand on.
        classes: Class names.
        photos: Number of these photos.
        groups: Number of their groups.
        support: Photos and groups of each class.
        several_photos_a_group: Whether any group holds more than one photo, so that what assumes independent photos
            (Wilson's interval, McNemar's test) is too sure.
        rows: One for each arm, in the order given.
        reference: Name of the reference.
        differences: One for each other arm, in the order given.
        replicates: Number of bootstrap draws.
        level: Level of the intervals and the verdicts.
        seed: Seed of the draws.
        few: Classes with fewer than 30 photos.
    """

    init: str
    subset: Subset
    classes: tuple[str, ...]
    photos: int
    groups: int
    support: Mapping[str, tuple[int, int]]
    several_photos_a_group: bool
    rows: tuple[Row, ...]
    reference: str
    differences: tuple[Difference, ...]
    replicates: int
    level: float
    seed: int
    few: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """All fields and the metrics' definitions, ready for JSON: what is undefined or infinite becomes None."""
        content: dict[str, Any] = _plain(asdict(self))
        return content | {"definitions": dict(DEFINITIONS)}


def compare(
    arms: Sequence[Arm],
    reference: str | None = None,
    *,
    replicates: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Comparison:
    """Estimate every arm and test each against the reference.

    Args:
        arms: At least one; rows that are not trained (init ``none``) are arms like any other.
        reference: Name of an arm; if None, the first whose name starts with ``h_coatnet``, else the first trained arm.
        replicates: Number of bootstrap draws, at least 100.
        seed: Seed of the draws.
        level: Level of the intervals and the verdicts, between 0.5 and 1.

    Raises:
        EvidenceError: The arms cannot be compared (see ``check_comparable``), there is no such reference, a class has
            no photo, or a number is out of its range.
    """
    if replicates < 100 or not 0.5 <= level < 1:
        raise EvidenceError(
            f"A comparison needs at least 100 draws and a level from 0.5 up to 1. Got {replicates} and {level:g}."
        )
    _check(arms)
    main = _find_reference(arms, reference)
    photos = arms[0].replicates[0].predictions
    support = _count_support(photos, main.subset)
    resampling = resample(photos, replicates, seed)
    rows, macro_f1 = [], {}
    for arm in arms:
        row, macro_f1[arm.name] = _estimate_row(arm, resampling, level)
        rows.append(row)
    others = [arm for arm in arms if arm is not main]
    differences = [_test(arm, main, macro_f1[arm.name] - macro_f1[main.name], level) for arm in others]
    trained = [arm.init for arm in arms if arm.init != "none"]
    return Comparison(
        init=trained[0] if trained else "none",
        subset=main.subset,
        classes=photos.classes,
        photos=len(photos),
        groups=len(resampling.groups.strata),
        support=support,
        several_photos_a_group=len(resampling.groups.strata) < len(photos),
        rows=tuple(rows),
        reference=main.name,
        differences=_correct(differences, level),
        replicates=replicates,
        level=level,
        seed=seed,
        few=tuple(name for name, (count, _) in support.items() if count < FEW),
    )


def estimates_of(values: Mapping[str, Floats], resampling: Resampling, level: float) -> dict[str, Estimate]:
    """Estimate of each metric that is one number, from :meth:`Resampling.mean_of`."""
    return {
        name: estimate(resampling.statistic(values[name]), level, bca=name != "expected_calibration_error")
        for name in METRICS
        if name in values
    }


def class_estimates_of(
    values: Mapping[str, Floats], classes: Sequence[str], resampling: Resampling, level: float
) -> dict[str, dict[str, Estimate]]:
    """For each class, the estimate of each metric of a class, from :meth:`Resampling.mean_of`."""
    return {
        name: {
            metric: estimate(resampling.statistic(values[metric][index]), level)
            for metric in PER_CLASS
            if metric in values
        }
        for index, name in enumerate(classes)
    }


def _check(arms: Sequence[Arm]) -> None:
    if not arms:
        raise EvidenceError("There is nothing to compare. Give a study or run directory with a finished run.")
    check_comparable(arms)


def _find_reference(arms: Sequence[Arm], name: str | None) -> Arm:
    by_name = {arm.name: arm for arm in arms}
    if name is None:
        ours = [arm for arm in arms if arm.name.startswith("h_coatnet")]
        trained = [arm for arm in arms if arm.init != "none"]
        return [*ours, *trained, *arms][0]
    if name not in by_name:
        near = get_close_matches(name, by_name, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise EvidenceError(f"There is no row {name!r} to compare with.{hint} The rows are: {', '.join(by_name)}.")
    return by_name[name]


def _count_support(photos: Predictions, subset: Subset) -> dict[str, tuple[int, int]]:
    support = {}
    for index, name in enumerate(photos.classes):
        of_class = photos.labels == index
        support[name] = (int(of_class.sum()), len(set(photos.groups[of_class])))
    if absent := [name for name, (count, _) in support.items() if not count]:
        raise EvidenceError(
            f"No {SUBSET_NAMES[subset]} photo is of the class {', '.join(absent)}, so nothing can be said of it and "
            "macro averages would count it as 0. Split again, so that every class is in every subset, or leave the "
            "class out of the data."
        )
    return support


def _estimate_row(arm: Arm, resampling: Resampling, level: float) -> tuple[Row, Resampled]:
    of_photo = resampling.groups.of_photo
    values = resampling.mean_of([photo_metrics(one.predictions, of_photo) for one in arm.replicates])
    first = arm.replicates[0].predictions
    right = int((first.predicted == first.labels).sum())
    row = Row(
        name=arm.name,
        init=arm.init,
        seeds=arm.seeds,
        repeats=arm.repeats,
        metrics=estimates_of(values, resampling, level),
        per_class=class_estimates_of(values, arm.classes, resampling, level),
        seed_spread=_seed_spread(arm),
        right=right,
        accuracy_wilson=wilson(right, len(first), level),
    )
    return row, resampling.statistic(values[PRIMARY])


def _seed_spread(arm: Arm) -> float | None:
    if len(arm.seeds) < 2:
        return None
    means = [np.mean([_macro_f1(one.predictions) for one in arm.replicates if one.seed == seed]) for seed in arm.seeds]
    return float(np.std(means, ddof=1))


def _macro_f1(predictions: Predictions) -> float:
    return score(predictions.labels, predictions.logits).macro_f1


def _test(arm: Arm, reference: Arm, difference: Resampled, level: float) -> Difference:
    macro_f1 = estimate(difference, level)
    one, other = arm.replicates[0].predictions, reference.replicates[0].predictions
    p = bootstrap_p(difference.draws)
    return Difference(
        name=arm.name,
        reference=reference.name,
        macro_f1=macro_f1,
        p=p,
        p_holm=p,
        detectable=DETECTABLE * float(difference.draws.std(ddof=1)),
        verdict="not distinguishable",
        corrected_t=_test_folds(arm, reference),
        mcnemar=mcnemar(one.predicted == one.labels, other.predicted == other.labels),
    )


def _test_folds(arm: Arm, reference: Arm) -> CorrectedT | None:
    if len(arm.places) < 2:
        return None
    mine, theirs = _macro_f1_by_place(arm), _macro_f1_by_place(reference)
    differences = np.array([mine[place] - theirs[place] for place in reference.places])
    cells = [cell for cell in reference.cells if cell.seed == reference.seeds[0]]
    ratio = float(np.mean([len(cell.test) / sum(cell.train_counts) for cell in cells]))
    return corrected_t(differences, ratio)


def _macro_f1_by_place(arm: Arm) -> dict[Place, float]:
    """Macro F1 of each repeat and fold, averaged over the arm's seeds."""
    return {
        place: float(np.mean([_macro_f1(cell.test) for cell in arm.cells if cell.place == place]))
        for place in arm.places
    }


def _correct(differences: Sequence[Difference], level: float) -> tuple[Difference, ...]:
    """Fill in Holm's corrections, each over all differences, and the verdicts."""
    primary = holm([one.p for one in differences])
    exact = holm([one.mcnemar.exact_p for one in differences])
    chi2 = holm([one.mcnemar.corrected_p for one in differences])
    folds = holm([one.corrected_t.p for one in differences if one.corrected_t])
    corrected = []
    for place, one in enumerate(differences):
        corrected.append(
            replace(
                one,
                p_holm=primary[place],
                verdict=_verdict(one.macro_f1.value or 0.0, primary[place], level),
                corrected_t=one.corrected_t and replace(one.corrected_t, p_holm=folds[place]),
                mcnemar=replace(one.mcnemar, exact_p_holm=exact[place], corrected_p_holm=chi2[place]),
            )
        )
    return tuple(corrected)


def _verdict(difference: float, p_holm: float, level: float) -> Verdict:
    if p_holm >= 1 - level:
        return "not distinguishable"
    return "better" if difference > 0 else "worse"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
