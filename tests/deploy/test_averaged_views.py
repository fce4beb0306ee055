"""A run whose model sees photos several times: what it wrote, and what is made of it."""

import json
import shutil

import numpy as np
import onnx
import pytest
import torch
import yaml
from scipy.special import softmax
from small_models import export_to, facts, small_model, some_photos

from conftest import TINY
from hcoatnet.config import resolve_config
from hcoatnet.data.images import normalise, open_photo, preprocess
from hcoatnet.deploy import onnx_backend
from hcoatnet.deploy.bundle import Bundle
from hcoatnet.deploy.classifier import load_classifier
from hcoatnet.deploy.export import export_checked
from hcoatnet.deploy.onnx_backend import OnnxBackend
from hcoatnet.deploy.parity import batches
from hcoatnet.deploy.quantisation import METHODS
from hcoatnet.evaluation.predictions import read_predictions
from hcoatnet.explain.explanation import explain
from hcoatnet.explain.subject import load_subject
from hcoatnet.models.views import AveragedViews
from hcoatnet.training.run_directory import RunDirectory


@pytest.fixture(scope="module")
def run(manifest_file, tmp_path_factory):
    """A finished run that saw its photos in all views, with its photos."""
    from hcoatnet.training.run import train

    folder = tmp_path_factory.mktemp("views")
    shutil.copytree(manifest_file.parent, folder / "photos")
    settings = {**TINY, "model": "cnn", "views": "dihedral"}
    return train(resolve_config({**settings, "data": folder / "photos" / manifest_file.name, "out": folder / "run"}))


def photos_of(run, subset, side=32):
    table = read_predictions(run.predictions_file(subset)).table
    files = [run.settings().data.parent / path for path in table["path"]]
    return files, torch.from_numpy(np.stack([preprocess(open_photo(file), side) for file in files]))


def network(run):
    return load_subject(run.path).models[0]


def plain_mean(model, photos):
    with torch.inference_mode():
        turned = [torch.rot90(one, k, (2, 3)) for one in (photos, photos.flip(3)) for k in range(4)]
        return np.mean([model(one).numpy() for one in turned], axis=0)


def calibrated(run, logits):
    return softmax(logits / run.calibration()["temperature"], axis=1)


def test_its_tables_are_the_plain_mean_over_the_views(run):
    for subset in ("val", "test"):
        _, photos = photos_of(run, subset)
        found = read_predictions(run.predictions_file(subset)).logits
        np.testing.assert_allclose(found, plain_mean(network(run), photos), atol=1e-5)
        with torch.inference_mode():
            assert np.abs(found - network(run)(photos).numpy()).max() > 1e-4


def test_it_predicts_as_it_was_evaluated(run):
    files, _ = photos_of(run, "test")
    answers = load_classifier(run.path).predict(files)
    found = np.array([list(one.probabilities.values()) for one in answers])
    expected = calibrated(run, read_predictions(run.predictions_file("test")).logits)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_another_evaluation_with_other_views(run, hcoatnet):
    before = {file: file.read_bytes() for file in run.path.iterdir() if file.is_file()}
    ledger = run.settings().data.with_name("test_ledger.jsonl")
    opened = ledger.read_text().splitlines()
    code, said = hcoatnet("evaluate", run.path, "--views", "one")
    assert code == 0, said
    assert {file: file.read_bytes() for file in run.path.iterdir() if file.is_file()} == before
    folder = run.path / "evaluations" / "test-one"
    assert json.loads((folder / "metrics.json").read_text())["views"] == "one"
    assert "it saw each photo as it is" in (folder / "report.html").read_text()
    with torch.inference_mode():
        expected = network(run)(photos_of(run, "test")[1]).numpy()
    np.testing.assert_allclose(read_predictions(folder / "predictions.csv").logits, expected, atol=1e-5)
    *earlier, latest = ledger.read_text().splitlines()
    assert earlier == opened
    assert json.loads(latest)["config_sha256"] != run.settings().sha256
    assert hcoatnet("evaluate", run.path, "--subset", "val")[0] == 0
    again = read_predictions(run.path / "evaluations" / "val" / "predictions.csv")
    np.testing.assert_array_equal(again.logits, read_predictions(run.predictions_file("val")).logits)
    code, said = hcoatnet("evaluate", run.path, "--views", "two")
    assert code == 2 and "dihedral" in said


def test_an_explanation_is_of_the_photo_as_it_is(run, tmp_path, hcoatnet):
    subject = load_subject(run.path)
    assert not isinstance(subject.models[0], AveragedViews)
    assert subject.untrained(0).state_dict().keys() == subject.models[0].state_dict().keys()
    files, photos = photos_of(run, "test")
    with torch.inference_mode():
        bare = subject.models[0](photos).numpy()
    np.testing.assert_allclose(subject.probability_of(1)(photos.numpy()), calibrated(run, bare)[:, 1], atol=1e-5)
    pixels = [np.array(open_photo(file).resize((32, 32))) for file in files[:1]]
    (one,) = explain(subject, pixels, ["photo"], checks=False)
    answer = list(load_classifier(run.path).predict(pixels)[0].probabilities.values())
    assert list(one.answer.probabilities.values()) == pytest.approx(answer, abs=1e-6)
    code, said = hcoatnet("explain", run.path, files[0], "--out", tmp_path / "why", "--no-checks")
    assert code == 0, said
    page = (tmp_path / "why" / "explanations.html").read_text()
    assert "the answer averages 8 views; all else is of the photo as it is" in page


