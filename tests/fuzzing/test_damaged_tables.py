"""Manifests, split files, predictions, tables of photos and duplicates in which cells, rows or columns are not right."""

import csv
from io import StringIO

import numpy as np
import pandas as pd
import pytest
from damage import as_csv, damaged, damaged_table, explore, outcome, sizes

from hcoatnet.data.audit.joining import join_duplicates
from hcoatnet.data.manifest import MANIFEST_COLUMNS, Manifest, read_manifest
from hcoatnet.data.sources.table import list_table
from hcoatnet.data.splits import Folds, Split, read_split
from hcoatnet.errors import HCoAtNetError
from hcoatnet.evaluation.predictions import Predictions, build_predictions, read_predictions

PHOTOS = [
    (f"{label}/{number}.png", label, f"p{number // 2}-{label}") for label in ("blue", "red") for number in range(6)
]
MANIFEST = [
    [*MANIFEST_COLUMNS, "age"],
    *([path, label, group, f"{place:064x}", "48", "40", "41"] for place, (path, label, group) in enumerate(PHOTOS)),
]
SUBSETS = ("train", "train", "val", "val", "test", "test")
SPLIT = [
    ["path", "group", "subset"],
    *([path, group, SUBSETS[place % 6]] for place, (path, _, group) in enumerate(PHOTOS)),
]
FOLDS = [
    ["path", "group", "repeat", "fold"],
    *(
        [path, group, str(repeat), str(place % 6 // 2)]
        for repeat in (0, 1)
        for place, (path, _, group) in enumerate(PHOTOS)
    ),
]
PAIRS = [
    ["path_a", "path_b", "cluster", "state"],
    ["blue/0.png", "blue/4.png", "c1", "merged"], ["red/0.png", "red/2.png", "c2", "ask"], ["red/1.png", "x.png", "c3", "rejected"],
]  # fmt: skip
LISTED = [["path", "label", "patient_id", "note"], *([path, label, group, ""] for path, label, group in PHOTOS)]
WORDS = [b'"', b",", b";", b"\t", b"\n", b"\r", b"\0", b"\xff", b"\xef\xbb\xbf", b"nan", b"9" * 25]


def predictions_rows():
    table = pd.DataFrame(PHOTOS, columns=["path", "label", "group"]).assign(subset="test", age="41")
    logits = np.random.default_rng(0).normal(size=(len(table), 2))
    text = build_predictions(table, logits, ("blue", "red")).table.to_csv(index=False)
    return list(csv.reader(StringIO(text)))


def manifest_of_photos():
    return pd.DataFrame(MANIFEST[1:], columns=MANIFEST[0]).astype({"width": "int64", "height": "int64"})


READERS = {
    "manifest": (MANIFEST, read_manifest, Manifest),
    "split": (SPLIT, lambda path: read_split(path, Manifest(manifest_of_photos(), path.parent)), Split),
    "folds": (FOLDS, lambda path: read_split(path, Manifest(manifest_of_photos(), path.parent)), Folds),
    "predictions": (predictions_rows(), read_predictions, Predictions),
    "photos": (LISTED, list_table, object),
    "duplicates": (PAIRS, lambda path: join_duplicates(Manifest(manifest_of_photos(), path.parent), path), object),
}


@pytest.fixture(params=READERS)
def reader(request, tmp_path):
    """A table's rows, its file, and the outcome of reading that."""
    rows, read, kind = READERS[request.param]
    path = tmp_path / f"{request.param}.csv"

    def outcome_of(content):
        path.write_bytes(content)
        found = outcome(lambda: read(path), path.name)
        assert isinstance(found, (kind, HCoAtNetError))
        return found

    assert not isinstance(outcome_of(as_csv(rows)), HCoAtNetError)
    return rows, outcome_of


@sizes(few=30, many=3000)
def test_a_table_with_wrong_values_is_read_or_refused(reader, examples):
    rows, outcome_of = reader
    explore(examples, outcome_of, damaged_table(rows))


@sizes(few=30, many=3000)
def test_a_table_with_wrong_bytes_is_read_or_refused(reader, examples):
    rows, outcome_of = reader
    whole = [as_csv(rows), as_csv(rows, ";"), "﻿".encode() + as_csv(rows).replace(b"\n", b"\r\n")]
    explore(examples, outcome_of, damaged(whole, WORDS))


def test_a_table_of_nothing_but_its_first_line(reader):
    rows, outcome_of = reader
    outcome_of(as_csv(rows[:1]))
