import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from hcoatnet.data import stratification
from hcoatnet.data.manifest import Manifest
from hcoatnet.data.proof import ALL_CLASSES
from hcoatnet.data.sources.table import scan_table
from hcoatnet.data.splits import SUBSETS, Folds, Split, cross_validation, hold_out, prove, read_split
from hcoatnet.data.stratification import TRIES, deal_groups
from hcoatnet.errors import ConfigError, DataError, DataProblems, SplitError
from hcoatnet.files import sha256_of_bytes


def manifest_of(labels, groups, hashes=None):
    """A manifest without photos, which splits never open."""
    count = len(labels)
    table = pd.DataFrame(
        {
            "path": [f"{place:04}.png" for place in range(count)],
            "label": list(labels),
            "group": list(groups),
            "sha256": hashes or [f"{place:064x}" for place in range(count)],
            "width": [8] * count,
            "height": [8] * count,
        }
    )
    return Manifest(table, Path())


def random_manifest(seed, photos=300, groups=120, shares=(0.6, 0.3, 0.1)):
    draws = np.random.default_rng(seed)
    labels = draws.choice(list("ABC"), photos, p=shares)
    return manifest_of(labels, [f"P{number:03}" for number in draws.integers(0, groups, photos)])


SMALL = manifest_of("AAAABBBBBBAB", "abcdefghijkk")
"""Two classes, eleven groups; the last, k, holds both."""

SMALL_SUBSETS = ["train", "train", "val", "test", "train", "train", "train", "val", "test", "test", "train", "train"]


def write_split(folder, manifest=SMALL, **columns):
    table = pd.DataFrame({"path": manifest.table["path"], **columns})
    table.to_csv(folder / "split.csv", index=False)
    return folder / "split.csv"


def problems_of(path, manifest=SMALL):
    with pytest.raises(DataProblems) as caught:
        read_split(path, manifest)
    return {(problem.rule, problem.path) for problem in caught.value.problems}


def straddling(split, manifest, part):
    """Groups and hashes in two parts, found without the package's own proof."""
    joined = split.merge(manifest.table[["path", "label", "sha256"]], on="path")
    return [key for name in ("group", "sha256") for key, rows in joined.groupby(name) if rows[part].nunique() > 1]


# --- hold-out


def test_shares_of_every_class_are_within_a_photo_or_so_of_those_asked():
    manifest = random_manifest(0)
    split = hold_out(manifest)
    assert straddling(split.table, manifest, "subset") == []
    assert list(split.table["path"]) == list(manifest.table["path"])
    counts = pd.crosstab(manifest.table["label"], split.table["subset"].to_numpy())[list(SUBSETS)]
    asked = np.outer(counts.sum(axis=1), [0.7, 0.15, 0.15])
    assert np.abs(counts.to_numpy() - asked).max() <= 1.5


@pytest.mark.parametrize(("val_share", "test_share"), [(0.1, 0.2), (0.25, 0.25), (1 / 3, 1 / 3), (0.05, 0.05)])
def test_other_shares(val_share, test_share):
    manifest = random_manifest(1, photos=600, groups=300)
    counts = hold_out(manifest, val_share, test_share).table["subset"].value_counts() / len(manifest)
    assert counts["val"] == pytest.approx(val_share, abs=0.01)
    assert counts["test"] == pytest.approx(test_share, abs=0.01)


def test_same_seed_same_split_other_seed_other_split():
    manifest = random_manifest(2)
    assert hold_out(manifest, seed=1).to_csv() == hold_out(manifest, seed=1).to_csv()
    assert hold_out(manifest, seed=1).sha256 != hold_out(manifest, seed=2).sha256
    assert cross_validation(manifest, seed=1).sha256 != cross_validation(manifest, seed=2).sha256


def test_defaults():
    manifest = random_manifest(2)
    assert hold_out(manifest).sha256 == hold_out(manifest, 0.15, 0.15, seed=42).sha256
    assert cross_validation(manifest).sha256 == cross_validation(manifest, folds=5, repeats=1, seed=42).sha256


