import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hcoatnet.data.manifest import require_photos, write_manifest
from hcoatnet.data.sources.source import load_data
from hcoatnet.data.sources.table import scan_table
from hcoatnet.errors import DataError, DataProblems


def make_table(folder, columns, count=4, name="table.csv", **options):
    """Photos 0.png, 1.png … and a table of them; columns replace or add to path and label."""
    for place in range(count):
        pixels = np.random.default_rng(place).integers(0, 256, (6, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{place}.png")
    table = pd.DataFrame(
        {"path": [f"{place}.png" for place in range(count)], "label": [("A", "B")[place % 2] for place in range(count)]}
    )
    table.assign(**columns).to_csv(folder / name, index=False, **options)
    return folder / name


def problems_of(path, **options):
    with pytest.raises(DataProblems) as caught:
        scan_table(path, **options)
    return {(problem.rule, problem.path) for problem in caught.value.problems}


def test_path_label_and_further_columns(tmp_path):
    path = make_table(tmp_path, {"age": ["30", "", "NA", "4.0"], "p_1": list("wxyz"), "width": list("1234")})
    result = scan_table(path)
    manifest = result.manifest
    assert manifest.extra_columns == ("age", "user_p_1", "user_width")
    assert list(manifest.table["age"]) == ["30", "", "NA", "4.0"]
    assert list(manifest.table["user_width"]) == list("1234")
    assert set(manifest.table["width"]) == {9}
    assert manifest.folder == tmp_path
    assert "Columns with reserved names were renamed: p_1 → user_p_1, width → user_width." in result.notes
    assert any(note.startswith("No patients are known.") for note in result.notes)


def test_named_columns_take_their_roles(tmp_path):
    columns = {
        "file": ["3.png", "2.png", "1.png", "0.png"],
        "dx": list("xxyy"),
        "who": list("ppqq"),
        "group": list("1111"),
    }
    path = make_table(tmp_path, columns)
    result = scan_table(path, path_column="file", label_column="dx", group_column="who")
    table = result.manifest.table
    assert list(table["path"]) == ["0.png", "1.png", "2.png", "3.png"]
    assert list(table["label"]) == list("yyxx")
    assert list(table["group"]) == list("qqpp")
    assert result.manifest.extra_columns == ("user_path", "user_label", "who", "user_group")
    assert list(table["user_path"]) == columns["file"]


def test_a_column_called_group_is_used_only_when_named(tmp_path):
    path = make_table(tmp_path, {"group": ["treated", "treated", "control", "control"]})
    result = scan_table(path)
    assert result.manifest.table["group"].nunique() == 4
    assert "user_group" in result.manifest.extra_columns
    assert any("--group-column group" in note for note in result.notes)
    named = scan_table(path, group_column="group").manifest
    assert set(named.table["group"]) == {"treated", "control"}
    assert named.extra_columns == ()


@pytest.mark.parametrize("name", ["patient_id", "Patient ID", "PatientID", "subject", "participant-id"])
def test_patients_are_recognised_and_it_is_said(name, tmp_path):
    result = scan_table(make_table(tmp_path, {name: list("ppqq")}))
    assert list(result.manifest.table["group"]) == list("ppqq")
    assert result.manifest.extra_columns == (name,)
    assert f"The column {name} was taken for patients." in result.notes


def test_rows_without_a_patient_fall_back_and_are_counted(tmp_path):
    path = make_table(tmp_path, {"patient_id": ["p", "", "", "p"], "lesion_id": ["1", "2", "", ""]})
    result = scan_table(path)
    groups = list(result.manifest.table["group"])
    assert groups[0] == groups[3] == "p"
    assert groups[1] == "lesion_id:2"
    assert groups[2].startswith("photo:")
    assert any(note.startswith("Photos without patient_id: 2.") for note in result.notes)


def test_lesions_alone_are_groups(tmp_path):
    assert list(scan_table(make_table(tmp_path, {"lesion": list("1212")})).manifest.table["group"]) == list("1212")


def test_grouping_by_less_than_the_patient_is_told(tmp_path):
    path = make_table(tmp_path, {"patient_id": list("ppqq"), "visit": list("1234")})
    result = scan_table(path, group_column="visit")
    assert list(result.manifest.table["group"]) == list("1234")
    assert any("not patient_id: photos of one patient may stand in two subsets" in note for note in result.notes)


def test_labels_stay_text(tmp_path):
    path = make_table(tmp_path, {"label": ["1", "NA", "None", "1.0"]})
    assert scan_table(path).manifest.classes == ("1", "1.0", "NA", "None")


def test_tables_of_a_windows_spreadsheet(tmp_path):
    (tmp_path / "sub").mkdir()
    make_table(tmp_path, {})
    for place in range(4):
        (tmp_path / f"{place}.png").rename(tmp_path / "sub" / f"{place}.png")
    rows = "\r\n".join(f"sub\\{place}.png;{('A', 'B')[place % 2]}" for place in range(4))
    (tmp_path / "table.csv").write_bytes(b"\xef\xbb\xbfpath;label\r\n" + rows.encode() + b"\r\n")
    assert list(scan_table(tmp_path / "table.csv").manifest.table["path"]) == [f"sub/{place}.png" for place in range(4)]


def test_absolute_and_outside_paths_become_relative(tmp_path):
    inside = tmp_path / "here"
    inside.mkdir()
    make_table(tmp_path, {})
    lines = ["path,label", f"{tmp_path / '0.png'},A", "../1.png,B", "./../here/../2.png,A"]
    (inside / "table.csv").write_text("\n".join(lines))
    manifest = scan_table(inside / "table.csv").manifest
    assert list(manifest.table["path"]) == ["../0.png", "../1.png", "../2.png"]
    written = write_manifest(manifest, tmp_path / "manifest.csv")
    assert list(written.table["path"]) == ["0.png", "1.png", "2.png"]
    require_photos(written)


def test_all_problems_of_a_table_are_named_at_once(tmp_path):
    paths = ["0.png", "./0.png", "none.png", "", "1.png", "2.png"]
    path = make_table(tmp_path, {"path": paths, "label": ["A", "A", "B", "B", " ", "a"]}, count=6)
    (tmp_path / "1.png").write_bytes(b"")
    assert problems_of(path) == {
        ("photo listed twice", "0.png"),
        ("missing", "none.png"),
        ("no path", "table.csv, row 4"),
        ("empty", "1.png"),
        ("no label", "1.png"),
        ("spelling of a class", "A"),
    }


def test_one_photo_under_two_labels(tmp_path):
    path = make_table(tmp_path, {})
    (tmp_path / "1.png").write_bytes((tmp_path / "0.png").read_bytes())
    assert problems_of(path) == {("one photo, two labels", "0.png")}


def test_one_photo_of_two_lesions_of_a_patient_keeps_both_labels(tmp_path):
    path = make_table(tmp_path, {"patient_id": list("pppp"), "lesion_id": list("1234")})
    (tmp_path / "1.png").write_bytes((tmp_path / "0.png").read_bytes())
    result = scan_table(path)
    assert list(result.manifest.table["label"]) == list("ABAB")
    assert (
        "One photo stands for several lesions of a patient and keeps its labels (0.png: A; 1.png: B)." in result.notes
    )


@pytest.mark.parametrize(
    "owners",
    [
        {"patient_id": list("pqpq"), "lesion_id": list("1234")},
        {"patient_id": list("pppp"), "lesion_id": list("1134")},
        {"patient_id": list("pppp"), "lesion_id": ["1", "", "3", "4"]},
        {"patient_id": list("pppp")},
        {"lesion_id": list("1234")},
    ],
)
def test_one_photo_with_two_labels_is_else_a_contradiction(owners, tmp_path):
    path = make_table(tmp_path, owners)
    (tmp_path / "1.png").write_bytes((tmp_path / "0.png").read_bytes())
    assert problems_of(path) == {("one photo, two labels", "0.png")}


def test_columns_that_are_not_there_or_double(tmp_path):
    path = make_table(tmp_path, {"diagnosis": list("ABAB"), "user_width": list("1234"), "width": list("1234")})
    with pytest.raises(DataError, match=r"no column 'diagnose'.*Did you mean 'diagnosis'.*--label-column"):
        scan_table(path, label_column="diagnose")
    with pytest.raises(DataError, match="different columns"):
        scan_table(path, group_column="label")
    with pytest.raises(DataError, match="width would be kept as user_width, which is there too"):
        scan_table(path)
    (tmp_path / "none.csv").write_text("path,label\n")
    with pytest.raises(DataError, match="no rows"):
        scan_table(tmp_path / "none.csv")


def test_order_of_rows_changes_nothing(tmp_path):
    path = make_table(tmp_path, {"patient": list("ppqq"), "note": list("wxyz")})
    first = scan_table(path).manifest.to_csv()
    pd.read_csv(path, dtype=str).iloc[::-1].to_csv(path, index=False)
    assert scan_table(path).manifest.to_csv() == first


def test_real_photos(tmp_path):
    if "HCOATNET_PAD_UFES" not in os.environ:
        pytest.skip("HCOATNET_PAD_UFES does not name the folder of the PAD-UFES-20 photos")
    table = Path(os.environ["HCOATNET_PAD_UFES"]) / "metadata.csv"
    result = scan_table(table, label_column="label", group_column="patient_id")
    manifest = result.manifest
    counts = {"ACK": 234, "BCC": 314, "MEL": 48, "NEV": 217, "SCC": 47, "SEK": 155}
    assert manifest.table["label"].value_counts().to_dict() == counts
    assert len(manifest) == 1015
    assert manifest.table["group"].nunique() == 765
    assert {"fitzpatrick", "user_width", "user_height"} <= set(manifest.extra_columns)
    write_manifest(manifest, tmp_path / "manifest.csv")
    assert len(load_data(tmp_path / "manifest.csv")[0]) == 1015