def test_a_run_from_before_there_were_views(run, tmp_path):
    old = RunDirectory(shutil.copytree(run.path, tmp_path / "old"))
    settings = yaml.safe_load(old.config_file.read_text())
    assert settings.pop("views") == "dihedral"
    old.config_file.write_text(yaml.safe_dump(settings))
    assert old.settings().views == "one"
    assert old.settings().sha256 != run.settings().sha256


def test_the_exported_graph_holds_the_model_once(tmp_path, monkeypatch):
    model = small_model(name="cnn", size=32)
    averaged, path = AveragedViews(model, "dihedral").eval(), tmp_path / "averaged.onnx"
    monkeypatch.setattr(onnx_backend, "MOST_VIEWS", 10**6)  # so that the gate meets every size of batch
    parity = export_checked([averaged], batches(some_photos(26, size=32)), path, facts("cnn", 32))
    assert parity.batch_sizes == (1, 2, 7, 16)
    monkeypatch.undo()
    backend = OnnxBackend.open(path)
    assert (backend.views, backend.prunes) == (8, False)
    photos = some_photos(5, seed=3, size=32)
    found = backend.run(photos).logits[:, 0]
    np.testing.assert_allclose(found, plain_mean(model, torch.from_numpy(photos)), atol=1e-4)
    once = onnx.load(export_to(tmp_path, model, architecture="cnn", size=32))
    counts = [[node.op_type for node in graph.graph.node].count("Conv") for graph in (onnx.load(path), once)]
    assert counts[0] == counts[1] > 0


@pytest.mark.slow
@pytest.mark.parametrize("views", ["flips", "dihedral"])
def test_a_model_that_prunes_keeps_the_tokens_of_the_photo_as_it_is(views, tmp_path):
    model, path = small_model(), tmp_path / "model.onnx"
    export_checked([AveragedViews(model, views).eval()], batches(some_photos(26)), path, facts())
    output = OnnxBackend.open(path).run(some_photos(5, seed=3))
    with torch.inference_mode():
        _, wanted = model.forward_with_trace(torch.from_numpy(some_photos(5, seed=3)))
    for photo, (trace,) in enumerate(output.traces):
        assert [stage.kept for stage in trace.stages] == [tuple(one.kept[photo].tolist()) for one in wanted]


@pytest.mark.slow
def test_a_bundle_answers_as_the_run_was_evaluated(run, tmp_path, hcoatnet):
    folder = tmp_path / "bundle"
    code, said = hcoatnet("bundle", run.path, folder)
    assert code == 0, said
    assert Bundle.open(folder).views == "dihedral"
    assert "the mean over all 8 flips and quarter turns of each photo" in (folder / "README.md").read_text()
    files, photos = photos_of(run, "test")
    expected = calibrated(run, read_predictions(run.predictions_file("test")).logits)
    for backend, tolerance in (("onnx", 1e-4), ("torch", 1e-5)):
        answers = load_classifier(folder, backend=backend).predict(files)
        found = np.array([list(one.probabilities.values()) for one in answers])
        np.testing.assert_allclose(found, expected, atol=tolerance)
    assert load_subject(folder).on_views
    code, said = hcoatnet("export", run.path, "--out", tmp_path / "one.onnx", "--views", "one")
    assert code == 0, said
    exported = OnnxBackend.open(tmp_path / "one.onnx")
    with torch.inference_mode():
        bare = network(run)(photos).numpy()
    np.testing.assert_allclose(exported.run(photos.numpy()).logits[:, 0], bare, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["static", "weights"])
def test_int8_of_an_average_of_views(method, tmp_path):
    exact = export_to(
        tmp_path, AveragedViews(small_model(name="cnn", size=32), "dihedral").eval(), architecture="cnn", size=32
    )
    pixels = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    METHODS[method](exact, tmp_path / "small.onnx", pixels)
    photos = np.stack([normalise(one) for one in pixels])
    right, found = (OnnxBackend.open(path).run(photos).logits for path in (exact, tmp_path / "small.onnx"))
    assert 0 < np.abs(found - right).max() < 0.1 * np.ptp(right)
    whole, small = (
        {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer}
        for path in (exact, tmp_path / "small.onnx")
    )
    layers = [node for node in onnx.load(exact).graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    for outer in (layers[0], layers[-1]):
        np.testing.assert_array_equal(small[outer.input[1]], whole[outer.input[1]])
