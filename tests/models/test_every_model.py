"""One harness over every listed model, and over H-CoAtNet with every importance and kind of backbone."""

import copy
import functools

import pytest
import safetensors.torch
import timm
import timm.optim
import torch
from torch import nn

from hcoatnet.models import registry
from hcoatnet.models.token_pruning import IMPORTANCES

# Slow to run here; small siblings of the same classes stand in for them in the fast set.
HEAVY = {
    "efficientnet_b0",
    "vit_tiny_patch16_224",
    "h_coatnet_femto",
    "h_coatnet_pico",
    "h_coatnet_nano",
    "h_coatnet_tiny",
    "h_coatnet_small",
    "h_coatnet_base",
    *(f"h_coatnet_window_{size}" for size in ("femto", "pico", "nano", "tiny", "small", "base")),
    "swin_tiny_patch4_window7_224",
    "coatnet_0_rw_224",
    "convnext_tiny",
    "gft_base",
}
LISTED = {name: (name, {}) for name in registry.list_models()}
VARIANTS = {
    **{
        f"h_coatnet[{importance}]": ("h_coatnet", {"backbone": "test_convnext", "importance": importance})
        for importance in IMPORTANCES
    },
    "h_coatnet[efficientnet]": ("h_coatnet", {"backbone": "test_efficientnet"}),
    "h_coatnet[bare]": ("h_coatnet", {"backbone": "test_convnext", "ablation": "A0"}),
    "h_coatnet[repeats]": ("h_coatnet", {"backbone": "test_convnext", "stage1_repeats": 3}),
    "h_coatnet_window[convnext]": ("h_coatnet_window", {"backbone": "test_convnext"}),
    "h_coatnet_window[efficientnet]": ("h_coatnet_window", {"backbone": "test_efficientnet", "blocks_before": 2}),
    "h_coatnet_window[centre]": ("h_coatnet_window", {"backbone": "test_convnext", "placement": "centre"}),
    "h_coatnet_window[bare]": ("h_coatnet_window", {"backbone": "test_convnext", "ablation": "A0"}),
    "h_coatnet_window[random]": ("h_coatnet_window", {"backbone": "test_convnext", "importance": "random"}),
    "gft_tiny[ema]": ("gft_tiny", {"importance_ema": True}),
}
CASES = {**LISTED, **VARIANTS}
SIZE = 96

# Differ from another case in which tokens they keep alone; the fast set looks at just that.
TWINS = {
    *(f"h_coatnet[{importance}]" for importance in IMPORTANCES if importance != "gradient"),
    "h_coatnet_window[centre]",
    "h_coatnet_window[random]",
}


def cases(slow):
    marked = [pytest.param(case, marks=pytest.mark.slow if case in slow else ()) for case in CASES]
    return pytest.mark.parametrize("case", marked)


every_model = cases(slow=HEAVY | TWINS)


def test_the_harness_found_every_model():
    assert len(LISTED) == 28
    assert len(CASES) == 42
    assert len(TWINS) == 6
    assert LISTED.keys() >= HEAVY
    assert CASES.keys() >= TWINS


@functools.cache
def shared(case):
    """The model of most tests, which must not change it."""
    return build(case)


def build(case, image_size=SIZE, num_classes=5, **options):
    name, case_options = CASES[case]
    torch.manual_seed(0)
    model = registry.create(name, num_classes, image_size, **case_options, **options)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            # Values that start at zero or nearly so would hide an error in what they multiply.
            if "pos_embed" in parameter_name or parameter_name.endswith("gamma"):
                parameter.normal_(std=0.5, generator=generator)
    return model.eval()


def photos(count=2, size=SIZE):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("case", CASES)
def test_forward_at_a_small_size(case):
    with torch.no_grad():
        logits = build(case, 64)(photos(2, 64))
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()


@every_model
@pytest.mark.parametrize("size", [96, 128, pytest.param(224, marks=pytest.mark.slow)])
def test_image_sizes(case, size):
    model = shared(case) if size == SIZE else build(case, size)
    with torch.no_grad():
        logits = model(photos(1, size))
    assert logits.shape == (1, 5)
    assert logits.isfinite().all()


def frozen_on_purpose(case):
    return {"stages.2.attention.smoothing"} if case.startswith("gft") else set()


@every_model
def test_every_parameter_gets_a_gradient(case):
    model = build(case, drop_rate=0.0).train()
    nn.functional.cross_entropy(model(photos(4)), torch.tensor([0, 1, 2, 3])).backward()
    without = {
        name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()
    }
    assert without == frozen_on_purpose(case)
    assert {name for name, parameter in model.named_parameters() if not parameter.requires_grad} == without
    for name, parameter in model.named_parameters():
        assert name in without or parameter.grad.isfinite().all(), name


@every_model
def test_a_photo_alone_equals_the_photo_in_a_batch(case):
    model = shared(case)
    batch = photos(5)
    with torch.no_grad():
        together = model(batch)
        alone = torch.cat([model(photo[None]) for photo in batch])
        reversed_batch = model(batch.flip(0)).flip(0)
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(reversed_batch, together, rtol=1e-5, atol=1e-5)


@cases(slow=HEAVY)
def test_kept_tokens_do_not_depend_on_the_batch(case):
    model = build(case)
    if not hasattr(model, "forward_with_trace"):
        assert not case.startswith(("h_coatnet", "gft"))
        return
    batch = photos(5)
    with torch.no_grad():
        logits, together = model.forward_with_trace(batch)
        assert torch.equal(logits, model(batch))
        for i, photo in enumerate(batch):
            _, alone = model.forward_with_trace(photo[None])
            assert len(alone) == len(together)
            for mine, all_of_them in zip(alone, together, strict=True):
                if not torch.equal(mine.kept[0], all_of_them.kept[i]):
                    assert tied_at_the_cut(all_of_them, i), "another token was kept, and no scores tie"
                    break


