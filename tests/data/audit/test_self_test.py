import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from hcoatnet.data.audit import self_test as module
from hcoatnet.data.audit.cache import Cache
from hcoatnet.data.audit.changes import CHANGES
from hcoatnet.data.audit.self_test import STAGES, self_test


@pytest.fixture(scope="module")
def few():
    return {"brightness": CHANGES["brightness"], "crop 10–20 %": CHANGES["crop 10–20 %"]}


@pytest.fixture
def searched(skin, photo_set):
    return photo_set({f"{number:02}.png": skin[number] for number in range(10)})


def test_every_change_is_measured_at_every_stage(searched, monkeypatch, few, tmp_path):
    monkeypatch.setattr(module, "CHANGES", few)
    calls = []
    measured = self_test(*searched, photos=6, cache=Cache(tmp_path / "c"), progress=lambda *done: calls.append(done))
    assert [(row.change, row.stage) for row in measured.rows] == [(name, stage) for name in few for stage in STAGES]
    assert (measured.photos, measured.searched, calls[-1]) == (6, 10, (12, 12))
    rows = {(row.change, row.stage): row for row in measured.rows}
    assert rows["brightness", "hash"].recall == 1
    assert rows["crop 10–20 %", "hash"].recall < 0.5
    assert rows["crop 10–20 %", "all"].recall == 1
    for row in measured.rows:
        low, high = proportion_confint(row.found, row.copies, method="wilson")
        assert (row.low, row.high) == (pytest.approx(low), pytest.approx(high))
        assert (row.copies, row.recall, row.false_joins) == (6, row.found / 6, 0)
    table = measured.table()
    assert list(table.columns) == [*STAGES, "copies", "false_joins"]
    assert table.loc["crop 10–20 %", "all"] == 1
    assert measured.to_json()["rows"][0]["change"] == "brightness"


def test_the_same_seed_gives_the_same_result(searched, monkeypatch, few):
    monkeypatch.setattr(module, "CHANGES", few)
    assert self_test(*searched, photos=3, seed=1) == self_test(*searched, photos=3, seed=1)


def test_a_copy_joined_with_another_group_is_counted(skin, photo_set, monkeypatch, few):
    monkeypatch.setattr(module, "CHANGES", few)
    photos = photo_set({"0.png": skin[0], "1.png": skin[0].transpose(0), "2.png": skin[1]})
    measured = {(row.change, row.stage): row for row in self_test(*photos, photos=3).rows}
    assert measured["brightness", "hash"].false_joins == 2


def test_without_opencv_only_the_hash_is_measured(searched, monkeypatch, few):
    monkeypatch.setattr(module, "CHANGES", few)
    monkeypatch.setattr(module, "opencv_is_installed", lambda: False)
    measured = self_test(*searched, photos=4)
    assert {row.stage for row in measured.rows} == {"hash", "all"}
    rows = {(row.change, row.stage): row for row in measured.rows}
    for name in few:
        assert rows[name, "hash"].found == rows[name, "all"].found


@pytest.mark.parametrize("name", list(CHANGES))
def test_a_change_is_drawn_from_its_seed_and_gives_a_photo(skin, name):
    one, again, other = (CHANGES[name](skin[0], np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert one.mode == "RGB"
    assert one.tobytes() == again.tobytes()
    assert one.tobytes() != skin[0].tobytes()
    assert other.tobytes() != one.tobytes() or name == "flip or right angle"
