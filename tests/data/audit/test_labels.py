import numpy as np
import pandas as pd
import pytest

from hcoatnet.data.audit.labels import label_issues, prediction_files, suspected_classes
from hcoatnet.data.manifest import Manifest
from hcoatnet.errors import DataError, PredictionsError
from hcoatnet.evaluation.predictions import build_predictions, write_predictions

CLASSES = ("A", "B", "C")


def manifest_of(labels):
    paths = [f"{number:03}.jpg" for number in range(len(labels))]
    return Manifest(pd.DataFrame({"path": paths, "label": labels, "group": paths, "sha256": "0" * 64, "width": 9, "height": 9}), None)  # fmt: skip


def write_table(path, manifest, logits, subset="test", classes=CLASSES):
    path.parent.mkdir(parents=True, exist_ok=True)
    photos = manifest.table[["path", "group", "label"]].assign(subset=subset)
    write_predictions(build_predictions(photos, logits, classes), path)
    return path


def test_the_confident_joint_by_hand():
    """Thresholds are 0.7 for class 0 (mean of 0.9, 0.8, 0.4) and 0.6 for class 1 (mean of 0.7, 0.5)."""
    labels = np.array([0, 0, 0, 1, 1])
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7], [0.5, 0.5]])
    assert list(suspected_classes(labels, probabilities)) == [-1, -1, 1, -1, -1]
    probabilities[4] = [0.71, 0.29]  # threshold of class 1 falls to 0.495: the photo is counted under class 0
    assert list(suspected_classes(labels, probabilities)) == [-1, -1, 1, -1, 0]


def swapped_and_predicted(n=300, wrong=15, seed=0):
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 3, n)
    given = true.copy()
    given[:wrong] = (true[:wrong] + 1) % 3
    logits = rng.normal(0, 0.6, (n, 3)) + 2.5 * np.eye(3)[true]
    return [CLASSES[label] for label in given], logits, true


def test_swapped_labels_are_found_first(tmp_path):
    labels, logits, true = swapped_and_predicted()
    manifest = manifest_of(labels)
    issues, notes = label_issues(manifest, [write_table(tmp_path / "p.csv", manifest, logits)])
    swapped = {f"{number:03}.jpg" for number in range(15)}
    found = {issue.path for issue in issues} & swapped
    assert len(found) >= 11  # of 15; the rest are predicted with less than the mean probability of the class
    assert len(issues) - len(found) <= 1
    assert {issue.path for issue in issues[:8]} <= swapped
    assert all(issue.suggested == CLASSES[true[int(issue.path[:3])]] for issue in issues[:10])
    assert "300 of 300 photos" in notes[0]
    right = np.mean([CLASSES[best] == label for best, label in zip(logits.argmax(axis=1), labels, strict=True)])
    assert f"Together they name {right:.0%} as labelled" in notes[0]


def test_several_tables_are_averaged(tmp_path):
    manifest = manifest_of(["A", "B", "A", "B"])
    one = np.log([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.4, 0.6]])
    other = np.log([[0.9, 0.1], [0.4, 0.6], [0.4, 0.6], [0.4, 0.6]])
    two = ("A", "B")
    files = [write_table(tmp_path / "1.csv", manifest, one, classes=two), write_table(tmp_path / "2.csv", manifest, other, classes=two)]  # fmt: skip
    (issue,), _ = label_issues(manifest_of(["A", "B", "A", "B"]), files)
    assert (issue.path, issue.label, issue.suggested, issue.models) == ("002.jpg", "A", "B", 2)
    assert issue.p_label == pytest.approx(0.3)
    assert issue.p_suggested == pytest.approx(0.7)


def test_photos_that_a_model_was_trained_or_chosen_by_do_not_count(tmp_path):
    labels, logits, _ = swapped_and_predicted()
    manifest = manifest_of(labels)
    for subset in ("train", "val"):
        with pytest.raises(DataError, match="None of"):
            label_issues(manifest, [write_table(tmp_path / "p.csv", manifest, logits, subset)])


def test_tables_that_do_not_fit_are_refused(tmp_path):
    labels, logits, _ = swapped_and_predicted()
    manifest = manifest_of(labels)
    one = write_table(tmp_path / "1.csv", manifest, logits)
    renamed = manifest_of([label.lower() for label in labels])
    other = write_table(tmp_path / "2.csv", renamed, logits, classes=("a", "b", "c"))
    with pytest.raises(DataError, match="not those of"):
        label_issues(manifest, [one, other])
    (tmp_path / "3.csv").write_text("path\nx\n")
    with pytest.raises(PredictionsError):
        label_issues(manifest, [tmp_path / "3.csv"])


def test_studies_and_runs_are_searched_for_test_predictions(tmp_path):
    manifest = manifest_of(["A", "B", "C"])
    for name in ("study/runs/b", "study/runs/a", "run"):
        write_table(tmp_path / name / "predictions_test.csv", manifest, np.eye(3))
    assert [path.parent.name for path in prediction_files(tmp_path / "study")] == ["a", "b"]
    assert prediction_files(tmp_path / "run") == [tmp_path / "run/predictions_test.csv"]
    with pytest.raises(DataError, match="no predictions_test"):
        prediction_files(tmp_path)
