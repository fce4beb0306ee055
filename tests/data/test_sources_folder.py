import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hcoatnet.data.images import PhotoFacts
from hcoatnet.data.sources import scan
from hcoatnet.data.sources.folder import SPLIT_FOLDERS, scan_folder
from hcoatnet.errors import DataError, DataProblems


def draw(path, seed):
    """A small photo that no other seed gives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, format="PNG")


def draw_all(folder, *paths):
    for seed, path in enumerate(paths):
        draw(folder / path, seed)


def problems_of(folder):
    with pytest.raises(DataProblems) as caught:
        scan_folder(folder)
    return {(problem.rule, problem.path) for problem in caught.value.problems}


def test_one_folder_a_class(tmp_path):
    draw_all(tmp_path, "B/2.png", "A/1.JPG", "B/1.png", "A/deep/er/3.tiff")
    result = scan_folder(tmp_path)
    table = result.manifest.table
    assert list(table["path"]) == ["A/1.JPG", "A/deep/er/3.tiff", "B/1.png", "B/2.png"]
    assert list(table["label"]) == ["A", "A", "B", "B"]
    assert table["group"].nunique() == 4
    assert set(table["width"]) == {9}
    assert set(table["height"]) == {6}
    assert result.manifest.extra_columns == ()
    assert result.manifest.folder == tmp_path
    assert any("names were not taken as groups" in note for note in result.notes)
    assert any("4 groups of 4 photos (each photo by itself" in note for note in result.notes)


def test_split_folders_are_merged_and_remembered(tmp_path):
    draw_all(
        tmp_path,
        "train/A/x_jpg.rf.1.jpg",
        "train/A/x_jpg.rf.2.jpg",
        "valid/A/x_jpg.rf.3.jpg",
        "valid/B/x_jpg.rf.4.jpg",
        "train/B/y.jpg",
        "Testing/B/z.jpg",
    )
    (tmp_path / "valid" / "C").mkdir()
    draw(tmp_path / "train" / "C" / "c.png", 99)
    (tmp_path / "README.roboflow.txt").write_text("about")
    result = scan_folder(tmp_path)
    table = result.manifest.table.set_index("path")
    assert result.manifest.classes == ("A", "B", "C")
    assert dict(table["source_split"]) == {path: SPLIT_FOLDERS[path.split("/")[0].lower()] for path in table.index}
    assert set(table.loc[table["label"] == "A", "group"]) == {"source:A/x_jpg"}
    assert table.loc["valid/B/x_jpg.rf.4.jpg", "group"] == "source:B/x_jpg"
    assert result.notes[0].startswith("The folders Testing, train, valid were merged")
    assert "Left out, as they are not photos: .txt 1." in result.notes


def test_split_folders_beside_classes_are_not_guessed_at(tmp_path):
    draw_all(tmp_path, "train/A/1.png", "train/B/2.png", "unlabelled/3.png")
    assert ("split folder beside classes", "train") in problems_of(tmp_path)


def test_a_class_may_be_called_test(tmp_path):
    draw_all(tmp_path, "test/1.png", "control/2.png")
    assert scan_folder(tmp_path).manifest.classes == ("control", "test")


def test_what_is_no_photo_is_left_out_and_counted(tmp_path):
    draw_all(tmp_path, "A/1.png", "B/2.png")
    for name in (
        "A/notes.txt",
        "A/.DS_Store",
        "A/Thumbs.db",
        "A/scan.heic",
        "B/.hidden/3.png",
        "table.csv",
        "B/README",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    draw(tmp_path / "__MACOSX" / "A" / "1.png", 7)
    draw(tmp_path / ".git" / "4.png", 8)
    result = scan_folder(tmp_path)
    assert list(result.manifest.table["path"]) == ["A/1.png", "B/2.png"]
    (note,) = [note for note in result.notes if note.startswith("Left out")]
    assert set(note.rstrip(".").split(": ")[1].split(", ")) == {
        "hidden 5",
        ".txt 1",
        ".heic 1",
        ".csv 1",
        "no suffix 1",
    }


def test_all_problems_are_named_at_once(tmp_path):
    draw_all(tmp_path, "A/1.png", "B/1.png", "b/1.png", "loose.png", "F/good.png")
    (tmp_path / "C").mkdir()
    (tmp_path / "D").mkdir()
    (tmp_path / "D" / "notes.txt").touch()
    (tmp_path / "F" / "copy.png").write_bytes((tmp_path / "A" / "1.png").read_bytes())
    (tmp_path / "A" / "zero.png").touch()
    (tmp_path / "A" / "text.jpg").write_text("no photo")
    (tmp_path / "A" / "cut.png").write_bytes((tmp_path / "A" / "1.png").read_bytes()[:100])
    (tmp_path / "A" / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "A" / "line\nbreak.png").write_bytes((tmp_path / "A" / "1.png").read_bytes())
    assert problems_of(tmp_path) == {
        ("photo without class", "loose.png"),
        ("empty class", "C"),
        ("empty class", "D"),
        ("spelling of a class", "B"),
        ("empty", "A/zero.png"),
        ("not an image", "A/text.jpg"),
        ("truncated", "A/cut.png"),
        ("missing", "A/gone.png"),
        ("file name", "'A/line\\nbreak.png'"),
        ("one photo, two labels", "A/1.png"),
    }


def test_a_name_that_is_not_utf8_is_named(tmp_path):
    draw_all(tmp_path, "A/1.png", "B/1.png")
    name = os.fsdecode(b"\xff.png")
    try:
        (tmp_path / "A" / name).touch()
    except OSError:
        pytest.skip("this file system allows UTF-8 names only")
    assert problems_of(tmp_path) == {("file name", "'A/\\udcff.png'")}


def test_both_copies_of_a_contradiction_are_named(tmp_path):
    draw(tmp_path / "A" / "1.png", 0)
    draw(tmp_path / "B" / "2.png", 0)
    with pytest.raises(DataProblems) as caught:
        scan_folder(tmp_path)
    assert [problem.found for problem in caught.value.problems] == ["A/1.png: A; B/2.png: B"]


def test_copies_of_one_class_share_a_group(tmp_path):
    draw(tmp_path / "A" / "1.png", 0)
    draw(tmp_path / "A" / "2.png", 0)
    draw(tmp_path / "B" / "3.png", 1)
    result = scan_folder(tmp_path)
    groups = list(result.manifest.table["group"])
    assert groups[0] == groups[1] != groups[2]
    assert any("Exact copies of other photos: 1" in note for note in result.notes)


@pytest.mark.parametrize("make", [lambda folder: None, Path.mkdir, lambda folder: draw(folder / "1.png", 0)])
def test_folders_without_classes(make, tmp_path):
    make(tmp_path / "data")
    with pytest.raises(DataError, match="one folder of photos a class"):
        scan_folder(tmp_path / "data")


def test_split_folders_without_any_class(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="no photos found"):
        scan_folder(tmp_path)


def test_one_class_alone(tmp_path):
    draw_all(tmp_path, "images/A/1.png", "images/B/2.png")
    assert problems_of(tmp_path) == {("one class only", "label")}


def test_a_class_folder_that_cannot_be_listed_is_not_taken_for_empty(tmp_path, monkeypatch):
    draw_all(tmp_path, "A/1.png", "A/locked/2.png", "B/3.png")
    scandir = os.scandir

    def refuse(path="."):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"locked: the folder cannot be read \(Permission denied\)"):
        scan_folder(tmp_path)


def test_links_that_lead_in_circles_are_followed_once(tmp_path):
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    draw_all(tmp_path, "data/A/1.png", "data/B/2.png", "elsewhere/3.png")
    (data / "A" / "up").symlink_to(data / "A")
    (data / "A" / "self").symlink_to(data / "A" / "self")
    (data / "B" / "x").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(data / "B")
    assert list(scan_folder(data).manifest.table["path"]) == ["A/1.png", "B/2.png", "B/x/3.png"]


def test_linked_photos_are_read(tmp_path):
    draw_all(tmp_path, "store/1.png", "store/2.png")
    for label, number in (("A", 1), ("B", 2)):
        (tmp_path / "data" / label).mkdir(parents=True)
        (tmp_path / "data" / label / "p.png").symlink_to(tmp_path / "store" / f"{number}.png")
    assert list(scan_folder(tmp_path / "data").manifest.table["path"]) == ["A/p.png", "B/p.png"]


def test_order_on_disk_changes_nothing(tmp_path, monkeypatch):
    draw_all(tmp_path, *(f"{label}/{number}.png" for label in "AB" for number in range(5)))
    first = scan_folder(tmp_path).manifest.to_csv()
    scandir = os.scandir

    class Backwards:
        def __init__(self, path="."):
            with scandir(path) as entries:
                self.entries = iter(sorted(entries, key=lambda entry: entry.name, reverse=True))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def __iter__(self):
            return self.entries

        def __next__(self):
            return next(self.entries)

    listdir = os.listdir
    monkeypatch.setattr(os, "scandir", Backwards)
    monkeypatch.setattr(os, "listdir", lambda path=".": sorted(listdir(path), reverse=True))
    assert scan_folder(tmp_path).manifest.to_csv() == first


def test_progress_counts_every_photo(tmp_path):
    draw_all(tmp_path, "A/1.png", "A/2.png", "B/3.png")
    seen = []
    scan_folder(tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_an_interrupt_does_not_wait_for_the_photos_still_queued(tmp_path, monkeypatch):
    for place in range(200):
        path = tmp_path / "AB"[place % 2] / f"{place}.png"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    described = []

    def describe(path, name):
        described.append(name)
        time.sleep(0.02)
        return PhotoFacts(f"{len(described):064x}", 1, 1)

    def interrupt(done, total):
        raise KeyboardInterrupt

    monkeypatch.setattr(scan, "describe_photo", describe)
    with pytest.raises(KeyboardInterrupt):
        scan_folder(tmp_path, progress=interrupt)
    assert 0 < len(described) < 200
