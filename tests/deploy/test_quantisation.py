"""Int8: what each method writes, and the gate in front of it."""

import functools
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from small_models import CLASSES, SIZE, exported_file, some_photos

from hcoatnet.data.images import MEAN, STD
from hcoatnet.deploy import quantisation
from hcoatnet.deploy.onnx_backend import OnnxBackend
from hcoatnet.deploy.quantisation import METHODS, Agreement, quantise_checked
from hcoatnet.errors import BundleError

PIXELS = np.clip((some_photos(24).transpose(0, 2, 3, 1) * STD + MEAN) * 255, 0, 255).astype(np.uint8)
LABELS = np.arange(24) % len(CLASSES)


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    return exported_file(tmp_path_factory.mktemp("exact"))


@pytest.fixture(scope="module")
def quantised(exact, tmp_path_factory):
    @functools.cache
    def make(method):
        path = tmp_path_factory.mktemp("quantised") / f"{method}.onnx"
        METHODS[method](exact, path, PIXELS[:8])
        return path

    return make


def layers(path):
    graph = onnx.load(path).graph
    constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    return [
        (node, constants[node.input[1]])
        for node in graph.node
        if node.op_type in ("Conv", "MatMul", "Gemm") and node.input[1] in constants
    ]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_a_valid_model_that_takes_any_batch(quantised, exact, method):
    path = quantised(method)
    onnx.checker.check_model(path)
    backend = OnnxBackend.open(path)
    right = OnnxBackend.open(exact)
    for count in (1, 5):
        photos = some_photos(count)
        found, expected = backend.run(photos), right.run(photos)
        assert found.logits.shape == expected.logits.shape
        assert np.abs(found.logits - expected.logits).max() < 0.2 * np.abs(expected.logits).max()
        assert not np.array_equal(found.logits, expected.logits)
        assert [len(trace.stages) for (trace,) in found.traces] == [2] * count


@pytest.mark.parametrize("method", METHODS)
def test_the_first_layer_and_the_classifier_stay_as_they_are(quantised, exact, method):
    whole, left = layers(exact), layers(quantised(method))
    assert len(left) < len(whole)
    for place in (0, -1):
        # One tool turns the classifier's weights round.
        assert np.array_equal(np.sort(whole[place][1], axis=None), np.sort(left[place][1], axis=None))
    assert "photos" in left[0][0].input


@pytest.mark.parametrize("method", ["static", "dynamic"])
def test_a_model_without_such_layers_stays_as_it_is(tmp_path, method):
    nodes = [onnx.helper.make_node("Conv", [name, f"w{name}"], [f"{name}o"]) for name in ("photos", "photoso")]
    weights = [onnx.helper.make_tensor(f"w{name}", 1, [1, 1, 1, 1], [2.0]) for name in ("photos", "photoso")]
    sides = [onnx.helper.make_tensor_value_info(name, 1, ["n", 1, 2, 2]) for name in ("photos", "photosoo")]
    graph = onnx.helper.make_graph(nodes, "first and last layer", sides[:1], sides[1:], weights)
    opset = onnx.helper.make_opsetid("", 20)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10), tmp_path / "exact.onnx")
    METHODS[method](tmp_path / "exact.onnx", tmp_path / "made.onnx", PIXELS[:2])
    assert (tmp_path / "made.onnx").read_bytes() == (tmp_path / "exact.onnx").read_bytes()


def test_static_leaves_what_it_must(quantised, exact):
    proto = onnx.load(quantised("static"))
    kinds = [node.op_type for node in proto.graph.node]
    assert kinds.count("QuantizeLinear") > 5
    depthwise = [
        weight for node, weight in layers(exact) if any(one.name == "group" and one.i > 1 for one in node.attribute)
    ]
    kept = [weight for _, weight in layers(quantised("static"))]
    assert depthwise
    for weight in depthwise:
        assert any(np.array_equal(weight, other) for other in kept)
    makers = {output: node for node in proto.graph.node for output in node.output}
    for node in proto.graph.node:
        if node.op_type in ("Softmax", "LayerNormalization", "TopK", "ArgMax"):
            assert all(makers[name].op_type != "DequantizeLinear" for name in node.input[1:] if name in makers), (
                node.name
            )


def test_weights_are_rounded_for_each_output_channel(quantised, exact):
    proto = onnx.load(quantised("weights"))
    stored = {one.name: numpy_helper.to_array(one) for one in proto.graph.initializer}
    changed = 0
    for node, weight in layers(exact):
        name = node.input[1]
        if f"{name}_int8" not in stored:
            continue
        changed += 1
        numbers = stored[f"{name}_int8"]
        assert numbers.dtype == np.int8
        channels = 0 if node.op_type == "Conv" or any(one.name == "transB" and one.i for one in node.attribute) else -1
        rows = np.moveaxis(weight, channels, 0).reshape(weight.shape[channels], -1)
        found = np.moveaxis(numbers * stored[f"{name}_scale"], channels, 0).reshape(rows.shape)
        step = np.abs(rows).max(axis=1, keepdims=True) / 127
        assert (np.abs(found - rows) <= step * 0.5001).all()
        assert (np.abs(np.moveaxis(numbers, channels, 0).reshape(rows.shape)).max(axis=1) == 127).all()
    assert changed == len(layers(exact)) - 2


