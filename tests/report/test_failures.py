"""The surest errors: the right photos, in the right order, with a picture where there is one."""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image
from simulated_study import draw_photos, simulate_photos, three_arms

from hcoatnet.report.failures import failures_table, surest_errors
from hcoatnet.report.thumbnails import thumbnail


def test_the_surest_errors_come_first_and_are_errors() -> None:
    arms = three_arms()
    found = surest_errors(arms[0], arms, 8)
    predictions = arms[0].replicates[0].predictions
    wrong = predictions.predicted != predictions.labels
    expected = np.sort(predictions.probabilities.max(axis=1)[wrong])[::-1][:8]
    np.testing.assert_allclose([one.confidence for one in found], expected)
    rows = predictions.table.set_index("path")
    for one in found:
        assert rows.loc[one.path, "label"] == one.label != one.predicted
        assert rows.loc[one.path, f"p_{one.predicted}"] == one.confidence
        assert rows.loc[one.path, f"p_{one.label}"] == one.true_probability


def test_others_that_are_wrong_too_are_counted() -> None:
    arms = three_arms()
    for one in surest_errors(arms[0], arms, 20):
        misses = 0
        for arm in arms[1:]:
            table = arm.replicates[0].predictions
            place = list(table.table["path"]).index(one.path)
            misses += int(table.predicted[place] != table.labels[place])
        assert (one.also_wrong, one.others) == (misses, 2)


def test_a_photo_that_is_gone_has_no_thumbnail(tmp_path: Path) -> None:
    photos = simulate_photos()
    found = surest_errors(three_arms()[2], [], 4)
    draw_photos(tmp_path, photos[photos["path"].isin([one.path for one in found[1:]])])
    again = surest_errors(three_arms()[2], [], 4, tmp_path)
    assert [one.thumbnail is None for one in again] == [True, False, False, False]


def test_thumbnails_are_small_jpegs(tmp_path: Path) -> None:
    Image.new("RGB", (900, 300), "red").save(tmp_path / "wide.png")
    uri = thumbnail(tmp_path / "wide.png")
    head, content = uri.split(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        assert image.size == (128, 43)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    assert thumbnail(tmp_path / "broken.png") is None


def test_the_table_lists_the_errors_of_every_model() -> None:
    arms = three_arms()
    table = failures_table(arms)
    for arm in arms:
        predictions = arm.replicates[0].predictions
        errors = int((predictions.predicted != predictions.labels).sum())
        assert sum(row[1] == arm.name for row in table.rows) == min(errors, 50)
