"""``predict``: finding photos, answering them in a stream, writing the answers."""

import csv
import io
import itertools
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from conftest import CLASSES, COLOURS, draw_photo
from hcoatnet.data.images import PhotoError
from hcoatnet.deploy.answers import Answer, Rules
from hcoatnet.deploy.classifier import load_classifier
from hcoatnet.deploy.photo_search import find_photos, printable
from hcoatnet.deploy.prediction import AHEAD, BATCH, Row, predict_rows
from hcoatnet.deploy.prediction_output import csv_lines, json_document, json_lines, table_lines
from hcoatnet.errors import DataProblems, Problem
from hcoatnet.evaluation.prediction_sets import Thresholds

THRESHOLDS = Thresholds("lac", 0.9, False, (0.9, 0.9, 0.9), 50, 20)
RULES = Rules(CLASSES, 1.0, THRESHOLDS, None, 0.9, 0.1, 0.7, None)


@pytest.fixture
def tree(tmp_path):
    """Photos, other files and hidden ones, some deep down."""
    for name in (
        "b.JPG",
        "a.png",
        "c.txt",
        ".hidden.png",
        "z/1.png",
        "m/2.webp",
        "m/deep/3.tiff",
        ".git/4.png",
        "empty/5.md",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(folder, places, lines=()):
    return [
        one.relative_to(folder).as_posix() if isinstance(one, Path) else f"! {one.rule}"
        for one in find_photos([str(place) for place in places], lines)
    ]


IN_ORDER = ["a.png", "b.JPG", "m/2.webp", "m/deep/3.tiff", "z/1.png"]


def test_a_folder_gives_its_photos_in_order(tree):
    assert names(tree, [tree]) == IN_ORDER
    assert names(tree, [tree / "m", tree / "a.png"]) == ["m/2.webp", "m/deep/3.tiff", "a.png"]


def test_what_is_named_is_taken_as_it_is(tree):
    assert names(tree, [tree / "c.txt", tree / ".hidden.png", tree / "gone.png"]) == [
        "c.txt",
        ".hidden.png",
        "gone.png",
    ]


def test_patterns(tree):
    assert names(tree, [tree / "*.png"]) == ["a.png"]
    assert names(tree, [tree / "*"]) == ["a.png", "b.JPG", "! no photos", "m/2.webp", "m/deep/3.tiff", "z/1.png"]
    assert names(tree, [tree / "**"]) == ["a.png", "b.JPG", "m/2.webp", "m/deep/3.tiff", "z/1.png"]
    assert names(tree, [tree / "**" / "[13].*"]) == ["m/deep/3.tiff", "z/1.png"]
    assert names(tree, [tree / "a.png", tree / "*.gif"]) == ["a.png", "! no photos"]
    (tree / "[x].png").touch()
    assert names(tree, [tree / "[x].png"]) == ["[x].png"]


def test_standard_input(tree):
    lines = [
        os.fsencode(tree / "z/1.png") + b"\n",
        b"\n",
        os.fsencode(tree / "m") + b"\r\n",
        os.fsencode(tree / "*.png"),
    ]
    assert names(tree, ["-"], lines) == ["z/1.png", "m/2.webp", "m/deep/3.tiff", "*.png"]


def test_links_to_folders_are_not_followed(tree):
    (tree / "m" / "loop").symlink_to(tree)
    (tree / "m" / "link.png").symlink_to(tree / "a.png")
    (tree / "m" / "broken.png").symlink_to(tree / "nothing")
    assert names(tree, [tree / "m"]) == ["m/2.webp", "m/link.png", "m/deep/3.tiff"]


def test_a_folder_as_output_is_refused_before_anything_is_computed(hcoatnet, tree):
    code, printed = hcoatnet("predict", tree / "no-model", tree / "a.png", "--out", tree)
    assert code == 2
    assert "is a folder. Name a file in it with --out." in printed


def test_a_name_that_is_too_long_stops_nothing(tree):
    long = tree / ("a" * 300)
    assert names(tree, ["-"], [f"{long}\n".encode(), f"{tree}/a.png".encode()]) == [long.name, "a.png"]


def test_without_any_photo_all_places_are_named(tree):
    with pytest.raises(DataProblems) as caught:
        find_photos([str(tree / "empty"), str(tree / "*.gif")], [])
    assert [Path(one.path).name for one in caught.value.problems] == ["empty", "*.gif"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from(["a", "b", ".h", "c.png", "d.jpg"]), min_size=1, max_size=4), max_size=12))
