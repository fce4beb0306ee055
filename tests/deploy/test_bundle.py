"""Reading bundles, whole ones and others."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
from bundle_forgery import relist, rewrite

from conftest import CLASSES
from hcoatnet.deploy import bundle as layout
from hcoatnet.deploy.bundle import Bundle, is_bundle
from hcoatnet.deploy.classifier import load_classifier
from hcoatnet.errors import BundleError
from hcoatnet.files import sha256_of_file


@pytest.fixture
def own(run_bundle, tmp_path):
    """A copy of a bundle, to be changed."""
    return Path(shutil.copytree(run_bundle, tmp_path / "bundle"))


def problems(folder):
    with pytest.raises(BundleError) as caught:
        Bundle.open(folder)
    return str(caught.value)


def test_what_a_bundle_says(run_bundle, study_bundle):
    bundle = Bundle.open(run_bundle)
    assert (bundle.architecture, bundle.options) == ("h_coatnet", {"backbone": "test_convnext"})
    assert (bundle.classes, bundle.image_size, bundle.members) == (CLASSES, 64, 1)
    assert (bundle.init, bundle.licence) == ("scratch", "MIT")
    assert bundle.parameters > 10_000
    assert bundle.versions["hcoatnet"] and bundle.versions["torch"]
    assert bundle.calibration["classes"] == list(CLASSES)
    assert bundle.card["title"] == bundle.name
    assert bundle.sha256 == sha256_of_file(run_bundle / layout.HASHES)
    assert Bundle.open(study_bundle).members == 3
    assert Bundle.open(study_bundle).licence == "not stated"
    assert is_bundle(run_bundle) and not is_bundle(run_bundle.parent)


def test_hidden_files_are_left_alone(own):
    (own / ".gitattributes").write_text("*.onnx filter=lfs")
    (own / ".git").mkdir()
    Bundle.open(own)


@pytest.mark.parametrize("name", layout.LISTED)
def test_a_changed_or_missing_file_is_named(own, name):
    content = bytearray((own / name).read_bytes())
    content[len(content) // 2] ^= 1
    (own / name).write_bytes(content)
    assert f"{name} has changed" in problems(own)
    (own / name).unlink()
    assert f"{name} is missing" in problems(own)
    (own / name).mkdir()
    assert f"{name} is missing" in problems(own)


def test_all_problems_stand_in_one_message(own):
    (own / layout.ONNX).unlink()
    (own / layout.CALIBRATION).write_text("{}")
    (own / "pytorch_model.bin").write_bytes(b"")
    found = problems(own)
    assert "model.onnx is missing" in found
    assert "calibration.json has changed" in found
    assert "pytorch_model.bin is not of the bundle" in found


def test_links_are_refused(own, tmp_path):
    outside = tmp_path / "outside"
    (own / layout.WEIGHTS).rename(outside)
    (own / layout.WEIGHTS).symlink_to(outside)
    assert "model.safetensors is a link" in problems(own)
    (own / layout.WEIGHTS).unlink()
    outside.rename(own / layout.WEIGHTS)
    (own / layout.HASHES).rename(outside)
    (own / layout.HASHES).symlink_to(outside)
    assert "hashes.json is a link" in problems(own)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "sub/model.onnx", "..\\secret", "code.py", ""])
def test_names_that_are_not_of_a_bundle_are_refused(own, name):
    relist(own, **{name: "0" * 64})
    assert f"hashes.json names {name!r}" in problems(own)


def test_a_newer_format_is_refused(own):
    (own / layout.HASHES).write_text(json.dumps({"format": 2, "files": {}}))
    found = problems(own)
    assert "has format 2" in found and "reads format 1" in found


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"nonsense", b"\xff\xfe", b"[" * 100_000, b'{"format": 1}', b'{"format": 1, "sha256": {"a": 1}}'],
)
def test_hashes_that_are_no_list_are_refused(own, content):
    (own / layout.HASHES).write_bytes(content)
    assert "hashes.json" in problems(own) or "has format None" in problems(own)


def test_what_is_no_bundle_says_so(tmp_path, pruning_run):
    for folder in (tmp_path / "nowhere", tmp_path, pruning_run):
        assert "is not a bundle" in problems(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [("members", 0), ("members", "5"), ("members", True), ("image_size", None), ("classes", ["one"]), ("classes", ["a", "a"]),
     ("classes", "blue"), ("options", []), ("name", 3), ("channels_last", None), ("views", "two")],
)  # fmt: skip
def test_facts_that_cannot_be_used_are_named(own, key, value):
    rewrite(own, layout.CONFIG, lambda content: content[layout.FACTS].update({key: value}))
    assert f"config.json lacks a usable '{key}'" in problems(own) or f"lacks usable '{key}'" in problems(own)


def test_config_without_our_part_is_refused(own):
    rewrite(own, layout.CONFIG, lambda content: content.pop(layout.FACTS))
    assert "config.json has no 'hcoatnet'" in problems(own)


def test_a_calibration_of_other_classes_is_refused(own):
    rewrite(own, layout.CALIBRATION, lambda content: content.update(classes=["x", "y", "z"]))
    assert "name different classes" in problems(own)


@pytest.mark.parametrize("key", ["conformal", "abstain", "temperature"])
def test_a_calibration_that_lacks_something_is_refused(own, key):
    rewrite(own, layout.CALIBRATION, lambda content: content.pop(key))
    assert "calibration.json cannot be used" in problems(own)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(temperature=0),
        lambda c: c.update(temperature=float("nan")),
        lambda c: c.update(temperature="1"),
        lambda c: [one.update(threshold="0.5") for one in c["abstain"]],
        lambda c: [one.update(thresholds=dict.fromkeys(c["classes"], "0.5")) for one in c["conformal"]],
    ],
)
def test_a_calibration_without_numbers_is_refused(own, change):
    rewrite(own, layout.CALIBRATION, change)
    assert "calibration.json cannot be used" in problems(own)


@pytest.mark.parametrize(
    "change", [lambda c: c.pop("title"), lambda c: c.update(sections=[1]), lambda c: c["sections"][0].pop("entries")]
)
def test_a_card_that_is_none_is_refused(own, change):
    rewrite(own, layout.CARD, change)
    assert "card.json holds no model card" in problems(own)


class Exploit:
    """Leaves a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_nothing_in_a_bundle_is_executed(own, tmp_path):
    mark = tmp_path / "executed"
    bomb = pickle.dumps(Exploit(mark))
    pickle.loads(bomb)
    assert mark.exists()
    mark.unlink()
    for name, backend in ((layout.WEIGHTS, "torch"), (layout.ONNX, "onnx")):
        whole = (own / name).read_bytes()
        (own / name).write_bytes(bomb)
        relist(own)
        with pytest.raises(BundleError):
            load_classifier(own, backend=backend)
        (own / name).write_bytes(whole)
        relist(own)
    assert not mark.exists()


