from io import BytesIO, StringIO

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw

from hcoatnet.data.audit import duplicates as module
from hcoatnet.data.audit.cache import Cache
from hcoatnet.data.audit.changes import CHANGES
from hcoatnet.data.audit.clusters import DIFFERENT, SAME
from hcoatnet.data.audit.duplicates import find_duplicates
from hcoatnet.data.audit.geometry import LocalStore
from hcoatnet.data.manifest import Manifest


def as_bytes(photo, form="PNG", **options):
    stream = BytesIO()
    photo.save(stream, form, **options)
    return stream.getvalue()


def stage_of(found, one, other):
    return next((edge.stage for edge in found.edges if edge.pair == (one, other) and edge.confirmed), None)


@pytest.fixture
def planted(skin, photo_set):
    """Twelve different photos, and a copy of each of the first six."""

    def changed(name, number):
        return CHANGES[name](skin[number], np.random.default_rng([5, number]))

    photos = {f"p{number:02}.png": as_bytes(skin[number]) for number in range(12)}
    photos |= {
        "q00.png": photos["p00.png"],
        "r00.png": photos["p00.png"],
        "q01.bmp": as_bytes(skin[1], "BMP"),
        "q02.jpg": as_bytes(changed("flip or right angle", 2), "JPEG", quality=60),
        "q03.png": as_bytes(changed("crop 10–20 %", 3)),
        "q04.jpg": as_bytes(changed("stored chain", 4), "JPEG", quality=90),
        "p05_aug1.png": as_bytes(skin[30]),
    }
    return photo_set(photos)


EXPECTED = {
    ("p00.png", "q00.png"): "file",
    ("p00.png", "r00.png"): "file",
    ("p01.png", "q01.bmp"): "pixels",
    ("p02.png", "q02.jpg"): "hash",
    ("p03.png", "q03.png"): "geometry",
    ("p04.png", "q04.jpg"): "geometry",
}


def test_everything_planted_is_found_at_its_stage_and_nothing_else(planted):
    found = find_duplicates(*planted)
    assert {edge.pair: edge.stage for edge in found.edges if edge.confirmed} == EXPECTED
    assert [cluster.paths for cluster in found.clusters] == [("p00.png", "q00.png", "r00.png"), *sorted(EXPECTED)[2:]]
    assert all(cluster.merged for cluster in found.clusters)
    assert found.notes == ()


def test_names_propose_but_confirm_nothing(planted):
    found = find_duplicates(*planted)
    (hint,) = (edge for edge in found.edges if edge.stage == "name")
    assert (hint.pair, hint.confirmed) == (("p05.png", "p05_aug1.png"), False)
    assert hint.score < 0.9


def test_the_order_of_the_photos_makes_no_difference(planted):
    manifest, features = planted
    order = np.random.default_rng(0).permutation(len(manifest))
    shuffled = Manifest(manifest.table.iloc[order].reset_index(drop=True), manifest.folder)
    found = find_duplicates(shuffled, {name: rows[order] for name, rows in features.items()})
    assert found.clusters == find_duplicates(manifest, features).clusters
    assert found.to_csv() == find_duplicates(manifest, features).to_csv()


def test_without_opencv_crops_are_missed_and_that_is_said(planted, monkeypatch):
    monkeypatch.setattr(module, "opencv_is_installed", lambda: False)
    found = find_duplicates(*planted)
    assert {edge.stage for edge in found.edges if edge.confirmed} == {"file", "pixels", "hash"}
    assert "OpenCV is not installed" in found.notes[0]


def test_a_second_run_opens_no_photo(planted, tmp_path, monkeypatch):
    cache = Cache(tmp_path / "cache")
    first = find_duplicates(*planted, cache=cache)
    monkeypatch.setattr(LocalStore, "__getitem__", lambda store, photo: pytest.fail("opened"))
    assert find_duplicates(*planted, cache=cache).to_csv() == first.to_csv()


def test_the_table_holds_every_pair_with_its_state(planted):
    manifest, features = planted
    labels = manifest.table["label"].where(manifest.table["path"] != "q03.png", "B")
    found = find_duplicates(Manifest(manifest.table.assign(label=labels), manifest.folder), features)
    table = pd.read_csv(StringIO(found.to_csv()), dtype=str, keep_default_na=False)
    assert {(row.path_a, row.path_b): row.state for row in table.itertuples()} == {
        **dict.fromkeys(EXPECTED, "merged"),
        ("p03.png", "q03.png"): "ask",
        ("p05.png", "p05_aug1.png"): "candidate",
    }
    row = table.set_index("path_b").loc["q03.png"]
    assert (row["label_a"], row["label_b"], row["confirmed"], row["verdict"]) == ("A", "B", "yes", "")
    assert row["cluster"] == next(cluster.name for cluster in found.clusters if not cluster.merged)
    assert found.to_json()["pairs"] == {"file": 2, "geometry": 2, "hash": 1, "pixels": 1}
    assert any("wait for a person" in note for note in found.notes)


def test_verdicts_are_obeyed(planted):
    verdicts = {("p03.png", "q03.png"): DIFFERENT, ("p06.png", "p07.png"): SAME, ("gone.png", "p08.png"): SAME}
    found = find_duplicates(*planted, verdicts=verdicts)
    assert stage_of(found, "p03.png", "q03.png") is None
    assert stage_of(found, "p06.png", "p07.png") == "person"
    states = found.table().set_index(["path_a", "path_b"])["state"]
    assert states["p03.png", "q03.png"] == "rejected"
    assert states["p06.png", "p07.png"] == "merged"


def test_a_shared_logo_joins_nothing_and_masked_it_hides_no_copy(skin, photo_set):
    def with_logo(photo):
        marked = photo.copy()
        pen = ImageDraw.Draw(marked)
        pen.rectangle([40, 40, 159, 119], fill="white")
        for row in range(6):
            pen.text((46, 44 + 12 * row), f"UNIVERSITY CLINIC {row}", fill=(20, 20, 120))
        return as_bytes(marked)

    photos = {f"l{number}.png": with_logo(skin[number]) for number in range(8)}
    photos["m0.png"] = with_logo(CHANGES["brightness"](skin[0], np.random.default_rng(4)))
    manifest, features = photo_set(photos)
    mask = np.zeros((64, 64), bool)
    mask[15:49, 15:] = True
    for masks in (None, dict.fromkeys(photos, mask)):
        found = find_duplicates(manifest, features, masks=masks)
        joined = {edge.pair for edge in found.edges if edge.confirmed}
        assert joined <= {("l0.png", "m0.png")}
    assert joined == {("l0.png", "m0.png")}


def test_photos_without_structure_join_by_equal_pixels_only(photo_set):
    flat = {f"f{shade}.png": Image.new("RGB", (90, 70), (shade, 90, 80)) for shade in (60, 61, 200)}
    manifest, features = photo_set({**flat, "g60.bmp": flat["f60.png"]})
    found = find_duplicates(manifest, features)
    assert [edge.pair for edge in found.edges] == [("f60.png", "g60.bmp")]
    assert "without any structure" in found.notes[0]


@pytest.mark.parametrize("count", [1, 2])
def test_few_photos(skin, photo_set, count):
    found = find_duplicates(*photo_set({f"{number}.png": skin[number] for number in range(count)}))
    assert (found.edges, found.clusters) == ((), ())
    assert list(found.table().columns)[:2] == ["path_a", "path_b"]
