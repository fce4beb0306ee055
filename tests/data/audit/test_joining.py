from itertools import pairwise

import pandas as pd
import pytest

from hcoatnet.data.audit.joining import join_duplicates
from hcoatnet.data.manifest import Manifest, read_manifest
from hcoatnet.data.splits import cross_validation, hold_out, read_split
from hcoatnet.errors import DataError, DataProblems


def manifest_of(folder, photos=60):
    table = pd.DataFrame(
        {
            "path": [f"{number:03}.png" for number in range(photos)],
            "label": ["AB"[number % 2] for number in range(photos)],
            "group": [f"P{number:03}" for number in range(photos)],
            "sha256": [f"{number:064x}" for number in range(photos)],
            "width": [8] * photos,
            "height": [8] * photos,
        }
    )
    return Manifest(table, folder)


def write(folder, rows):
    table = pd.DataFrame(rows, columns=["path_a", "path_b", "cluster", "state"])
    table.to_csv(folder / "duplicates.csv", index=False)
    return folder / "duplicates.csv"


def chain_of(photos, cluster, state="merged"):
    return [(f"{a:03}.png", f"{b:03}.png", cluster, state) for a, b in pairwise(photos)]


def test_confirmed_copies_never_straddle(tmp_path):
    manifest = manifest_of(tmp_path)
    clusters = [list(range(start, start + 8, 2)) for start in range(0, 40, 8)]
    path = write(tmp_path, [row for number, photos in enumerate(clusters) for row in chain_of(photos, f"c{number}")])
    joined = join_duplicates(manifest, path)
    assert (joined.groups_before, joined.groups_after) == (60, 45)
    straddled = 0
    for seed in range(5):
        plain, split = hold_out(manifest, seed=seed), hold_out(joined.manifest, seed=seed)
        where = split.table.set_index("path")["subset"]
        before = plain.table.set_index("path")["subset"]
        moved = 0
        for photos in clusters:
            paths = [f"{number:03}.png" for number in photos]
            assert where[paths].nunique() == 1
            moved += len(paths) - before[paths].value_counts().iloc[0]
        assert joined.moved(plain) == moved
        straddled += moved
    assert straddled > 0
    assert manifest.table["group"].nunique() == 60


def test_folds_count_the_first_repeat(tmp_path):
    manifest = manifest_of(tmp_path)
    joined = join_duplicates(manifest, write(tmp_path, chain_of([0, 2, 4, 6], "c1")))
    plain = cross_validation(manifest, folds=3, repeats=2)
    first = plain.table[plain.table["repeat"] == 0].set_index("path")["fold"]
    assert joined.moved(plain) == 4 - first[["000.png", "002.png", "004.png", "006.png"]].value_counts().iloc[0]
    folds = cross_validation(joined.manifest, folds=3, repeats=2).table
    assert folds[folds["path"].isin(["000.png", "006.png"])].groupby("repeat")["fold"].nunique().tolist() == [1, 1]


def test_only_the_state_merged_joins(tmp_path):
    rows = [*chain_of([0, 2], "c1", "ask"), *chain_of([4, 6], "", "candidate"), *chain_of([8, 10], "", "rejected")]
    joined = join_duplicates(manifest_of(tmp_path), write(tmp_path, rows))
    assert joined.groups_after == 60
    assert joined.waiting == ("c1",)
    assert "1 (c1)" in joined.lines(hold_out(joined.manifest))[2]


def test_photos_that_are_not_in_the_manifest_are_counted(tmp_path):
    rows = [*chain_of([0, 2], "c1"), ("000.png", "gone.png", "c1", "merged")]
    joined = join_duplicates(manifest_of(tmp_path), write(tmp_path, rows))
    assert joined.unknown == ("gone.png",)
    assert joined.groups_after == 59


def test_a_file_about_other_photos_is_refused(tmp_path):
    with pytest.raises(DataError, match="Audit this very manifest"):
        join_duplicates(manifest_of(tmp_path), write(tmp_path, [("x.png", "y.png", "c1", "merged")]))


def test_an_unknown_state_is_refused(tmp_path):
    with pytest.raises(DataProblems) as caught:
        join_duplicates(manifest_of(tmp_path), write(tmp_path, chain_of([0, 2], "c1", "perhaps")))
    assert caught.value.problems[0].found == "'perhaps'"


def test_an_audit_without_finds_changes_nothing(tmp_path):
    joined = join_duplicates(manifest_of(tmp_path), write(tmp_path, []))
    assert joined.groups_after == 60
    assert joined.moved(hold_out(joined.manifest)) == 0


def test_the_command_takes_copies_into_the_groups_and_says_so(hcoatnet, manifest_file, tmp_path):
    manifest = read_manifest(manifest_file)
    paths = list(manifest.table["path"][manifest.table["label"] == "red"])[::2]
    rows = [(one, other, "c0001", "merged") for one, other in pairwise(paths[:4])]
    before = manifest_file.read_bytes()
    out = tmp_path / "split.csv"
    code, printed = hcoatnet("data", "split", manifest_file, "--out", out, "--duplicates", write(tmp_path, rows))
    assert code == 0
    assert "Confirmed copies: 4 photos. Groups: 24, 27 without them." in printed
    assert "Photos moved because of them:" in printed
    split = read_split(out, manifest).table.set_index("path")
    assert split.loc[paths[:4], "subset"].nunique() == 1
    assert split.loc[paths[:4], "group"].nunique() == 1
    assert manifest_file.read_bytes() == before
