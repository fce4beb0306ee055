"""Loading a model and asking it."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import softmax

import hcoatnet
from conftest import CLASSES, COLOURS, draw_photo
from hcoatnet.data.images import PhotoError, open_photo
from hcoatnet.deploy.bundle import Bundle
from hcoatnet.deploy.classifier import load_classifier
from hcoatnet.errors import BundleError, DataError, EvidenceError, RunError
from hcoatnet.evaluation.predictions import read_predictions
from hcoatnet.training.run_directory import RunDirectory
from hcoatnet.training.scoring import trained_model

FRESH = """
import json, sys
if sys.argv[1] == "without torch":
    sys.modules["torch"] = None
import hcoatnet
for folder, backend in json.loads(sys.argv[2]):
    classifier = hcoatnet.load_classifier(folder, backend=backend, threads=1)
    print(json.dumps([one.to_dict() for one in classifier.predict(json.loads(sys.argv[3]))]))
print(json.dumps([name for name in ("torch", "timm", "pandas", "scipy", "sklearn") if sys.modules.get(name)]))
"""


def asked_in_a_fresh_process(sources, photos, torch="with torch"):
    """Answers of each folder and backend, and which heavy libraries were imported."""
    arguments = [torch, json.dumps(sources), json.dumps([str(photo) for photo in photos])]
    done = subprocess.run([sys.executable, "-c", FRESH, *arguments], capture_output=True, text=True, check=True)
    *answers, loaded = map(json.loads, done.stdout.splitlines())
    return answers, loaded


@pytest.fixture(scope="module")
def evaluated(pruning_run, manifest_file):
    """Photos of the run's evaluation, and their probabilities after its temperature."""
    temperature = json.loads((pruning_run / "calibration.json").read_text())["temperature"]
    photos, expected = [], []
    for subset in ("val", "test"):
        table = read_predictions(pruning_run / f"predictions_{subset}.csv")
        photos += [manifest_file.parent / path for path in table.table["path"]]
        expected.append(softmax(table.logits / temperature, axis=1))
    return photos, np.concatenate(expected)


def check_answers(answers, evaluated, tolerance):
    photos, expected = evaluated
    found = np.array([[one["probabilities"][name] for name in CLASSES] for one in answers])
    np.testing.assert_allclose(found, expected, atol=tolerance)
    assert [one["top_class"] for one in answers] == [CLASSES[row] for row in expected.argmax(axis=1)]
    assert [one["name"] for one in answers] == [str(photo) for photo in photos]
    assert all(len(one["traces"]) == 1 for one in answers)


def test_without_torch_a_bundle_answers_as_the_evaluation_did(run_bundle, evaluated):
    (answers,), loaded = asked_in_a_fresh_process([(str(run_bundle), "auto")], evaluated[0], "without torch")
    check_answers(answers, evaluated, 1e-4)
    assert loaded == []


def test_with_torch_bundle_and_run_answer_as_the_evaluation_did(run_bundle, pruning_run, evaluated):
    sources = [(str(run_bundle), "torch"), (str(pruning_run), "auto")]
    answers, _ = asked_in_a_fresh_process(sources, evaluated[0])
    for one in answers:
        check_answers(one, evaluated, 1e-5)
    assert len(answers) == 2


@pytest.mark.parametrize(("backend", "tolerance"), [("onnx", 1e-4), ("torch", 1e-5)])
def test_a_study_answers_with_the_average_of_its_folds(study, study_bundle, manifest_file, backend, tolerance):
    classifier = load_classifier(study_bundle, backend=backend)
    table = read_predictions(study / "runs/cnn-scratch-s1-r0-f0/predictions_test.csv").table
    photos = [manifest_file.parent / path for path in table["path"]]
    prepared = np.stack([classifier.prepare(photo, "") for photo in photos])
    expected = []
    for fold in range(3):
        run = RunDirectory(study / f"runs/cnn-scratch-s1-r0-f{fold}")
        model = trained_model(run, run.settings(), 3, torch.device("cpu"))
        with torch.inference_mode():
            logits = model(torch.from_numpy(prepared)).numpy().astype(np.float64)
        for subset in ("val", "test"):  # where the fold's own tables hold these photos, they say the same
            own = read_predictions(run.predictions_file(subset))
            index = {path: row for row, path in enumerate(own.table["path"])}
            both = [(row, index[path]) for row, path in enumerate(table["path"]) if path in index]
            for here, there in both:
                np.testing.assert_allclose(logits[here], own.logits[there], atol=1e-5)
        expected.append(softmax(logits / Bundle.open(study_bundle).calibration["temperature"], axis=1))
    answers = classifier.predict(photos)
    found = np.array([list(one.probabilities.values()) for one in answers])
    np.testing.assert_allclose(found, np.mean(expected, axis=0), atol=tolerance)
    assert classifier.members == 3 and not classifier.prunes
    assert all(one.traces == () for one in answers)


@pytest.fixture(scope="module")
def classifier(run_bundle):
    return load_classifier(run_bundle)


def test_what_a_classifier_says_of_itself(classifier, pruning_run):
    assert classifier.classes == CLASSES
    assert (classifier.image_size, classifier.members, classifier.prunes) == (64, 1, True)
    assert classifier.backend.name == "onnx"
    assert classifier.rules.temperature == json.loads((pruning_run / "calibration.json").read_text())["temperature"]


