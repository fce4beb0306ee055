import pytest
import timm
import torch
from timm.layers import DropPath
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from hcoatnet.errors import ModelError
from hcoatnet.models import registry

# Parameters and multiply-adds (in G) at 224² with five classes, from the published description and the papers.
REFERENCE = {
    "h_coatnet_tiny": (29_012_165, 5.6206),
    "convnext_tiny": (27_823_973, 4.4548),
    "swin_tiny_patch4_window7_224": (27_523_199, 4.4898),
    "vit_tiny_patch16_224": (5_525_381, 1.2535),
    "coatnet_0_rw_224": (None, 4.4055),
    "efficientnet_b0": (4_013_953, None),
    "cnn": (242_181, None),
}


def test_every_reference_is_a_listed_model():
    assert len(REFERENCE) == 7
    assert set(REFERENCE) <= set(registry.list_models())


@pytest.mark.parametrize("name", REFERENCE)
def test_reference_counts(name):
    parameters, giga = REFERENCE[name]
    summary = registry.describe(name)
    if parameters is not None:
        assert summary.parameters == parameters
    if giga is not None:
        assert round(summary.multiply_adds / 1e9, 4) == giga


@pytest.mark.parametrize(("name", "million"), [("gft_tiny", 4.2), ("gft_base", 64.5)])
def test_gft_is_as_large_as_said(name, million):
    assert round(registry.describe(name).parameters / 1e6, 1) == million


def count(**options):
    with torch.device("meta"):
        model = timm.create_model("h_coatnet_tiny", num_classes=5, **options).eval()
        photo = torch.empty(1, 3, 224, 224)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(photo)
    return sum(parameter.numel() for parameter in model.parameters()), counter.get_total_flops() / 2e9


def test_transformer_and_repeats_cost_what_is_said():
    assert round(count(transformer=False)[1], 4) == 4.4549
    parameters, giga = count(stage1_repeats=3)
    assert parameters == 29_012_165
    assert round(giga - count()[1], 2) == 1.48


def test_multiply_adds_counted_by_hand():
    # cnn at 32²: 3·32·9 + 32·64·9 at 32², 64·128·9 + 128·128·9 at 16², and 128·5 in the classifier.
    summary = registry.describe("cnn", image_size=32)
    assert summary.multiply_adds == (864 + 18_432) * 1024 + (73_728 + 147_456) * 256 + 640
    assert (summary.name, summary.alias, summary.image_size) == ("cnn", None, 32)
    assert registry.describe("vit", 32).alias == "vit"


def test_list_models_are_known_and_unique():
    names = registry.list_models()
    assert len(names) == len(set(names)) == 28
    for name in names:
        assert registry.resolve(name) == name
    assert set(registry.ALIASES.values()) <= set(names)


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("efficientnet", "efficientnet_b0"),
        ("vit", "vit_tiny_patch16_224"),
        ("swin", "swin_tiny_patch4_window7_224"),
        ("coatnet", "coatnet_0_rw_224"),
        ("gft", "gft_tiny"),
        ("convnext_tiny.fb_in22k", "convnext_tiny.fb_in22k"),
    ],
)
def test_aliases(alias, name):
    assert registry.resolve(alias) == name


@pytest.mark.parametrize(
    ("name", "near"), [("h_coatnet_tiy", "h_coatnet_tiny"), ("swinn", "swin"), ("zzzzzzzz", "hcoatnet models")]
)
def test_unknown_models_are_answered_with_the_nearest(name, near):
    with pytest.raises(ModelError, match=f"Unknown model '{name}'.*{near}"):
        registry.resolve(name)


@pytest.mark.parametrize(
    ("name", "size", "working"),
    [
        ("vit", 8, "32, 64"),
        ("test_coatnet", 100, "96, 128"),
        ("convnext_atto", 16, "32, 64"),
        ("h_coatnet_atto", 0, "32, 64"),
    ],
)
def test_impossible_sizes_are_answered_with_sizes_that_work(name, size, working):
    with pytest.raises(ModelError, match=f"cannot take photos of {size} × {size} pixels. Sizes that work: {working}"):
        registry.create(name, 5, size)
    smallest = int(working.split(", ")[0])
    model = registry.create(name, 5, smallest).eval()
    assert model(torch.zeros(1, 3, smallest, smallest)).shape == (1, 5)


