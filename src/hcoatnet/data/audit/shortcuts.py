"""Shortcut probes: how well the class can be predicted from what says nothing of the skin.

Each probe is a logistic regression on one kind of feature, cross-validated over whole groups. Chance is a balanced
accuracy of one over the number of classes. A probe that beats it shows a way on which a model could score without
looking at the lesion; whether a model takes it is another question.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hcoatnet.data.audit.integrity import Facts
from hcoatnet.data.manifest import Manifest, Progress

FOLDS = 5
FEWEST_GROUPS = 5
"""A class of fewer groups is left out of the probes: it would be absent from some fold."""

REPLICATES = 2000
LEVEL = 0.95
SOURCE_NAMES = ("source", "source_dataset", "dataset", "site", "hospital", "clinic", "center", "centre", "institution",
                "device", "camera", "origin", "website", "domain", "copyright_license", "attribution")  # fmt: skip
_SIZE_NAME = re.compile(r"(?:user_|orig(?:inal)?_|image_|img_)*(?:width|height)")
_MOST_VALUES = 50
_RING = 3
_RANGES = 12

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Probe:
    """Result of one probe.

    Attributes:
        name: What the class was predicted from.
        features: The same in more words.
        balanced_accuracy: Mean recall over the classes, out of fold; None if nothing varies.
        low: Lower end of its percentile interval from a bootstrap over groups.
        high: Upper end.
        p: One-sided p of predictions that have nothing to do with the labels: labels and predictions are each dealt
            out anew, group by group.
        chance: One over the number of classes.
        photos: Photos with a value for these features.
        beats_chance: Whether the interval lies above chance and p, times the number of probes, is below 1 − level.
        note: Why there is no figure, or an empty text.
    """

    name: str
    features: str
    balanced_accuracy: float | None
    low: float | None
    high: float | None
    p: float | None
    chance: float
    photos: int
    beats_chance: bool
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def source_columns(photos: Manifest, named: Sequence[str] = ()) -> list[str]:
    """Columns that say where a photo comes from: those named, and those with a usual name, if their values repeat."""
    known = [name for name in photos.extra_columns if name.casefold().removeprefix("user_") in SOURCE_NAMES]
    columns = list(dict.fromkeys([*named, *known]))
    return [name for name in columns if 1 < photos.table[name].nunique() <= _MOST_VALUES]


def probe_shortcuts(
    photos: Manifest,
    facts: Sequence[Facts],
    thumbnails: NDArray[np.uint8],
    sources: Sequence[str] = (),
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[tuple[Probe, ...], tuple[str, ...]]:
    """Predict the class from size, format, border, mean colour and source.

    Args:
        photos: The photos, labelled.
        facts: What each file holds, in the order of the manifest.
        thumbnails: Array (n, 64, 64, 3), likewise.
        sources: Columns that say where a photo comes from.
        seed: Seed of folds, bootstrap and permutation.
        progress: Called with the probes done and all.

    Returns:
        The probes, and notes on classes left out.
    """
    groups_of = photos.table.groupby("label")["group"].nunique()
    left_out = sorted(groups_of.index[groups_of < FEWEST_GROUPS])
    notes = (
        [f"Left out of the probes, with fewer than {FEWEST_GROUPS} groups: {', '.join(left_out)}."] if left_out else []
    )
    kept = ~photos.table["label"].isin(left_out).to_numpy()
    labels, classes = pd.factorize(photos.table["label"][kept], sort=True)
    if len(classes) < 2:
        return (), (*notes, "No probes: they need two classes with enough groups.")
    groups, _ = pd.factorize(photos.table["group"][kept])
    sets = _feature_sets(photos.table, facts, thumbnails, sources)
    probes = []
    for done, (name, words, features) in enumerate(sets, start=1):
        probes.append(_probe(name, words, features[kept], labels, groups, seed, len(sets)))
        if progress is not None:
            progress(done, len(sets))
    return tuple(probes), tuple(notes)


def balanced_accuracy(labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> float:
    """Mean recall of the classes that occur."""
    confusion = np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)
    return float(_mean_recall(confusion[None])[0])


def _mean_recall(confusion: NDArray[Any]) -> Floats:
    """Of confusion matrices (b, C, C), true classes in rows; classes that do not occur are passed over."""
    support = confusion.sum(axis=2)
    recall = np.diagonal(confusion, axis1=1, axis2=2) / np.maximum(support, 1)
    return np.asarray(recall.sum(axis=1) / np.maximum((support > 0).sum(axis=1), 1), dtype=np.float64)


def _feature_sets(
    table: pd.DataFrame, facts: Sequence[Facts], thumbnails: NDArray[np.uint8], sources: Sequence[str]
) -> list[tuple[str, str, pd.DataFrame]]:
    """Name, description and features of each probe; text columns are categories."""
    stored = pd.DataFrame({"width": [fact.width for fact in facts], "height": [fact.height for fact in facts]})
    sets = [("image size", "width, height, their ratio and product, of the files", _sizes(stored))]
    original = [
        name for name in table.columns if name not in ("width", "height") and _SIZE_NAME.fullmatch(name.casefold())
    ]
    if original:
        numbers = table[original].apply(pd.to_numeric, errors="coerce").reset_index(drop=True)
        sets.append(("original size", f"the columns {', '.join(original)}", _sizes(numbers)))
    formats = pd.DataFrame(
        {
            "format": [f"{fact.format} {fact.mode}" for fact in facts],
            "suffix": [path.rpartition(".")[2].lower() for path in table["path"]],
            "quantisation": _ranges(pd.Series([fact.quantisation for fact in facts])),
        }
    )
    sets.append(("file format", "format, colour mode, suffix and JPEG quality of the files", formats))
    sets.append(("border", f"the outer {100 * _RING / 64:.0f} % on each side, in 64 patches", _border(thumbnails)))
    cells = thumbnails.reshape(len(thumbnails), -1, 3).astype(np.float32)
    colours = pd.DataFrame(np.hstack([cells.mean(axis=1), cells.std(axis=1)]))
    sets.append(("mean colour", "mean and deviation of red, green and blue", colours))
    sets += [(f"column {name}", f"the values of {name}", table[[name]].reset_index(drop=True)) for name in sources]
    return sets


def _sizes(numbers: pd.DataFrame) -> pd.DataFrame:
    """Ranges of each number, of the ratio and product of two, and their exact values together, as categories."""
    made = numbers.astype(float).where(numbers > 0)
    exact = made.astype(str).agg(" × ".join, axis=1)
    if made.shape[1] == 2:
        made = made.assign(ratio=made.iloc[:, 0] / made.iloc[:, 1], product=made.iloc[:, 0] * made.iloc[:, 1])
    ranges = {str(name): _ranges(values) for name, values in made.items()}
    return pd.DataFrame({**ranges, "exact": exact})


def _ranges(values: pd.Series) -> pd.Series:
    """Which of 12 ranges with equally many photos a value lies in, as text; photos without one have their own."""
    return pd.qcut(values, _RANGES, labels=False, duplicates="drop").astype(str)


def _border(thumbnails: NDArray[np.uint8]) -> pd.DataFrame:
    """Mean colours of 16 patches along each side, array (n, 4 · 16 · 3)."""
    n = len(thumbnails)
    sides = (
        thumbnails[:, :_RING].transpose(0, 2, 1, 3),
        thumbnails[:, -_RING:].transpose(0, 2, 1, 3),
        thumbnails[:, :, :_RING],
        thumbnails[:, :, -_RING:],
    )
    patches = [side.reshape(n, 16, 4 * _RING, 3).mean(axis=2, dtype=np.float32) for side in sides]
    return pd.DataFrame(np.concatenate(patches, axis=1).reshape(n, -1))


def _probe(
    name: str,
    words: str,
    features: pd.DataFrame,
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    seed: int,
    tests: int,
) -> Probe:
    classes = int(labels.max()) + 1
    chance = 1 / classes
    recorded = int((features.notna() & (features != "") & (features != "nan")).any(axis=1).sum())
    if (features.nunique(dropna=False) <= 1).all():
        return Probe(name, words, None, None, None, None, chance, recorded, False, "the same for all photos")
    predicted = _out_of_fold(features, labels, groups, seed)
    score = balanced_accuracy(labels, predicted, classes)
    low, high = _interval(labels, predicted, groups, classes, seed)
    p = _permutation_p(labels, predicted, groups, classes, score, seed)
    beats = low > chance and p * tests < 1 - LEVEL
    return Probe(name, words, score, low, high, p, chance, recorded, beats)


def _out_of_fold(
    features: pd.DataFrame, labels: NDArray[np.int64], groups: NDArray[np.int64], seed: int
) -> NDArray[np.int64]:
    """Predictions of a logistic regression, each photo's from the folds without its group."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    if all(pd.api.types.is_numeric_dtype(features[column]) for column in features):
        prepare, strength = StandardScaler(), 0.01
    else:
        prepare, strength = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=5), 0.3
    model = make_pipeline(prepare, LogisticRegression(C=strength, class_weight="balanced", max_iter=500))
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    values = features.to_numpy()
    return np.asarray(cross_val_predict(model, values, labels, groups=groups, cv=folds), dtype=np.int64)


