"""The ONNX backend: what it gives, what it refuses, and that it needs no torch."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import CLASSES, SIZE, exported_file, small_model, some_photos

from hcoatnet.deploy.onnx_backend import METADATA_KEY, OnnxBackend
from hcoatnet.errors import BundleError, DataError


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return exported_file(tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="module")
def backend(exported):
    return OnnxBackend.open(exported, threads=1)


def test_it_says_what_it_is(backend):
    assert (backend.name, backend.image_size, backend.members, backend.prunes) == ("onnx", SIZE, 1, True)
    assert backend.classes == CLASSES


@settings(max_examples=12, deadline=None)
@given(count=st.integers(1, 33), seed=st.integers(0, 5))
def test_any_batch_size_equals_torch(backend, count, seed):
    photos = some_photos(count, seed)
    output = backend.run(photos)
    with torch.inference_mode():
        logits, stages = small_model().forward_with_trace(torch.from_numpy(photos))
    assert output.logits.shape == (count, 1, len(CLASSES))
    assert output.logits.dtype == np.float32
    np.testing.assert_allclose(output.logits[:, 0], logits.numpy(), atol=1e-4)
    assert len(output.traces) == count
    for photo, (trace,) in enumerate(output.traces):
        assert (trace.rows, trace.columns) == (2, 2)
        assert len(trace.stages) == len(stages) == 2
        for found, right in zip(trace.stages, stages, strict=True):
            assert found.positions == tuple(right.positions[photo].tolist())
            assert found.kept == tuple(right.kept[photo].tolist())
            np.testing.assert_allclose(found.scores, right.scores[photo].numpy(), atol=1e-4)
            assert set(found.kept) <= set(found.positions)


def test_threads_do_not_disturb_each_other(backend):
    batches = [some_photos(count, seed=count) for count in range(1, 9)] * 3
    alone = [backend.run(batch) for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(backend.run, batches))
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one.logits, other.logits)
        assert one.traces == other.traces


def test_photos_in_any_memory_layout(backend):
    photos = some_photos(3)
    turned = np.ascontiguousarray(photos.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert not turned.flags.c_contiguous
    assert np.array_equal(backend.run(turned).logits, backend.run(photos).logits)


@pytest.mark.parametrize(
    "photos",
    [
        some_photos(1)[0],
        some_photos(2)[:0],
        some_photos(1, size=SIZE // 2),
        some_photos(1).transpose(0, 2, 3, 1),
        some_photos(1).astype(np.float64),
        (some_photos(1) * 50).astype(np.uint8),
    ],
    ids=["no batch", "empty", "size", "channels last", "float64", "pixels"],
)
def test_photos_that_were_not_prepared(backend, photos):
    with pytest.raises(DataError, match=r"takes preprocessed photos \(N, 3, 64, 64\) in float32"):
        backend.run(photos)


def test_no_such_file(tmp_path):
    with pytest.raises(BundleError, match="There is no ONNX file"):
        OnnxBackend.open(tmp_path / "none.onnx")
    with pytest.raises(BundleError, match="There is no ONNX file"):
        OnnxBackend.open(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"<html>", "half"])
def test_what_is_no_onnx_file(exported, tmp_path, content):
    path = tmp_path / "model.onnx"
    whole = exported.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    with pytest.raises(BundleError, match=r"is no ONNX model|was not written by"):
        OnnxBackend.open(path)


def test_a_foreign_model(tmp_path):
    node = onnx.helper.make_node("Relu", ["a"], ["b"])
    sides = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 3]) for name in "ab"]
    graph = onnx.helper.make_graph([node], "foreign", sides[:1], sides[1:])
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9), tmp_path / "foreign.onnx")
    with pytest.raises(BundleError, match="was not written by `hcoatnet export`"):
        OnnxBackend.open(tmp_path / "foreign.onnx")


def changed(exported, path, change):
    """The file with other metadata."""
    proto = onnx.load(exported)
    (entry,) = proto.metadata_props
    assert entry.key == METADATA_KEY
    entry.value = change(entry.value)
    onnx.save(proto, path)
    return path


def replaced(**entries):
    return lambda text: json.dumps({**json.loads(text), **entries})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:-1], "are damaged"),
        (lambda text: "[" * 100_000, "are damaged"),
        (lambda text: "[]", "holds no JSON object"),
        (replaced(format=99), "has format 99"),
        (replaced(classes="blue"), "usable classes"),
        (replaced(classes=["blue"]), "usable classes"),
        (replaced(classes=["blue", "blue", "red"]), "usable classes"),
        (replaced(classes=["blue", 1, "red"]), "usable classes"),
        (replaced(image_size="64"), "usable image_size"),
        (replaced(image_size=True), "usable image_size"),
        (replaced(members=0), "usable members"),
        (replaced(views=0), "usable views"),
        (replaced(stages=-1), "usable stages"),
        (replaced(tokens=None), "usable tokens"),
        (replaced(tokens=[0, 4]), "usable tokens"),
        (replaced(tokens=[2, 2, 1]), "usable tokens"),
        (lambda text: json.dumps({key: value for key, value in json.loads(text).items() if key != "name"}), "name"),
        (replaced(classes=["a", "b"]), "contradicts its metadata"),
        (replaced(image_size=32), "contradicts its metadata"),
        (replaced(members=2), "contradicts its metadata"),
        (replaced(stages=1), "contradicts its metadata"),
        (replaced(tokens=[7, 7]), "contradicts its metadata"),
    ],
)
def test_metadata_that_do_not_fit(exported, tmp_path, change, message):
    with pytest.raises(BundleError, match=message):
        OnnxBackend.open(changed(exported, tmp_path / "changed.onnx", change))


def test_it_runs_where_torch_and_pandas_are_missing(exported, backend, tmp_path):
    photos = some_photos(2)
    np.save(tmp_path / "photos.npy", photos)
    code = f"""
import sys
for name in ("torch", "torchvision", "timm", "pandas", "scipy", "sklearn", "onnx", "onnxscript"):
    sys.modules[name] = None
import numpy as np
from pathlib import Path
from hcoatnet.deploy.onnx_backend import OnnxBackend
output = OnnxBackend.open(Path({str(exported)!r}), threads=1).run(np.load({str(tmp_path / "photos.npy")!r}))
assert len(output.traces) == 2
np.save({str(tmp_path / "logits.npy")!r}, output.logits)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
    np.testing.assert_array_equal(np.load(tmp_path / "logits.npy"), backend.run(photos).logits)


def test_a_missing_runtime_is_named(exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BundleError, match=r"pip install 'hcoatnet\[onnx\]'"):
        OnnxBackend.open(exported)
