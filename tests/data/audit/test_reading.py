import numpy as np
import pandas as pd
import pytest
from PIL import Image

from conftest import CLASSES, COLOURS, draw_photo
from hcoatnet.data.audit.cache import Cache
from hcoatnet.data.audit.reading import list_photos, read_photos
from hcoatnet.data.manifest import read_manifest, write_manifest
from hcoatnet.data.sources.folder import scan_folder
from hcoatnet.errors import DataError


@pytest.fixture
def folder(tmp_path):
    """Three classes of four photos, each 70 × 66 pixels."""
    for number, name in enumerate(CLASSES):
        for photo in range(4):
            draw_photo(tmp_path / "photos" / name / f"{photo}.png", COLOURS[name], 10 * number + photo, (70, 66))
    return tmp_path / "photos"


def rules(collection):
    return {(problem.rule, problem.path) for problem in collection.problems}


def same(one, other):
    return (
        one.manifest.table.equals(other.manifest.table)
        and one.facts == other.facts
        and one.problems == other.problems
        and all(np.array_equal(one.features[name], other.features[name]) for name in one.features)
    )


def test_a_sound_folder_reads_as_scan_does(folder):
    collection = read_photos(list_photos(folder))
    assert collection.manifest.table.equals(scan_folder(folder).manifest.table)
    assert (collection.problems, collection.listed, collection.labelled) == ((), 12, True)
    assert collection.features["thumbnail"].shape == (12, 64, 64, 3)
    assert [fact.format for fact in collection.facts] == ["PNG"] * 12


def test_nothing_stops_at_the_first_problem(folder):
    (folder / "red/0.png").write_bytes(b"")
    (folder / "red/1.png").write_bytes((folder / "red/1.png").read_bytes()[:900])
    (folder / "blue/0.png").write_text("no photo")
    (folder / "green/stray").mkdir()
    (folder / "loose.png").write_bytes((folder / "red/2.png").read_bytes())
    (folder / "blue/1.png").write_bytes((folder / "red/2.png").read_bytes())
    draw_photo(folder / "green/tiny.png", COLOURS["green"], 99, (30, 30))
    collection = read_photos(list_photos(folder))
    assert rules(collection) == {
        ("empty", "red/0.png"), ("truncated", "red/1.png"), ("not an image", "blue/0.png"),
        ("photo without class", "loose.png"), ("tiny", "green/tiny.png"),
    }  # fmt: skip
    assert len(collection.manifest) == 10
    groups = collection.manifest.table.set_index("path")["group"]
    assert groups["blue/1.png"] == groups["red/2.png"]


def test_a_table_with_missing_photos(folder):
    rows = [[f"{name}/{photo}.png", name, f"p{photo}"] for name in CLASSES for photo in range(5)]
    pd.DataFrame([*rows, rows[0]], columns=["path", "label", "patient_id"]).to_csv(folder / "table.csv", index=False)
    collection = read_photos(list_photos(folder / "table.csv"))
    assert rules(collection) == {("missing", f"{name}/4.png") for name in CLASSES} | {
        ("photo listed twice", "blue/0.png")
    }
    assert set(collection.manifest.table["group"]) == {"p0", "p1", "p2", "p3"}


def test_a_manifest_keeps_its_groups_and_tells_of_changed_photos(folder, tmp_path):
    manifest = scan_folder(folder).manifest
    write_manifest(manifest.__class__(manifest.table.assign(group="all"), folder), tmp_path / "manifest.csv")
    draw_photo(folder / "red/0.png", COLOURS["red"], 500, (70, 66))
    collection = read_photos(list_photos(tmp_path / "manifest.csv"))
    assert rules(collection) == {("changed since the scan", "photos/red/0.png")}
    assert set(collection.manifest.table["group"]) == {"all"}
    recorded = read_manifest(tmp_path / "manifest.csv").table
    assert (collection.manifest.table["sha256"] != recorded["sha256"]).sum() == 1


def test_a_folder_of_photos_alone_has_no_labels(folder):
    collection = read_photos(list_photos(folder / "red"))
    assert len(collection.manifest) == 4
    assert not collection.labelled
    assert collection.problems == ()


def test_the_cache_changes_nothing_and_spares_decoding(folder, tmp_path, monkeypatch):
    Image.new("RGB", (80, 80), (5, 5, 5)).save(folder / "red/flat.jpg", comment=b"x")
    (folder / "red/0.png").write_bytes(b"")
    cache = Cache(tmp_path / "cache")
    without, first = read_photos(list_photos(folder)), read_photos(list_photos(folder), cache)
    monkeypatch.setattr(
        "hcoatnet.data.audit.reading.look_at",
        lambda content, path: pytest.fail(path) if content else look(content, path),
    )
    second = read_photos(list_photos(folder), cache)
    assert same(without, first)
    assert same(first, second)
    assert ("constant", "red/flat.jpg") in rules(second)


def look(content, path):
    from hcoatnet.data.audit.integrity import look_at

    return look_at(content, path)


def test_what_holds_nothing_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no photos found"):
        read_photos(list_photos(tmp_path / "empty"))
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat/bad.png").write_bytes(b"")
    with pytest.raises(DataError, match="none of 1 photos can be opened"):
        read_photos(list_photos(tmp_path / "flat"))
    with pytest.raises(DataError, match="no such file or folder"):
        list_photos(tmp_path / "nothing")
