import copy
import warnings

import pytest
import timm
import torch
from timm.layers.drop import DropPath

import hcoatnet.models  # noqa: F401
from hcoatnet.errors import ModelError
from hcoatnet.models.ablations import ABLATIONS
from hcoatnet.models.h_coatnet import SIZES, checkpoint_filter_fn, resample_position_embedding


def small(**options):
    torch.manual_seed(0)
    options = {"backbone": "test_convnext", "num_classes": 5, **options}
    return timm.create_model("h_coatnet", **options).eval()


def photos(size=224, count=2):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def on_meta(name, **options):
    with torch.device("meta"):
        return timm.create_model(name, num_classes=5, **options)


def test_the_published_cuts_keep_36_and_24_of_49_tokens():
    model = small()
    with torch.no_grad():
        _, traces = model.forward_with_trace(photos())
        assert model.forward_features(photos()).shape == (2, 24, 64)
    assert [(trace.scores.shape[1], trace.kept.shape[1]) for trace in traces] == [(49, 36), (36, 24)]


@pytest.mark.parametrize(("size", "kept"), [(32, [1, 1]), (64, [3, 2]), (96, [6, 4]), (256, [48, 32])])
def test_shares_hold_at_other_sizes(size, kept):
    with torch.no_grad():
        _, traces = small(img_size=size).forward_with_trace(photos(size))
    assert [trace.kept.shape[1] for trace in traces] == kept


@pytest.mark.parametrize("backbone", ["test_convnext", "test_efficientnet"])
def test_without_transformer_and_stages_it_is_the_backbone(backbone):
    model = small(backbone=backbone, transformer=False, stages="none").double()
    original = timm.create_model(backbone, num_classes=5).double().eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in original.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    state = checkpoint_filter_fn(original.state_dict(), model)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert unexpected == []
    batch = photos().double()
    with torch.no_grad():
        if backbone == "test_convnext":
            assert missing == []
            torch.testing.assert_close(model(batch), original(batch))
        else:
            assert missing == ["norm.weight", "norm.bias"]
            pooled = original.forward_head(original.forward_features(batch), pre_logits=True)
            torch.testing.assert_close(model.forward_features(batch).mean(dim=1), pooled)


def test_repeats_apply_the_first_stage_again_with_the_same_weights():
    once, thrice = small(), small(stage1_repeats=3)
    thrice.load_state_dict(once.state_dict())
    stage = copy.deepcopy(once.backbone.stages[0])
    for parameter in stage.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=torch.Generator().manual_seed(2))
    once.backbone.stages[0] = torch.nn.Sequential(stage, stage, stage)
    thrice.backbone.stages[0] = stage
    with torch.no_grad():
        torch.testing.assert_close(thrice(photos()), once(photos()))


def test_the_transformer_sees_positions():
    model = small(img_size=64)
    assert model.pos_embed.shape == (1, 8, 8, 32)
    assert not model.pos_embed.any()
    before = model(photos(64))
    torch.nn.init.normal_(model.pos_embed, generator=torch.Generator().manual_seed(2))
    assert not torch.allclose(model(photos(64)), before)


def test_position_embedding_of_another_size_is_interpolated_when_run():
    model, larger = small(img_size=64), small(img_size=96)
    torch.nn.init.normal_(model.pos_embed, generator=torch.Generator().manual_seed(2))
    larger.load_state_dict(checkpoint_filter_fn(model.state_dict(), larger))
    assert larger.pos_embed.shape == (1, 12, 12, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(photos(96)), larger(photos(96)))
        assert model(torch.zeros(1, 3, 64, 128)).shape == (1, 5)


def test_resampled_position_embedding():
    embedding = torch.randn(1, 6, 6, 4, generator=torch.Generator().manual_seed(0))
    assert resample_position_embedding(embedding, 6, 6) is embedding
    ramp = torch.linspace(0, 1, 8).reshape(1, 8, 1, 1).expand(1, 8, 8, 2)
    halved = resample_position_embedding(ramp, 4, 4)
    assert halved.shape == (1, 4, 4, 2)
    torch.testing.assert_close(halved[0, :, 0, 0].diff()[1], torch.tensor(2 / 7), rtol=0.05, atol=0)
    torch.testing.assert_close(halved.flip(1), 1 - halved)


def test_heads_are_the_width_over_32_or_the_nearest_divisor():
    heads = {size: on_meta(f"h_coatnet_{size}").transformer[0].attn.num_heads for size in SIZES}
    assert heads == {"atto": 2, "femto": 3, "pico": 4, "nano": 5, "tiny": 6, "small": 6, "base": 8}


def test_transformer_blocks_are_as_specified():
    model = on_meta("h_coatnet_tiny")
    assert len(model.transformer) == 2
    for block in model.transformer:
        assert block.attn.qkv.bias is None
        assert block.mlp.fc1.out_features == 4 * 192
        assert block.attn.fused_attn
    assert model.pos_embed.shape == (1, 28, 28, 192)
    assert model.early_parts == ("stem", "stages.0", "stages.1")
    assert model.head_drop.p == 0.2