def test_order_of_rows_changes_nothing():
    manifest = random_manifest(3)
    shuffled = Manifest(manifest.table.sample(frac=1, random_state=0, ignore_index=True), Path())
    for make in (hold_out, lambda photos: cross_validation(photos, repeats=2)):
        pd.testing.assert_frame_equal(make(shuffled).table, make(manifest).table)


def test_copies_of_a_photo_stay_together_although_their_groups_differ():
    hashes = [f"{place // 2:064x}" for place in range(60)]
    manifest = manifest_of(np.repeat(["A", "B"], 30), [f"{place:02}" for place in range(60)], hashes)
    split = hold_out(manifest)
    assert straddling(split.table, manifest, "subset") == []
    assert split.table["group"].nunique() == 30


def test_three_groups_of_each_class_are_just_enough():
    split = hold_out(manifest_of("AAABBB", "abcdef"))
    assert sorted(split.table["subset"]) == ["test", "test", "train", "train", "val", "val"]


def test_three_groups_that_hold_every_class_are_enough():
    split = hold_out(manifest_of("ABCABCABC", "aaabbbccc"))
    assert [len(split.paths(subset)) for subset in SUBSETS] == [3, 3, 3]


def test_a_giant_group_goes_to_training():
    manifest = manifest_of("A" * 100 + "B" * 40, ["giant"] * 90 + [f"{place}" for place in range(50)])
    table = hold_out(manifest).table
    assert set(table.loc[table["group"] == "giant", "subset"]) == {"train"}


def test_rare_class_reaches_every_subset():
    manifest = manifest_of("A" * 200 + "R" * 3, [f"{place}" for place in range(203)])
    for seed in range(3):
        proof = prove(hold_out(manifest, seed=seed), manifest)
        assert proof.photos.loc["R"].tolist() == [1, 1, 1]
        assert proof.photos.loc["A"].tolist() == [140, 30, 30]


@pytest.mark.parametrize(("make", "needed"), [(hold_out, 3), (lambda manifest: cross_validation(manifest, folds=5), 5)])
def test_too_few_groups_of_a_class_name_it_with_both_numbers(make, needed):
    manifest = manifest_of(
        "A" * 20 + "B" * 20 + "C" * 20, [*(f"{place}" for place in range(20)), *"pq" * 10, *["z"] * 20]
    )
    with pytest.raises(SplitError, match=rf"needs {needed} or more.*but B has 2, C has 1\. Groups, not photos"):
        make(manifest)


def test_groups_that_cannot_be_dealt_out_are_said_to_be_so():
    # A needs x, y, z apart and B needs x, y, w apart, so z and w would share a part; but C needs z, w, v apart.
    with pytest.raises(SplitError, match=rf"No split into 3 parts .* found in {TRIES} tries; the best lacks [ABC]"):
        hold_out(manifest_of("AAABBBCCC", "xyzxywzwv"))


@pytest.mark.parametrize(
    "shares", [(0, 0.1), (0.1, 0), (0.5, 0.5), (0.9, 0.2), (-0.1, 0.3), (0.3, -0.1), (float("nan"), 0.1)]
)
def test_impossible_shares(shares):
    with pytest.raises(ConfigError, match="above 0 and sum to less than 1"):
        hold_out(SMALL, *shares)


def test_impossible_seeds_folds_and_repeats():
    for make in (hold_out, cross_validation):
        with pytest.raises(ConfigError, match="Found -1"):
            make(SMALL, seed=-1)
    with pytest.raises(ConfigError, match="at least 3 folds"):
        cross_validation(SMALL, folds=2)
    with pytest.raises(ConfigError, match="Found 0"):
        cross_validation(SMALL, repeats=0)


# --- cross-validation


def test_every_photo_is_tested_once_a_repeat():
    manifest = random_manifest(4)
    folds = cross_validation(manifest, folds=5, repeats=3)
    assert (folds.repeats, folds.folds, len(folds.table)) == (3, 5, 900)
    for repeat in range(3):
        tested = [path for fold in range(5) for path in folds.cell(repeat, fold).paths("test")]
        assert sorted(tested) == list(manifest.table["path"])
        assert straddling(folds.table[folds.table["repeat"] == repeat], manifest, "fold") == []
    first, second, third = (rows["fold"].tolist() for _, rows in folds.table.groupby("repeat"))
    assert first != second != third != first


