"""Weights, training states, bundles and ONNX files with damaged bytes, or whose author wrote something else into them."""

import json
import shutil
import zipfile
from io import BytesIO
from pathlib import Path

import onnx
import pytest
import safetensors.torch
import torch
from damage import VALUES, as_json, damaged, damaged_tree, explore, outcome, sizes

from deploy.bundle_forgery import relist
from hcoatnet.deploy import bundle as layout
from hcoatnet.deploy.bundle import Bundle
from hcoatnet.deploy.classifier import Classifier, load_classifier
from hcoatnet.deploy.onnx_backend import METADATA_KEY, OnnxBackend
from hcoatnet.errors import BundleError, HCoAtNetError, ModelError, RunError
from hcoatnet.models.weights import load_weights
from hcoatnet.training import checkpoint

ARCHIVE = [b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"\x08\0", b"\xff" * 4, b"\0" * 4]
PICKLE = [
    b"\x80\x02",
    b"cos\nsystem\n",
    b"ctorch\nload\n",
    b"R.",
    b"q\0",
    b"}",
    b"\x8a\xff",
    b"X\xff\xff\xff\x7f",
    b"\x81",
    b"b.",
]
HEADER = [b"\xff" * 8, b"\0" * 8, b"F32", b"F64", b"I8", b"[0,", b"99999999", b'"data_offsets"', b"-1", b"{", b"}"]


class Net(torch.nn.Module):
    """Stands for a model: a classifier on features, no more."""

    num_classes = 3

    def __init__(self):
        super().__init__()
        self.body, self.head = torch.nn.Linear(4, 5), torch.nn.Linear(5, 3)

    def get_classifier(self):
        return self.head


def saved(content, **options):
    buffer = BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


STATE = {key: value.clone() for key, value in Net().state_dict().items()}
FILES = {
    ".safetensors": ([safetensors.torch.save(STATE, {"format": "pt"})], HEADER),
    ".pth": ([saved(STATE), saved({"state_dict": STATE, "epoch": 3}), saved(STATE, _use_new_zipfile_serialization=False)],
             ARCHIVE + PICKLE),
}  # fmt: skip


@sizes(few=30, many=3000)
@pytest.mark.parametrize("suffix", FILES)
def test_weights_for_a_model(suffix, examples, tmp_path):
    path = tmp_path / f"weights{suffix}"
    whole, words = FILES[suffix]
    net = Net()

    def holds(content):
        path.write_bytes(content)
        before = safetensors.torch.save(net.state_dict())
        found = outcome(lambda: load_weights(net, path), path.name)
        if isinstance(found, ModelError):
            assert safetensors.torch.save(net.state_dict()) == before
        else:
            assert isinstance(found, tuple)

    for content in whole:
        path.write_bytes(content)
        assert load_weights(net, path) == ()
    explore(examples, holds, damaged(whole, words))


@sizes(few=30, many=3000)
def test_weights_and_state_of_a_run(examples, tmp_path):
    weights, state, net = tmp_path / "weights.safetensors", tmp_path / "state.pt", Net()
    checkpoint.save_weights(net, weights, {"epoch": 1})
    checkpoint.save_state({"model": net.state_dict(), "rows": [], "updates": 3}, state)

    def holds(content):
        weights.write_bytes(content)
        state.write_bytes(content)
        assert isinstance(outcome(lambda: checkpoint.load_weights(net, weights), weights.name), (type(None), RunError))
        assert isinstance(outcome(lambda: checkpoint.load_state(state), state.name), (dict, RunError))

    whole = [weights.read_bytes(), state.read_bytes()]
    explore(examples, holds, damaged(whole, ARCHIVE + PICKLE + HEADER))


def test_weights_that_would_unpack_to_more_than_they_are(tmp_path):
    whole, small = tmp_path / "whole.pth", tmp_path / "small.pth"
    torch.save({"weight": torch.zeros(25_000_000)}, whole)
    with zipfile.ZipFile(whole) as before, zipfile.ZipFile(small, "w", zipfile.ZIP_DEFLATED) as after:
        for entry in before.infolist():
            after.writestr(entry.filename, before.read(entry))
    assert small.stat().st_size < whole.stat().st_size / 500
    assert isinstance(outcome(lambda: load_weights(Net(), small), small.name, mebibytes=50), ModelError)
    assert isinstance(outcome(lambda: checkpoint.load_state(small), small.name, mebibytes=50), RunError)


@pytest.mark.parametrize(
    "tensor", [torch.zeros(1).expand(10**12), torch.eye(3).to_sparse(), torch.zeros(1, 1, 1).expand(1, 10**6, 32)]
)
def test_tensors_that_are_larger_than_their_file(tensor, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"pos_embed": tensor}, path)
    found = outcome(lambda: load_weights(Net(), path), path.name)
    assert isinstance(found, ModelError)
    assert "pos_embed" in str(found)


@pytest.fixture
def own(run_bundle, tmp_path):
    """A copy of a bundle, to be changed."""
    return Path(shutil.copytree(run_bundle, tmp_path / "bundle"))


def loaded(folder, backend):
    found = outcome(lambda: load_classifier(folder, backend=backend), folder.name, mebibytes=400)
    assert isinstance(found, (Classifier, HCoAtNetError))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "examples"), [(layout.CONFIG, 100), (layout.CALIBRATION, 200), (layout.CARD, 400), (layout.HASHES, 400)]
)
def test_facts_of_a_bundle_that_are_not_right(name, examples, own):
    whole = json.loads((own / name).read_text())

    def holds(tree):
        (own / name).write_bytes(as_json(tree))
        if name != layout.HASHES:
            relist(own)
        found = outcome(lambda: Bundle.open(own), own.name)
        assert isinstance(found, (Bundle, BundleError))
        if isinstance(found, Bundle) and name in (layout.CONFIG, layout.CALIBRATION):
            loaded(own, "onnx")
        if isinstance(found, Bundle) and name == layout.CONFIG:
            loaded(own, "torch")

    loaded(own, "torch")
    explore(examples, holds, damaged_tree(whole))


@pytest.mark.slow
@pytest.mark.parametrize("name", layout.LISTED)
def test_files_of_a_bundle_with_wrong_bytes(name, own):
    whole, hashes = (own / name).read_bytes(), (own / layout.HASHES).read_bytes()
    backend = {layout.WEIGHTS: "torch", layout.ONNX: "onnx"}.get(name)

    def holds(content):
        (own / name).write_bytes(content)
        (own / layout.HASHES).write_bytes(hashes)
        found = outcome(lambda: Bundle.open(own), own.name)
        assert isinstance(found, Bundle if content == whole else BundleError)
        relist(own)
        outcome(lambda: Bundle.open(own), own.name) if backend is None else loaded(own, backend)

    loaded(own, "torch")
    explore(400 if backend is None else 100, holds, damaged([whole], HEADER))


@pytest.mark.slow
def test_metadata_of_an_onnx_file_that_are_not_right(own):
    model = onnx.load(own / layout.ONNX)
    (entry,) = (one for one in model.metadata_props if one.key == METADATA_KEY)
    path = own / layout.ONNX

    def holds(tree):
        entry.value = as_json(tree).decode()
        path.write_bytes(model.SerializeToString())
        assert isinstance(outcome(lambda: OnnxBackend.open(path), path.name), (OnnxBackend, BundleError))

    explore(200, holds, damaged_tree(json.loads(entry.value), [*VALUES, 1024, 10**9]))
