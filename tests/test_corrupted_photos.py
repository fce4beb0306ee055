"""The benchmark of corrupted photos on drawn ones; and that it would notice a crash, a hang, and a wrong answer."""

import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from conftest import draw_photo

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import corrupted_photos
from corrupted_photos import Opener, Outcome, check_predict, check_scan, make_copies, measure, try_all
from corruption import DAMAGES, KINDS, Original, changed_dimensions, encoded


@pytest.fixture(scope="module")
def jpegs(tmp_path_factory):
    """Twelve photos of two classes, each of another size, so that no header is that of another."""
    folder = tmp_path_factory.mktemp("jpegs")
    for number in range(12):
        size = (48 + number, 40 + number)
        draw_photo(folder / ("ACK", "NEV")[number % 2] / f"{number}.jpg", (170, 60, 60), number, size)
    return sorted(folder.rglob("*.jpg"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_damage_gives_bytes_and_nearly_every_one_others(kind, jpegs):
    photo = Original(kind, *(encoded(path.read_bytes(), kind) for path in jpegs[:2]))
    for damage in DAMAGES[kind]:
        made = [damage(random.Random(seed), photo) for seed in range(10)]
        assert all(isinstance(content, bytes) for content in made)
        assert made == [damage(random.Random(seed), photo) for seed in range(10)]
        changed = sum(content != photo.content for content in made)
        assert changed == 0 if damage.__name__ == "wrong_suffix" else changed >= 5, damage


def test_changed_dimensions_are_announced_with_a_checksum_that_fits(jpegs):
    for kind in ("JPEG", "PNG", "BMP", "GIF"):
        photo = Original(kind, *(encoded(path.read_bytes(), kind) for path in jpegs[:2]))
        sizes = set()
        for seed in range(20):
            path = jpegs[0].with_name("changed")
            path.write_bytes(changed_dimensions(random.Random(seed), photo))
            try:
                with Image.open(path) as image:
                    sizes.add(image.size)
            except (OSError, ValueError, Image.DecompressionBombError):
                sizes.add(None)
            path.unlink()
        assert len(sizes) > 3, kind


def test_the_same_seed_gives_the_same_copies(jpegs, tmp_path):
    made = [make_copies(jpegs, tmp_path / name, 30, seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    assert made[0] == made[1] != made[2]
    for copy in made[0]:
        assert (tmp_path / "a" / copy.path).read_bytes() == (tmp_path / "b" / copy.path).read_bytes()
    assert {copy.path.split("/")[0] for copy in made[0]} == {"ACK", "NEV"}


@pytest.mark.parametrize(
    ("script", "rule"), [("import sys; input(); sys.exit(3)", "crash"), ("import time; time.sleep(60)", "hang")]
)
def test_a_crash_and_a_hang_are_noticed_and_the_next_photo_is_tried(script, rule, tmp_path, monkeypatch):
    (tmp_path / "opener.py").write_text(script)
    monkeypatch.setattr(corrupted_photos, "__file__", str(tmp_path / "opener.py"))
    monkeypatch.setattr(corrupted_photos, "PATIENCE", 60 if rule == "crash" else 0.5)
    opener = Opener()
    for name in ("one.jpg", "two.jpg"):
        found = opener.open(tmp_path / name)
        assert (found.state, found.rule) == ("other", rule)
    opener.close()


@pytest.mark.slow
def test_drawn_photos(jpegs, run_bundle, tmp_path):
    found = measure(jpegs, run_bundle, tmp_path, 120, seed=3)
    assert found["faults"] == []
    assert found["opened"] + found["refused"] == 120
    assert min(found["opened"], found["refused"]) > 20
    assert found["scan"] == {"named": found["refused"], "listed_without_them": found["opened"]}
    assert found["predict"] == {"answered": found["opened"], "without_an_answer": found["refused"]}
    assert found["longest_seconds"] < 5
    assert found["most_mebibytes"] < 1500
    for counts in (found["by_format"], found["by_damage"]):
        assert sum(sum(one.values()) for one in counts.values()) == 120


@pytest.mark.slow
def test_a_wrong_outcome_is_noticed(jpegs, run_bundle, tmp_path):
    copies = make_copies(jpegs, tmp_path / "copies", 20, seed=3)
    (tmp_path / "refused").mkdir()
    outcomes: dict[str, Outcome] = {copy.path: one for copy, one in try_all(copies, tmp_path / "copies")}
    assert check_predict(run_bundle, tmp_path / "copies", outcomes, tmp_path)[1] == []
    opened = next(path for path, one in outcomes.items() if one.state == "opened")
    wrong = {**outcomes, opened: replace(outcomes[opened], state="refused")}
    assert any(opened in fault for fault in check_predict(run_bundle, tmp_path / "copies", wrong, tmp_path)[1])
    assert any(opened in fault for fault in check_scan(tmp_path / "copies", wrong, tmp_path)[1])
