"""How well one model does for each value of a metadata column: skin type, sex, age band, source, body region.

Only what the data say is used; nothing about a person is ever guessed from pixels. A photo without a value belongs to
the subgroup ``not recorded``, which counts like any other. Subgroups differ in which diseases they hold, too: a gap in
accuracy alone need not mean that the model treats people differently, so balanced accuracy stands beside it and the
permutation test keeps the classes fixed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np

from hcoatnet.errors import EvidenceError
from hcoatnet.evaluation.evidence import Arm
from hcoatnet.evaluation.intervals import Estimate, estimate
from hcoatnet.evaluation.permutation import Outcome, exchangeable_groups, permute_gaps
from hcoatnet.evaluation.predictions import KEY_COLUMNS, LOGIT_PREFIX, PROBABILITY_PREFIX, Integers, Predictions
from hcoatnet.evaluation.resampling import find_groups, resample
from hcoatnet.evaluation.significance import Booleans
from hcoatnet.evaluation.weighted_metrics import mean_f1, photo_metrics

NOT_RECORDED = "not recorded"
MOST_VALUES = 30
"""A column of text with more values is refused."""
MOST_SINGLE_NUMBERS = 10
"""A column of numbers with more values is cut into bands."""
MOST_BANDS = 10
"""Most bands of a column of numbers."""
LEAST_GROUPS = 10
"""Values with fewer groups take no part in the largest gap: their figures are noise."""
SUBGROUP_METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "brier")


@dataclass(frozen=True)
class Subgroup:
    """The photos with one value.

    Attributes:
        value: The value, the band (``50–59``), or ``not recorded``.
        photos: Their number.
        groups: Number of groups with at least one of them.
        support: Photos of each class.
        metrics: One estimate for each of ``SUBGROUP_METRICS``. Macro F1 runs over the classes with photos here.
        recall: Estimate for each class; its value is None for classes without photos here.
    """

    value: str
    photos: int
    groups: int
    support: Mapping[str, int]
    metrics: Mapping[str, Estimate]
    recall: Mapping[str, Estimate]


@dataclass(frozen=True)
class Gap:
    """The largest difference in one metric between two values with at least ten groups.

    Attributes:
        size: How much larger the metric is for ``best`` than for ``worst``.
        best: Value with the largest metric.
        worst: Value with the smallest.
        p: Permutation p (see :func:`subgroups`).
    """

    size: float
    best: str
    worst: str
    p: float


@dataclass(frozen=True)
class Subgroups:
    """One arm by one column.

    Attributes:
        name: The arm's name.
        column: The column.
        rows: One for each value: numbers and bands in their order, text by the alphabet, ``not recorded`` last.
        least_groups: Groups that a value needs to take part in a gap.
        compared: Values with at least so many groups.
        accuracy_gap: None with fewer than two of them.
        balanced_accuracy_gap: The same.
        varying_groups: Groups whose photos do not all have the same value.
        movable_groups: Groups that the permutations can move: another has the same stratum and number of photos.
        permutations: Number of permutations.
    """

    name: str
    column: str
    rows: tuple[Subgroup, ...]
    least_groups: int
    compared: tuple[str, ...]
    accuracy_gap: Gap | None
    balanced_accuracy_gap: Gap | None
    varying_groups: int
    movable_groups: int
    permutations: int

    def to_json(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return asdict(self)


def subgroups(
    arm: Arm, column: str, *, replicates: int = 2000, seed: int = 0, level: float = 0.95, permutations: int = 2000
) -> Subgroups:
    """Metrics for each value of a column, with intervals, and the largest gaps with a permutation p.

    Intervals: the stratified bootstrap over the groups with photos of the value. A column of more than ten
    different numbers is cut into at most ten bands of equal, round width (1, 2 or 5 times a power of ten), such as
    decades of age.

    Permutation p of a gap: groups of the same stratum (rarest label) and the same number of photos exchange their
    values, and p = (1 + #{gap as large or larger}) / (1 + permutations). So it asks whether the gap is larger than
    chance *given which diseases the subgroups hold*. A group whose photos have several values passes them on together,
    in the order of its photos; groups that are alone in class and size keep theirs.

    Args:
        arm: The arm. The figures are means over its seeds and repeats.
        column: A metadata column of its predictions tables.
        replicates: Number of bootstrap draws.
        seed: Seed of the draws and the permutations.
        level: Level of the intervals.
        permutations: Number of permutations.

    Raises:
        EvidenceError: There is no such column, or it has too many values.
    """
    photos = arm.replicates[0].predictions
    values, names = _sort_values(photos, column)
    rows = tuple(_describe(arm, name, values == index, replicates, seed, level) for index, name in enumerate(names))
    compared = [index for index, row in enumerate(rows) if row.groups >= LEAST_GROUPS]
    groups = find_groups(photos)
    cells = exchangeable_groups(groups, photos)
    accuracy_gap, balanced_accuracy_gap = None, None
    if len(compared) > 1:
        right = np.mean([one.predictions.predicted == one.predictions.labels for one in arm.replicates], axis=0)
        outcome = Outcome(right, photos.labels, values, len(names), tuple(compared))
        accuracy_gap, balanced_accuracy_gap = (
            Gap(gap.size, names[gap.best], names[gap.worst], gap.p)
            for gap in permute_gaps(outcome, cells, permutations, seed)
        )
    pairs = np.unique(np.stack([groups.of_photo, values]), axis=1)
    return Subgroups(
        name=arm.name,
        column=column,
        rows=rows,
        least_groups=LEAST_GROUPS,
        compared=tuple(names[index] for index in compared),
        accuracy_gap=accuracy_gap,
        balanced_accuracy_gap=balanced_accuracy_gap,
        varying_groups=int((np.bincount(pairs[0]) > 1).sum()),
        movable_groups=sum(len(cell) for cell in cells),
        permutations=permutations,
    )


def metadata_columns(predictions: Predictions) -> tuple[str, ...]:
    """Columns of a predictions table that can be asked for, in their order."""
    return tuple(
        str(name)
        for name in predictions.table.columns
        if name not in KEY_COLUMNS and not str(name).startswith((LOGIT_PREFIX, PROBABILITY_PREFIX))
    )


def _describe(arm: Arm, value: str, chosen: Booleans, replicates: int, seed: int, level: float) -> Subgroup:
    tables = [_restrict(one.predictions, chosen) for one in arm.replicates]
    resampling = resample(tables[0], replicates, seed)
    of_photo = resampling.groups.of_photo
    values = resampling.mean_of([photo_metrics(table, of_photo, ranked=False) for table in tables])
    support = np.bincount(tables[0].labels, minlength=len(arm.classes))
    values["macro_f1"] = mean_f1(values["f1"][support > 0])
    return Subgroup(
        value=value,
        photos=len(tables[0]),
        groups=len(resampling.groups.strata),
        support={name: int(count) for name, count in zip(arm.classes, support, strict=True)},
        metrics={name: estimate(resampling.statistic(values[name]), level) for name in SUBGROUP_METRICS},
        recall={
            name: estimate(resampling.statistic(values["recall"][index]), level)
            for index, name in enumerate(arm.classes)
        },
    )


def _restrict(predictions: Predictions, chosen: Booleans) -> Predictions:
    return Predictions(predictions.table[chosen].reset_index(drop=True), predictions.classes)


def _sort_values(predictions: Predictions, column: str) -> tuple[Integers, list[str]]:
    """Index of each photo's value, shape (n,), and the values' names in the order in which they are shown."""
    known = metadata_columns(predictions)
    if column not in known:
        near = get_close_matches(column, known, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        there = f"They have: {', '.join(known)}." if known else "They have none but path, group, label and subset."
        raise EvidenceError(f"The predictions tables have no metadata column {column!r}.{hint} {there}")
    texts = [str(text).strip() for text in predictions.table[column]]
    recorded = sorted({text for text in texts if text})
    numbers = _parse_numbers(recorded)
    if numbers is not None and len(set(numbers)) > MOST_SINGLE_NUMBERS:
        name_of, names = _cut_into_bands(recorded, numbers)
    elif len(recorded) > MOST_VALUES:
        raise EvidenceError(
            f"Column {column!r} has {len(recorded)} different values, such as {recorded[0]!r}; subgroups need at most "
            f"{MOST_VALUES}. Name a column that puts photos together."
        )
    else:
        keys = numbers if numbers is not None else [text.casefold() for text in recorded]
        names = [text for _, text in sorted(zip(keys, recorded, strict=True))]
        name_of = {text: text for text in recorded}
    if "" in texts:
        names = [name for name in names if name != NOT_RECORDED] + [NOT_RECORDED]
    place = {name: index for index, name in enumerate(names)}
    return np.array([place[name_of.get(text, NOT_RECORDED)] for text in texts], dtype=np.int64), names


def _parse_numbers(texts: Sequence[str]) -> list[float] | None:
    """The numbers that all of the texts are, else None."""
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        return None
    return numbers if all(math.isfinite(number) for number in numbers) else None


def _cut_into_bands(texts: Sequence[str], numbers: Sequence[float]) -> tuple[dict[str, str], list[str]]:
    """Name of each text's band, and the names of the bands that hold any, in their order."""
    width = _round_width(min(numbers), max(numbers))
    whole = width >= 1 and all(number.is_integer() for number in numbers)
    bands = [_band(number, width) for number in numbers]
    names = {
        band: f"{band * width:g}–{band * width + width - 1:g}"
        if whole
        else f"{band * width:g} to under {(band + 1) * width:g}"
        for band in sorted(set(bands))
    }
    return {text: names[band] for text, band in zip(texts, bands, strict=True)}, list(names.values())


def _round_width(low: float, high: float) -> float:
    """The least of 1, 2 and 5 times a power of ten that needs at most ten bands."""
    power = math.floor(math.log10((high - low) / MOST_BANDS))
    widths = (float(f"{digit}e{exponent}") for exponent in (power, power + 1) for digit in (1, 2, 5))
    return next(width for width in widths if _band(high, width) - _band(low, width) < MOST_BANDS)


def _band(number: float, width: float) -> int:
    # 0.3 / 0.1 is a little under 3.
    return math.floor(number / width + 1e-9)
