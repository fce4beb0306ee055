"""What runs say of themselves: settings in common, machines, and the way of the photos."""

from pathlib import Path

import pandas as pd
import pytest
from simulated_study import simulate_photos, three_arms, write_run

from hcoatnet.errors import RunError
from hcoatnet.evaluation.ledger import Openings, record_opening
from hcoatnet.report.data_tables import flow_of, subsets_table
from hcoatnet.report.record import RunRecord, environments_of, openings_of, varying_settings


@pytest.fixture
def records(tmp_path: Path) -> list[RunRecord]:
    arm = three_arms()[0]
    return [RunRecord.of(write_run(tmp_path, arm, cell, simulate_photos())) for cell in arm.cells[:3]]


def test_settings_in_common_and_those_that_differ() -> None:
    common, varying = varying_settings(
        {"a": {"lr": "1", "epochs": "3"}, "b": {"lr": "2", "epochs": "3", "mixup": "0.2"}}
    )
    assert common == {"epochs": "3"}
    assert varying == {"lr": {"a": "1", "b": "2"}, "mixup": {"a": "–", "b": "0.2"}}


def test_the_recipe_leaves_place_and_seed_out(records: list[RunRecord]) -> None:
    assert set(records[0].recipe) == {"protocol", "model", "init", "image_size", "epochs", "lr"}


def test_machines_that_differ_are_counted(records: list[RunRecord]) -> None:
    file = records[1].folder / "environment.json"
    file.write_text(file.read_text().replace("Some CPU", "Another CPU"))
    environment = dict(environments_of(records))
    assert environment["processor"] == "Some CPU (2 runs); Another CPU (1 runs)"
    assert environment["torch"] == "2.9.1"


def test_openings_are_counted_over_all_splits(records: list[RunRecord], tmp_path: Path) -> None:
    assert openings_of(records) is None
    for record, config in zip([*records, records[0]], ("x", "x", "x", "y"), strict=True):
        digest = record.metrics["split_sha256"]
        record_opening(
            tmp_path / "test_ledger.jsonl", run="r", weights_sha256="w", split_sha256=digest, config_sha256=config
        )
    assert openings_of(records) == Openings(4, 2)
    assert openings_of(records[1:]) == Openings(2, 1)


def test_the_ledger_inside_a_run_is_found_where_none_lies_beside_the_split(records: list[RunRecord]) -> None:
    digest = records[0].metrics["split_sha256"]
    record_opening(
        records[0].folder / "test_ledger.jsonl", run="r", weights_sha256="w", split_sha256=digest, config_sha256="x"
    )
    assert openings_of(records) == Openings(1, 1)


def test_the_way_of_the_photos(records: list[RunRecord]) -> None:
    record = records[0]
    manifest = pd.read_csv(record.folder / "manifest.csv", dtype=str, keep_default_na=False)
    manifest.loc[1, "sha256"] = manifest.loc[0, "sha256"]
    manifest.to_csv(record.folder / "manifest.csv", index=False)
    split = pd.read_csv(record.folder / "split.csv", dtype=str)
    split.iloc[:-4].to_csv(record.folder / "split.csv", index=False)
    steps = flow_of(record, 60)
    groups = split["group"].iloc[:-4].nunique()
    assert [step.number for step in steps] == ["180 photos", "176 photos", f"{groups} groups", "60 photos"]
    assert "1 with the same bytes as another" in steps[0].text
    assert "4 left out" in steps[1].text


def test_photos_and_groups_of_each_subset(records: list[RunRecord]) -> None:
    table = subsets_table(records[0].photos, records[0].metrics["classes"])
    photos = records[0].photos
    test = photos[(photos["subset"] == "test") & (photos["label"] == "plain_skin 100%")]
    assert table.rows[2][3] == f"{len(test)} ({test['group'].nunique()})"
    assert table.rows[-1][4] == f"180 ({photos['group'].nunique()})"


def test_a_run_that_is_not_finished(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"holds no metrics\.json"):
        RunRecord.of(tmp_path)