@pytest.mark.parametrize(
    "options",
    [{"checkpoint_path": "evil.pt"}, {"pretrained": True}, {"pretrained_cfg_overlay": {"file": "evil.pt"}},
     {"pretrained_cfg": "a1_in1k"}, {"norm_layer": ["x"]}],
)  # fmt: skip
def test_options_that_lead_elsewhere_are_refused(own, options):
    rewrite(own, layout.CONFIG, lambda content: content[layout.FACTS].update(options=options))
    with pytest.raises(BundleError, match="is no option"):
        load_classifier(own, backend="torch")


@pytest.mark.parametrize("name", ["local-dir:/tmp/evil", "hf-hub:someone/evil", "h_coatnett", "/tmp/evil"])
def test_architectures_that_lead_elsewhere_are_refused(own, name):
    rewrite(own, layout.CONFIG, lambda content: content[layout.FACTS].update(architecture=name))
    with pytest.raises(BundleError, match="not of the model"):
        load_classifier(own, backend="torch")


def test_weights_of_another_model_are_refused(own):
    rewrite(own, layout.CONFIG, lambda content: content[layout.FACTS].update(architecture="cnn", options={}))
    with pytest.raises(BundleError, match="not of the model"):
        load_classifier(own, backend="torch")


def test_an_onnx_file_of_another_bundle_is_refused(own, study_bundle):
    shutil.copy(study_bundle / layout.ONNX, own / layout.ONNX)
    relist(own)
    with pytest.raises(BundleError, match=r"model\.onnx .* is not of the model"):
        load_classifier(own, backend="onnx")
