"""The export: its file, its gate, the whole run and the command, and every model of the project."""

import copy
import json
import shutil
import sys

import numpy as np
import onnx
import pytest
import torch
from small_models import CLASSES, SIZE, export_to, exported_bytes, exported_file, facts, small_model, some_photos
from torch import nn

from hcoatnet import __version__
from hcoatnet.deploy import export as export_module
from hcoatnet.deploy.export import ExportFacts, export_checked
from hcoatnet.deploy.onnx_backend import METADATA_KEY, OnnxBackend
from hcoatnet.deploy.parity import batches
from hcoatnet.errors import BundleError
from hcoatnet.models import registry

SEVEN = (
    "h_coatnet_tiny",
    "cnn",
    "efficientnet_b0",
    "vit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
    "coatnet_0_rw_224",
    "gft_tiny",
)
FAMILY = [f"h_coatnet_{size}" for size in ("atto", "femto", "pico", "nano", "tiny", "small", "base")]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return exported_file(tmp_path_factory.mktemp("exported"))


def test_the_file_is_valid_and_whole(exported):
    onnx.checker.check_model(exported, full_check=True)
    proto = onnx.load(exported, load_external_data=False)
    assert not any(tensor.external_data for tensor in proto.graph.initializer)
    assert [file.name for file in exported.parent.iterdir()] == [exported.name]
    (photos,) = proto.graph.input
    sides = photos.type.tensor_type.shape.dim
    assert photos.name == "photos"
    assert sides[0].dim_param
    assert [side.dim_value for side in sides[1:]] == [3, SIZE, SIZE]
    names = [output.name for output in proto.graph.output]
    stages = [f"stage{stage}_{what}" for stage in (1, 2) for what in ("positions", "scores", "kept")]
    assert names == ["logits", *stages]


def test_the_metadata(exported):
    (entry,) = onnx.load(exported).metadata_props
    assert entry.key == METADATA_KEY
    assert json.loads(entry.value) == {
        "format": 1,
        "hcoatnet": __version__,
        "name": "a run",
        "architecture": "h_coatnet",
        "classes": list(CLASSES),
        "image_size": SIZE,
        "members": 1,
        "views": 1,
        "stages": 2,
        "tokens": [2, 2],
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "interpolation": "bicubic",
        "precision": "float32",
    }


def test_nothing_of_this_machine_is_in_the_file(exported):
    content = exported.read_bytes()
    for trace in (b"site-packages", b"/home", b"/root", b"/work", b"/usr", b".py", str(exported.parent).encode()):
        assert trace not in content, trace


def test_the_same_model_gives_the_same_bytes_and_nothing_is_said(exported, tmp_path, capfd):
    assert export_to(tmp_path, small_model()).read_bytes() == exported.read_bytes()
    assert capfd.readouterr() == ("", "")


def test_members_stand_side_by_side_in_their_order(tmp_path):
    models = [small_model(0), small_model(1)]
    backend = OnnxBackend.open(export_to(tmp_path, *models))
    assert (backend.members, backend.prunes) == (2, True)
    photos = some_photos(3)
    output = backend.run(photos)
    assert output.logits.shape == (3, 2, len(CLASSES))
    for member, model in enumerate(models):
        with torch.inference_mode():
            logits, stages = model.forward_with_trace(torch.from_numpy(photos))
        np.testing.assert_allclose(output.logits[:, member], logits.numpy(), atol=1e-4)
        for photo, traces in enumerate(output.traces):
            assert len(traces) == 2
            assert [one.kept for one in traces[member].stages] == [tuple(one.kept[photo].tolist()) for one in stages]


@pytest.mark.slow
def test_a_model_of_this_family_that_cuts_nothing_has_no_trace(tmp_path):
    backend = OnnxBackend.open(export_to(tmp_path, small_model(importance="none")))
    assert not backend.prunes
    assert backend.run(some_photos(2)).traces is None


class Undecided(nn.Module):
    """What no exporter can follow: which way it goes depends on the photos."""

    def forward(self, photos):
        return photos.mean((2, 3)) if photos.sum() > 0 else photos.amax((2, 3))


def test_a_model_that_cannot_be_exported_is_one_error(tmp_path, capfd):
    with pytest.raises(BundleError, match=r"^h_coatnet of a run cannot be exported to ONNX: .*data-dep") as caught:
        export_to(tmp_path, Undecided())
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


def test_weights_beyond_one_file(tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, "LARGEST_FILE", 1000)
    with pytest.raises(BundleError, match="one ONNX file holds 2 GiB at most"):
        export_to(tmp_path, small_model())


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_a_missing_package_is_named(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BundleError, match=r"pip install 'hcoatnet\[onnx\]'"):
        export_to(tmp_path, small_model())


def exporting(monkeypatch, content, change=lambda model: None):
    """Let the exporter write this content, and let the weights change after it."""

    def export(models, path, about):
        path.write_bytes(content)
        with torch.no_grad():
            change(models[0])

    monkeypatch.setattr(export_module, "export_model", export)


@pytest.mark.parametrize("earlier", [None, b"an earlier file"])
def test_the_gate_leaves_what_was_there(exported, tmp_path, monkeypatch, earlier):
    path = tmp_path / "model.onnx"
    if earlier:
        path.write_bytes(earlier)
    exporting(monkeypatch, exported.read_bytes(), lambda model: model.head.bias.add_(torch.tensor([0.0, 0.0, 2e-4])))
    with pytest.raises(BundleError, match=r"logits differ by 0\.0002, and 0\.0001 is allowed"):
        export_checked([copy.deepcopy(small_model())], batches(some_photos(4)), path, facts())
    assert [file.read_bytes() for file in tmp_path.iterdir()] == ([earlier] if earlier else [])