def test_cell_takes_the_next_fold_for_validation():
    folds = cross_validation(random_manifest(5), folds=4)
    fold_of = folds.table.set_index("path")["fold"]
    for fold in range(4):
        cell = folds.cell(0, fold)
        assert set(fold_of[list(cell.paths("test"))]) == {fold}
        assert set(fold_of[list(cell.paths("val"))]) == {(fold + 1) % 4}
        assert set(fold_of[list(cell.paths("train"))]) == set(range(4)) - {fold, (fold + 1) % 4}
        assert list(cell.table.columns) == ["path", "group", "subset"]
    twice = cross_validation(random_manifest(5), folds=4, repeats=2)
    for repeat, fold in ((0, 4), (0, 5), (2, 0), (3, 0), (-1, 0), (0, -1)):
        with pytest.raises(SplitError, match=f"no fold {fold} of repeat {repeat}: .* repeats 0 to 1 and folds 0 to 3"):
            twice.cell(repeat, fold)


def test_class_counts_of_folds_are_even():
    manifest = random_manifest(6)
    folds = cross_validation(manifest, folds=5).table["fold"].to_numpy()
    counts = pd.crosstab(manifest.table["label"], folds).to_numpy()
    assert (counts.max(axis=1) - counts.min(axis=1)).max() <= 2


def test_as_many_groups_as_folds():
    # scikit-learn's StratifiedGroupKFold may leave a fold empty here (its issue 34828).
    manifest = manifest_of("AB" * 5, np.repeat(list("abcde"), 2))
    for seed in range(10):
        assert (
            cross_validation(manifest, folds=5, seed=seed).table.groupby("fold")["group"].nunique().tolist() == [1] * 5
        )


# --- properties

group_labels = st.lists(
    st.tuples(st.integers(0, 12), st.sampled_from("AB"), st.integers(0, 30)), min_size=9, max_size=40
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(group_labels, st.integers(0, 3), st.randoms(use_true_random=False))
def test_splits_of_any_photos(rows, seed, random):
    groups, labels, hashes = zip(*rows, strict=True)
    manifest = manifest_of(labels, [f"g{number}" for number in groups], [f"{number:064x}" for number in hashes])
    order = list(range(len(rows)))
    random.shuffle(order)
    shuffled = Manifest(manifest.table.iloc[order], Path())
    for make, part in ((hold_out, "subset"), (cross_validation, "fold")):
        options = {"folds": 3} if part == "fold" else {}
        try:
            made = make(manifest, seed=seed, **options)
        except SplitError as error:
            assert "groups" in str(error)
            continue
        assert sorted(made.table["path"]) == sorted(manifest.table["path"])
        assert straddling(made.table, manifest, part) == []
        by_part = made.table.merge(manifest.table[["path", "label"]], on="path").groupby(part)["label"]
        assert by_part.nunique().tolist() == [len(manifest.classes)] * 3
        assert make(shuffled, seed=seed, **options).to_csv() == made.to_csv()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 2)), min_size=12, max_size=60), st.integers(0, 5))
def test_dealing_needs_no_warning_and_is_a_local_optimum(groups, seed):
    labels = [("A", "B", "C")[label] for size, label in groups for _ in range(size)]
    names = [f"{place:02}" for place, (size, _) in enumerate(groups) for _ in range(size)]
    held = pd.DataFrame({"label": labels, "group": names}).groupby("label")["group"].nunique()
    assume(len(held) == 3 and held.min() >= 3)
    shares = np.array([0.7, 0.15, 0.15])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parts = deal_groups(labels, names, list(shares), [seed])

    sizes = pd.crosstab(pd.Series(names), pd.Series(labels)).to_numpy()
    group_parts = pd.Series(parts).groupby(names).first().to_numpy()

    def distance(dealt):
        counts = np.array([sizes[dealt == part].sum(axis=0) for part in range(3)])
        return (counts == 0).sum(), ((counts / counts.sum(axis=0) - shares[:, None]) ** 2).sum()

    reached = distance(group_parts)
    assert reached[0] == 0
    for group in range(len(group_parts)):
        for part in range(3):
            moved = group_parts.copy()
            moved[group] = part
            assert distance(moved) >= (0, reached[1] - 1e-9)


