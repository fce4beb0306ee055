"""Class-activation maps are taken at the right place of every model."""

import pytest
import timm
import torch
from captum.attr import LayerGradCam
from torch import nn

from hcoatnet.errors import ModelError
from hcoatnet.explain.class_activation import class_activation
from hcoatnet.models import registry
from hcoatnet.models.activation_maps import ActivationPlace, activation_place, to_grid
from hcoatnet.models.token_pruning import gradient_importance

SMALL = {
    "cnn": ({}, 16),
    "convnext_atto": ({}, 2),
    "test_efficientnet": ({}, 2),
    "test_vit": ({}, 4),
    "swin_atto": ({}, 2),
    "test_coatnet": ({}, 2),
    "gft_tiny": ({}, 4),
    "h_coatnet": ({"backbone": "test_convnext"}, 2),
    "resnet18": ({}, 2),
}
"""Options, and side of the map at 64² pixels, of a small model of every family; the last is known by its features."""
SEVEN = {
    "cnn": 56,
    "efficientnet": 7,
    "vit": 14,
    "swin": 7,
    "coatnet": 7,
    "gft": 14,
    "h_coatnet_tiny": 7,
}


def build(name, size=64, **options):
    torch.manual_seed(0)
    return registry.create(name, 3, size, **options).eval()


def photos(count=2, size=64):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def output_at(model, x, place):
    seen = []
    handle = place.module.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        model(x)
    handle.remove()
    return place.to_map(seen[0])


def slope_by_differences(model, x, label, direction):
    """How the logit changes when all places move along one direction (C,), by differences: no gradient is asked for."""
    place = activation_place(model)
    step = 1e-4

    def logit_at(amount):
        def moved(module, inputs, output):
            tensor, rest = (output, ()) if isinstance(output, torch.Tensor) else (output[0], output[1:])
            if tensor.ndim == 4 and tensor.shape[1] == len(direction):
                tensor = tensor + amount * direction[:, None, None]
            else:
                tensor = tensor + amount * direction
                if hasattr(model, "cls_token"):
                    tensor = torch.cat([output[:, :1], tensor[:, 1:]], dim=1)
            return (tensor, *rest) if rest else tensor

        handle = place.module.register_forward_hook(moved)
        with torch.no_grad():
            logit = model(x)[0, label]
        handle.remove()
        return logit

    return (logit_at(step) - logit_at(-step)) / (2 * step)