def test_the_gate_lets_the_same_model_pass(exported, tmp_path, monkeypatch):
    exporting(monkeypatch, exported.read_bytes())
    parity = export_checked([small_model()], batches(some_photos(26)), tmp_path / "model.onnx", facts())
    assert parity.photos == 26
    assert parity.batch_sizes == (1, 2, 7, 16)
    assert 0 < parity.logit_difference < 1e-5
    assert (tmp_path / "model.onnx").read_bytes() == exported.read_bytes()


@pytest.fixture
def finished(pruning_run, manifest_file, tmp_path):
    """A copy of the run, beside a copy of its photos as it knows them."""
    photos = tmp_path / "there" / manifest_file.parent.name
    run = tmp_path / "there" / "run"
    shutil.copytree(manifest_file.parent, photos)
    shutil.copytree(pruning_run, run)
    config = (run / "config.yaml").read_text()
    line = next(line for line in config.splitlines() if line.startswith("data:"))
    (run / "config.yaml").write_text(config.replace(line, f"data: ../{photos.name}/{manifest_file.name}"))
    return run, photos


def test_a_run_is_exported(finished, hcoatnet, tmp_path):
    run, photos = finished
    out = tmp_path / "new" / "model.onnx"
    code, printed = hcoatnet("export", run, "--out", out)
    assert code == 0, printed
    assert "ONNX Runtime answers as torch does: the logits of" in printed
    assert "in batches of 1, 2, 7" in printed
    assert f"Model: {out}" in printed
    assert [file.name for file in out.parent.iterdir()] == ["model.onnx"]
    backend = OnnxBackend.open(out)
    assert backend.classes == CLASSES
    assert backend.metadata["name"] == "run"
    assert backend.prunes

    moved = tmp_path / "moved"
    photos.rename(moved)
    first = out.read_bytes()
    code, printed = hcoatnet("export", run, "--out", out)
    assert code == 2
    assert "are not at" in printed
    assert "--data" in printed
    code, printed = hcoatnet("export", run, "--out", out, "--data", tmp_path)
    assert code == 2
    assert f"photos of {run} are not in {tmp_path}" in printed
    assert out.read_bytes() == first
    assert hcoatnet("export", run, "--out", out, "--data", moved)[0] == 0
    assert out.read_bytes() == first


def test_a_file_with_other_weights_ends_with_2(finished, hcoatnet, tmp_path, monkeypatch):
    exporting(monkeypatch, exported_bytes())
    code, printed = hcoatnet("export", finished[0], "--out", tmp_path / "model.onnx")
    assert code == 2
    assert "does not answer as torch does" in printed
    assert "Traceback" not in printed
    assert not list(tmp_path.glob("*.onnx*"))
    assert not list(tmp_path.glob(".*"))


def test_a_target_that_cannot_be_written(finished, hcoatnet, tmp_path):
    for out, message in [(tmp_path / "model.pt", "ends in .onnx"), (tmp_path / "folder.onnx", "is no file")]:
        (tmp_path / "folder.onnx").mkdir(exist_ok=True)
        code, printed = hcoatnet("export", finished[0], "--out", out)
        assert code == 2
        assert message in printed
    assert hcoatnet("export", tmp_path, "--out", tmp_path / "model.onnx")[0] == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*SEVEN, *FAMILY, "gft_base", "convnext_tiny"}))
def test_every_model_at_its_usual_size(name, tmp_path):
    check_model(name, 224, tmp_path)


SMALL = ("cnn", "test_coatnet")


@pytest.mark.parametrize("name", SMALL)
def test_small_models_of_every_kind(name, tmp_path):
    check_model(name, 64, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*registry.list_models()} - {*SMALL}))
def test_listed_models_at_a_small_size(name, tmp_path):
    check_model(name, 96, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("importance", ["norm", "raw_norm", "random"])
def test_every_importance(importance, tmp_path):
    path = tmp_path / "model.onnx"
    parity = export_checked([small_model(importance=importance)], batches(some_photos(26)), path, facts())
    assert parity.batch_sizes == (1, 2, 7, 16)


def check_model(name, size, folder):
    torch.manual_seed(0)
    model = registry.create(name, 5, size).eval()
    path = folder / "model.onnx"
    about = ExportFacts("a run", name, tuple("abcde"), size)
    parity = export_checked([model], batches(some_photos(26, size=size)), path, about)
    onnx.checker.check_model(path)
    assert parity.batch_sizes == (1, 2, 7, 16)
    assert parity.logit_difference <= 1e-4
    backend = OnnxBackend.open(path)
    assert backend.prunes == hasattr(model, "forward_with_trace")
    photos = some_photos(3, seed=1, size=size)
    with torch.inference_mode():
        logits = model(torch.from_numpy(photos)).numpy()
    assert len({tuple(row) for row in logits.round(6).tolist()}) == 3
    np.testing.assert_allclose(backend.run(photos).logits[:, 0], logits, atol=1e-4)


def test_the_seven_are_listed():
    assert len(SEVEN) == 7
    assert set(SEVEN) <= set(registry.list_models())
    assert set(FAMILY) <= set(registry.list_models())