def test_further_tries_bring_classes_closer_to_their_shares(monkeypatch):
    draws = np.random.default_rng(53)
    count = draws.integers(14, 40)
    groups = [f"{number:02}" for number in draws.integers(0, count // 2, count)]
    labels = list(draws.choice(list("ABC"), count, p=[0.6, 0.25, 0.15]))
    shares = [0.7, 0.15, 0.15]

    def error():
        counts = pd.crosstab(deal_groups(labels, groups, shares, [0]), np.array(labels))
        return float(((counts / counts.sum() - np.array(shares)[:, None]) ** 2).to_numpy().sum())

    best = error()
    monkeypatch.setattr(stratification, "TRIES", 1)
    assert best < 0.6 * error()


def test_a_result_that_is_reached_again_ends_the_search(monkeypatch):
    proposals = []
    propose = stratification._propose
    monkeypatch.setattr(stratification, "_propose", lambda *given: proposals.append(given) or propose(*given))
    labels, groups = ["A"] * 100 + ["R"] * 3, [f"{place}" for place in range(103)]
    deal_groups(labels, groups, [0.7, 0.15, 0.15], [0])
    assert len(proposals) == 2
    deal_groups(labels[:100], groups[:100], [0.7, 0.15, 0.15], [0])
    assert len(proposals) == 3


# --- proof


def test_proof_counts_photos_and_groups():
    split = Split(SMALL.table[["path", "group"]].assign(subset=SMALL_SUBSETS))
    proof = prove(split, SMALL)
    table = proof.table()
    assert table.loc["A"].to_dict() == {
        "train photos": 3, "train groups": 3, "val photos": 1, "val groups": 1, "test photos": 1, "test groups": 1,
    }  # fmt: skip
    assert table.loc["B"].tolist() == [4, 4, 1, 1, 2, 2]
    assert table.loc[ALL_CLASSES].tolist() == [7, 6, 2, 2, 3, 3]  # group k holds both classes and counts once
    assert proof.lines() == (
        "11 groups, none in two subsets.",
        "12 distinct sha256, none in two subsets.",
        "12 of 12 photos covered.",
        "Every class in every subset. Share of the photos: train 58.3%, val 16.7%, test 25.0%.",
    )


def test_proof_of_folds_covers_every_repeat():
    manifest = random_manifest(7)
    folds = cross_validation(manifest, folds=3, repeats=2)
    proof = prove(folds, manifest)
    assert list(proof.photos.columns) == [f"repeat {repeat}, fold {fold}" for repeat in (0, 1) for fold in (0, 1, 2)]
    assert proof.photos.loc[ALL_CLASSES].sum() == 600
    assert proof.lines()[2] == "300 of 300 photos covered, in each of 2 repeats."
    sizes = proof.photos.loc[ALL_CLASSES] / 300
    shares = f"{sizes.min():.1%} to {sizes.max():.1%}"
    assert proof.lines()[3] == f"Every class in every fold. Share of the photos: {shares}."
    assert sizes.between(0.3, 0.36).all()
    table = folds.table.copy()
    table.loc[table.index[-1], "fold"] = (table["fold"].iloc[-1] + 1) % 3
    with pytest.raises(DataProblems) as caught:
        prove(Folds(table), manifest)
    assert {problem.rule for problem in caught.value.problems} == {"group in two folds"}


def test_a_chain_over_groups_of_manifest_and_split_is_one_group():
    manifest = manifest_of("ABABAB", "aabbcc")
    subsets = ["train", "train", "val", "val", "test", "test"]
    split = Split(manifest.table[["path"]].assign(group=list("112344"), subset=subsets))
    assert prove(split, manifest).distinct_groups == 3


# --- reading


def test_what_was_written_is_read_back(tmp_path):
    manifest = random_manifest(8)
    for made in (hold_out(manifest), cross_validation(manifest, folds=4, repeats=2)):
        (tmp_path / "split.csv").write_text(made.to_csv())
        read = read_split(tmp_path / "split.csv", manifest)
        assert type(read) is type(made)
        pd.testing.assert_frame_equal(read.table, made.table)
        assert read.to_csv().partition("\n")[0] == ",".join(made.table.columns)
        assert read.sha256 == sha256_of_bytes((tmp_path / "split.csv").read_bytes())


def test_a_split_made_by_hand_is_obeyed(tmp_path):
    path = write_split(tmp_path, subset=SMALL_SUBSETS, note="mine")
    split = read_split(path, SMALL)
    assert list(split.table["subset"]) == SMALL_SUBSETS
    assert list(split.table["group"]) == list("abcdefghijkk")
    pd.read_csv(path).iloc[::-1].to_csv(path, index=False)
    pd.testing.assert_frame_equal(read_split(path, SMALL).table, split.table)


def test_groups_of_the_file_join_but_do_not_divide_those_of_the_manifest(tmp_path):
    groups = ["x", "x", "", "d", "x", "f", "g", "h", "i", "j", "k1", "k2"]
    split = read_split(write_split(tmp_path, group=groups, subset=SMALL_SUBSETS), SMALL)
    table = split.table.set_index("path")["group"]
    assert list(table[:5]) == ["x", "x", "c", "d", "x"]
    assert table.iloc[10] == table.iloc[11] == "k1"


def test_copies_share_a_group_after_reading(tmp_path):
    hashes = ["f" * 64, "f" * 64, *SMALL.table["sha256"][2:]]
    manifest = manifest_of(SMALL.table["label"], SMALL.table["group"], hashes)
    groups = read_split(write_split(tmp_path, subset=SMALL_SUBSETS), manifest).table["group"]
    assert list(groups) == ["a", "a", *"cdefghijkk"]


def test_groups_are_the_same_in_every_repeat_after_reading(tmp_path):
    def join_in_the_second_repeat(table):
        table["group"] = [*"aabbccddeeff", *"aabbccaabbcc"]

    path, manifest = folds_file(tmp_path, join_in_the_second_repeat)
    groups = read_split(path, manifest).table["group"]
    assert list(groups) == list("aabbccaabbcc") * 2


def test_leaks_are_named_with_the_photos_and_where_they_stand(tmp_path):
    subsets = [*SMALL_SUBSETS[:11], "test"]
    with pytest.raises(DataProblems, match=r"split\.csv: The split cannot be used") as caught:
        read_split(write_split(tmp_path, subset=subsets), SMALL)
    (problem,) = caught.value.problems
    assert (problem.rule, problem.path) == ("group in two subsets", "k")
    assert problem.found == "train: 0010.png; test: 0011.png"


def test_finer_groups_in_the_file_hide_no_leak(tmp_path):
    subsets = [*SMALL_SUBSETS[:11], "test"]
    path = write_split(tmp_path, group=[f"own {place}" for place in range(12)], subset=subsets)
    assert problems_of(path) == {("group of the manifest in two subsets", "k")}


def test_a_copy_in_two_subsets_is_a_leak(tmp_path):
    hashes = [*SMALL.table["sha256"][:11], SMALL.table["sha256"][0]]
    manifest = manifest_of("AAAABBBBBBAA", "abcdefghijkl", hashes)
    path = write_split(tmp_path, subset=[*SMALL_SUBSETS[:11], "test"])
    assert problems_of(path, manifest) == {("same photo in two subsets", "0" * 64)}


def test_long_lists_of_leaking_photos_are_shortened(tmp_path):
    manifest = manifest_of("AB" * 6, ["g"] * 8 + list("abcd"))
    with pytest.raises(DataProblems) as caught:
        read_split(
            write_split(tmp_path, manifest, subset=["train"] * 6 + ["val"] * 3 + ["test"] * 2 + ["val"]), manifest
        )
    assert caught.value.problems[0].found == ("train: 0000.png, 0001.png, 0002.png and 3 more; val: 0006.png, 0007.png")


def test_photos_must_be_covered_once(tmp_path):
    path = write_split(tmp_path, subset=SMALL_SUBSETS)
    table = pd.read_csv(path)
    table.loc[0, "path"] = "other.png"
    pd.concat([table, table.tail(1)]).to_csv(path, index=False)
    assert problems_of(path) == {
        ("photo not in the manifest", "other.png"),
        ("photo not in the split", "0000.png"),
        ("photo listed twice", "0011.png"),
    }


def test_of_the_split_of_other_photos_only_some_are_named(tmp_path):
    manifest = manifest_of("AB" * 13, [f"g{number}" for number in range(26)])
    path = tmp_path / "other.csv"
    path.write_text("path,subset\n" + "".join(f"x{number:02}.png,train\n" for number in range(20)), encoding="utf-8")
    with pytest.raises(DataProblems, match="cannot be used") as caught:
        read_split(path, manifest)
    told = [problem.path for problem in caught.value.problems if problem.rule.startswith("photo not in")]
    assert told == [
        *(f"x{number:02}.png" for number in range(20)),
        *(f"{number:04}.png" for number in range(20)),
        "and 6 more photos",
    ]


def test_one_photo_in_two_subsets(tmp_path):
    path = write_split(tmp_path, subset=SMALL_SUBSETS)
    path.write_text(path.read_text() + "0000.png,test\n")
    assert problems_of(path) == {("photo listed twice", "0000.png"), ("group in two subsets", "a")}


def test_every_class_must_be_in_every_subset(tmp_path):
    manifest = manifest_of("AAABBBC", "abcdefg")
    subsets = ["train", "val", "test", "train", "val", "test", "val"]
    with pytest.raises(DataProblems) as caught:
        read_split(write_split(tmp_path, manifest, subset=subsets), manifest)
    assert [(problem.path, problem.found) for problem in caught.value.problems] == [
        ("C", "no photo in train"),
        ("C", "no photo in test"),
    ]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("valid", "val"),
        ("validation", "val"),
        ("Train", "train"),
        ("training", "train"),
        ("TEST", "test"),
        ("trian", "train"),
    ],
)
def test_unknown_subsets_are_answered_with_the_nearest(name, meant, tmp_path):
    with pytest.raises(DataProblems) as caught:
        read_split(write_split(tmp_path, subset=[name, *SMALL_SUBSETS[1:]]), SMALL)
    (problem,) = caught.value.problems
    assert (problem.rule, problem.fix) == ("unknown subset", f"Write {meant} instead.")
    assert problem.found == f"'{name}' in 1 rows"


