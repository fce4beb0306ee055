"""Assigning groups to parts so that every part holds every class in about the asked share."""

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from hcoatnet.errors import SplitError

TRIES = 10
"""Seeds tried for one assignment, the best result of which is taken."""

_PIECES = 20
_PASSES = 20


def assign_groups(labels, groups, shares, seed):
    """Part of each photo."""
    classes, label_codes = np.unique(labels, return_inverse=True)
    names, group_codes = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), len(classes)))
    np.add.at(counts, (group_codes, label_codes), 1)
    best = None
    for attempt in range(TRIES):
        random_state = int(np.random.SeedSequence([*seed, attempt]).generate_state(1)[0])
        start = _propose(label_codes, group_codes, shares, random_state)
        c0 = _cost(_totals(start, counts, len(shares)), shares)
        parts = _polish(start, counts, shares, random_state)
        cost = _cost(_totals(parts, counts, len(shares)), shares)
        print(attempt, c0, cost)
        if best is None or cost < best[0]:
            best = (cost, parts)
    return best[1][group_codes]


def _totals(parts, counts, n):
    t = np.zeros((n, counts.shape[1]))
    np.add.at(t, parts, counts)
    return t


def _cost(totals, shares):
    return int((totals == 0).sum()), float((((totals / totals.sum(axis=0)) - shares[:, None]) ** 2).sum())


def _propose(label_codes, group_codes, shares, random_state):
    n = group_codes.max() + 1
    equal = len(set(shares.tolist())) == 1
    pieces = min(len(shares) if equal else _PIECES, n)
    out = np.zeros(n, dtype=int)
    bounds = np.rint(np.cumsum(shares) * pieces).astype(int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for piece, (_, inside) in enumerate(StratifiedGroupKFold(pieces, shuffle=True, random_state=random_state).split(label_codes, label_codes, group_codes)):
            out[group_codes[inside]] = np.searchsorted(bounds, piece, side="right")
    return out


def _polish(parts, counts, shares, random_state):
    parts = parts.copy()
    totals = _totals(parts, counts, len(shares))
    order = np.random.default_rng(random_state).permutation(len(parts))
    cost = _cost(totals, shares)
    for p in range(_PASSES):
        moved = False
        for group in order:
            home = parts[group]
            for part in range(len(shares)):
                if part == parts[group]: continue
                trial = totals.copy(); trial[parts[group]] -= counts[group]; trial[part] += counts[group]
                c = _cost(trial, shares)
                if c < (cost[0], cost[1] - 1e-12):
                    parts[group] = part; totals = trial; cost = c; moved = True
        if not moved: break
    return parts
