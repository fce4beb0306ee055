"""Predictions tables survive a file unchanged, and a table that contradicts itself is refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from scipy.special import softmax

from hcoatnet.errors import PredictionsError
from hcoatnet.evaluation.predictions import (
    KEY_COLUMNS,
    Predictions,
    build_predictions,
    read_predictions,
    write_predictions,
)

CLASSES = ("a", "b", "c")
# Characters a CSV cell carries through any reader: no control characters, no lone surrogates.
TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=8)


def photos_of(labels: list[str], **extra: list[object]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "path": [f"images/{number}.jpg" for number in range(len(labels))],
            "group": [f"patient {number // 2}" for number in range(len(labels))],
            "label": labels,
            "subset": "test",
            **extra,
        }
    )


def example() -> Predictions:
    logits = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    return build_predictions(photos_of(["a", "b", "c", "a"]), logits, CLASSES)


@pytest.fixture
def csv_lines(tmp_path: Path) -> list[str]:
    write_predictions(example(), tmp_path / "p.csv")
    return (tmp_path / "p.csv").read_text().splitlines()


def refusal(path: Path, lines: list[str]) -> str:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(PredictionsError) as caught:
        read_predictions(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


class TestBuild:
    def test_columns_stand_in_the_order_of_the_contract(self) -> None:
        photos = photos_of(["a", "b"], age=["41", ""])[["age", "label", "path", "subset", "group"]]
        table = build_predictions(photos, np.zeros((2, 3)), CLASSES).table
        expected = [*KEY_COLUMNS, "logit_a", "logit_b", "logit_c", "p_a", "p_b", "p_c", "age"]
        assert list(table.columns) == expected

    def test_views_of_the_table(self) -> None:
        logits = np.array([[2.0, 1.0, 0.0], [0.0, 5.0, 5.0]], dtype=np.float32)
        predictions = build_predictions(photos_of(["c", "b"]), logits, CLASSES)
        assert predictions.labels.tolist() == [2, 1]
        assert predictions.predicted.tolist() == [0, 1]
        assert predictions.groups.tolist() == ["patient 0", "patient 0"]
        assert predictions.logits.dtype == np.float64
        np.testing.assert_array_equal(predictions.logits, logits)
        np.testing.assert_allclose(predictions.probabilities, softmax(logits.astype(np.float64), axis=1), rtol=1e-15)

    def test_probabilities_are_computed_in_float64(self) -> None:
        logits = np.array([[0.0, -40.0]], dtype=np.float32)
        predictions = build_predictions(photos_of(["a"]), logits, ("a", "b"))
        assert predictions.probabilities[0, 1] == pytest.approx(np.exp(-40.0), rel=1e-12)

    def test_the_index_of_the_photos_does_not_matter(self) -> None:
        photos = photos_of(["a", "b", "c"])[::-1]
        predictions = build_predictions(photos, np.eye(3)[::-1], CLASSES)
        assert predictions.labels.tolist() == predictions.predicted.tolist() == [2, 1, 0]

    def test_missing_values_of_further_columns_become_empty_text(self) -> None:
        table = build_predictions(photos_of(["a", "b"], age=[41, None]), np.zeros((2, 3)), CLASSES).table
        assert table["age"].tolist() == ["41.0", ""]

    @pytest.mark.parametrize("shape", [(2, 3), (3, 2), (3,)])
    def test_logits_of_another_shape_are_refused(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(PredictionsError, match="need logits of shape"):
            build_predictions(photos_of(["a", "b", "c"]), np.zeros(shape), CLASSES)

    def test_no_photo_is_refused(self) -> None:
        with pytest.raises(PredictionsError, match="no photo"):
            build_predictions(photos_of([]), np.zeros((0, 3)), CLASSES)

    def test_a_reserved_column_is_refused(self) -> None:
        with pytest.raises(PredictionsError, match=r"'p_value' .* reserved"):
            build_predictions(photos_of(["a"], p_value=["1"], logit_x=["1"]), np.zeros((1, 3)), CLASSES)

    def test_one_class_is_refused(self) -> None:
        with pytest.raises(PredictionsError, match="At least two classes"):
            build_predictions(photos_of(["a"]), np.zeros((1, 1)), ("a",))

    def test_a_class_named_twice_is_refused(self) -> None:
        with pytest.raises(PredictionsError, match="'logit_a' stands in the table twice"):
            build_predictions(photos_of(["a"]), np.zeros((1, 2)), ("a", "a"))

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_logits_that_are_not_finite_are_refused(self, bad: float) -> None:
        logits = np.zeros((2, 3))
        logits[1, 2] = bad
        with (
            np.errstate(invalid="ignore"),
            pytest.raises(PredictionsError, match=r"logits of 1 photos \(first images/1.jpg\) hold NaN"),
        ):
            build_predictions(photos_of(["a", "b"]), logits, CLASSES)


class TestFile:
    @settings(max_examples=60, deadline=None)
    @given(data=st.data())
    def test_reading_gives_back_what_was_written(self, data: st.DataObject, tmp_path_factory) -> None:
        classes = data.draw(st.lists(TEXT, min_size=2, max_size=4, unique=True))
        n = data.draw(st.integers(1, 5))
        float32 = st.floats(-1e4, 1e4, width=32)
        row = st.lists(float32, min_size=len(classes), max_size=len(classes))
        logits = np.array(data.draw(st.lists(row, min_size=n, max_size=n)), dtype=np.float32)
        texts = st.lists(TEXT, min_size=n, max_size=n)
        photos = pd.DataFrame(
            {
                "path": data.draw(st.lists(TEXT, min_size=n, max_size=n, unique=True)),
                "group": data.draw(texts),
                "label": data.draw(st.lists(st.sampled_from(classes), min_size=n, max_size=n)),
                "subset": data.draw(texts),
                "note": data.draw(texts),
            }
        )
        written = build_predictions(photos, logits, classes)
        path = tmp_path_factory.mktemp("table") / "p.csv"
        write_predictions(written, path)
        read = read_predictions(path)
        assert read.classes == tuple(classes)
        assert_frame_equal(read.table, written.table, check_exact=True, check_dtype=False)
        np.testing.assert_array_equal(read.logits.astype(np.float32), logits)

    def test_equal_tables_give_equal_bytes(self, tmp_path: Path) -> None:
        for name in ("one.csv", "two.csv"):
            write_predictions(example(), tmp_path / name)
        content = (tmp_path / "one.csv").read_bytes()
        assert content == (tmp_path / "two.csv").read_bytes()
        assert b"\r" not in content
        write_predictions(read_predictions(tmp_path / "one.csv"), tmp_path / "again.csv")
        assert content == (tmp_path / "again.csv").read_bytes()

    def test_labels_that_look_like_numbers_or_gaps_stay_text(self, tmp_path: Path) -> None:
        classes = ("1", "01", "NA", "null")
        photos = photos_of(list(classes), age=["007", "NaN", "", "1.50"])
        write_predictions(build_predictions(photos, np.eye(4), classes), tmp_path / "p.csv")
        read = read_predictions(tmp_path / "p.csv")
        assert read.classes == classes
        assert read.table["label"].tolist() == list(classes)
        assert read.table["age"].tolist() == ["007", "NaN", "", "1.50"]

    def test_a_table_saved_by_a_spreadsheet_is_read(self, tmp_path: Path, csv_lines: list[str]) -> None:
        (tmp_path / "excel.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(csv_lines).encode() + b"\r\n")
        assert_frame_equal(read_predictions(tmp_path / "excel.csv").table, example().table, check_dtype=False)

    def test_probabilities_rounded_to_four_places_are_accepted(self, tmp_path: Path) -> None:
        table = example().table
        columns = ["p_a", "p_b", "p_c"]
        table[columns] = table[columns].round(4)
        table.to_csv(tmp_path / "p.csv", index=False)
        np.testing.assert_array_equal(read_predictions(tmp_path / "p.csv").probabilities, table[columns])


class TestRefusals:
    @pytest.mark.parametrize("column", KEY_COLUMNS)
    def test_missing_column(self, tmp_path: Path, column: str) -> None:
        example().table.drop(columns=column).to_csv(tmp_path / "p.csv", index=False)
        lines = (tmp_path / "p.csv").read_text().splitlines()
        assert f"Missing columns: {column}." in refusal(tmp_path / "p.csv", lines)

    @pytest.mark.parametrize("column", ["logit_b", "p_b"])
    def test_class_without_its_second_column(self, tmp_path: Path, column: str) -> None:
        example().table.drop(columns=column).to_csv(tmp_path / "p.csv", index=False)
        lines = (tmp_path / "p.csv").read_text().splitlines()
        assert "only one of them is there for: b." in refusal(tmp_path / "p.csv", lines)

    def test_column_twice(self, tmp_path: Path, csv_lines: list[str]) -> None:
        csv_lines[0] = csv_lines[0].replace("logit_b", "logit_a")
        assert "'logit_a' stands in the table twice" in refusal(tmp_path / "p.csv", csv_lines)

    def test_unknown_label(self, tmp_path: Path, csv_lines: list[str]) -> None:
        csv_lines[1] = csv_lines[1].replace(",a,test", ",wart,test")
        message = refusal(tmp_path / "p.csv", csv_lines)
        assert "1 photos have a label" in message
        assert "'wart' (images/0.jpg)" in message
        assert "a, b, c" in message

    def test_duplicate_path_within_a_subset_only(self, tmp_path: Path, csv_lines: list[str]) -> None:
        double = [*csv_lines, csv_lines[1], csv_lines[2]]
        assert "images/0.jpg stands in subset test more than once" in refusal(tmp_path / "p.csv", double)
        (tmp_path / "p.csv").write_text("\n".join([*csv_lines, csv_lines[1].replace("test", "val")]))
        assert len(read_predictions(tmp_path / "p.csv")) == 5

    @pytest.mark.parametrize("column", ["path", "group", "subset"])
    def test_empty_key(self, tmp_path: Path, column: str) -> None:
        table = example().table
        table.loc[2, column] = ""
        table.to_csv(tmp_path / "p.csv", index=False)
        lines = (tmp_path / "p.csv").read_text().splitlines()
        assert f"Column '{column}' is empty for 1 photos" in refusal(tmp_path / "p.csv", lines)

    @pytest.mark.parametrize(("column", "name"), [("logit_a", "logits"), ("p_a", "probabilities")])
    @pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
    def test_numbers_that_are_not_finite(self, tmp_path: Path, column: str, name: str, value: str) -> None:
        table = example().table.astype({column: object})
        table.loc[1, column] = value
        table.to_csv(tmp_path / "p.csv", index=False)
        lines = (tmp_path / "p.csv").read_text().splitlines()
        assert f"The {name} of 1 photos (first images/1.jpg) hold NaN or infinity" in refusal(tmp_path / "p.csv", lines)

    @pytest.mark.parametrize("value", ["", "high"])
    def test_numbers_that_are_none(self, tmp_path: Path, value: str) -> None:
        table = example().table.astype({"p_b": object})
        table.loc[1, "p_b"] = value
        table.to_csv(tmp_path / "p.csv", index=False)
        lines = (tmp_path / "p.csv").read_text().splitlines()
        assert f"Column 'p_b' must hold numbers; row 3 holds '{value}'" in refusal(tmp_path / "p.csv", lines)

    def test_probabilities_that_do_not_sum_to_one(self, tmp_path: Path) -> None:
        table = example().table
        table.loc[3, "p_b"] += 2e-4
        table.to_csv(tmp_path / "p.csv", index=False)
        lines = (tmp_path / "p.csv").read_text().splitlines()
        assert "1 photos (first images/3.jpg) do not sum to 1" in refusal(tmp_path / "p.csv", lines)

    def test_probabilities_that_are_not_the_softmax(self, tmp_path: Path) -> None:
        table = example().table
        table.loc[0, ["p_a", "p_b"]] += np.array([2e-4, -2e-4])
        table.to_csv(tmp_path / "p.csv", index=False)
        lines = (tmp_path / "p.csv").read_text().splitlines()
        message = refusal(tmp_path / "p.csv", lines)
        assert "1 photos (first images/0.jpg) are not the softmax" in message
        assert "uncalibrated" in message

    def test_no_photo(self, tmp_path: Path, csv_lines: list[str]) -> None:
        assert "holds no photo" in refusal(tmp_path / "p.csv", csv_lines[:1])

    def test_row_that_was_cut_off(self, tmp_path: Path, csv_lines: list[str]) -> None:
        cut = [*csv_lines[:-1], csv_lines[-1][:30]]
        assert "Row 5 has" in refusal(tmp_path / "p.csv", cut)

    def test_empty_file(self, tmp_path: Path) -> None:
        (tmp_path / "p.csv").write_bytes(b"")
        with pytest.raises(PredictionsError, match="The file is empty"):
            read_predictions(tmp_path / "p.csv")

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(PredictionsError, match="cannot be opened"):
            read_predictions(tmp_path / "none.csv")

    def test_not_a_csv(self, tmp_path: Path) -> None:
        (tmp_path / "p.csv").write_bytes(b"\x89PNG\xff\xfe")
        with pytest.raises(PredictionsError, match="not a CSV file"):
            read_predictions(tmp_path / "p.csv")