def test_an_empty_subset_cell_is_unknown_too(tmp_path):
    with pytest.raises(DataProblems) as caught:
        read_split(write_split(tmp_path, subset=["", *SMALL_SUBSETS[1:]]), SMALL)
    assert caught.value.problems[0].fix == "Write one of the three."


@pytest.mark.parametrize(
    "columns", [{}, {"repeat": "0"}, {"fold": "0"}, {"subset": "train", "repeat": "0", "fold": "0"}]
)
def test_columns_of_a_split_file(columns, tmp_path):
    with pytest.raises(SplitError, match=r"path and subset, or path, repeat and fold\. Found path"):
        read_split(write_split(tmp_path, **columns), SMALL)
    (tmp_path / "split.csv").write_text("file,subset\n0000.png,train\n")
    with pytest.raises(DataError, match="no column 'path'"):
        read_split(tmp_path / "split.csv", SMALL)


def folds_file(folder, change):
    """Two repeats of three sound folds of nine photos, changed in place."""
    manifest = manifest_of("ABABAB" * 2, "aabbccddeeff")
    fold = [0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2]
    table = pd.concat([pd.DataFrame({"path": manifest.table["path"], "repeat": r, "fold": fold}) for r in (0, 1)])
    table = table.astype(object).reset_index(drop=True)
    change(table)
    table.to_csv(folder / "split.csv", index=False)
    return folder / "split.csv", manifest


