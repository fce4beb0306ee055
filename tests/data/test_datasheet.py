import json

import numpy as np
import pandas as pd
import pytest

from hcoatnet.data.datasheet import describe
from hcoatnet.data.manifest import Manifest

N = 40


@pytest.fixture
def described():
    table = pd.DataFrame({
        "path": [f"{n}.jpg" for n in range(N)], "label": ["A", "B"] * (N // 2), "group": [f"g{n // 4}" for n in range(N)],
        "sha256": [f"{n % 39:064x}" for n in range(N)], "width": [100 + n for n in range(N)], "height": [80] * N,
        "patient_id": [f"name{n // 4}" for n in range(N)], "age": [str(20 + n) if n else "" for n in range(N)],
        "site": ["arm", "leg", "", "arm"] * (N // 4), "licence": ["CC BY 4.0"] * 30 + [""] * 10,
        "comment": [f"text {n}" for n in range(N)],
    })  # fmt: skip
    return Manifest(table, None)


def test_counts(described):
    sheet = describe(described)
    assert (sheet["photos"], sheet["groups"]) == (40, 10)
    assert sheet["classes"][0] == {"name": "A", "photos": 20, "share": 0.5, "groups": 10, "most_photos_a_group": 2}
    assert sheet["group_sizes"] == {
        "largest": 4, "of_several_classes": 10, "with": {"1": 0, "2": 0, "3 to 5": 10, "6 to 10": 0, "more": 0},
    }  # fmt: skip
    assert sheet["hashes"]["distinct"] == 39
    assert sheet["hashes"]["copies"] == 1
    assert sheet["licences"] == {"column": "licence", "values": {"CC BY 4.0": 30}, "missing": 10}
    assert sheet["sizes"]["width"]["median"] == np.median(described.table["width"])
    assert sheet["sizes"]["distinct"] == 40
    json.dumps(sheet, allow_nan=False)


def test_columns_are_summed_up_by_what_they_hold(described):
    columns = {column["name"]: column for column in describe(described)["columns"]}
    ages = pd.to_numeric(described.table["age"])[described.table["label"] == "B"]
    assert columns["age"]["kind"] == "numbers"
    assert columns["age"]["missing"] == 1
    assert columns["age"]["values"]["B"]["q1"] == ages.quantile(0.25)
    assert columns["site"]["values"] == {"arm": {"A": 10, "B": 10}, "leg": {"A": 0, "B": 10}}
    assert columns["comment"]["kind"] == "text"


def test_people_are_only_counted(described):
    text = json.dumps(describe(described))
    assert "name3" not in text
    assert "text 7" not in text


def test_the_hash_of_the_content_does_not_depend_on_names(described):
    renamed = Manifest(described.table.assign(path=described.table["path"] + "x").iloc[::-1], None)
    one, other = describe(described), describe(renamed)
    assert one["hashes"]["content_sha256"] == other["hashes"]["content_sha256"]
    assert one["manifest_sha256"] != other["manifest_sha256"]


def test_the_command_writes_page_and_json(manifest_file, hcoatnet, tmp_path):
    code, printed = hcoatnet("data", "describe", manifest_file, "--out", tmp_path / "sheet")
    assert code == 0
    assert "54 photos, 27 groups" in printed
    page = (tmp_path / "sheet/datasheet.html").read_text()
    sheet = json.loads((tmp_path / "sheet/datasheet.json").read_text())
    assert sheet["classes"][0]["groups"] == 9
    assert "http" not in page
    assert str(manifest_file.parent) not in page
    assert "<td>arm" not in page and '<th scope="row">arm</th>' in page