def perfect(exact, made, calibration):
    shutil.copy(exact, made)


def disturbed(exact, made, calibration):
    proto = onnx.load(exact)
    (classifier,) = (node for node in proto.graph.node if "logits" in node.output)
    classifier.output[0] = "before"
    proto.graph.initializer.append(numpy_helper.from_array(np.array([9, 0, 0], dtype=np.float32), "more"))
    proto.graph.node.append(onnx.helper.make_node("Add", ["before", "more"], ["logits"]))
    onnx.save(proto, made)


def with_methods(monkeypatch, **methods):
    monkeypatch.setattr(quantisation, "METHODS", methods)
    monkeypatch.setattr(quantisation, "LARGEST_SIZE", 2)


def test_the_first_method_that_passes_is_taken(exact, tmp_path, monkeypatch):
    with_methods(monkeypatch, worse=disturbed, good=perfect, never=None)
    path = tmp_path / "int8.onnx"
    agreement = quantise_checked(exact, path, PIXELS[:2], PIXELS, LABELS)
    assert (agreement.method, agreement.agreement, agreement.photos) == ("good", 1, 24)
    assert agreement.macro_f1 == agreement.macro_f1_float32
    metadata = OnnxBackend.open(path).metadata
    assert metadata["precision"] == "int8"
    assert metadata["int8"] == {
        "method": "good",
        "photos": 24,
        "agreement": 1.0,
        "macro_f1": agreement.macro_f1,
        "macro_f1_float32": agreement.macro_f1_float32,
        "size": 1.0,
    }
    assert metadata["classes"] == list(CLASSES)
    assert b"/tmp" not in path.read_bytes()


def test_the_figures_are_those_of_scikit_learn(exact, tmp_path, monkeypatch):
    from sklearn.metrics import f1_score

    with_methods(monkeypatch, good=perfect)
    agreement = quantise_checked(exact, tmp_path / "int8.onnx", PIXELS[:2], PIXELS, LABELS)
    photos = ((PIXELS / 255 - MEAN) / STD).transpose(0, 3, 1, 2).astype(np.float32)
    top = OnnxBackend.open(exact).run(photos).logits[:, 0].argmax(axis=1)
    expected = f1_score(LABELS, top, average="macro", labels=range(3), zero_division=0)
    assert agreement.macro_f1_float32 == pytest.approx(expected)


def test_no_method_passes(exact, tmp_path, monkeypatch):
    with_methods(monkeypatch, one=disturbed, two=disturbed)
    path = tmp_path / "int8.onnx"
    path.write_bytes(b"an earlier file")
    with pytest.raises(BundleError, match=r"Reached: one: [0-9.]+%, [-+]0\.\d{4}, 100% of the size; two: ") as caught:
        quantise_checked(exact, path, PIXELS[:2], PIXELS, LABELS)
    assert "Nothing was written: on the 24 validation photos" in str(caught.value)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"an earlier file"]


def broken(exact, made, calibration):
    raise ValueError("no such layer\nand more")


def test_a_method_that_fails_is_passed_over(exact, tmp_path, monkeypatch):
    with_methods(monkeypatch, one=broken, two=disturbed)
    with pytest.raises(BundleError, match="Reached: one: no such layer; two: "):
        quantise_checked(exact, tmp_path / "int8.onnx", PIXELS[:2], PIXELS, LABELS)
    with_methods(monkeypatch, one=broken, two=perfect)
    assert quantise_checked(exact, tmp_path / "int8.onnx", PIXELS[:2], PIXELS, LABELS).method == "two"


AT_THE_EDGE = Agreement("static", 1000, agreement=0.99, macro_f1=0.51, macro_f1_float32=0.50, size=0.5)


def test_the_gate():
    assert AT_THE_EDGE.passes
    assert replace(AT_THE_EDGE, macro_f1=0.49).passes
    for worse in ({"agreement": 0.989}, {"macro_f1": 0.5102}, {"macro_f1": 0.4898}, {"size": 0.51}):
        assert not replace(AT_THE_EDGE, **worse).passes


@pytest.mark.slow
@pytest.mark.parametrize("model", ["cnn", "test_vit"])
def test_trained_runs_on_the_command_line(study, hcoatnet, tmp_path, model):
    run = next((study / "runs").glob(f"{model}-*"))
    path = tmp_path / "int8.onnx"
    code, printed = hcoatnet("export", run, "--out", path, "--int8")
    if code == 0:
        assert OnnxBackend.open(path).metadata["int8"]["agreement"] >= 0.99
        assert "validation photos; macro F1 is" in printed
    else:
        assert code == 2
        assert "Nothing was written: on the" in printed
        assert "dynamic:" in printed
        assert not list(tmp_path.iterdir())


def test_the_photos_are_of_the_size_of_the_model():
    assert PIXELS.shape == (24, SIZE, SIZE, 3)