def test_folds_made_by_hand_are_obeyed(tmp_path):
    path, manifest = folds_file(tmp_path, lambda table: None)
    folds = read_split(path, manifest)
    assert (folds.repeats, folds.folds) == (2, 3)
    assert folds.cell(1, 2).paths("val") == ("0000.png", "0001.png", "0006.png", "0007.png")
    pd.read_csv(path).iloc[::-1].to_csv(path, index=False)
    pd.testing.assert_frame_equal(read_split(path, manifest).table, folds.table)


@pytest.mark.parametrize(
    ("row", "column", "value", "expected"),
    [
        (slice(None), "repeat", 1, ("numbering", "column repeat")),
        (slice(12, 24), "repeat", 2, ("numbering", "column repeat")),
        (0, "fold", 7, ("numbering", "column fold")),
        (0, "fold", "x", ("value of fold", "0000.png")),
        (1, "fold", "-1", ("value of fold", "0001.png")),
        (1, "fold", "", ("value of fold", "0001.png")),
        (1, "repeat", "9" * 5000, ("value of repeat", "0001.png")),
        (1, "fold", 2, ("group in two folds", "a")),
        (1, "repeat", 1, ("photo not in the split", "0001.png")),
        (13, "path", "x.png", ("photo not in the manifest", "x.png")),
    ],
)
def test_folds_must_count_from_zero_and_cover_all(row, column, value, expected, tmp_path):
    path, manifest = folds_file(tmp_path, lambda table: table.__setitem__(column, _changed(table[column], row, value)))
    assert expected in problems_of(path, manifest)


