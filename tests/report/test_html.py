"""The report says what the files of a run say, to every reader, and nothing else."""

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from hcoatnet.errors import PredictionsError, RunError
from hcoatnet.evaluation.metrics import summarise
from hcoatnet.evaluation.predictions import Predictions, build_predictions, read_predictions, write_predictions
from hcoatnet.report.comparison_tables import NAMES
from hcoatnet.report.html import write_evaluation_report, write_run_report
from hcoatnet.report.subset import METRICS
from report_pages import Page, check_structure, draw_nothing

CLASSES = ("ichthyosis & co", "<script>alert(1)</script>", "plain skin")
SETTINGS = {
    "model": "h_coatnet_atto",
    "data": "../../photos",
    "split": None,
    "image_size": 64,
    "random_resized_crop": [0.8, 1.0],
    "deterministic": True,
    "warm_start": "pretrained:/home/someone/my weights/best.safetensors",
    "windows_folder": r"C:\Users\someone\cache",
}
HISTORY = (
    "epoch,train_loss,val_loss,val_accuracy,val_balanced_accuracy,val_macro_f1,"
    "learning_rate,photos_per_second,seconds,best"
)


def predictions_of(photos: pd.DataFrame, seed: int) -> Predictions:
    rng = np.random.default_rng(seed)
    labels = np.array([CLASSES.index(label) for label in photos["label"]])
    logits = rng.normal(size=(len(photos), 3)) + 1.5 * np.eye(3)[labels]
    return build_predictions(photos, logits.astype(np.float32), CLASSES)


def build_run(
    folder: Path, opened: bool = True, source: str | None = None, **changes: Any
) -> tuple[Path, dict[str, Any]]:
    """A run directory as training leaves it, and the content of its metrics.json."""
    run = folder / "h_coatnet_atto-scratch-s1"
    run.mkdir()
    n = 400
    rng = np.random.default_rng(5)
    photos = pd.DataFrame(
        {
            "path": [f"{number}.jpg" for number in range(n)],
            "label": rng.choice(CLASSES, size=n, p=[0.6, 0.3, 0.1]),
            "group": [f"patient {number // 2}" for number in range(n)],
            "sha256": "0" * 64,
            "width": "64",
            "height": "64",
        }
    )
    photos["subset"] = np.repeat(["train", "val", "test"], [200, 80, 120])
    manifest = photos.drop(columns="subset")
    if source:
        manifest = manifest.assign(source=source)
    manifest.to_csv(run / "manifest.csv", index=False)
    photos[["path", "group", "subset"]].to_csv(run / "split.csv", index=False)
    (run / "config.yaml").write_text(yaml.safe_dump(SETTINGS, sort_keys=False))
    environment = {"hcoatnet": "0.1.0", "cores": 2, "device": "cpu", "packages": {"torch": "2.9.1"}}
    (run / "environment.json").write_text(json.dumps(environment))
    (run / "history.csv").write_text(
        f"{HISTORY}\n1,1.5,1.6,0.4,0.3,0.25,0.001,50,2,1\n2,1.2,1.3,0.5,0.4,0.35,0.0005,50,2,1\n"
    )
    subsets = {}
    for subset in ("val", "test") if opened else ("val",):
        chosen = photos[photos["subset"] == subset][["path", "group", "label", "subset"]]
        predictions = predictions_of(chosen, len(chosen))
        write_predictions(predictions, run / f"predictions_{subset}.csv")
        subsets[subset] = summarise(predictions)
    metrics = {
        "format": 1,
        "model": "h_coatnet_atto",
        "init": "scratch",
        "protocol": "quick",
        "parameters": 3912413,
        "classes": list(CLASSES),
        "best_epoch": 2,
        "epochs": 2,
        "monitor": "macro_f1",
        **{f"{name}_sha256": name[0] * 64 for name in ("config", "manifest", "split", "weights")},
        "training_seconds": 412.7,
        "subsets": subsets,
        "test_ledger": {"openings": 1, "configurations": 1} if opened else None,
        "notes": ["12 photos <i>enlarged</i>"],
    }
    return run, metrics | changes


@pytest.fixture
def make_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Path, dict[str, Any]]]:
    draw_nothing(monkeypatch)
    return partial(build_run, tmp_path)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], Page]:
    """A run that nothing changes, its metrics and its page."""
    run, metrics = build_run(tmp_path_factory.mktemp("plain"))
    return run, metrics, Page(write_run_report(run, metrics))


