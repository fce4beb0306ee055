"""Where the photos went: how many there were, what was joined, and who was trained and tested on what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from hcoatnet.report.record import SUBSETS, RunRecord
from hcoatnet.report.tables import Cell, Label, Table
from hcoatnet.report.words import counted

SUBSET_TITLES = {"train": "Training", "val": "Validation", "test": "Test"}


@dataclass(frozen=True)
class Step:
    """One step of the photos' way, such as "1,015 photos": its number and what is to be said of it."""

    number: str
    text: str


def flow_of(record: RunRecord, tested: int) -> list[Step]:
    """The way of the photos from the manifest to the test, with what was joined or left out.

    Args:
        record: A run; all runs of a study have the same manifest.
        tested: Photos that were tested, each once a repeat.
    """
    manifest, photos = record.manifest, record.photos
    copies = int(manifest["sha256"].duplicated().sum()) if "sha256" in manifest else 0
    left_out = len(manifest) - len(photos)
    groups = photos["group"].nunique()
    several = int((photos["group"].value_counts() > 1).sum())
    shared = f"{counted(several, 'group')} of them with more than one photo" if several else "one photo each"
    same = "no two with the same bytes" if not copies else f"{copies:,} with the same bytes as another, kept together"
    steps = [
        Step(counted(len(manifest), "photo"), f"in the manifest, {same}"),
        Step(
            counted(len(photos), "photo"), f"in the split, {left_out:,} left out" if left_out else "in the split, all"
        ),
        Step(counted(groups, "group"), f"never divided between subsets, {shared}"),
    ]
    return [*steps, Step(counted(tested, "photo"), "tested")]


def subsets_table(photos: pd.DataFrame, classes: Sequence[str]) -> Table:
    """Photos (groups) of each class and subset of one run."""
    parts = {title: photos[photos["subset"] == key] for key, title in SUBSET_TITLES.items()}
    return count_table(parts | {"All": photos}, classes)


def count_table(parts: Mapping[str, pd.DataFrame], classes: Sequence[str]) -> Table:
    """Photos (groups) of each class, a column a part."""
    rows: list[tuple[Cell, ...]] = [
        (Label(name), *(_photos_and_groups(part[part["label"] == name]) for part in parts.values())) for name in classes
    ]
    rows.append((Label("All"), *(_photos_and_groups(part) for part in parts.values())))
    return Table(
        name="photos",
        caption="Photos (groups) of each class",
        columns=("Class", *parts),
        rows=tuple(rows),
    )


def folds_table(records: Mapping[tuple[int, int], RunRecord], classes: Sequence[str]) -> Table:
    """Photos (groups) of every fold's subsets, and the test photos of each class.

    Args:
        records: One run for each repeat and fold.
        classes: Names of the classes.
    """
    repeats = len({repeat for repeat, _ in records})
    rows: list[tuple[Cell, ...]] = []
    for (repeat, fold), record in sorted(records.items()):
        parts = {subset: record.photos[record.photos["subset"] == subset] for subset in SUBSETS}
        of_class = parts["test"]["label"].value_counts()
        rows.append(
            (
                Label(f"repeat {repeat}, fold {fold}" if repeats > 1 else f"fold {fold}"),
                *(_photos_and_groups(part) for part in parts.values()),
                *(f"{of_class.get(name, 0):,}" for name in classes),
            )
        )
    return Table(
        name="folds",
        caption="Photos (groups) of each fold, and its test photos by class",
        columns=("Fold", *SUBSET_TITLES.values(), *(f"test: {name}" for name in classes)),
        rows=tuple(rows),
    )


def _photos_and_groups(photos: pd.DataFrame) -> str:
    return f"{len(photos):,} ({photos['group'].nunique():,})"
