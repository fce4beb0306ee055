from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hcoatnet.data.manifest import read_manifest
from hcoatnet.data.splits import hold_out, read_split
from hcoatnet.errors import ConfigError, RunError, SplitError
from hcoatnet.study.definition import StudyConfig, Variant
from hcoatnet.study.plan import (
    PLAN_COLUMNS,
    StudyDirectory,
    merged_plan,
    places_of,
    read_shard,
    shard_of,
    tasks_of,
    write_plan,
)

STUDY = StudyConfig(
    variants=(
        Variant("cnn", {"model": "cnn"}),
        Variant("own", {"model": "cnn", "init": "pretrained:own.pth"}),
    ),
    inits=("scratch", "pretrained:x.pth"),
    seeds=(1, 2),
    settings={"data": "manifest.csv", "epochs": 3},
)
PLACES = ((0, 0), (0, 1), (1, 0), (1, 1))


def test_a_plan_is_the_product_and_every_cell_has_its_own_directory():
    tasks = tasks_of(STUDY, PLACES, Path("out"))
    assert len(tasks) == 3 * 2 * 4  # cnn from two kinds of weights, own from its own
    assert len({task.cell.run for task in tasks}) == len(tasks)
    first = tasks[0]
    assert first.cell.cell == "cnn-scratch-s1-r0-f0"
    assert first.cell.run == "runs/cnn-scratch-s1-r0-f0"
    assert (first.config.out, first.config.resume) == (Path("out/runs/cnn-scratch-s1-r0-f0"), "auto")
    for task in tasks:
        config = task.config
        assert (config.seed, config.repeat, config.fold) == (task.cell.seed, task.cell.repeat, task.cell.fold)
        assert config.sha256 == task.cell.config_sha256
    assert len({task.cell.config_sha256 for task in tasks}) == 3


def test_the_first_seed_and_repeat_is_complete_before_the_next_begins():
    order = [(task.cell.seed, task.cell.repeat) for task in tasks_of(STUDY, PLACES, Path("out"))]
    assert order == sorted(order)


def test_places_are_those_of_the_split_or_those_that_are_chosen(manifest_file, folds_file):
    photos = read_manifest(manifest_file)
    folds = read_split(folds_file, photos)
    held_out = hold_out(photos)
    assert places_of(STUDY, folds) == ((0, 0), (0, 1), (0, 2))
    assert places_of(STUDY, held_out) == ((0, 0),)
    assert places_of(StudyConfig(STUDY.variants, folds=(2, 0)), folds) == ((0, 2), (0, 0))
    with pytest.raises(SplitError, match=r"fold 3, but its split file has folds 0 to 2"):
        places_of(StudyConfig(STUDY.variants, folds=(0, 3)), folds)
    with pytest.raises(SplitError, match=r"repeat 1, but its split file has one hold-out split"):
        places_of(StudyConfig(STUDY.variants, repeats=(1,)), held_out)


@given(st.integers(0, 40), st.integers(1, 9))
def test_shards_are_disjoint_and_together_everything(count, parts):
    tasks = [SimpleNamespace(number=number) for number in range(count)]
    shards = [shard_of(tasks, (part, parts)) for part in range(1, parts + 1)]
    assert sorted(task.number for shard in shards for task in shard) == list(range(count))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "1/0", "a/b", "1/2/3", "-1/2"])
def test_a_wrong_shard_is_refused(text):
    with pytest.raises(ConfigError, match="--shard must be i/n"):
        read_shard(text)


def test_a_plan_survives_being_written(tmp_path):
    directory = StudyDirectory(tmp_path)
    cells = [task.cell for task in tasks_of(STUDY, PLACES, tmp_path)]
    assert not directory.exists
    write_plan(directory, cells)
    assert directory.exists
    assert directory.plan() == cells
    assert directory.plan_file.read_text().splitlines()[0] == ",".join(PLAN_COLUMNS)


def test_a_directory_without_a_plan_and_a_torn_plan_are_said(tmp_path):
    directory = StudyDirectory(tmp_path)
    with pytest.raises(RunError, match=r"is not a study: it has no plan\.csv"):
        directory.plan()
    write_plan(directory, [task.cell for task in tasks_of(STUDY, PLACES, tmp_path)])
    directory.plan_file.write_text(directory.plan_file.read_text()[:-30])
    with pytest.raises(RunError, match="cannot be read"):
        directory.plan()


def test_a_merged_plan_keeps_the_old_cells_in_place():
    cells = [task.cell for task in tasks_of(STUDY, PLACES, Path())]
    assert merged_plan(cells[:5], cells[3:]) == cells
    assert merged_plan(cells, cells[:2]) == cells
