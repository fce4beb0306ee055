"""A datasheet: what a set of photos holds, in counts and tables."""

from typing import Any

import pandas as pd

from hcoatnet.data.manifest import Manifest
from hcoatnet.data.sources.table import names_a_unit
from hcoatnet.files import sha256_of_bytes

FORMAT = 1
MOST_CATEGORIES = 20
"""A column with more distinct values is summed up as numbers, or only counted."""

LICENCE_NAMES = ("licence", "license", "copyright_license", "copyright", "rights")
_FREQUENT_SIZES = 5
_SHARE_OF_NUMBERS = 0.95


def describe(photos: Manifest) -> dict[str, Any]:
    """Counts, sizes, groups, licences, hashes and tables of all further columns, ready for JSON.

    Columns of patients, of lesions and of many distinct texts, which may name people, are only counted.
    """
    table = photos.table
    return {
        "format": FORMAT,
        "manifest_sha256": photos.sha256,
        "photos": len(photos),
        "groups": int(table["group"].nunique()),
        "classes": [_class(name, rows, len(photos)) for name, rows in table.groupby("label")],
        "group_sizes": _group_sizes(table),
        "sizes": _sizes(table),
        "hashes": {
            "distinct": int(table["sha256"].nunique()),
            "copies": int(table["sha256"].duplicated().sum()),
            "content_sha256": sha256_of_bytes("\n".join(sorted(table["sha256"])).encode()),
        },
        "licences": _licences(photos),
        "columns": [_column(table, name, photos.classes) for name in photos.extra_columns],
    }


def _class(name: Any, rows: pd.DataFrame, photos: int) -> dict[str, Any]:
    return {
        "name": str(name),
        "photos": len(rows),
        "share": len(rows) / photos,
        "groups": int(rows["group"].nunique()),
        "most_photos_a_group": int(rows["group"].value_counts().max()),
    }


def _group_sizes(table: pd.DataFrame) -> dict[str, Any]:
    sizes = table["group"].value_counts()
    bins = {"1": (1, 1), "2": (2, 2), "3 to 5": (3, 5), "6 to 10": (6, 10), "more": (11, len(table))}
    return {
        "largest": int(sizes.max()),
        "with": {name: int(sizes.between(low, high).sum()) for name, (low, high) in bins.items()},
        "of_several_classes": int((table.groupby("group")["label"].nunique() > 1).sum()),
    }


def _sizes(table: pd.DataFrame) -> dict[str, Any]:
    both = table["width"].astype(str) + " × " + table["height"].astype(str)
    counts = both.value_counts()
    return {
        "width": _quartiles(table["width"].astype(float)),
        "height": _quartiles(table["height"].astype(float)),
        "distinct": len(counts),
        "frequent": [[str(size), int(count)] for size, count in counts.head(_FREQUENT_SIZES).items()],
    }


def _quartiles(values: pd.Series) -> dict[str, float]:
    names = {"min": 0.0, "q1": 0.25, "median": 0.5, "q3": 0.75, "max": 1.0}
    return {name: float(values.quantile(share)) for name, share in names.items()}


def _licences(photos: Manifest) -> dict[str, Any]:
    plain = {name.casefold().removeprefix("user_"): name for name in reversed(photos.extra_columns)}
    column = next((plain[name] for name in LICENCE_NAMES if name in plain), None)
    if column is None:
        return {"column": None, "values": {}, "missing": len(photos)}
    recorded = photos.table[column][photos.table[column] != ""]
    counts = {str(name): int(count) for name, count in recorded.value_counts().head(MOST_CATEGORIES).items()}
    return {"column": column, "values": counts, "missing": len(photos) - len(recorded)}


def _column(table: pd.DataFrame, name: str, classes: tuple[str, ...]) -> dict[str, Any]:
    recorded = table[table[name] != ""]
    distinct = int(recorded[name].nunique())
    about = {"name": name, "recorded": len(recorded), "missing": len(table) - len(recorded), "distinct": distinct}
    if names_a_unit(name):
        return {**about, "kind": "text", "values": {}}
    if 0 < distinct <= MOST_CATEGORIES:
        counts = pd.crosstab(recorded[name], recorded["label"]).reindex(columns=classes, fill_value=0)
        values = {str(value): {label: int(row[label]) for label in classes} for value, row in counts.iterrows()}
        return {**about, "kind": "categories", "values": values}
    numbers = pd.to_numeric(recorded[name], errors="coerce")
    if distinct and numbers.notna().mean() >= _SHARE_OF_NUMBERS:
        of_classes = {label: numbers[recorded["label"] == label].dropna() for label in classes}
        quartiles = {label: _quartiles(found) for label, found in of_classes.items() if len(found)}
        return {**about, "kind": "numbers", "values": quartiles}
    return {**about, "kind": "text", "values": {}}