def test_no_stochastic_depth_is_asked_of_a_model_without_residual_branches():
    assert registry.create("densenet121", 5, 64, drop_path_rate=0.0).num_classes == 5
    assert registry.create("densenet121", 5, 64, drop_path_rate=0.0, proven=True).num_classes == 5
    with pytest.raises(ModelError, match="densenet121 takes no option 'drop_path_rate'"):
        registry.create("densenet121", 5, 64, drop_path_rate=0.1)
    drops = [
        one.drop_prob
        for one in registry.create("swin_atto", 5, 64, drop_path_rate=0.0).modules()
        if isinstance(one, DropPath)
    ]
    assert set(drops) <= {0.0}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("h_coatnet_atto", {"importace": "norm"}, "h_coatnet_atto takes no option 'importace'.*importance"),
        ("h_coatnet_window_atto", {"importace": "norm"}, "h_coatnet_window_atto takes no option.*importance"),
        ("h_coatnet_window_atto", {"windw": 1}, "takes no option 'windw'.*window"),
        ("h_coatnet_atto", {"ablaton": "A1"}, "takes no option 'ablaton'.*ablation"),
        ("gft_tiny", {"importance_eam": True}, "takes no option 'importance_eam'.*importance_ema"),
        ("cnn", {"width": 3}, "cnn takes no option 'width'.*drop_rate"),
        ("test_vit", {"dept": 3}, "test_vit takes no option 'dept'.*depth"),
        ("test_coatnet", {"foo": 3}, "test_coatnet takes no option 'foo'"),
        ("test_vit", {"depth": "deep"}, "test_vit cannot be built with num_classes=5, depth='deep'"),
        ("h_coatnet_atto", {"importance": "entropy"}, "'importance' option must be one of"),
    ],
)
def test_wrong_options_are_refused(name, options, message):
    with pytest.raises(ModelError, match=message):
        registry.create(name, 5, 64, **options)


def test_rates_reach_the_model_and_none_leaves_them_alone():
    model = registry.create("h_coatnet", 5, 64, backbone="test_convnext", drop_rate=0.4, drop_path_rate=0.3)
    assert model.head_drop.p == 0.4
    assert "DropPath" in str(model.transformer)
    assert registry.create("h_coatnet", 5, 64, backbone="test_convnext").head_drop.p == 0.2
    assert registry.create("cnn", 5, 64, drop_path_rate=0.0).num_classes == 5


def test_creating_leaves_the_random_state_to_the_model_alone():
    torch.manual_seed(0)
    expected = timm.create_model("cnn", num_classes=5).state_dict()
    torch.manual_seed(0)
    found = registry.create("cnn", 5, 64).state_dict()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize("name", ["cnn", "swin_atto", "test_coatnet"])
def test_models_without_published_weights_say_so(name):
    with pytest.raises(ModelError, match=f"no published weights for {name}.*Give a file"):
        registry.create(name, 5, 96, pretrained=True)


@pytest.mark.parametrize("name", ["h_coatnet_atto", "gft_tiny", "convnext_atto"])
def test_published_weights_that_cannot_be_reached(name, monkeypatch):
    def unreachable(*_args, **_kwargs):
        raise OSError("no route to host\nlong story")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", unreachable)
    with pytest.raises(ModelError, match=rf"weights of {name} could not be loaded \(no route to host\).*Give a file"):
        registry.create(name, 5, 64, pretrained=True)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ["h_coatnet_atto", "h_coatnet_window_atto"])
def test_published_weights_of_the_backbone_reach_h_coatnet(name, monkeypatch):
    published = timm.create_model("convnext_atto", num_classes=1000).state_dict()
    asked = []

    def reached(hub_id, **_):
        asked.append(hub_id)
        return dict(published)

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", reached)
    model = registry.create(name, 5, 64, pretrained=True)
    assert asked == [timm.models.get_pretrained_cfg("convnext_atto").hf_hub_id]
    assert torch.equal(model.backbone.stem[0].weight, published["stem.0.weight"])
    assert torch.equal(model.norm.weight, published["head.norm.weight"])
    assert model.head.weight.shape == (5, 320)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_published_weights_of_a_vision_transformer_reach_gft(monkeypatch):
    published = timm.create_model("vit_tiny_patch16_224", num_classes=1000).state_dict()
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_args, **_kwargs: dict(published))
    model = registry.create("gft", 5, 96, pretrained=True)
    assert torch.equal(model.blocks[7].mlp.fc1.weight, published["blocks.7.mlp.fc1.weight"])
    assert model.pos_embed.shape == (1, 37, 192)
    assert torch.equal(model.pos_embed[:, 0], published["pos_embed"][:, 0])