@pytest.fixture(scope="module")
def page(plain: tuple[Path, dict[str, Any], Page]) -> Page:
    return plain[2]


class TestPage:
    def test_stands_in_the_run_and_is_well_formed(self, make_run) -> None:
        run, metrics = make_run()
        path = write_run_report(run, metrics)
        assert path == run / "report.html"
        page = Page(path)
        assert not page.open
        assert page.all("html") == [{"lang": "en"}]

    def test_equal_runs_give_equal_bytes(self, make_run) -> None:
        run, metrics = make_run()
        assert write_run_report(run, metrics).read_bytes() == write_run_report(run, metrics).read_bytes()

    def test_structure(self, page: Page) -> None:
        check_structure(page)
        assert len(page.all("img")) == 8
        assert len(page.all("table")) == 10

    def test_what_a_user_named_is_escaped(self, page: Page) -> None:
        assert "<script" not in page.source
        assert "<i>" not in page.source
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.source
        assert "ichthyosis &amp; co" in page.source

    def test_says_that_it_is_no_diagnostic_device(self, page: Page) -> None:
        assert "Research software, not a diagnostic device." in page.text
        assert "synthetic" not in page.text


class TestNumbers:
    def test_title_and_facts(self, page: Page) -> None:
        assert "h_coatnet_atto · scratch · quick" in page.text
        assert "3,912,413 parameters · best epoch 2 of 2 · trained in 6 min 53 s" in page.text

    def test_summary_in_words(self, plain) -> None:
        run, _, page = plain
        table = read_predictions(run / "predictions_test.csv")
        right = int((table.labels == table.predicted).sum())
        most = int((table.labels == 0).sum())
        assert f"On 120 test photos of 60 groups the model was right on {right} ({right / 1.2:.1f} %)." in page.text
        expected = f"most common class, ichthyosis & co, would have been right on {most} ({most / 1.2:.1f} %)."
        assert expected in page.text
        found = [int(((table.labels == c) & (table.predicted == c)).sum()) for c in range(3)]
        support = np.bincount(table.labels)
        best, worst = int(np.argmax(found / support)), int(np.argmin(found / support))
        assert (
            f"It found {CLASSES[best]} best ({found[best]} of {support[best]}) and "
            f"{CLASSES[worst]} least ({found[worst]} of {support[worst]})."
        ) in page.text

    def test_a_model_that_is_no_better_than_the_floor(self, make_run) -> None:
        run, metrics = make_run()
        predictions = read_predictions(run / "predictions_test.csv")
        photos = predictions.table[["path", "group", "label", "subset"]]
        constant = build_predictions(photos, np.tile([1.0, 0.0, 0.0], (120, 1)), CLASSES)
        write_predictions(constant, run / "predictions_test.csv")
        metrics["subsets"]["test"] = summarise(constant)
        assert "The model does no better than that." in Page(write_run_report(run, metrics)).text

    def test_a_model_that_is_always_right(self, make_run) -> None:
        run, metrics = make_run()
        photos = read_predictions(run / "predictions_test.csv").table[["path", "group", "label", "subset"]]
        perfect = build_predictions(photos, 9 * np.eye(3)[[CLASSES.index(name) for name in photos["label"]]], CLASSES)
        write_predictions(perfect, run / "predictions_test.csv")
        metrics["subsets"]["test"] = summarise(perfect)
        page = Page(write_run_report(run, metrics))
        assert "right on 120 (100.0 %)" in page.text
        assert "It found" not in page.text
        assert page.all("img")[0]["alt"] == "Confusion matrix of 120 test photos: 120 on the diagonal, named rightly."

    def test_every_metric_of_both_subsets(self, plain) -> None:
        _, metrics, page = plain
        assert ["Metric", "Test n = 120", "Validation n = 80"] in page.rows
        summaries = [metrics["subsets"][subset] for subset in ("test", "val")]
        interval_metrics = set(NAMES)
        measured = {key for key, value in summaries[0].items() if isinstance(value, dict) and "value" in value}
        assert {metric.key for metric in METRICS} == measured
        for metric in METRICS:
            values = [summary[metric.key]["value"] for summary in summaries]
            shown = [f"{100 * v:.1f} %" if metric.key == "accuracy" else f"{v:.3f}" for v in values]
            row = page.row(metric.name)
            assert [cell.split(" 0.")[0] if metric.key != "accuracy" else cell[:6] for cell in row[1:]] == shown
            assert bool(re.search(r"\d–\d", row[1])) == (metric.key in interval_metrics), metric.name
            assert "–" not in row[2], metric.name

    def test_undefined_values_are_dashes(self, make_run, monkeypatch: pytest.MonkeyPatch) -> None:
        run, metrics = make_run()
        undefined = {"cohen_kappa": {"value": None, "n": 120}}
        monkeypatch.setattr("hcoatnet.report.html.summarise", lambda table: summarise(table) | undefined)
        assert Page(write_run_report(run, metrics)).row("Cohen’s κ")[1] == "–"

    def test_class_rows_and_the_mark_of_rare_classes(self, plain) -> None:
        _, metrics, page = plain
        rows = metrics["subsets"]["test"]["per_class"]
        assert rows["plain skin"]["support"] < 30 <= rows["ichthyosis & co"]["support"]
        for name, mark in (("plain skin", " †"), ("ichthyosis & co", "")):
            columns = [f"{rows[name][key]:.3f}" for key in ("recall", "precision", "f1", "specificity", "auroc")]
            expected = [name + mark, str(rows[name]["support"]), str(rows[name]["groups"]), *columns]
            found = [[cell.split(" 0.")[0] for cell in row] for row in page.rows]
            assert expected in found

    def test_photos_and_groups_of_each_class_and_subset(self, plain) -> None:
        run, _, page = plain
        photos = pd.read_csv(run / "manifest.csv").merge(pd.read_csv(run / "split.csv"), on=["path", "group"])
        for name in CLASSES:
            of_class = photos[photos["label"] == name]
            parts = [of_class[of_class["subset"] == subset] for subset in ("train", "val", "test")]
            cells = [f"{len(part)} ({part['group'].nunique()})" for part in [*parts, of_class]]
            assert [name, *cells] in page.rows
        assert ["All", "200 (100)", "80 (40)", "120 (60)", "400 (200)"] in page.rows

    def test_confusions_also_stand_in_a_table(self, plain) -> None:
        _, metrics, page = plain
        for subset in ("test", "val"):
            matrix = metrics["subsets"][subset]["confusion_matrix"]
            for name, counts in zip(CLASSES, matrix, strict=True):
                assert [name, *map(str, counts)] in page.rows

    def test_figures_in_words(self, plain) -> None:
        _, metrics, page = plain
        confusions, *_, curves = (image["alt"] for image in page.all("img"))
        matrix = np.array(metrics["subsets"]["test"]["confusion_matrix"])
        assert f"120 test photos: {np.trace(matrix)} on the diagonal" in confusions
        np.fill_diagonal(matrix, 0)
        true, named = np.unravel_index(matrix.argmax(), matrix.shape)
        assert f"{CLASSES[true]} named {CLASSES[named]}, {matrix.max()} photo" in confusions
        assert "over 2 epochs: training loss from 1.50 to 1.20, validation loss from 1.60 to 1.30" in curves
        assert "highest validation macro F1 0.350" in curves

    def test_settings_machine_and_hashes(self, page: Page) -> None:
        for name in SETTINGS:
            assert name in page.text
        for value in ("not set", "0.8, 1.0", "true", "../../photos", "2.9.1", "c" * 64, "w" * 64):
            assert value in page.text


