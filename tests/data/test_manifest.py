import json
import os
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hcoatnet.data.groups import group_photos, source_photo, union_groups
from hcoatnet.data.manifest import (
    MANIFEST_COLUMNS,
    Manifest,
    is_reserved,
    read_manifest,
    require_photos,
    write_manifest,
)
from hcoatnet.data.tables import read_table, require_columns
from hcoatnet.errors import DataError, DataProblems
from hcoatnet.files import sha256_of_file


def rows(count=4, **columns):
    """Rows of a small, sound manifest, some of their columns replaced."""
    table = pd.DataFrame(
        {
            "path": [f"{place}.png" for place in range(count)],
            "label": [("A", "B")[place % 2] for place in range(count)],
            "group": [f"patient {place}" for place in range(count)],
            "sha256": [f"{place:064x}" for place in range(count)],
            "width": [10] * count,
            "height": [20] * count,
        }
    )
    return table.assign(**columns)


def written(table, folder):
    path = folder / "manifest.csv"
    path.write_text(table.to_csv(index=False), encoding="utf-8")
    return path


def rules_of(path):
    with pytest.raises(DataProblems) as caught:
        read_manifest(path)
    return {(problem.rule, problem.path) for problem in caught.value.problems}


# --- reading and writing


def test_text_stays_text_and_what_is_written_is_read_back(tmp_path):
    table = rows(
        6,
        label=["1", "NA", "None", "nan", "01", 'é, "quoted"\nand broken'],
        note=["", "NULL", "1.0", " blank ", "true", "a;b"],
    )
    made = write_manifest(Manifest(table, tmp_path), tmp_path / "manifest.csv")
    read = read_manifest(tmp_path / "manifest.csv")
    assert read.table.to_dict("list") == made.table.to_dict("list") == table.to_dict("list")
    assert read.classes == tuple(sorted(table["label"]))
    assert read.extra_columns == ("note",)
    assert len(read) == 6
    assert read.sha256 == made.sha256 == sha256_of_file(tmp_path / "manifest.csv")
    assert read.table["width"].dtype == np.int64


def test_file_is_the_same_for_any_order_of_rows_and_ends_lines_with_newline(tmp_path):
    texts = set()
    for order in permutations(range(4)):
        write_manifest(Manifest(rows().iloc[list(order)], tmp_path), tmp_path / "manifest.csv")
        texts.add((tmp_path / "manifest.csv").read_bytes())
    assert len(texts) == 1
    content = texts.pop()
    assert b"\r" not in content
    assert content.startswith(b"path,label,group,sha256,width,height\n0.png,A,patient 0,")


def test_paths_are_re_expressed_for_the_place_of_the_file(tmp_path):
    photos, elsewhere = tmp_path / "photos", tmp_path / "work" / "here"
    photos.mkdir()
    for place in range(4):
        (photos / f"{place}.png").touch()
    moved = write_manifest(Manifest(rows(), photos), elsewhere / "manifest.csv")
    assert moved.table["path"][0] == "../../photos/0.png"
    require_photos(read_manifest(elsewhere / "manifest.csv"))
    back = write_manifest(moved, photos / "manifest.csv")
    assert list(back.table["path"]) == list(rows()["path"])


def test_paths_are_right_although_the_manifest_lies_behind_a_symbolic_link(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "er")
    for place in range(4):
        (tmp_path / "photos" / f"{place}.png").touch()
    write_manifest(Manifest(rows(), tmp_path / "photos"), tmp_path / "link" / "manifest.csv")
    require_photos(read_manifest(tmp_path / "link" / "manifest.csv"))


def test_manifest_of_a_spreadsheet_is_read(tmp_path):
    text = rows().to_csv(index=False, sep=";", lineterminator="\r\n")
    (tmp_path / "manifest.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_manifest(tmp_path / "manifest.csv").to_csv() == rows().to_csv(index=False)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"path": ["a.png", "a.png", "b.png", "b.png"]},
            {("photo listed twice", "a.png"), ("photo listed twice", "b.png")},
        ),
        ({"path": ["/etc/x.png", "1.png", "2.png", ""]}, {("value of path", "/etc/x.png"), ("value of path", "")}),
        ({"label": ["A", "B", "", " "]}, {("no label", "2.png"), ("no label", "3.png")}),
        ({"label": ["A", "B", "a", "C"]}, {("spelling of a class", "A")}),
        ({"label": ["A", "B", "B ", "C"]}, {("spelling of a class", "B")}),
        ({"label": [" A", "B", " A", "C"]}, {("spelling of a class", "A")}),
        ({"label": ["A b", "A  b", "C", "C"]}, {("spelling of a class", "A  b")}),
        ({"label": ["A"] * 4}, {("one class only", "label")}),
        ({"group": ["g", "", "g", " "]}, {("value of group", "1.png"), ("value of group", "3.png")}),
        ({"sha256": ["0" * 64, "1" * 63, "", "2" * 64]}, {("value of sha256", "1.png"), ("value of sha256", "2.png")}),
        ({"width": ["10", "0", "-1", "x"]}, {("value of width", f"{place}.png") for place in (1, 2, 3)}),
        ({"height": ["10", "1.5", "", "2"]}, {("value of height", "1.png"), ("value of height", "2.png")}),
    ],
)
def test_all_contradictions_of_a_manifest_are_named(change, expected, tmp_path):
    assert rules_of(written(rows(**change), tmp_path)) == expected