def test_every_kind_of_photo_gets_the_same_answer(classifier, tmp_path):
    file = tmp_path / "photo.png"
    draw_photo(file, COLOURS["red"], 7)
    with Image.open(file) as opened:
        pixels = np.array(opened)
        kinds = [file, str(file), file.read_bytes(), opened, pixels, pixels[::-1][::-1]]
        answers = classifier.predict(kinds)
    assert [one.name for one in answers] == [str(file), str(file), *(f"photo {i}" for i in (3, 4, 5, 6))]
    assert all(one.probabilities == pytest.approx(answers[0].probabilities, abs=1e-6) for one in answers)
    assert classifier.predict([file], names=["mine"])[0].name == "mine"
    assert classifier.predict([]) == ()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "I;16", "LA", "1"])
def test_an_image_that_pillow_holds_is_read_as_its_file(classifier, tmp_path, mode):
    file = tmp_path / ("photo.tif" if mode == "CMYK" else "photo.png")
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (40, 30, 4), dtype=np.uint8), "RGBA")
    image = (
        Image.fromarray(rng.integers(0, 65536, (40, 30), dtype=np.uint16)) if mode == "I;16" else image.convert(mode)
    )
    image.save(file)
    answers = classifier.predict([file, image])
    assert answers[0].probabilities == pytest.approx(answers[1].probabilities, abs=1e-6)


def test_an_image_that_pillow_holds_is_turned_upright(classifier, tmp_path):
    file = tmp_path / "photo.jpg"
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 30, 3), dtype=np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(file, exif=exif)
    with Image.open(file) as opened:
        answers = classifier.predict([file, opened, open_photo(file)])
    assert answers[1].probabilities == pytest.approx(answers[0].probabilities, abs=1e-6)
    assert answers[2].probabilities == pytest.approx(answers[0].probabilities, abs=1e-6)


@pytest.mark.parametrize(
    "photo",
    [b"", b"nonsense", np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32),
     np.zeros((0, 4, 3), np.uint8), np.zeros((2, 4, 4, 3), np.uint8), Image.new("RGB", (0, 5)), 3, None],
)  # fmt: skip
def test_what_is_no_photo_is_named(classifier, photo):
    good = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(PhotoError, match="photo 2"):
        classifier.predict([good, photo])


def test_a_missing_file_is_named(classifier, tmp_path):
    with pytest.raises(PhotoError, match="no such file") as caught:
        classifier.predict([tmp_path / "none.png"])
    assert caught.value.problem.path == str(tmp_path / "none.png")


def test_calls_that_are_mistaken(classifier, tmp_path):
    for single in ("photo.png", tmp_path, b"bytes", Image.new("RGB", (4, 4))):
        with pytest.raises(DataError, match="in a list"):
            classifier.predict(single)
    with pytest.raises(DataError, match="1 names for 2 photos"):
        classifier.predict(["a", "b"], names=["a"])


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_threads_and_batches_change_nothing(run_bundle, evaluated, backend):
    classifier = load_classifier(run_bundle, backend=backend)
    photos = (evaluated[0] * 3)[:40]
    alone = [classifier.predict([photo])[0] for photo in photos]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(classifier.predict, [photos] * 16))
    for answers in together:
        assert [one.name for one in answers] == [one.name for one in alone]
        for one, other in zip(answers, alone, strict=True):
            assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
            assert [stage.kept for trace in one.traces for stage in trace.stages] == [
                stage.kept for trace in other.traces for stage in trace.stages
            ]


def test_both_backends_keep_the_same_tokens(run_bundle, evaluated):
    onnx, by_torch = (load_classifier(run_bundle, backend=name).predict(evaluated[0]) for name in ("onnx", "torch"))
    for one, other in zip(onnx, by_torch, strict=True):
        for mine, theirs in zip(one.traces[0].stages, other.traces[0].stages, strict=True):
            assert (mine.positions, mine.kept) == (theirs.positions, theirs.kept)
            np.testing.assert_allclose(mine.scores, theirs.scores, atol=1e-4)
        assert (one.traces[0].rows, one.traces[0].columns) == (2, 2)


def test_settings_reach_the_rules(run_bundle):
    chosen = load_classifier(run_bundle, method="aps", class_conditional=True, level=0.95, error_rate=0.05)
    assert (chosen.rules.level, chosen.rules.error_rate) == (0.95, 0.05)
    with pytest.raises(EvidenceError, match=r"level 0\.5"):
        load_classifier(run_bundle, level=0.5)


def test_folders_that_cannot_be_loaded(study, pruning_run, tmp_path):
    for folder, said in ((study, "is a study"), (tmp_path, "neither a bundle"), (tmp_path / "no", "does not exist")):
        with pytest.raises(BundleError, match=said):
            load_classifier(folder)
    with pytest.raises(BundleError, match="torch alone"):
        load_classifier(pruning_run, backend="onnx")
    (tmp_path / "config.yaml").write_bytes((pruning_run / "config.yaml").read_bytes())
    with pytest.raises(RunError, match="not finished"):
        load_classifier(tmp_path)


def test_without_a_backend_the_message_says_what_to_install(run_bundle, pruning_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BundleError, match=r"pip install 'hcoatnet\[onnx\]'"):
        load_classifier(run_bundle, backend="onnx")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(BundleError, match="pip install"):
        load_classifier(pruning_run)


def test_the_package_offers_it():
    assert hcoatnet.load_classifier is load_classifier
    assert "load_classifier" in hcoatnet.__all__
    with pytest.raises(AttributeError, match="nothing"):
        _ = hcoatnet.nothing
