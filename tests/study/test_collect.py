import json
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml

from hcoatnet.errors import EvidenceError, PredictionsError
from hcoatnet.evaluation.metrics import score
from hcoatnet.study.collect import collect


@pytest.fixture
def copy(study, tmp_path):
    shutil.copytree(study, tmp_path / "copy")
    return tmp_path / "copy"


def test_arms_hold_what_the_runs_predicted(study, manifest_file):
    arms = collect([study])
    assert [(arm.name, arm.init, arm.seeds, len(arm.cells)) for arm in arms] == [
        ("cnn", "scratch", (1, 2), 6),
        ("test_vit", "scratch", (1, 2), 6),
    ]
    photos = pd.read_csv(manifest_file)
    for arm in arms:
        for cell in arm.cells:
            metrics = json.loads((study / "runs" / cell.run / "metrics.json").read_text())
            assert score(cell.test.labels, cell.test.logits).macro_f1 == metrics["subsets"]["test"]["macro_f1"]["value"]
            assert score(cell.val.labels, cell.val.logits).macro_f1 == metrics["subsets"]["val"]["macro_f1"]["value"]
            split = pd.read_csv(study / "runs" / cell.run / "split.csv").merge(photos, on="path")
            counts = split.loc[split["subset"] == "train", "label"].value_counts()
            assert cell.train_counts == tuple(counts[name] for name in arm.classes)
        for replicate in arm.replicates:
            assert list(replicate.predictions.table["path"]) == sorted(photos["path"])


def test_studies_trained_apart_come_together(study, copy, tmp_path):
    """Seed 1 in one directory and seed 2 in another are the arms of both in one."""
    for folder, seed in ((copy, 1), (tmp_path / "second", 2)):
        if folder != copy:
            shutil.copytree(study, folder)
        for run in (folder / "runs").glob(f"*-s{3 - seed}-*"):
            shutil.rmtree(run)
    for mine, theirs in zip(collect([copy, tmp_path / "second"]), collect([study]), strict=True):
        assert (mine.name, mine.seeds) == (theirs.name, theirs.seeds)
        for one, other in zip(mine.replicates, theirs.replicates, strict=True):
            np.testing.assert_array_equal(one.predictions.logits, other.predictions.logits)


def test_a_run_of_a_study_and_a_run_of_its_own_are_rows_too(study, tmp_path):
    run = study / "runs" / "cnn-scratch-s1-r0-f0"
    assert [(arm.name, arm.cells[0].seed) for arm in collect([run])] == [("cnn", 1)]
    shutil.copytree(run, tmp_path / "alone")
    config = yaml.safe_load((tmp_path / "alone" / "config.yaml").read_text())
    config["model_options"] = {"width": 2, "act": "relu"}
    (tmp_path / "alone" / "config.yaml").write_text(yaml.safe_dump(config))
    assert [arm.name for arm in collect([tmp_path / "alone"])] == ["cnn act=relu width=2"]


def test_weights_need_not_come_back_from_another_machine(copy):
    for name in ("weights.safetensors", "state.pt", "report.html"):
        for file in copy.rglob(name):
            file.unlink()
    assert len(collect([copy])) == 2


def test_what_is_not_finished_is_named(copy):
    shutil.rmtree(copy / "runs" / "cnn-scratch-s2-r0-f1")
    (copy / "runs" / "test_vit-scratch-s1-r0-f0" / "metrics.json").unlink()
    with pytest.raises(EvidenceError) as caught:
        collect([copy])
    words = str(caught.value)
    assert "2 of 12 cells are not finished: test_vit-scratch-s1-r0-f0, cnn-scratch-s2-r0-f1." in words
    assert "study status" in words


def test_kinds_of_initial_weights_are_not_mixed(copy):
    table = pd.read_csv(copy / "plan.csv")
    table.loc[table["model"] == "test_vit", "init"] = "pretrained"
    table.to_csv(copy / "plan.csv", index=False)
    with pytest.raises(EvidenceError, match=r"from pretrained and from scratch.*--init pretrained or --init scratch"):
        collect([copy])
    assert [(arm.name, arm.init) for arm in collect([copy], "pretrained")] == [("test_vit", "pretrained")]
    with pytest.raises(EvidenceError, match=r"No run began from pretrained\. There are runs from scratch"):
        collect([copy / "runs" / "cnn-scratch-s1-r0-f0"], "pretrained")


def test_a_closed_test_set_is_no_evidence(copy):
    file = copy / "runs" / "cnn-scratch-s1-r0-f0" / "metrics.json"
    metrics = json.loads(file.read_text())
    del metrics["subsets"]["test"]
    file.write_text(json.dumps(metrics))
    with pytest.raises(EvidenceError, match=r"test set of .*cnn-scratch-s1-r0-f0 is closed"):
        collect([copy])


def test_an_arm_has_one_recipe(copy):
    file = copy / "runs" / "cnn-scratch-s2-r0-f1" / "config.yaml"
    file.write_text(file.read_text().replace("lr: 0.002", "lr: 0.5"))
    with pytest.raises(
        EvidenceError, match=r"cnn-scratch-s2-r0-f1 of cnn were trained with different .*--lr is 0\.5, was"
    ):
        collect([copy])


def test_files_of_a_run_must_fit_together(copy):
    run = copy / "runs" / "cnn-scratch-s1-r0-f0"
    predictions = (run / "predictions_test.csv").read_text()
    lines = predictions.splitlines(True)
    (run / "predictions_test.csv").write_text("".join(lines[:-1]))
    with pytest.raises(EvidenceError, match=r"does not hold the test photos of the run's split\.csv: 1 differ"):
        collect([copy])
    (run / "predictions_test.csv").write_text(predictions[:-40])
    with pytest.raises(PredictionsError, match=r"predictions_test\.csv"):
        collect([copy])
    (run / "predictions_test.csv").write_text(predictions)
    split = (run / "split.csv").read_text()
    (run / "split.csv").write_text(split.replace(",train", ",val", 1))
    with pytest.raises(EvidenceError, match=r"split\.csv has changed since the run was trained"):
        collect([copy])


def test_the_same_runs_twice_are_not_more_evidence(study, copy):
    with pytest.raises(EvidenceError, match="has two runs of seed 1, repeat 0, fold 0"):
        collect([study, copy])


def test_what_is_neither_study_nor_run_is_said(tmp_path):
    with pytest.raises(EvidenceError, match="neither a study nor a run"):
        collect([tmp_path])