class TestWhatStandsAndWhatDoesNot:
    def test_no_absolute_path(self, make_run) -> None:
        run, metrics = make_run(init="pretrained:/home/someone/my weights/best.pth")
        page = Page(write_run_report(run, metrics))
        assert "someone" not in page.source
        assert "my weights" not in page.source
        assert str(run.parent) not in page.source
        assert "h_coatnet_atto · pretrained:best.pth · quick" in page.text
        assert "pretrained:best.safetensors" in page.text

    def test_synthetic_photos_are_called_so(self, make_run) -> None:
        page = Page(write_run_report(*make_run(source="synthetic")))
        assert "These photos are synthetic." in page.text
        assert "no figure on this page says anything about patients" in page.text

    def test_photos_of_another_source_are_not(self, make_run) -> None:
        assert "synthetic" not in Page(write_run_report(*make_run(source="clinic"))).text

    def test_a_test_set_that_was_not_opened(self, make_run) -> None:
        page = Page(write_run_report(*make_run(opened=False)))
        assert "The test set has not been opened" in page.text
        assert "On 80 validation photos of 40 groups" in page.text
        assert "likely to flatter the model" in page.text
        assert "n = 120" not in page.text
        assert "temperature" not in page.text
        assert len(page.all("img")) == 4

    @pytest.mark.parametrize(
        ("openings", "configurations", "expected"),
        [
            (1, 1, "opened once, by 1 configuration. No other configuration"),
            (2, 1, "opened twice, by 1 configuration. No other configuration"),
            (7, 3, "opened 7 times, by 3 configurations. The more configurations are tried"),
        ],
    )
    def test_how_often_the_test_set_was_opened(self, make_run, openings, configurations, expected) -> None:
        ledger = {"openings": openings, "configurations": configurations}
        assert expected in Page(write_run_report(*make_run(test_ledger=ledger))).text

    def test_limits_are_said(self, page: Page) -> None:
        assert "This is one run on one split." in page.text
        assert "one photo of 120 is 0.8 points of accuracy" in page.text
        assert "A few photos decide the figures of classes with fewer than 30:" in page.text

    def test_a_torn_and_repeated_history_is_read(self, make_run) -> None:
        run, metrics = make_run()
        whole = (run / "history.csv").read_text()
        torn = "3,1.0,1.2,0.6\n" + "2,1.1,1.25,0.5,0.4,0.36,0.0005,50,2,1\n" + "3,0.9"
        (run / "history.csv").write_text(whole + torn)
        curves = Page(write_run_report(run, metrics)).all("img")[-1]["alt"]
        assert "over 2 epochs: training loss from 1.50 to 1.10" in curves

    def test_a_history_without_epochs_leaves_the_curves_out(self, make_run) -> None:
        run, metrics = make_run()
        (run / "history.csv").write_text(HISTORY + "\n")
        page = Page(write_run_report(run, metrics))
        assert len(page.all("img")) == 7
        assert "Learning curves" not in page.text

    @pytest.mark.parametrize(
        "name", ["config.yaml", "environment.json", "manifest.csv", "split.csv", "history.csv", "predictions_test.csv"]
    )
    def test_a_missing_file_is_named(self, make_run, name: str) -> None:
        run, metrics = make_run()
        (run / name).unlink()
        with pytest.raises(RunError, match=f"holds no {re.escape(name)}"):
            write_run_report(run, metrics)
        assert not (run / "report.html").exists()

    def test_an_invalid_predictions_table_is_refused(self, make_run) -> None:
        run, metrics = make_run()
        (run / "predictions_val.csv").write_text("path,label\n")
        with pytest.raises(PredictionsError, match="Missing columns: group, subset"):
            write_run_report(run, metrics)