def test_empty_manifest(tmp_path):
    assert rules_of(written(rows(0), tmp_path)) == {("no photos", "manifest")}


def test_columns_of_a_manifest(tmp_path):
    path = written(rows().drop(columns=["sha256"]).rename(columns={"label": "labels"}), tmp_path)
    with pytest.raises(DataError, match=r"'label', 'sha256'.*Did you mean 'labels'.*hcoatnet data scan"):
        read_manifest(path)
    with pytest.raises(DataError, match="user_p_1"):
        read_manifest(written(rows(p_1="x"), tmp_path))


def test_reserved_names():
    names = [*MANIFEST_COLUMNS, "subset", "repeat", "fold", "logit_A", "p_A", "p_"]
    assert all(is_reserved(name) for name in names)
    assert not any(is_reserved(name) for name in ("patient_id", "folds", "user_width", "p", "source_split", "logit"))


# --- loading


def test_data_modules_do_not_import_torch():
    modules = ("images", "manifest", "splits", "sources.folder", "sources.table")
    code = "import sys, json; " + "; ".join(f"import hcoatnet.data.{module}" for module in modules)
    found = subprocess.run(
        [sys.executable, "-c", f"{code}; print(json.dumps(sorted(sys.modules)))"],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    loaded = set(json.loads(found.stdout))
    assert {f"hcoatnet.data.{module}" for module in modules} <= loaded
    assert not loaded & {"torch", "timm", "torchvision", "matplotlib"}


# --- tables


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_tables_with_any_usual_separator(delimiter, end, tmp_path):
    lines = ["", "path|label|note", 'a.png|A|"one, two; three"', "", 'b.png|B|"broken\nline"', "||"]
    path = tmp_path / "table.csv"
    path.write_bytes(end.join(lines).replace("|", delimiter).encode())
    table = read_table(path)
    assert list(table.columns) == ["path", "label", "note"]
    assert table.to_numpy().tolist() == [["a.png", "A", "one, two; three"], ["b.png", "B", "broken\nline"]]


def test_columns_without_a_name_get_one(tmp_path):
    (tmp_path / "table.csv").write_text(", label ,\n0,A,x\n")
    assert list(read_table(tmp_path / "table.csv").columns) == ["column_1", "label", "column_3"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        ("Größe".encode("latin-1"), "not UTF-8"),
        (b"PK\x03\x04\x14\0\x06\0\x80\x81", "not UTF-8"),
        (b"a,b,a\n1,2,3\n", "'a' stands twice"),
        (b'a,b\n1,"2\n', "not a CSV"),
        (b"a,b\n1," + b"x" * 200_000 + b"\n", "line 2: not a CSV"),
    ],
)
def test_files_that_are_no_tables(content, message, tmp_path):
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "table.csv")


