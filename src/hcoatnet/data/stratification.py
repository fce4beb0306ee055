"""Dealing groups out to parts (subsets or folds) so that every part holds its share of every class."""

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from hcoatnet.errors import SplitError

TRIES = 10
"""Most seeds tried for one dealing."""

Counts = NDArray[np.float64]


def deal_groups(
    labels: Sequence[str], groups: Sequence[str], shares: Sequence[float], seed: Sequence[int]
) -> NDArray[np.int64]:
    """Deal whole groups out to parts, every part with its share of every class.

    scikit-learn's `StratifiedGroupKFold` makes a first proposal. It places each group once and for good, and now and
    then leaves a part empty or without a class, so single groups are then moved wherever that brings class shares
    closer to those asked. Seeds derived from ``seed`` are tried until every class is within one photo of its share in
    every part, or the best result is reached a second time; else the best of `TRIES` is taken.

    Args:
        labels: Class of every photo.
        groups: Group of every photo. The order of photos has no influence on where a group goes.
        shares: Share of the photos for each part, summing to 1.
        seed: Non-negative integers from which all randomness is derived.

    Returns:
        Part of every photo, an index into ``shares``.

    Raises:
        SplitError: If a class has fewer groups than there are parts, or no try put every class into every part.
    """
    classes, label_of = np.unique(np.array(labels), return_inverse=True)
    names, group_of = np.unique(np.array(groups), return_inverse=True)
    counts: Counts = np.zeros((len(names), len(classes)))
    np.add.at(counts, (group_of, label_of), 1)
    _require_groups(counts, classes, len(shares))
    asked = np.asarray(shares, dtype=np.float64)
    tries: list[tuple[tuple[int, float], int, NDArray[np.int64]]] = []
    for attempt in range(TRIES):
        state = int(np.random.SeedSequence([*seed, attempt]).generate_state(1)[0])
        parts = _move_groups(_propose(label_of, group_of, asked, state), counts, asked)
        totals = _totals(parts, counts, len(asked))
        distance = _distance(totals, asked)
        confirmed = bool(tries) and np.allclose(distance, min(tries)[0], rtol=0, atol=1e-12)
        tries.append((distance, attempt, parts))
        within_one_photo = (np.abs(totals - np.outer(asked, totals.sum(axis=0))) <= 1).all()
        if distance[0] == 0 and (within_one_photo or confirmed):
            break
    (absent, _), _, parts = min(tries)
    if absent:
        totals = _totals(parts, counts, len(asked))
        lacking = ", ".join(str(name) for name in classes[(totals == 0).any(axis=0)])
        raise SplitError(
            f"No split into {len(asked)} parts with every class in each was found in {TRIES} tries; the best lacks "
            f"{lacking} in a part. Too few groups hold only one class: gather more, merge classes, or ask for fewer "
            "folds."
        )
    dealt: NDArray[np.int64] = parts[group_of]
    return dealt


def _require_groups(counts: Counts, classes: NDArray[np.str_], parts: int) -> None:
    present = (counts > 0).sum(axis=0)
    short = [f"{name} has {count}" for name, count in zip(classes, present, strict=True) if count < parts]
    if short:
        raise SplitError(
            f"Too few groups: every class needs {parts} or more (one for each part), but {', '.join(short)}. Groups, "
            "not photos, are counted, because a patient must not straddle. Gather more, merge classes, or ask for "
            "fewer folds."
        )


def _propose(
    label_of: NDArray[np.int64], group_of: NDArray[np.int64], shares: NDArray[np.float64], state: int
) -> NDArray[np.int64]:
    """Part of every group by StratifiedGroupKFold: as many folds as the smallest share needs, joined for others."""
    groups = int(group_of.max()) + 1
    pieces = min(round(1 / shares.min()), groups, int(np.bincount(label_of).max()))
    ends = np.rint(np.cumsum(shares) * pieces)
    parts = np.zeros(groups, dtype=np.int64)
    splitter = StratifiedGroupKFold(pieces, shuffle=True, random_state=state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a rare class need not be in every piece
        for piece, (_, inside) in enumerate(splitter.split(label_of, label_of, group_of)):
            parts[group_of[inside]] = np.searchsorted(ends, piece, side="right")
    return parts


def _move_groups(parts: NDArray[np.int64], counts: Counts, shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """Move single groups, each time the one that helps most, until no move brings the classes closer to their shares.

    Let e be the errors of class shares in each part and a the share of each class that a group holds. Taking the group
    from part h to part p changes the sum of squared errors by 2 a·(e_p − e_h) + 2 a·a.
    """
    parts = parts.copy()
    totals = _totals(parts, counts, len(shares))
    held = counts / totals.sum(axis=0)
    groups = np.arange(len(parts))
    while True:
        errors = totals / totals.sum(axis=0) - shares[:, np.newaxis]
        towards = held @ errors.T
        change = 2 * (towards - towards[groups, parts][:, np.newaxis] + np.square(held).sum(axis=1, keepdims=True))
        emptied = ((totals[parts] == counts) & (counts > 0)).sum(axis=1, keepdims=True)
        filled = (counts > 0).astype(np.int64) @ (totals == 0).T
        absent = emptied - filled
        absent[groups, parts] = change[groups, parts] = 0
        least = absent.min()
        group, part = np.unravel_index(np.where(absent == least, change, np.inf).argmin(), change.shape)
        if least == 0 and change[group, part] > -1e-12:  # rounding alone is no progress
            return parts
        totals[parts[group]] -= counts[group]
        totals[part] += counts[group]
        parts[group] = part


def _totals(parts: NDArray[np.int64], counts: Counts, number: int) -> Counts:
    totals: Counts = np.zeros((number, counts.shape[1]))
    np.add.at(totals, parts, counts)
    return totals


def _distance(totals: Counts, shares: NDArray[np.float64]) -> tuple[int, float]:
    """How far a dealing is from what was asked: absent classes first, then squared errors of class shares."""
    errors = totals / totals.sum(axis=0) - shares[:, np.newaxis]
    return int((totals == 0).sum()), float(np.square(errors).sum())
