"""``hcoatnet explain``: a figure, numbers and a page that say what the model says, and no more."""

import json
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from hcoatnet import load_classifier
from hcoatnet.explain import explanation
from hcoatnet.explain.figures import draw_explanation
from hcoatnet.explain.overlays import relative
from hcoatnet.explain.subject import load_subject, maps_of
from hcoatnet.explain.writing import opened
from report_pages import Page, check_structure


@pytest.fixture(scope="module")
def explained(pruning_run, photos, tmp_path_factory):
    """What explaining two photos, one damaged one and an empty folder leaves behind."""
    from hcoatnet.cli import app, run

    folder = tmp_path_factory.mktemp("explained")
    (folder / "same").mkdir()
    shutil.copy(photos / "red/p1_0.png", folder / "same/p0_0.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xffbroken")
    (folder / "empty").mkdir()
    named = [photos / "blue/p0_0.png", folder / "same/p0_0.png", folder / "broken.jpg", folder / "empty"]
    code = run(app, ["explain", str(pruning_run), *map(str, named), "--out", str(folder / "out")])
    return code, folder / "out"


def test_each_photo_gets_its_files_and_bad_ones_are_listed(explained):
    code, out = explained
    assert code == 1
    assert sorted(path.name for path in out.iterdir()) == [
        "explanations.html",
        "p0_0-2.explanation.json",
        "p0_0-2.explanation.png",
        "p0_0.explanation.json",
        "p0_0.explanation.png",
    ]
    page = Page(out / "explanations.html")
    assert "broken.jpg" in page.text
    assert "a folder without photos" in page.text
    for figure in out.glob("*.png"):
        picture = Image.open(figure)
        assert picture.width > 1000
        assert np.asarray(picture).std() > 10