def test_every_visible_photo_is_found_once(tmp_path_factory, paths):
    folder = tmp_path_factory.mktemp("tree")
    for parts in paths:
        file = folder.joinpath(
            *(part.replace(".p", "_p").replace(".j", "_j") for part in parts[:-1]), f"{parts[-1]}.png"
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    expected = {
        path
        for path in folder.rglob("*.png")
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }
    if expected:
        found = list(find_photos([str(folder)], []))
        assert len(found) == len(expected) and set(found) == expected


class Counting:
    """A classifier of made-up photos that counts how far it has read."""

    rules = RULES

    def __init__(self):
        self.read = 0

    def prepare(self, path, name):
        self.read += 1
        if path.name.startswith("bad"):
            raise PhotoError(Problem(name, "unreadable", "damaged", "a photo", "Replace it."))
        return np.full((3, 8, 8), int(path.stem), dtype=np.float32)

    def answer(self, photos, names):
        assert 1 <= len(photos) <= BATCH
        return tuple(answer(name, p=(0.8, 0.1, photo[0, 0, 0])) for photo, name in zip(photos, names, strict=True))


def answer(name, p=(0.8, 0.15, 0.05), chosen=("blue",), abstain=False):
    reason = "Leave it." if abstain else None
    return Answer(name, "blue", p[0], dict(zip(CLASSES, map(float, p), strict=True)), chosen, abstain, reason)


def test_rows_keep_their_order_and_bad_photos_their_row():
    photos = [Path(f"bad{i}.png" if i % 5 == 3 else f"{i}.png") for i in range(100)]
    photos.insert(50, Problem("folder", "no photos", "nothing", "photos", "Look elsewhere."))
    rows = list(predict_rows(Counting(), photos))
    assert [row.name for row in rows] == [str(one) if isinstance(one, Path) else "folder" for one in photos]
    for row, photo in zip(rows, photos, strict=True):
        good = isinstance(photo, Path) and not photo.name.startswith("bad")
        assert (row.answer is not None) == good == (row.problem is None)
        if good:
            assert row.answer.probabilities["red"] == int(photo.stem)


def test_photos_are_not_read_far_ahead():
    classifier = Counting()
    rows = predict_rows(classifier, (Path(f"{i}.png") for i in itertools.count()))
    for taken in range(1, 500):
        next(rows)
        assert classifier.read <= taken + AHEAD + BATCH
    rows.close()


def test_memory_does_not_grow_with_the_number_of_photos():
    def peak(photos):
        rows = predict_rows(Counting(), (Path(f"{i}.png") for i in range(photos)))
        tracemalloc.start()
        written = sum(len(line) for line in csv_lines(rows, RULES))
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used, written

    peak(100)
    (few, little), (many, much) = peak(500), peak(10_000)
    assert much > 15 * little > 100_000 / 15
    assert many < 1.5 * few + 50_000


ROWS = [
    Row("a.png", answer("a.png"), None),
    Row('odd, "name"\n.png', answer("b", (0.5, 0.3, 0.2), ("blue", "green"), abstain=True), None),
    Row("c.png", answer("c", chosen=(), abstain=True), None),
    Row("d.png", answer("d", chosen=None), None),
    Row("e.png", None, Problem("e.png", "truncated", "cut short", "a whole photo", "Copy it again.")),
]


def test_csv():
    rows = list(csv.DictReader(io.StringIO("".join(csv_lines(ROWS, RULES)))))
    assert [row["path"] for row in rows] == [row.name for row in ROWS]
    assert [row["prediction_set"] for row in rows] == ["blue", "blue|green", "{}", "", ""]
    assert [row["abstain"] for row in rows] == ["no", "yes", "yes", "no", ""]
    assert [row["error"] for row in rows] == ["", "", "", "", "cut short. Copy it again."]
    assert float(rows[1]["p_green"]) == 0.3 and rows[4]["p_green"] == ""
    assert rows[0]["confidence"] == "0.8" and rows[1]["reason"] == "Leave it."


def test_json():
    lines = [json.loads(line) for line in json_lines(ROWS, RULES)]
    document = json.loads("".join(json_document(ROWS, RULES)))
    assert document["answers"] == lines
    assert document["notice"] == "Research software, not a diagnostic device."
    assert [one["error"] and one["error"]["rule"] for one in lines] == [None, None, None, None, "truncated"]
    assert [one.get("prediction_set") for one in lines] == [["blue"], ["blue", "green"], [], None, None]
    assert lines[1]["probabilities"] == {"blue": 0.5, "green": 0.3, "red": 0.2}
    assert "traces" not in lines[0]
    assert json.loads("".join(json_document([], RULES)))["answers"] == []


def test_table():
    lines = list(table_lines(ROWS, RULES, 80))
    assert lines[0] == "Research software, not a diagnostic device.\n"
    text = "".join(lines)
    assert "aim to hold the true class of 90% of photos" in text
    assert "Below a probability of 0.70 a photo is left to a person." in text
    rows = {line.split()[0]: line.split()[1:] for line in lines[-5:]}
    assert rows["a.png"] == ["blue", "0.80", "blue"]
    assert rows["c.png"] == ["blue", "0.80", "none", "yes,", "no", "class"]
    assert rows["d.png"] == ["blue", "0.80", "–"]
    assert rows["e.png"] == ["no", "answer:", "cut", "short"]
    assert 'odd, "name"�.png' in text
    never = Rules(CLASSES, 1.0, None, "too few groups", 0.9, 0.1, None, "why")
    text = " ".join("".join(table_lines([], never, 80)).split())
    assert "No prediction sets: too few groups" in text and "Every photo is left to a person" in text


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.text(max_size=60), st.sampled_from(ROWS)), max_size=5),
    st.lists(st.text(min_size=1, max_size=30), min_size=3, max_size=3, unique=True),
    st.integers(72, 200),
)
def test_no_line_of_the_table_is_wider_than_the_terminal(named, classes, width):
    rows = [Row(name, row.answer, row.problem) for name, row in named]
    rules = Rules(tuple(classes), 1.0, None, "there are too few groups", 0.9, 0.1, 0.5, None)
    for line in table_lines(rows, rules, width):
        assert line.endswith("\n") and "\n" not in line[:-1]
        assert cell_len(line[:-1]) <= width