@pytest.mark.parametrize("name", SMALL)
def test_the_map_is_what_moving_along_the_activations_says(name):
    """A map's value at a place, Σₖ αₖ Aₖ, is the mean slope along the activations of that place."""
    options, side = SMALL[name]
    model, x = build(name, **options).double(), photos(1).double()
    maps = output_at(model, x, activation_place(model))[0]
    assert maps.shape[1:] == (side, side)
    found = class_activation(model, x, torch.tensor([2])).signed[0]
    assert found.shape == (side, side)
    for row, column in ((0, 0), (0, side - 1), (side // 2, 0), (side - 1, side - 1)):
        slope = slope_by_differences(model, x, 2, maps[:, row, column]) / (side * side)
        assert found[row, column] == pytest.approx(float(slope), rel=2e-3, abs=1e-4 * float(abs(found).max()))


@pytest.mark.parametrize("name", ["cnn", "convnext_atto", "test_efficientnet", "test_coatnet", "resnet18"])
def test_the_map_is_captum_s(name):
    model, x = build(name), photos(3)
    classes = torch.tensor([0, 1, 2])
    reference = LayerGradCam(model, activation_place(model).module).attribute(x, target=classes)
    found = class_activation(model, x, classes).signed
    torch.testing.assert_close(torch.from_numpy(found), reference[:, 0].detach(), rtol=1e-4, atol=1e-7)


def test_of_a_linear_head_over_a_mean_the_map_is_its_weights_times_the_maps():
    for name, head in (("cnn", "head"), ("swin_atto", "head.fc")):
        model, x = build(name), photos()
        place = activation_place(model)
        maps = output_at(model, x, place)
        weights = model.get_submodule(head).weight[[2, 0]]
        expected = torch.einsum("bc,bchw->bhw", weights, maps) / maps[0, 0].numel()
        found = class_activation(model, x, torch.tensor([2, 0])).signed
        torch.testing.assert_close(torch.from_numpy(found), expected.detach(), rtol=1e-4, atol=1e-7)


def test_of_h_coatnet_the_map_is_0_where_tokens_were_cut_and_else_their_importance():
    model, x = build("h_coatnet", 128, backbone="test_convnext"), photos(2, 128)
    with torch.no_grad():
        tokens, traces = model.forward_tokens(x)
        classes = model(x).argmax(dim=1)
    kept = traces[-1].kept
    flat = torch.from_numpy(class_activation(model, x, classes).signed).flatten(1)
    left_out = torch.ones_like(flat, dtype=torch.bool).scatter(1, kept, False)
    assert left_out.sum() == 2 * (16 - 8)
    assert not flat[left_out].any()
    importance = gradient_importance(tokens, model.norm, model.head)
    torch.testing.assert_close(flat.gather(1, kept), importance * tokens.shape[1] / 16, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["convnext_atto", "h_coatnet"])
def test_behind_a_layer_norm_the_map_sums_to_0(name):
    """So some place always speaks for a class and another against it, as the page on maps says."""
    model = build(name, **SMALL[name][0])
    for signed in class_activation(model, photos(), torch.tensor([0, 2])).signed:
        assert abs(signed.sum()) < 1e-2 * abs(signed).sum()  # but for the epsilon of the norm


@pytest.mark.parametrize(("stages", "reached"), [("gate:0.75,gate:0.5", True), ("0.75,0.5", False)])
def test_cut_tokens_reach_the_logits_through_the_gates_alone(stages, reached):
    """Why the map before the cuts would mislead: it gives these tokens the weights of the ones that stay."""
    model = build("h_coatnet", 128, backbone="test_convnext", stages=stages)
    seen = {}

    def watch(module, inputs):
        seen["tokens"] = inputs[0].detach().requires_grad_()
        return (seen["tokens"], *inputs[1:])

    handle = model.hse.register_forward_pre_hook(watch)
    tokens, traces = model.forward_tokens(photos(1, 128))
    handle.remove()
    (gradient,) = torch.autograd.grad(model.forward_head(tokens)[0, 0], seen["tokens"])
    cut = [position for position in range(16) if position not in traces[-1].kept[0].tolist()]
    assert gradient[0, cut].any() == reached
    assert gradient[0, traces[-1].kept[0]].any()


def test_without_cuts_every_token_stands_in_the_map():
    model = build("h_coatnet", backbone="test_convnext", importance="none")
    assert class_activation(model, photos(), torch.tensor([0, 1])).signed.all()


def test_of_a_vision_transformer_and_gft_the_class_token_is_left_out():
    for name in ("test_vit", "gft_tiny"):
        model, x = build(name), photos(1)
        place = activation_place(model)
        assert place.module is model.blocks[-1].norm1
        assert output_at(model, x, place).shape[2:] == (4, 4)


def test_a_model_that_names_its_own_place_is_believed():
    model = build("cnn")
    model.activation_place = lambda: ActivationPlace(model.features[0], lambda output: output, "the first map")
    assert class_activation(model, photos(), torch.tensor([0, 1])).signed.shape == (2, 64, 64)


def test_a_model_without_maps_is_refused():
    with pytest.raises(ModelError, match="No place for a class-activation map is known in a MlpMixer"):
        class_activation(build("mixer_s32_224", 224), photos(1, 224), torch.tensor([0]))
    with pytest.raises(ModelError, match="in a Linear"):
        activation_place(nn.Linear(2, 2))


def test_only_square_maps():
    with pytest.raises(ModelError, match="12 tokens are no square map"):
        to_grid(torch.zeros(1, 12, 3))


@pytest.mark.slow
@pytest.mark.parametrize("name", SEVEN)
def test_all_seven_at_their_own_size(name):
    model, x = build(name, 224), photos(2, 224)
    classes = torch.tensor([1, 2])
    found = class_activation(model, x, classes)
    assert found.signed.shape == (2, SEVEN[name], SEVEN[name])
    assert found.signed.any(axis=(1, 2)).all()
    alone = class_activation(model, x[1:], classes[1:])
    torch.testing.assert_close(alone.signed[0], found.signed[1], rtol=1e-3, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found.logits), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", registry.list_models())
def test_every_listed_model_has_a_place(name):
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=3).eval()
        assert activation_place(model).words