def test_the_numbers_are_those_of_the_model(explained, pruning_run, photos):
    _, out = explained
    found = json.loads((out / "p0_0.explanation.json").read_text())
    path = photos / "blue/p0_0.png"
    classifier = load_classifier(pruning_run)
    (answer,) = classifier.predict([path])
    assert found["answer"]["probabilities"] == pytest.approx(answer.probabilities, rel=1e-5)
    assert found["class"] == answer.top_class
    assert found["answer"]["traces"][0]["stages"][1]["kept"] == list(answer.traces[0].stages[1].kept)
    subject = load_subject(pruning_run)
    prepared = classifier.prepare(path, "photo")[None]
    index = np.array([classifier.classes.index(answer.top_class)])
    signed = maps_of(subject.models[0], prepared, index)
    np.testing.assert_allclose(found["map"]["signed"], signed, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(found["map"]["shown"], relative(signed[0]), rtol=1e-3, atol=1e-6)
    deletion, insertion = found["faithfulness"]
    assert deletion["by_map"][0] == pytest.approx(answer.confidence, rel=1e-4)
    assert insertion["by_map"][-1] == pytest.approx(answer.confidence, rel=1e-4)
    assert np.array(found["randomisation"]["correlations"]).shape == (1, 10)


def test_the_page_says_the_numbers(explained):
    _, out = explained
    page = Page(out / "explanations.html")
    check_structure(page)
    for name in ("p0_0", "p0_0-2"):
        assert f"{name}.png" in page.text
        found = json.loads((out / f"{name}.explanation.json").read_text())
        assert (
            f"{found['class']}, with a probability of {max(found['answer']['probabilities'].values()):.2f}" in page.text
        )
        for game in found["faithfulness"]:
            chance = np.array(game["chance_areas"])
            assert (
                f"is {game['area']:.2f}; in random orders it is {chance.mean():.2f} ({chance.min():.2f} to" in page.text
            )
        mean = f"{found['randomisation']['mean']:+.2f}".replace("-", "−")
        assert f"rank correlation of {mean} in the mean" in page.text
    assert len(page.all("img")) == 2 * (2 + 3 + 1)  # photo, map, uncut and two cuts, curves
    assert "/" not in page.text


def test_the_areas_are_those_of_a_plain_sum(explained):
    _, out = explained
    for game in json.loads((out / "p0_0.explanation.json").read_text())["faithfulness"]:
        x = game["shares"]
        for curve, area in zip(
            [game["by_map"], *game["by_chance"]], [game["area"], *game["chance_areas"]], strict=True
        ):
            plain = sum((x[i + 1] - x[i]) * (curve[i] + curve[i + 1]) / 2 for i in range(len(x) - 1))
            assert area == pytest.approx(plain)


def test_another_class_is_explained_when_asked_for(hcoatnet, pruning_run, photos, tmp_path):
    path = photos / "blue/p0_0.png"
    for name in ("blue", "red"):
        code, printed = hcoatnet("explain", pruning_run, path, "--class", name, "--no-checks", "--out", tmp_path / name)
        assert code == 0
        assert "Explained 1 photo in" in printed
    red, blue = (json.loads((tmp_path / name / "p0_0.explanation.json").read_text()) for name in ("red", "blue"))
    assert red["class"] == "red"
    assert red["faithfulness"] is None
    assert red["randomisation"] is None
    assert red["map"] != blue["map"]
    assert red["answer"] == blue["answer"]


def test_mistakes_are_said_and_leave_nothing(hcoatnet, pruning_run, photos, tmp_path, run_bundle):
    path, out = photos / "blue/p0_0.png", tmp_path / "out"
    cases = [
        (
            ["explain", pruning_run, path, "--class", "purple"],
            "no class 'purple'. Give --class one of blue, green, red",
        ),
        (["explain", pruning_run], "No photos are named"),
        (["explain", pruning_run, tmp_path / "nowhere.png"], "None of the photos can be opened"),
        (["explain", tmp_path, path], "hcoatnet train"),
        (["explain", pruning_run, path, "--gallery"], "leave other photos and --class out"),
        (["explain", pruning_run, "--gallery", "--count", "0"], "'count' option must be an int from 1 to 24"),
        (["explain", run_bundle, "--gallery"], "is a bundle, which holds no photos"),
    ]
    for tokens, said in cases:
        code, printed = hcoatnet(*tokens, "--out", out)
        assert code == 2
        assert said in printed
        assert not out.exists()


def test_more_photos_than_a_page_holds_are_refused(hcoatnet, pruning_run, photos, tmp_path, monkeypatch):
    monkeypatch.setattr("hcoatnet.explain.writing.MOST", 3)
    code, printed = hcoatnet("explain", pruning_run, photos, "--out", tmp_path / "out")
    assert code == 2
    assert "A page explains 3 photos at most" in printed


def test_of_several_members_the_map_is_the_mean_of_theirs(hcoatnet, study_bundle, photos, tmp_path):
    path = photos / "green/p0_0.png"
    code, _ = hcoatnet("explain", study_bundle, path, "--out", tmp_path)
    assert code == 0
    found = json.loads((tmp_path / "p0_0.explanation.json").read_text())
    subject = load_subject(study_bundle)
    assert len(subject.models) == len(found["map"]["signed"]) > 1
    (answer,) = load_classifier(study_bundle, backend="torch").predict([path])
    assert found["answer"]["probabilities"] == pytest.approx(answer.probabilities, rel=1e-5)
    mean = np.mean([relative(np.array(member)) for member in found["map"]["signed"]], axis=0)
    np.testing.assert_allclose(found["map"]["shown"], mean / mean.max(), rtol=1e-4, atol=1e-6)
    assert np.array(found["randomisation"]["correlations"]).shape == (len(subject.models), 10)
    page = Page(tmp_path / "explanations.html")
    assert f"The mean of the maps of {len(subject.models)} models" in page.text
    assert "token" not in page.text


def test_a_map_that_ignores_the_weights_is_warned_of(hcoatnet, pruning_run, photos, tmp_path, monkeypatch):
    def edges(model, prepared, classes):
        grey = prepared.mean(axis=1)
        return np.abs(np.diff(grey, axis=1))[:, :, :-1] + np.abs(np.diff(grey, axis=2))[:, :-1]

    monkeypatch.setattr(explanation, "maps_of", edges)
    assert hcoatnet("explain", pruning_run, photos / "red/p0_0.png", "--out", tmp_path)[0] == 0
    assert json.loads((tmp_path / "p0_0.explanation.json").read_text())["randomisation"]["hardly_depends"]
    page = Page(tmp_path / "explanations.html")
    assert "This map hardly depends on what the model learnt." in page.text
    assert any(attributes.get("class") == "warning" for _, attributes in page.elements)


def test_a_map_with_nothing_in_it_is_not_drawn(hcoatnet, pruning_run, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(explanation, "maps_of", lambda model, prepared, classes: -np.ones((len(prepared), 2, 2)))
    assert hcoatnet("explain", pruning_run, photos / "red/p0_0.png", "--out", tmp_path)[0] == 0
    found = json.loads((tmp_path / "p0_0.explanation.json").read_text())
    assert found["map"]["empty"]
    assert found["faithfulness"] is None
    page = Page(tmp_path / "explanations.html")
    assert re.search("No place of this photo speaks for (red|green|blue): its map is 0 everywhere", page.text)
    check_structure(page)


def test_a_figure_has_a_panel_for_everything(pruning_run, photos):
    subject = load_subject(pruning_run)
    photo = Image.open(photos / "red/p0_0.png")
    pixels = np.array(photo.resize((64, 64)))
    (one,) = explanation.explain(subject, [pixels], ["p0_0.png"])
    figure = draw_explanation(one, photo)
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.get_visible()]
    assert titles[:4] == ["Photo", "Class-activation map", "Deletion (low is good)", "Insertion (high is good)"]
    assert titles[4:7] == ["All 4 tokens", "Cut 1: 3 kept", "Cut 2: 2 kept"]
    for axes, curves in zip(figure.axes[2:4], one.curves, strict=True):
        np.testing.assert_allclose(axes.lines[0].get_ydata(), curves.by_map)
        assert f"map, area {curves.area:.2f}" in [text.get_text() for text in axes.get_legend().get_texts()]
    (bare,) = explanation.explain(subject, [pixels], ["p0_0.png"], checks=False)
    assert [axes.get_title(loc="left") for axes in draw_explanation(bare, photo).axes if axes.get_visible()][
        2
    ] == titles[4]


def test_a_name_that_is_no_text_can_be_written(photos, tmp_path):
    file = tmp_path / os.fsdecode(b"\xff.png")
    shutil.copy(photos / "red/p1_0.png", file)
    (one,) = opened([file], 32, [])
    assert one.name == "\\xff.png"
    one.name.encode()


def test_photos_in_a_folder_are_found(hcoatnet, study, photos, tmp_path):
    (tmp_path / "some").mkdir()
    for name in ("p0_0", "p1_0"):
        shutil.copy(photos / f"red/{name}.png", tmp_path / "some")
    run = sorted((study / "runs").glob("test_vit-*"))[0]
    code, printed = hcoatnet("explain", run, tmp_path / "some", "--no-checks", "--out", tmp_path / "out")
    assert code == 0
    assert "Explained 2 photos in" in printed
    assert len(list((tmp_path / "out").glob("*.json"))) == 2