def test_drop_path_rises_through_the_backbone_and_the_transformer_stands_where_it_stands():
    model = on_meta("h_coatnet_tiny", drop_path_rate=0.34)

    def rates(module):
        return [part.drop_prob for part in module.modules() if isinstance(part, DropPath)]

    backbone = rates(model.backbone)
    assert backbone == pytest.approx([0.02 * i for i in range(1, 18)])
    assert rates(model.transformer) == pytest.approx([0.1] * 4)
    assert not rates(on_meta("h_coatnet_tiny"))


def test_efficientnet_is_split_after_stride_8():
    model = on_meta("h_coatnet", backbone="tf_efficientnet_lite0")
    assert model.early_parts == ("conv_stem", "bn1", "blocks.0", "blocks.1", "blocks.2")
    assert model.late_parts == ("blocks.3", "blocks.4", "blocks.5", "blocks.6", "conv_head", "bn2")
    assert model.pos_embed.shape == (1, 28, 28, 40)
    assert model.num_features == 1280
    assert model.transformer[0].attn.num_heads == 1


@pytest.mark.parametrize("backbone", ["convnext_tiny_hnf", "convnext_atto_ols", "mobilenetv2_100", "efficientnet_b0"])
def test_other_members_of_both_families_are_taken(backbone):
    model = on_meta("h_coatnet", backbone=backbone)
    assert model.eval()(torch.empty(1, 3, 224, 224, device="meta")).shape == (1, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "resnet18"}, "'resnet18', which is neither"),
        ({"backbone": "convnextv2_atto"}, "'convnextv2_atto', a ConvNeXt v2"),
        ({"backbone": "convnxt"}, "no model 'convnxt'"),
        ({"stage1_repeats": 0}, "'stage1_repeats' option must be at least 1"),
        ({"backbone": "test_efficientnet", "stage1_repeats": 3}, "1 over an EfficientNet"),
        ({"transformer": "no"}, "'transformer' option must be true or false"),
        ({"importance": "entropy"}, "'importance' option"),
        ({"stages": "gate:2"}, "'stages' option"),
        ({"ablation": "A8"}, "'ablation' option must be one of A0, A1"),
        ({"ablation": "A3", "importance": "norm"}, "Ablation A3 already sets importance"),
        ({"global_pool": "max"}, "'global_pool' must be 'avg'"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ModelError, match=message):
        small(**options)


def test_a_named_size_keeps_its_backbone():
    with pytest.raises(ModelError, match="h_coatnet_atto stands on convnext_atto"):
        on_meta("h_coatnet_atto", backbone="convnext_tiny")


def test_losing_the_classes_is_said_once_and_only_where_it_matters():
    model = small()
    with pytest.warns(UserWarning, match="their norm is used") as caught:
        model.reset_classifier(0)
        model(photos(64))
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for options in ({"importance": "norm"}, {"importance": "none"}, {"stages": "gate"}):
            small(num_classes=0, **options)


def test_ablations_are_the_published_ones():
    assert list(ABLATIONS) == [f"A{i}" for i in range(8)]
    for name, ablation in ABLATIONS.items():
        model = on_meta("h_coatnet_tiny", ablation=name)
        assert sum(parameter.numel() for parameter in model.parameters()) == ablation.parameters, name
        assert round(round(ablation.published_accuracy * 1.58) / 1.58, 2) == ablation.published_accuracy


@pytest.mark.parametrize(
    ("ablation", "transformer", "gates", "cuts"),
    [
        ("A0", False, 0, []),
        ("A1", True, 0, []),
        ("A2", True, 1, []),
        ("A3", True, 1, [24]),
        ("A4", True, 1, [24]),
        ("A5", True, 2, [36, 24]),
        ("A6", True, 0, [36, 24]),
        ("A7", False, 2, [36, 24]),
    ],
)
def test_what_an_ablation_leaves(ablation, transformer, gates, cuts):
    model = small(ablation=ablation)
    with torch.no_grad():
        _, traces = model.forward_with_trace(photos())
    assert (model.transformer is not None) == (model.pos_embed is not None) == transformer
    assert sum(name.endswith("fc1.weight") for name in model.hse.state_dict()) == gates
    assert [trace.kept.shape[1] for trace in traces] == cuts


def test_names_of_the_own_parameters():
    # Checkpoints of users depend on these names.
    block = [
        *("norm1.weight", "norm1.bias", "attn.qkv.weight", "attn.proj.weight", "attn.proj.bias"),
        *("norm2.weight", "norm2.bias", "mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight", "mlp.fc2.bias"),
    ]
    own = [
        "pos_embed",
        *(f"transformer.{i}.{name}" for i in range(2) for name in block),
        *(f"hse.gates.{i}.{name}" for i in range(2) for name in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")),
        *("norm.weight", "norm.bias", "head.weight", "head.bias"),
    ]
    found = on_meta("h_coatnet_tiny").state_dict()
    assert [name for name in found if not name.startswith("backbone.")] == own
    in_backbone = {name.removeprefix("backbone.") for name in found if name.startswith("backbone.")}
    assert in_backbone == {name for name in on_meta("convnext_tiny").state_dict() if not name.startswith("head.")}