def test_names_that_are_no_text_can_be_printed():
    assert printable(Path(os.fsdecode(b"caf\xe9.png"))) == "caf\\xe9.png"
    assert printable(Path("Müller.png")) == "Müller.png"


@pytest.fixture
def some(tmp_path):
    """Nine photos and one that is none."""
    folder = tmp_path / "photos"
    for number, name in enumerate(CLASSES):
        for photo in range(3):
            draw_photo(folder / name / f"{photo}.png", COLOURS[name], 100 * number + photo)
    (folder / "blue" / "1x.png").write_bytes(b"no photo")
    return folder


def test_the_command_writes_the_same_in_every_format(run_bundle, some, tmp_path, hcoatnet):
    expected = load_classifier(run_bundle).predict(sorted(some.rglob("?.png")))
    code, printed = hcoatnet("predict", run_bundle, some)
    assert code == 1
    assert "10 photos: " in printed and "1 without an answer" in printed
    rows = list(csv.DictReader(io.StringIO(printed)))[:10]
    assert [row["path"] for row in rows if not row["error"]] == [one.name for one in expected]
    assert [float(row["confidence"]) for row in rows if not row["error"]] == pytest.approx(
        [one.confidence for one in expected]
    )
    for suffix in ("csv", "json", "jsonl"):
        assert hcoatnet("predict", run_bundle, some, "--out", tmp_path / f"a.{suffix}")[0] == 1
    assert list(csv.DictReader((tmp_path / "a.csv").open(newline=""))) == rows
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert json.loads((tmp_path / "a.json").read_text())["answers"] == lines
    assert [one["top_class"] for one in lines if not one["error"]] == [one.top_class for one in expected]
    code, printed = hcoatnet("predict", run_bundle, some / "red", "--format", "table", "--level", "0.95")
    assert code == 0 and "95" in printed


def test_a_run_answers_as_its_bundle(run_bundle, pruning_run, some, tmp_path, hcoatnet):
    for source in (run_bundle, pruning_run):
        assert hcoatnet("predict", source, some / "red", "--out", tmp_path / f"{source.name}.jsonl")[0] == 0
    one, other = ([json.loads(line) for line in (tmp_path / f"{name}.jsonl").open()] for name in ("run", "pruning"))
    for mine, theirs in zip(one, other, strict=True):
        assert mine["probabilities"] == pytest.approx(theirs["probabilities"], abs=1e-4)


def test_mistakes_end_before_anything_is_answered(run_bundle, some, tmp_path, hcoatnet):
    out = tmp_path / "out.csv"
    for arguments, said in (
        ([run_bundle, tmp_path / "*.gif"], "No photo was found"),
        ([run_bundle, some, "--levels", "0.9"], "Unknown option: --levels"),
        ([run_bundle, some, "--level", "0.8"], "level 0.8"),
        ([tmp_path, some], "neither a bundle"),
    ):
        code, printed = hcoatnet("predict", *arguments, "--out", out)
        assert (code, said in printed, out.exists()) == (2, True, False), printed


def test_an_interrupted_file_is_not_left(run_bundle, some, tmp_path, monkeypatch, hcoatnet):
    monkeypatch.setattr("hcoatnet.deploy.classifier.Classifier.answer", lambda *_: 1 / 0)
    out = tmp_path / "out.csv"
    out.write_text("before")
    with pytest.raises(ZeroDivisionError):
        hcoatnet("predict", run_bundle, some, "--out", out)
    assert out.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "photos"]


def run_command(*arguments, **options):
    command = [sys.executable, "-m", "hcoatnet", "predict", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def test_paths_from_standard_input_and_a_reader_that_goes_away(run_bundle, some, tmp_path):
    listed = tmp_path / "listed.txt"
    listed.write_text("".join(f"{path}\n" for path in sorted(some.rglob("?.png")) * 300))
    with listed.open() as lines:
        process = run_command(run_bundle, "-", stdin=lines)
    first = [process.stdout.readline() for _ in range(2)]
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 141
    assert first[0].startswith(b"path,") and str(some).encode() in first[1]
    assert said == b""
