"""Figures show the numbers of their tables, all of it legible, and are drawn alike on every machine and thread."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from hcoatnet.evaluation.predictions import Predictions, build_predictions
from hcoatnet.report import drawing, figures

LONG_NAMES = (
    "Harlequin ichthyosis",
    "Healthy skin",
    "Ichthyosis vulgaris",
    "Lamellar ichthyosis",
    "Netherton syndrome",
    "Congenital ichthyosiform erythroderma, bullous",
    "Congenital ichthyosiform erythroderma, other",
    "Price $5 or $6",
    "Sjögren–Larsson syndrome",
    "<b>Epidermolytic</b> & others",
    "Refsum",
    "AVeryLongNameWithoutAnySpaceThatNobodyWouldEverChooseForAClassOfPhotos",
)


def table(classes: tuple[str, ...], n: int = 120, absent: bool = False) -> Predictions:
    rng = np.random.default_rng(len(classes))
    labels = rng.integers(0, len(classes) - absent, n)
    photos = pd.DataFrame(
        {
            "path": [f"{number}.jpg" for number in range(n)],
            "group": [f"{number}" for number in range(n)],
            "label": [classes[label] for label in labels],
            "subset": "test",
        }
    )
    return build_predictions(photos, rng.normal(size=(n, len(classes))) + 2 * np.eye(len(classes))[labels], classes)


def history(epochs: int, macro_f1: float = 0.6) -> pd.DataFrame:
    numbers = np.arange(1, epochs + 1)
    scores = macro_f1 * (1 - 0.5**numbers)
    return pd.DataFrame(
        {
            "epoch": numbers,
            "train_loss": 2 * 0.9**numbers,
            "val_loss": 2 * 0.95**numbers,
            "val_macro_f1": scores,
            "val_balanced_accuracy": scores + 0.01,
            "learning_rate": np.linspace(5e-4, 0, epochs),
            "best": 1,
        }
    )


def cells(figure: Figure, panel: int, size: int) -> list[list[Text]]:
    texts = figure.axes[panel].texts
    assert len(texts) == size * size
    return [texts[row * size : (row + 1) * size] for row in range(size)]


def shown_texts(figure: Figure) -> list[Text]:
    """All text that is drawn: matplotlib keeps labels of ticks outside the axes, but does not draw them."""
    figure.draw_without_rendering()
    hidden = set()
    for axes in figure.axes:
        for axis, (low, high) in ((axes.xaxis, sorted(axes.get_xlim())), (axes.yaxis, sorted(axes.get_ylim()))):
            outside = [tick for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high]
            hidden |= {label for tick in outside for label in (tick.label1, tick.label2)}
    texts = figure.findobj(Text)
    return [text for text in texts if text.get_visible() and text.get_text().strip() and text not in hidden]


class TestConfusionMatrix:
    def test_cells_hold_counts_and_percent_of_rows(self) -> None:
        predictions = table(("a", "b", "c"))
        figure = figures.confusion_matrix(predictions, "Test photos")
        counts = np.zeros((3, 3), dtype=int)
        np.add.at(counts, (predictions.labels, predictions.predicted), 1)
        found = [[int(text.get_text()) for text in row] for row in cells(figure, 0, 3)]
        assert found == counts.tolist()
        percent = [[int(text.get_text()) for text in row] for row in cells(figure, 1, 3)]
        np.testing.assert_allclose(percent, 100 * counts / counts.sum(axis=1, keepdims=True), atol=0.5)
        rows = [label.get_text() for label in figure.axes[0].get_yticklabels()]
        assert rows == [f"{name} ({n})" for name, n in zip("abc", counts.sum(axis=1), strict=True)]
        assert [label.get_text() for label in figure.axes[1].get_xticklabels()] == ["a", "b", "c"]
        assert "Test photos" in [text.get_text() for text in shown_texts(figure)]

    def test_first_class_stands_at_the_top(self) -> None:
        bottom, top = figures.confusion_matrix(table(("a", "b")), "t").axes[0].get_ylim()
        assert bottom > top

    def test_a_class_without_photos_has_no_percent(self) -> None:
        figure = figures.confusion_matrix(table(("a", "b", "c"), absent=True), "t")
        assert [text.get_text() for text in cells(figure, 1, 3)[2]] == ["–"] * 3
        assert [text.get_text() for text in cells(figure, 0, 3)[2]] == ["0"] * 3

    def test_a_share_under_half_a_percent_is_not_nought(self) -> None:
        answers = np.eye(2)[np.where(np.arange(300) == 0, 1, 0)]
        photos = table(("a", "b"), 300).table[["path", "group", "subset"]].assign(label="a")
        figure = figures.confusion_matrix(build_predictions(photos, answers, ("a", "b")), "t")
        assert [text.get_text() for text in cells(figure, 1, 2)[0]] == ["100", "<1"]

    @pytest.mark.parametrize("size", [2, 3, 5, 6, 7, 12])
    def test_everything_lies_inside_the_figure_and_apart(self, size: int) -> None:
        figure = figures.confusion_matrix(table(LONG_NAMES[-size:]), "Test photos")
        texts = shown_texts(figure)
        boxes = [text.get_window_extent() for text in texts]
        assert len(boxes) >= 2 * size * size + 3 * size
        for text, box in zip(texts, boxes, strict=True):
            inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
            assert inside, f"{text.get_text()!r} leaves the figure"
        upright = [(text, box) for text, box in zip(texts, boxes, strict=True) if text.get_rotation() in (0.0, 90.0)]
        for number, (one, box) in enumerate(upright):
            for other, other_box in upright[number + 1 :]:
                assert not box.overlaps(other_box), f"{one.get_text()!r} touches {other.get_text()!r}"

    @pytest.mark.parametrize("size", [2, 5, 12])
    def test_cells_are_about_square(self, size: int) -> None:
        figure = figures.confusion_matrix(table(LONG_NAMES[:size]), "Test photos")
        figure.draw_without_rendering()
        for axes in figure.axes:
            assert 0.8 < axes.bbox.width / axes.bbox.height < 1.25

    def test_names_that_begin_alike_stay_apart(self) -> None:
        figure = figures.confusion_matrix(table(LONG_NAMES), "t")
        assert len({label.get_text() for label in figure.axes[1].get_xticklabels()}) == 12

    def test_text_contrasts_with_its_cell(self) -> None:
        shades = [drawing.BLUES(share) for share in np.linspace(0, 1, 201)]
        assert min(drawing.contrast(drawing.readable_on(shade, quiet=False), shade) for shade in shades) >= 4.5
        lightest = drawing.BLUES(0.0)
        assert drawing.readable_on(lightest, quiet=True) == drawing.QUIET
        assert drawing.contrast(drawing.QUIET, lightest) >= 4.5

    def test_contrast_ratio_runs_from_1_to_21(self) -> None:
        assert drawing.contrast("white", "black") == pytest.approx(21)
        assert drawing.contrast("#777777", "#777777") == 1
        assert drawing.contrast("#777777", "white") == pytest.approx(4.478, abs=1e-3)  # published for this grey


class TestLearningCurves:
    def test_lines_are_the_columns_of_the_history(self) -> None:
        table = history(8)
        loss, scores, rate = figures.learning_curves(table).axes
        drawn = {
            loss: ["train_loss", "val_loss"],
            scores: ["val_macro_f1", "val_balanced_accuracy"],
            rate: ["learning_rate"],
        }
        for axes, columns in drawn.items():
            for line, column in zip(axes.lines, columns, strict=False):
                np.testing.assert_array_equal(line.get_xdata(), table["epoch"])
                np.testing.assert_array_equal(line.get_ydata(), table[column])

    def test_lines_are_named_where_they_end(self) -> None:
        loss, scores, _ = figures.learning_curves(history(8)).axes
        assert {text.get_text() for text in loss.texts} == {"training", "validation"}
        assert {text.get_text() for text in scores.texts} >= {"macro F1", "balanced accuracy"}

    def test_the_last_improvement_is_the_best_epoch(self) -> None:
        table = history(8)
        table["best"] = [1, 1, 0, 0, 1, 0, 0, 0]
        table.loc[4, "val_macro_f1"] = 0.7
        figure = figures.learning_curves(table)
        assert "best epoch 5: macro F1 0.700" in [text.get_text() for text in shown_texts(figure)]

    def test_no_epoch_is_marked_where_none_was_best(self) -> None:
        figure = figures.learning_curves(history(3).assign(best=0))
        assert not [text for text in shown_texts(figure) if "best" in text.get_text()]

    def test_no_word_of_the_test_set(self) -> None:
        table = history(4).assign(test_loss=0.5, test_macro_f1=0.9)
        figure = figures.learning_curves(table)
        assert not [text for text in shown_texts(figure) if "test" in text.get_text().lower()]
        for axes in figure.axes:
            for line in axes.lines:
                assert not np.array_equal(line.get_ydata(), table["test_loss"])
                assert not np.array_equal(line.get_ydata(), table["test_macro_f1"])

    @pytest.mark.parametrize("macro_f1", [0.0, 0.6, 1.0])
    @pytest.mark.parametrize("epochs", [1, 2, 30])
    def test_everything_lies_inside_the_figure_and_apart(self, epochs: int, macro_f1: float) -> None:
        figure = figures.learning_curves(history(epochs, macro_f1))
        texts = shown_texts(figure)
        boxes = [text.get_window_extent() for text in texts]
        for number, (text, box) in enumerate(zip(texts, boxes, strict=True)):
            inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
            assert inside, f"{text.get_text()!r} leaves the figure"
            for other, other_box in zip(texts[number + 1 :], boxes[number + 1 :], strict=True):
                assert not box.overlaps(other_box), f"{text.get_text()!r} touches {other.get_text()!r}"

    def test_ticks_are_whole_epochs(self) -> None:
        for epochs in (1, 2, 30):
            figure = figures.learning_curves(history(epochs))
            figure.draw_without_rendering()
            ticks = figure.axes[-1].get_xticks()
            low, high = figure.axes[-1].get_xlim()
            inside = [tick for tick in ticks if low <= tick <= high]
            assert inside
            assert all(tick == int(tick) for tick in inside)


class TestFiles:
    def test_png_and_svg(self, tmp_path: Path) -> None:
        png, vector = drawing.save(figures.confusion_matrix(table(LONG_NAMES), "Test photos"), tmp_path / "test.v1")
        assert (png.name, vector.name) == ("test.v1.png", "test.v1.svg")
        with Image.open(png) as image:
            assert image.format == "PNG"
            assert 600 <= image.width <= 2000
        assert png.stat().st_size <= 300_000
        root = ElementTree.fromstring(vector.read_bytes())
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["test.v1.png", "test.v1.svg"]

    def test_equal_figures_give_equal_bytes_without_a_date(self) -> None:
        one, two = (drawing.svg(figures.learning_curves(history(5))) for _ in range(2))
        assert one == two
        assert b"dc:date" not in one

    def test_figures_are_vectors_with_text_as_outlines(self) -> None:
        content = drawing.svg(figures.confusion_matrix(table(LONG_NAMES[:3]), "Test photos"))
        assert b"<image" not in content
        assert b"<text" not in content

    def test_threads_draw_what_one_thread_draws(self) -> None:
        def draw(size: int) -> bytes:
            return drawing.svg(figures.confusion_matrix(table(LONG_NAMES[:size]), "t"))

        sizes = [2, 3, 4] * 2
        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(draw, sizes)) == [draw(size) for size in sizes]

    def test_neither_torch_nor_pyplot_is_imported(self) -> None:
        script = (
            "import sys, hcoatnet.report.html, hcoatnet.evaluation.metrics; "
            "print([name for name in ('torch', 'timm', 'matplotlib.pyplot') if name in sys.modules])"
        )
        found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert found.stdout.strip() == "[]"