class TestEvaluation:
    @pytest.fixture(autouse=True)
    def plain_pages(self, monkeypatch: pytest.MonkeyPatch) -> None:
        draw_nothing(monkeypatch)

    def evaluation(self, folder: Path, overlap: dict[str, int] | None, **columns: str) -> Page:
        rng = np.random.default_rng(2)
        photos = pd.DataFrame({"path": [f"{n}.jpg" for n in range(50)], "group": [f"g{n}" for n in range(50)]})
        photos = photos.assign(label=rng.choice(CLASSES, size=50), subset="all", **columns)
        predictions = predictions_of(photos, 1)
        metrics = {
            "run": "h_coatnet_atto-scratch-s1",
            "model": "h_coatnet_atto",
            "init": "scratch",
            "data": "clinic_b",
            "views": "one",
            "overlap": overlap,
            "summary": summarise(predictions),
            "notes": ["2 photos skipped"],
        }
        path = write_evaluation_report(folder, predictions, metrics)
        assert path == folder / "report.html"
        return Page(path)

    def test_page(self, tmp_path: Path) -> None:
        page = self.evaluation(tmp_path, None)
        assert "h_coatnet_atto · scratch · on clinic_b" in page.text
        assert "model of run h_coatnet_atto-scratch-s1" in page.text
        assert "On 50 evaluated photos of 50 groups the model was right on" in page.text
        assert "2 photos skipped" in page.text
        assert ["All", "50 (50)"] in page.rows
        assert len(page.all("img")) == 3
        assert not page.open
        assert "flatter" not in page.text
        assert "test set" not in page.text.lower()

    def test_overlap_with_the_run_is_a_warning(self, tmp_path: Path) -> None:
        page = self.evaluation(tmp_path, {"photos": 12, "groups": 1})
        assert "12 photos and 1 group of these data are also among those that the model was trained on" in page.text

    def test_no_overlap_is_none(self, tmp_path: Path) -> None:
        assert "are also among" not in self.evaluation(tmp_path, {"photos": 0, "groups": 0}).text

    def test_synthetic_photos_are_called_so(self, tmp_path: Path) -> None:
        assert "These photos are synthetic." in self.evaluation(tmp_path, None, source="synthetic").text
