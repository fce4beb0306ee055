import pytest
from PIL import Image

from hcoatnet.data.manifest import write_manifest
from hcoatnet.data.sources.source import load_data
from hcoatnet.errors import DataError, DataProblems


def test_load_data_takes_a_folder_or_a_manifest(tmp_path):
    for label in "AB":
        (tmp_path / label).mkdir()
        for place in range(2):
            Image.new("RGB", (4, 3), (place, ord(label), 0)).save(tmp_path / label / f"{place}.png")
    scanned, notes = load_data(tmp_path)
    assert list(scanned.table["path"]) == ["A/0.png", "A/1.png", "B/0.png", "B/1.png"]
    assert notes
    write_manifest(scanned, tmp_path / "manifest.csv")
    read, notes = load_data(tmp_path / "manifest.csv")
    assert read.to_csv() == scanned.to_csv()
    assert notes == ()
    (tmp_path / "A" / "1.png").unlink()
    with pytest.raises(DataProblems, match="1 of 4 photos") as caught:
        load_data(tmp_path / "manifest.csv")
    assert [problem.path for problem in caught.value.problems] == ["A/1.png"]


def test_load_data_says_what_to_do_without_a_manifest(tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        load_data(tmp_path / "none")
    (tmp_path / "table.csv").write_text("path,label\na.png,A\n")
    with pytest.raises(DataError, match="hcoatnet data scan"):
        load_data(tmp_path / "table.csv")