def tied_at_the_cut(trace, i):
    ordered = trace.scores[i].sort(descending=True).values
    keep = trace.kept.shape[1]
    return (ordered[keep - 1] - ordered[keep]).abs() < 1e-6


@every_model
def test_saved_and_loaded_weights_give_equal_logits(case, tmp_path):
    model = shared(case)
    safetensors.torch.save_file(model.state_dict(), tmp_path / "weights.safetensors")
    torch.manual_seed(99)
    name, options = CASES[case]
    again = registry.create(name, 5, SIZE, **options).eval()
    assert registry.load_weights(again, tmp_path / "weights.safetensors") == ()
    with torch.no_grad():
        assert torch.equal(again(photos()), model(photos()))


@every_model
def test_state_dict_keys_depend_on_the_model_alone(case):
    keys = list(shared(case).state_dict())
    name, options = CASES[case]
    with torch.device("meta"):
        assert list(registry.create(name, 7, 128, **options).state_dict()) == keys


@every_model
def test_same_seed_same_model(case):
    first, second = shared(case), build(case)
    for (name, one), (_, other) in zip(first.state_dict().items(), second.state_dict().items(), strict=True):
        assert torch.equal(one, other), name
    with torch.no_grad():
        expected = first(photos())
        assert torch.equal(second(photos()), expected)
        assert torch.equal(first(photos()), expected)


@every_model
@pytest.mark.filterwarnings("ignore:Without classes")
def test_timm_contract(case):
    model = build(case, drop_rate=0.3)
    batch = photos()
    with torch.no_grad():
        features = model.forward_features(batch)
        torch.testing.assert_close(model.forward_head(features), model(batch))
        pre_logits = model.forward_head(features, pre_logits=True)
        assert pre_logits.shape == (2, model.head_hidden_size)
        torch.testing.assert_close(model.get_classifier()(pre_logits), model(batch))

        assert getattr(model, "drop_rate", 0.3) == 0.3  # timm's ViT and Swin keep it in their dropout layer alone
        assert model.num_classes == 5
        assert model.default_cfg is model.pretrained_cfg
        assert model.get_submodule(model.default_cfg["classifier"]) is model.get_classifier()
        assert isinstance(model.get_submodule(model.default_cfg["first_conv"]), nn.Conv2d)

        model.reset_classifier(7)
        assert model.num_classes == 7
        assert model(batch).shape == (2, 7)
        model.reset_classifier(0)
        assert model(batch).shape == (2, model.num_features)
        assert isinstance(model.get_classifier(), nn.Identity)
        assert build(case, num_classes=0)(batch).shape == (2, model.num_features)


@every_model
def test_timm_creates_the_same_model(case):
    name, options = CASES[case]
    sized = {"img_size": SIZE} if timm.models.get_pretrained_cfg_value(name, "fixed_input_size") else {}
    by_timm = timm.create_model(name, num_classes=5, **sized, **options).eval()
    by_timm.load_state_dict(shared(case).state_dict())
    assert name in timm.list_models()
    with torch.no_grad():
        assert torch.equal(by_timm(photos()), shared(case)(photos()))


@every_model
def test_gradient_checkpointing_changes_nothing(case):
    plain = build(case, drop_rate=0.2).train()
    checkpointed = copy.deepcopy(plain)
    checkpointed.set_grad_checkpointing(True)
    results = []
    for model in (plain, checkpointed):
        torch.manual_seed(3)
        logits = model(photos(3))
        logits.square().sum().backward()
        results.append((logits.detach(), {name: p.grad for name, p in model.named_parameters() if p.requires_grad}))
    torch.testing.assert_close(results[1], results[0])
    if not type(plain).__module__.startswith("timm."):  # timm's own batch norms count a recomputed pass twice
        assert dict_equal(dict(plain.named_buffers()), dict(checkpointed.named_buffers()))


def dict_equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("case", ["h_coatnet[gradient]", "h_coatnet[efficientnet]", "gft_tiny", "cnn"])
def test_gradient_checkpointing_stores_fewer_activations(case):
    model = copy.deepcopy(shared(case)).train()

    def stored():
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            model(photos())
        return sum(sizes)

    plain = stored()
    model.set_grad_checkpointing(True)
    assert stored() < 0.7 * plain


@every_model
def test_bfloat16_autocast(case):
    model = shared(case)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(photos()).isfinite().all()


@every_model
def test_optimiser_groups(case):
    model = shared(case)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = timm.optim.create_optimizer_v2(model, "adamw", lr=1e-3, weight_decay=0.01).param_groups
    decayed = {names[id(p)] for group in groups if group["weight_decay"] > 0 for p in group["params"]}
    assert decayed
    assert not any("pos_embed" in name or "cls_token" in name for name in decayed)
    assert all(dict(model.named_parameters())[name].ndim > 1 for name in decayed)
    groups = timm.optim.create_optimizer_v2(model, "adamw", lr=1e-3, layer_decay=0.5).param_groups
    scale = {names[id(p)]: group["lr_scale"] for group in groups for p in group["params"]}
    assert scale.keys() == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    classifier = f"{model.default_cfg['classifier']}.weight"
    assert scale[classifier] == max(scale.values()) == 1
    assert scale[f"{model.default_cfg['first_conv']}.weight"] == min(scale.values())