def test_missing_table_and_lines_that_do_not_fit(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_table(tmp_path / "none.csv")
    (tmp_path / "table.csv").write_text('a,b\n1,2\n1\n"x\ny",2\n1,2,3\n')
    with pytest.raises(DataProblems) as caught:
        read_table(tmp_path / "table.csv")
    assert [problem.path for problem in caught.value.problems] == ["table.csv, line 3", "table.csv, line 6"]


def test_required_columns_give_the_nearest_name():
    table = pd.DataFrame(columns=["path", "diagnosis"])
    require_columns(table, ("path",), Path("t.csv"))
    with pytest.raises(
        DataError, match=r"no column 'diagnosys'\. Its columns: path, diagnosis\. Did you mean 'diagnosis'\?"
    ):
        require_columns(table, ("diagnosys",), Path("t.csv"))


# --- groups

keyed_rows = st.lists(st.tuples(*[st.sampled_from("abcdefgh")] * 3), max_size=12)


@given(keyed_rows)
def test_union_of_groups_is_the_connected_components(keys):
    found = union_groups(*(list(column) for column in zip(*keys, strict=True))) if keys else union_groups([], [])
    agree = [[any(x == y for x, y in zip(one, other, strict=True)) for other in keys] for one in keys]
    number, component = connected_components(coo_array(np.array(agree, dtype=int).reshape(len(keys), len(keys))))
    assert len(set(found)) == number
    for place, name in enumerate(component):
        assert found[place] == min(keys[other][0] for other in range(len(keys)) if component[other] == name)


@given(keyed_rows.filter(bool), st.randoms(use_true_random=False))
def test_union_of_groups_does_not_depend_on_order(keys, random):
    order = list(range(len(keys)))
    random.shuffle(order)
    groups, *links = (list(column) for column in zip(*keys, strict=True))
    found = union_groups(groups, *links)
    shuffled = union_groups([groups[place] for place in order], *([link[place] for place in order] for link in links))
    assert shuffled == [found[place] for place in order]
    assert union_groups(groups, *reversed(links)) == found
    assert union_groups(found, *links) == found


def test_a_long_chain_is_one_group():
    places = range(20_000)
    assert set(union_groups([f"{place:05}" for place in places], [place // 2 for place in places])) == {
        f"{place:05}" for place in range(0, 20_000, 2)
    }
    assert set(union_groups([f"{(place + 1) // 2:05}" for place in places], [place // 2 for place in places])) == {
        "00000"
    }


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("train/A/000033_jpg.rf.0a1b.jpg", "000033_jpg"),
        ("x.rf.y.rf.z.png", "x"),
        ("a.rf.b/photo.jpg", None),
        (".rf.abc.jpg", None),
        ("surf.jpg", None),
    ],
)
def test_name_of_the_source_photo(path, source):
    assert source_photo(path) == source


def photos(paths, labels=None, hashes=None):
    return pd.DataFrame(
        {
            "path": paths,
            "label": labels or ["A"] * len(paths),
            "sha256": hashes or [f"{place:064x}"[::-1] for place in range(len(paths))],
        }
    )


def test_widest_unit_known_of_each_photo_is_its_group():
    paths = ["1.png", "2.png", "3.png", "x.rf.a.png", "y/x.rf.b.png", "6.png", "7.png", "8.png"]
    owners = pd.DataFrame(
        {
            "patient": ["P1", " P1", "", "", "", "", "P2", ""],
            "lesion": ["L1", "L2", "L9", "", "", "", "L3", "L3"],
        }
    )
    groups, notes = group_photos(photos(paths), owners)
    assert groups[0] == groups[1] == "P1"
    assert groups[2] == "lesion:L9"
    assert groups[3] == groups[4] == "source:A/x"
    assert groups[5].startswith("photo:")
    assert groups[6] == groups[7] == "P2"  # the lesion is known to be this patient's
    assert notes[0].startswith("5 groups of 8 photos (by patient: 4 photos;")
    assert notes[1].startswith("Photos without patient: 4.")


def test_a_lesion_number_that_several_patients_share_names_none_of_them():
    owners = pd.DataFrame({"patient": ["P1", "P2", ""], "lesion": ["1", "1", "1"]})
    groups, _ = group_photos(photos(["a", "b", "c"]), owners)
    assert groups == ["P1", "P2", "lesion:1"]


def test_equal_source_names_in_two_classes_are_two_photos():
    groups, _ = group_photos(photos(["A/1.rf.a.jpg", "B/1.rf.b.jpg"], ["A", "B"]), pd.DataFrame(index=range(2)))
    assert groups == ["source:A/1", "source:B/1"]


def test_copies_join_groups_and_it_is_said():
    same = ["0" * 64, "0" * 64, "1" * 64, "2" * 64]
    owners = pd.DataFrame({"patient": ["P2", "P1", "P1", "P3"]})
    groups, notes = group_photos(photos(list("abcd"), hashes=same), owners)
    assert groups == ["P1", "P1", "P1", "P3"]
    assert "Exact copies of other photos: 1; groups joined because of them: 1." in notes


def test_groups_do_not_depend_on_the_folder_or_order():
    hashes = ["3" * 64, "1" * 64, "2" * 64]
    none = pd.DataFrame(index=range(3))
    groups, _ = group_photos(photos(["a/1.png", "a/2.png", "a/3.png"], hashes=hashes), none)
    moved, _ = group_photos(photos(["z/3.png", "z/2.png", "z/1.png"], hashes=hashes[::-1]), none)
    assert moved == groups[::-1]


def test_a_value_that_means_unknown_is_taken_at_its_word_and_told():
    owners = pd.DataFrame({"patient": ["NA", "NA", "P1"]})
    groups, notes = group_photos(photos(list("abc")), owners)
    assert groups == ["NA", "NA", "P1"]
    assert any("patient is 'NA': 2, taken as one group" in note for note in notes)


@settings(max_examples=50)
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), min_size=1, max_size=6, unique=True)
)
def test_any_printable_text_survives_a_manifest(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("manifest")
    table = rows(len(names) + 1, note=["", *names])
    write_manifest(Manifest(table, folder), folder / "manifest.csv")
    assert list(read_manifest(folder / "manifest.csv").table["note"]) == ["", *names]
