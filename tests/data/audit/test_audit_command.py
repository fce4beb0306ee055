"""``hcoatnet data audit`` on drawn photos in which everything that it looks for was planted."""

import csv
import json
import re

import pytest

from audit.planted import plant
from hcoatnet.cli import app, run
from hcoatnet.data.images import open_photo

PRIVATE = "Erika Mustermann"


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return plant(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def audited(planted, tmp_path_factory):
    """The folder with what the audit wrote; it ran with clean copies and on 12 photos for itself."""
    out = tmp_path_factory.mktemp("out")
    before = contents(planted.folder)
    tokens = ["data", "audit", planted.folder, "--out", out / "audit", "--strip-metadata", out / "clean"]
    assert run(app, [str(token) for token in (*tokens, "--self-test-photos", 12)]) == 0
    assert contents(planted.folder) == before
    return out


@pytest.fixture(scope="module")
def found(audited):
    return json.loads((audited / "audit/audit.json").read_text())


def clusters_of(found):
    return {path: cluster for cluster in found["duplicates"]["clusters"] for path in cluster["paths"]}


def test_every_damaged_or_odd_file_is_found(planted, found):
    rows = {(problem["rule"], problem["path"]) for problem in found["problems"]}
    assert len(planted.files) == 11
    for rule, paths in planted.files.items():
        for path in paths:
            assert (rule, path) in rows
    assert found["listed"] - found["opened"] == 3
    expected = {rule: len(paths) for rule, paths in planted.files.items()}
    assert {rule: found["problem_counts"][rule] for rule in expected} == expected


@pytest.mark.parametrize(("kind", "least"), [("exact", 6), ("flip", 6), ("crop", 5), ("chain", 4)])
def test_planted_copies_are_found(planted, found, kind, least):
    clusters = clusters_of(found)
    pairs = planted.copies[kind]
    joined = [pair for pair in pairs if pair[0] in clusters and clusters[pair[0]] == clusters.get(pair[1])]
    assert len(pairs) == 6
    assert len(joined) >= least


def test_nothing_that_was_not_planted_is_joined(planted, found):
    copies = [set(pair) for pairs in planted.copies.values() for pair in pairs] + [set(p) for p in planted.conflicts]
    resized = {path for rule in ("tiny", "extreme aspect", "wrong suffix") for path in planted.files[rule]}
    for cluster in found["duplicates"]["clusters"]:
        assert set(cluster["paths"]) in copies or set(cluster["paths"]) <= resized


def test_copies_across_the_folders_are_told(planted, found):
    assert found["split"] == "folders"
    told = {frozenset(path for paths in row["subsets"].values() for path in paths) for row in found["straddling"]}
    assert all(frozenset(pair) in told for pair in planted.copies["exact"] + planted.copies["flip"])
    assert not any(frozenset(pair) in told for pair in planted.conflicts)


def test_copies_with_two_labels_wait_for_a_person(planted, found):
    clusters = clusters_of(found)
    for pair in planted.conflicts:
        cluster = clusters[pair[0]]
        assert cluster["name"] in found["label_conflicts"]
        assert not cluster["merged"]


def test_the_logo_of_one_class_is_a_possible_shortcut(planted, found):
    overlay = found["overlays"][0]
    assert overlay["possible_shortcut"] == ["label"]
    counts = overlay["by"]["label"]
    assert counts[planted.logo_class]["carriers"] >= 0.9 * counts[planted.logo_class]["photos"]
    assert sum(row["carriers"] for name, row in counts.items() if name != planted.logo_class) <= 1
    left, top, right, bottom = overlay["box"]
    assert left > 0.55 and top > 0.7 and right > 0.9 and bottom > 0.9


def test_clean_copies_are_there(planted, audited, found):
    assert not any(PRIVATE.encode() in content for content in contents(audited / "clean").values())
    (path,) = planted.files["place in metadata"]
    assert PRIVATE.encode() in (planted.folder / path).read_bytes()
    assert open_photo(audited / "clean" / path).tobytes() == open_photo(planted.folder / path).tobytes()
    with (audited / "clean/table.csv").open() as stream:
        assert len(list(csv.reader(stream))) == found["opened"] + 1


def test_the_page_stands_alone_and_gives_nothing_away(audited, planted):
    page = (audited / "audit/audit.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:image/jpeg;base64,|#)", page)
    images = re.findall(r"<img [^>]*>", page)
    assert len(images) > 40
    assert all(re.search(r'alt="Photo [^"]+"', image) for image in images)
    assert len(page) < 3_000_000
    written = {path: content for path, content in contents(audited / "audit").items() if "cache" not in path.parts}
    assert {path.name for path in written} == {"audit.html", "audit.json", "problems.csv", "duplicates.csv"}
    for content in written.values():
        assert PRIVATE.encode() not in content
        assert str(planted.folder.parent).encode() not in content


def test_a_second_run_obeys_verdicts_and_finds_the_same_otherwise(planted, audited, found, hcoatnet):
    one, other = sorted(planted.copies["flip"][0])
    verdicts = audited / "verdicts.csv"
    verdicts.write_text(f"path_a,path_b,verdict\n{one},{other},not the same\n")
    flags = ("--out", audited / "audit", "--verdicts", verdicts, "--self-test-photos", 0)
    code, printed = hcoatnet("data", "audit", planted.folder, *flags)
    assert code == 0
    assert "Shortcut probes; chance is" in printed
    again = json.loads((audited / "audit/audit.json").read_text())
    assert one not in clusters_of(again)
    assert again["self_test"] is None
    for name in ("problems", "overlays", "probes", "listed"):
        assert again[name] == found[name]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--split", "SPLIT"], "none of its paths"),
        (["--source-column", "clinic"], "no column 'clinic'"),
        (["--study", "OUT"], "no predictions_test"),
    ],
)
def test_what_does_not_fit_is_refused(planted, hcoatnet, tmp_path, flags, words):
    (tmp_path / "split.csv").write_text("path,subset\nx.jpg,train\n")
    named = [flag.replace("SPLIT", str(tmp_path / "split.csv")).replace("OUT", str(tmp_path)) for flag in flags]
    folder = planted.folder / "test"
    code, printed = hcoatnet("data", "audit", folder, "--out", tmp_path / "audit", *named)
    assert code == 2
    assert words in printed
    assert "Traceback" not in printed
