"""Grad-CAM leaves the model as it was, and no photo depends on the others."""

import numpy as np
import pytest
import torch

from hcoatnet.explain.class_activation import class_activation
from hcoatnet.models import registry


def build(name="test_efficientnet", **options):
    torch.manual_seed(0)
    return registry.create(name, 3, 64, **options)


def photos(count=3):
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(1))


CLASSES = torch.tensor([0, 2, 1])


def test_the_model_is_left_as_it_was():
    model = build(drop_rate=0.5).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = class_activation(model, photos(), CLASSES)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    again = class_activation(model.eval(), photos(), CLASSES)
    assert np.array_equal(found.signed, again.signed)  # neither dropout nor batch statistics


def test_it_is_left_as_it_was_after_an_error_too():
    model = build()
    with pytest.raises(RuntimeError):
        class_activation(model, torch.zeros(1, 7, 64, 64), torch.tensor([0]))
    assert not any(module._forward_hooks for module in model.modules())
    assert model.training


@pytest.mark.parametrize("name", ["cnn", "test_vit", "gft_tiny"])
def test_no_photo_depends_on_the_others(name):
    model = build(name)
    together = class_activation(model, photos(), CLASSES)
    for row in range(3):
        alone = class_activation(model, photos()[row : row + 1], CLASSES[row : row + 1])
        np.testing.assert_allclose(alone.signed[0], together.signed[row], rtol=1e-3, atol=1e-7)


def test_frozen_weights_and_inference_mode_are_no_obstacle():
    expected = class_activation(build(), photos(), CLASSES)
    frozen = build().requires_grad_(False)
    with torch.inference_mode():
        made_here, here = build(), photos()
        found = [class_activation(model, x, CLASSES) for model in (frozen, made_here) for x in (photos(), here)]
    outside = class_activation(made_here, photos(), CLASSES)
    for one in (*found, outside):
        np.testing.assert_allclose(one.signed, expected.signed, rtol=1e-5)
        np.testing.assert_allclose(one.logits, expected.logits, rtol=1e-5)
    with torch.no_grad():
        np.testing.assert_allclose(build().eval()(photos()).numpy(), expected.logits, rtol=1e-5)
