"""The page of a study says what its comparison says, to every reader, and writes the same as tables."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from simulated_study import CLASSES, draw_photos, simulate_arm, simulate_photos, three_arms, write_run, write_study

from hcoatnet.errors import EvidenceError, RunError
from hcoatnet.evaluation.comparison import Comparison, compare
from hcoatnet.evaluation.evidence import Arm
from hcoatnet.evaluation.floors import majority
from hcoatnet.evaluation.predictions import build_predictions
from hcoatnet.report.tables import plain, score, written
from hcoatnet.report.writing import write_report
from report_pages import Page, check_structure, draw_nothing


@pytest.fixture(scope="module")
def no_drawings():
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch)
        yield


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, no_drawings: None) -> Path:
    """A study of three models with its photos, reported by sex."""
    folder = tmp_path_factory.mktemp("study")
    draw_photos(folder, simulate_photos())
    path = write_study(folder, three_arms(), simulate_photos())
    write_report(path, by=["sex"])
    return path


@pytest.fixture(scope="module")
def page(study: Path) -> Page:
    return Page(study / "report.html")


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    arms = three_arms()
    return compare([*arms, majority(arms[0])])


def numbers(estimate, form: str = "score") -> str:
    """An estimate as a cell of a page says it."""
    return plain(score(estimate, form)).replace("(", "").replace(")", "")


class TestPage:
    def test_structure(self, page: Page) -> None:
        check_structure(page)
        assert len(page.all("img")) == 9 + 12

    def test_every_number_of_the_comparison(self, page: Page, comparison: Comparison) -> None:
        rows = {tuple(row[:3]): row for row in page.rows if len(row) > 2}
        for row in comparison.rows:
            shown = [found for found in page.rows if found and found[0].removesuffix(" reference") == row.name]
            cells = {cell for found in shown for cell in found}
            for metric, estimate in row.metrics.items():
                if metric != "expected_calibration_error":
                    assert numbers(estimate) in cells, (row.name, metric)
            assert written(row.metrics["expected_calibration_error"].value) in {cell.split(" ")[0] for cell in cells}
            assert written(row.right, "count") in cells
            if row.seed_spread is not None:
                assert written(row.seed_spread) in cells
            for name in comparison.classes:
                of_class = next(found for key, found in rows.items() if key[0].startswith(name) and key[1] == row.name)
                for metric, estimate in row.per_class[name].items():
                    assert numbers(estimate) in of_class, (row.name, name, metric)

    def test_every_number_of_the_differences(self, page: Page, comparison: Comparison) -> None:
        for one in comparison.differences:
            cells = {cell for row in page.rows if row and row[0] == one.name for cell in row}
            assert {
                numbers(one.macro_f1, "difference"),
                written(one.p, "p"),
                written(one.p_holm, "p"),
                one.verdict,
                written(one.detectable),
                written(one.corrected_t.mean, "difference"),
                written(one.corrected_t.p_holm, "p"),
                str(one.mcnemar.only_model),
                str(one.mcnemar.only_reference),
                written(one.mcnemar.exact_p_holm, "p"),
            } <= cells, one.name

    def test_classes_with_few_photos_are_marked(self, page: Page, comparison: Comparison) -> None:
        for name in comparison.classes:
            marked = any(row[0] == f"{name} †" for row in page.rows if row)
            assert marked == (name in comparison.few)

    def test_wilson_is_said_to_assume_independent_photos(self, page: Page) -> None:
        assert "Wilson interval (assumes independent photos)" in page.text

    def test_what_a_user_named_is_escaped(self, page: Page) -> None:
        assert "<script" not in page.source
        assert "<i>" not in page.source
        assert "12 photos <i>enlarged</i>" in page.text

    def test_no_absolute_path_in_any_file(self, study: Path) -> None:
        written_files = [*study.glob("*.html"), *study.glob("*.md"), *(study / "tables").iterdir()]
        assert len(written_files) > 50
        for path in written_files:
            text = path.read_text(encoding="utf-8")
            assert str(study.parent) not in text
            assert not re.search(r"(?<![\w.<])/(?:home|tmp|root|Users)\b", text), path

    def test_how_often_the_test_photos_were_opened(self, page: Page) -> None:
        expected = "The test photos of the 3 splits of this study have been opened 18 times, by 3 configurations"
        assert expected in page.text
        assert "No configuration outside this study has been tried on them." in page.text

    def test_photos_folds_models_and_settings(self, page: Page) -> None:
        assert "180 photos in the manifest, no two with the same bytes" in page.text
        assert ["Setting", "alpha", "beta_b", "gamma"] in page.rows
        assert ["lr", "0.001", "0.002", "0.002"] in page.rows
        row = page.row("fold 1")
        photos = simulate_photos()
        test = photos[photos["fold"] == 1]
        assert row[3] == f"{len(test)} ({test['group'].nunique()})"
        assert row[4:] == [str((test["label"] == name).sum()) for name in CLASSES]
        assert ["alpha", "alpha", "scratch", "242,181", "6", "4", "6 min 7 s"] in page.rows

    def test_subgroups_count_what_is_not_recorded(self, page: Page) -> None:
        photos = simulate_photos()
        rows = [row for row in page.rows if row and row[0].startswith("not recorded")]
        assert rows[0][1] == str((photos["sex"] == "").sum())


class TestFiles:
    def test_what_is_written(self, study: Path) -> None:
        names = {path.name for path in study.iterdir()}
        assert {"report.html", "model_card.md", "checklist.md", "tables", "figures"} <= names
        figures = {path.stem for path in (study / "figures").iterdir()}
        assert figures == {
            "forest", "f1_by_class", "confusions", "roc", "precision_recall", "reliability", "risk_coverage",
            "conformal", "learning_curves",
        }  # fmt: skip
        for stem in figures:
            assert {path.suffix for path in (study / "figures").glob(f"{stem}.*")} == {".svg", ".png", ".pdf"}
        for stem in {path.stem for path in (study / "tables").iterdir()}:
            assert {path.suffix for path in (study / "tables").glob(f"{stem}.*")} == {".csv", ".tex", ".md"}

    def test_results_read_back_in_full(self, study: Path, comparison: Comparison) -> None:
        table = pd.read_csv(study / "tables" / "results.csv").set_index("Model")
        for row in comparison.rows:
            assert table.loc[row.name, "Macro F1"] == row.metrics["macro_f1"].value
            assert table.loc[row.name, "Macro F1 low"] == row.metrics["macro_f1"].bca.low

    def test_failures_are_listed_for_every_model(self, study: Path) -> None:
        with (study / "tables" / "failures.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert {row["Model"] for row in rows} == {"alpha", "beta_b", "gamma"}

    def test_card_and_checklist_are_filled_from_the_study(self, study: Path) -> None:
        card = (study / "model_card.md").read_text()
        assert "180 photos of" in card
        assert "18 openings by 3 configurations (from `test_ledger.jsonl`)" in card
        checklist = (study / "checklist.md").read_text()
        assert "- [x] How often the test data were looked at: 18 openings by 3 configurations" in checklist

    def test_the_same_bytes_elsewhere(self, study: Path, tmp_path: Path, no_drawings: None) -> None:
        out = tmp_path / "new" / "place"
        assert write_report(study, by=["sex"], out=out) == out / "report.html"
        again = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
        assert len(again) > 80
        assert again == {path: (study / path).read_bytes() for path in again}


class TestEdges:
    @pytest.fixture(autouse=True)
    def plain_pages(self, no_drawings: None) -> None:
        pass

    def report(self, folder: Path, arms: list[Arm], photos: pd.DataFrame, **options) -> Page:
        page = Page(write_report(write_study(folder, arms, photos, **options)))
        check_structure(page)
        return page

    def test_one_model_on_a_hold_out_split_without_ledger_and_photos(self, tmp_path: Path) -> None:
        photos = simulate_photos(folds=2)
        photos["fold"] = photos["group"].map(lambda name: int(name.split()[1]) % 3).astype(int)
        arm = simulate_arm("alpha", photos, 1.5)
        only = Arm("alpha", "scratch", arm.cells[:1])
        page = self.report(tmp_path, [only], photos, ledger=False)
        assert "1 model was trained from scratch on the training photos of one split" in page.text
        assert "No test ledger lies beside the split file" in page.text
        assert page.text.count("photo not found") >= 1
        assert not [image for image in page.all("img") if image["src"].startswith("data:image/jpeg")]

    def test_a_class_that_is_never_predicted(self, tmp_path: Path) -> None:
        photos = simulate_photos()
        arm = simulate_arm("alpha", photos, 1.5)
        cells = []
        for cell in arm.cells:
            rows = cell.test.table[["path", "group", "label", "subset", "sex"]]
            logits = cell.test.logits.copy()
            logits[:, 2] = -20
            cells.append(replace(cell, test=build_predictions(rows, logits, CLASSES)))
        page = self.report(tmp_path, [Arm("alpha", "scratch", tuple(cells))], photos)
        row = next(row for row in page.rows if row[0].startswith(CLASSES[2]) and row[1] == "alpha")
        assert row[4].startswith("0.000")
        assert row[5] == "–"

    def test_two_kinds_of_weights_stand_apart(self, tmp_path: Path) -> None:
        photos = simulate_photos()
        arms = [simulate_arm("alpha", photos, 1.5), simulate_arm("alpha", photos, 2.5, "pretrained")]
        page = self.report(tmp_path, arms, photos)
        assert "Models trained from scratch" in page.text
        assert "Models trained from pretrained weights" in page.text
        assert "never compared with each other" in page.text
        tables = tmp_path / "study" / "tables"
        for init in ("scratch", "pretrained"):
            rows = pd.read_csv(tables / f"differences_{init}.csv")
            assert list(rows["Model"]) == ["majority"]

    def test_configurations_from_outside_are_counted(self, tmp_path: Path) -> None:
        photos = simulate_photos()
        study = write_study(tmp_path, [simulate_arm("alpha", photos, 1.5)], photos)
        line = json.loads((tmp_path / "test_ledger.jsonl").read_text().splitlines()[0])
        with (tmp_path / "test_ledger.jsonl").open("a") as stream:
            stream.write(json.dumps({**line, "config_sha256": "another"}) + "\n")
        page = Page(write_report(study))
        assert "opened 4 times, by 2 configurations" in page.text
        assert "That is more than the 1 of this study" in page.text

    def test_an_unknown_reference_or_column_is_named(self, study: Path) -> None:
        with pytest.raises(EvidenceError, match="alph"):
            write_report(study, reference="alph")
        with pytest.raises(EvidenceError, match="'age'"):
            write_report(study, by=["age"])

    def test_what_is_neither_run_nor_study(self, tmp_path: Path) -> None:
        with pytest.raises(RunError, match="neither a run"):
            write_report(tmp_path)
        (tmp_path / "config.yaml").write_text("model: cnn\n")
        with pytest.raises(RunError, match="not a finished run"):
            write_report(tmp_path)

    def test_a_run_of_its_own(self, tmp_path: Path) -> None:
        photos = simulate_photos()
        arm = three_arms()[0]
        run = write_run(tmp_path, arm, arm.cells[0], photos)
        page = Page(write_report(run, by=["sex"]))
        check_structure(page)
        assert "Subgroups" in page.text
        assert (run / "tables" / "per_class_test.csv").is_file()
        assert (run / "figures" / "learning_curves.pdf").is_file()
        with pytest.raises(RunError, match="nothing to compare"):
            write_report(run, reference="alpha")