def _interval(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], groups: NDArray[np.int64], classes: int, seed: int
) -> tuple[float, float]:
    """Percentile interval from a bootstrap that draws whole groups."""
    count = int(groups.max()) + 1
    per_group = np.zeros((count, classes**2), dtype=np.float64)
    np.add.at(per_group, (groups, labels * classes + predicted), 1)
    rng = np.random.default_rng([seed, 1])
    scores = []
    for _ in range(REPLICATES // 100):
        weights = rng.multinomial(count, np.full(count, 1 / count), size=100).astype(np.float64)
        scores.append(_mean_recall((weights @ per_group).reshape(100, classes, classes)))
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(np.concatenate(scores), [tail, 1 - tail])
    return float(low), float(high)


def _permutation_p(
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
    groups: NDArray[np.int64],
    classes: int,
    score: float,
    seed: int,
) -> float:
    """Share of dealings at least as good as ``score``, with one added to both counts.

    Labels and predictions are each laid out group after group, in random orders of the groups, and paired by position:
    runs of equal labels and of like predictions within a group stay what they are.
    """
    rng = np.random.default_rng([seed, 2])
    count = int(groups.max()) + 1
    as_good = 0
    for _ in range(REPLICATES // 2):
        one, other = (np.argsort(rng.permutation(count)[groups], kind="stable") for _ in range(2))
        as_good += balanced_accuracy(labels[one], predicted[other], classes) >= score
    return (as_good + 1) / (REPLICATES // 2 + 1)


def shown(probe: Probe) -> Mapping[str, str]:
    """The probe's figures as text for a table."""
    if probe.balanced_accuracy is None or probe.low is None or probe.high is None or probe.p is None:
        return {"balanced accuracy": probe.note, "interval": "", "p": ""}
    p = f"{probe.p:.3f}" if probe.p >= 0.001 else "< 0.001"
    return {
        "balanced accuracy": f"{probe.balanced_accuracy:.3f}",
        "interval": f"{probe.low:.3f} to {probe.high:.3f}",
        "p": p,
    }
