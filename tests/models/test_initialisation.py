"""Weights scaled to each layer's inputs."""

import numpy as np
import pytest
import torch
from torch import nn

from hcoatnet.config import resolve_config
from hcoatnet.models import registry
from hcoatnet.models.initialisation import LAYER_SCALE, scale_to_inputs
from hcoatnet.training.run import build_model


def layers(model):
    return {name: one for name, one in model.named_modules() if isinstance(one, nn.Conv2d | nn.Linear)}


@pytest.mark.parametrize("name", ["h_coatnet_atto", "convnext_atto", "vit_tiny_patch16_224", "swin_atto", "gft_tiny"])
def test_each_layer_has_a_variance_of_one_over_its_inputs(name):
    torch.manual_seed(0)
    model = registry.create(name, 6, 64)
    scale_to_inputs(model)
    for layer in layers(model).values():
        inputs, count = layer.weight[0].numel(), layer.weight.numel()
        variance = float(layer.weight.detach().var()) * inputs
        assert variance == pytest.approx(1, abs=5 * (2 / count) ** 0.5)
    scales = [parameter for key, parameter in model.named_parameters() if key.endswith(".gamma")]
    assert all(torch.equal(scale, torch.full_like(scale, LAYER_SCALE)) for scale in scales)
    assert bool(scales) == ("coatnet" in name or "convnext" in name)


@pytest.mark.parametrize("name", ["cnn", "efficientnet_b0", "test_coatnet"])
def test_convolutions_beside_batch_norm_stay_and_linear_layers_are_scaled(name):
    torch.manual_seed(0)
    model = registry.create(name, 6, 64)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    scale_to_inputs(model)
    linear = {key: one for key, one in layers(model).items() if isinstance(one, nn.Linear)}
    assert model.get_classifier() in linear.values()
    for layer in linear.values():
        variance = float(layer.weight.detach().var()) * layer.weight.shape[1]
        assert variance == pytest.approx(1, abs=5 * (2 / layer.weight.numel()) ** 0.5)
    scaled = {f"{key}.weight" for key in linear}
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert {key for key in changed if not key.endswith(".gamma")} == scaled


def test_the_first_loss_of_an_efficientnet_is_that_of_guessing():
    photos, labels = torch.randn(32, 3, 64, 64), torch.arange(32) % 6
    losses = {}
    for name in ("published", "fan_in"):
        config = {"protocol": "paper", "model": "efficientnet_b0", "image_size": 64, "initialisation": name}
        model, _ = build_model(resolve_config(config), 6)
        with torch.no_grad():
            losses[name] = float(nn.functional.cross_entropy(model.train()(photos), labels))
    assert losses["fan_in"] == pytest.approx(np.log(6), abs=0.4)
    assert losses["published"] > 1.4 * np.log(6)


def test_weights_that_are_read_stay_as_they_are_and_the_others_are_scaled(tmp_path):
    file = tmp_path / "backbone.pth"
    backbone = registry.create("test_convnext", 6, 32)
    torch.save(backbone.state_dict(), file)
    settings = {"model": "h_coatnet", "image_size": 32, "initialisation": "fan_in", "init": f"pretrained:{file}"}
    model, _ = build_model(resolve_config({**settings, "model_options": {"backbone": "test_convnext"}}), 3)
    state = model.state_dict()
    read = [key for key in backbone.state_dict() if f"backbone.{key}" in state]
    assert len(read) > 20
    assert all(torch.equal(state[f"backbone.{key}"], backbone.state_dict()[key]) for key in read)
    middle = state["transformer.0.mlp.fc1.weight"]
    assert float(middle.var()) * middle.shape[1] == pytest.approx(1, abs=5 * (2 / middle.numel()) ** 0.5)


def test_from_scratch_it_is_off_unless_asked_for():
    settings = {"protocol": "paper", "model": "test_vit", "image_size": 32}
    torch.manual_seed(0)
    published, _ = build_model(resolve_config(settings), 3)
    scaled, _ = build_model(resolve_config({**settings, "initialisation": "fan_in"}), 3)
    weight = "blocks.0.mlp.fc1.weight"
    assert float(published.state_dict()[weight].std()) < 0.03
    assert float(scaled.state_dict()[weight].std()) > 0.06