def _changed(values, row, value):
    values = values.copy()
    values[row] = value
    return values


@pytest.mark.parametrize(
    ("column", "change", "found", "expected"),
    [
        ("fold", {2: 0}, "0, 1", "0 to 2"),
        ("fold", {2: 3}, "0, 1, 3", "0 to 2"),
        ("fold", {0: 9}, "1, 2, 9", "0 to 2"),
        ("repeat", {1: 3}, "0, 3", "0 to 1"),
        ("repeat", {0: 1}, "1", "0 to 0"),
    ],
)
def test_a_gap_in_the_numbers_is_shown_with_what_they_should_be(column, change, found, expected, tmp_path):
    path, manifest = folds_file(tmp_path, lambda table: table.__setitem__(column, table[column].replace(change)))
    with pytest.raises(DataProblems, match=r"split\.csv: 1 problems in the split file") as caught:
        read_split(path, manifest)
    (problem,) = caught.value.problems
    assert (problem.path, problem.found, problem.expected) == (f"column {column}", found, expected)


def test_folds_of_no_photo_are_refused(tmp_path):
    (tmp_path / "split.csv").write_text("path,repeat,fold\n")
    assert problems_of(tmp_path / "split.csv") == {("numbering", "column repeat"), ("numbering", "column fold")}


def test_every_value_that_is_no_number_is_shown(tmp_path):
    def change(table):
        table.loc[1, "fold"], table.loc[3, "repeat"], table.loc[4, "fold"] = "", "x", "1.0"

    path, manifest = folds_file(tmp_path, change)
    with pytest.raises(DataProblems, match="3 problems") as caught:
        read_split(path, manifest)
    found = [(problem.rule, problem.path, problem.found) for problem in caught.value.problems]
    assert found == [
        ("value of repeat", "0003.png", "x"),
        ("value of fold", "0001.png", "nothing"),
        ("value of fold", "0004.png", "1.0"),
    ]


# --- real photos


def test_real_photos_split_by_patient():
    if "HCOATNET_PAD_UFES" not in os.environ:
        pytest.skip("HCOATNET_PAD_UFES does not name the folder of the PAD-UFES-20 photos")
    manifest = scan_table(Path(os.environ["HCOATNET_PAD_UFES"]) / "metadata.csv", group_column="patient_id").manifest
    split = hold_out(manifest)
    proof = prove(split, manifest)
    assert proof.distinct_groups == 765
    photos = proof.photos.drop(ALL_CLASSES)
    asked = np.outer(photos.sum(axis=1), [0.7, 0.15, 0.15])
    assert np.abs(photos.to_numpy() - asked).max() <= 1.0
    folds = prove(cross_validation(manifest, folds=5, repeats=3), manifest).photos.drop(ALL_CLASSES)
    assert (folds.max(axis=1) - folds.min(axis=1)).max() <= 1
