"""Depthwise convolution and attention by matrix products, against autograd of torch's own in float64."""

from contextlib import nullcontext
from copy import deepcopy

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from hcoatnet.models import registry
from hcoatnet.training import matrix_products as products
from hcoatnet.training.compilation import Switch
from hcoatnet.training.matrix_products import Attention, MatrixProducts, photo_gradient, weight_gradient

sides, strides = st.integers(1, 9), st.integers(1, 3)
kernels = st.integers(1, 7)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 4), st.integers(2, 5), sides, sides, kernels, kernels, strides, strides, st.booleans(), st.data())
def test_gradients_of_a_depthwise_convolution_are_autograds_in_float64(
    batch, channels, height, width, down, across, step, skip, padded, data
):
    rows, columns = (data.draw(st.integers(0, side)) for side in (down, across)) if padded else (down, across)
    draws = torch.Generator().manual_seed(data.draw(st.integers(0, 2**16)))
    shape = {"dtype": torch.float64, "generator": draws, "requires_grad": True}
    photos = torch.randn(batch, channels, height, width, **shape)
    weight = torch.randn(channels, 1, down, across, **shape)
    assume(height + 2 * rows >= down and width + 2 * columns >= across)
    stride, padding = (step, skip), (rows, columns)
    out = functional.conv2d(photos, weight, stride=stride, padding=padding, groups=channels)
    grad = torch.randn(out.shape, dtype=torch.float64, generator=draws)
    out.backward(grad)
    with torch.no_grad():
        for_weight = weight_gradient(photos, grad, (down, across), stride, padding)
        for_photos = photo_gradient(photos.shape, weight, grad, stride, padding)
    torch.testing.assert_close(for_weight, weight.grad, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(for_photos, photos.grad, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("mask_shape", [None, (1, 3, 5, 5), (2, 1, 5, 5)])
def test_attention_and_its_gradients_are_right_in_float64(mask_shape):
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    mask = None if mask_shape is None else torch.randn(mask_shape, dtype=torch.float64, requires_grad=True)
    inputs = [one for one in (query, key, value, mask) if one is not None]
    assert torch.autograd.gradcheck(lambda *_: Attention.apply(query, key, value, mask, 0.3), inputs)
    expected = functional.scaled_dot_product_attention(query, key, value, mask, scale=0.3)
    torch.testing.assert_close(Attention.apply(query, key, value, mask, 0.3), expected)


def gradients(model, photos, targets, entered):
    """Loss and gradients of a step under bf16 autocast, by torch or by matrix products; or in float64."""
    model = deepcopy(model)
    if entered is None:
        model, photos = model.double(), photos.double()
        loss = functional.cross_entropy(model(photos), targets)
    else:
        with torch.autocast("cpu", torch.bfloat16), MatrixProducts() if entered else nullcontext():
            loss = functional.cross_entropy(model(photos).float(), targets)
    loss.backward()
    return torch.cat([one.grad.double().flatten() for one in model.parameters() if one.grad is not None])


@pytest.mark.parametrize("name", ["test_convnext", "test_vit", "swin_atto", "gft_tiny", "efficientnet_b0"])
def test_a_steps_gradient_is_as_near_to_float64_as_by_torch(name):
    torch.manual_seed(0)
    size = 64 if name in ("swin_atto", "gft_tiny") else 32
    model = registry.create(name, 3, size, drop_rate=0.0).train()
    photos, targets = torch.randn(6, 3, size, size), torch.tensor([0, 1, 2, 0, 1, 2])
    exact = gradients(model, photos, targets, entered=None)
    error = {entered: (gradients(model, photos, targets, entered) - exact).norm() for entered in (False, True)}
    assert 0 < error[True] <= 1.5 * error[False]


@pytest.mark.parametrize(
    ("name", "operations"),
    [("test_convnext", {"conv"}), ("test_vit", {"attention"}), ("h_coatnet_atto", {"conv", "attention"})],
)
def test_the_switch_uses_them_for_gradients_in_bf16_only(monkeypatch, name, operations):
    used = set()
    for operation, kind in (("conv", products._DepthwiseConvolution), ("attention", Attention)):

        def spied(*arguments, operation=operation, apply=kind.apply):
            used.add(operation)
            return apply(*arguments)

        monkeypatch.setattr(kind, "apply", spied)
    switch = Switch(registry.create(name, 3, 32), batch_size=2, side=32)
    photos = torch.randn(2, 3, 32, 32)
    switch(photos)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        switch(photos)
    with torch.autocast("cpu", torch.float16):
        switch(photos)
    assert used == set()
    with torch.autocast("cpu", torch.bfloat16):
        switch(photos)
    assert used == operations


def test_arguments_may_be_named():
    torch.manual_seed(0)
    photos, weight = torch.randn(2, 4, 6, 6), torch.randn(4, 1, 5, 5, requires_grad=True)
    placed = ((1, 1), (2, 2), (1, 1), 4)
    named = dict(zip(("stride", "padding", "dilation", "groups"), placed, strict=True))
    with torch.autocast("cpu", torch.bfloat16), MatrixProducts():
        by_name = torch.conv2d(input=photos, weight=weight, bias=None, **named)
        by_place = torch.conv2d(photos, weight, None, *placed)
    assert "_DepthwiseConvolution" in type(by_name.grad_fn).__name__
    assert torch.equal(by_name, by_place)


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.Conv2d(4, 8, 3, padding=1, groups=4),
        nn.Conv2d(4, 4, 3, padding=2, groups=4, dilation=2),
        nn.Conv2d(4, 4, 3, padding="same", groups=4),
        nn.Conv2d(4, 4, 1, groups=4),
        nn.Conv2d(1, 1, 3, padding=1),
    ],
)
def test_other_convolutions_are_torchs(monkeypatch, convolution):
    monkeypatch.setattr(products._DepthwiseConvolution, "apply", None)
    with torch.autocast("cpu", torch.bfloat16), MatrixProducts():
        convolution(torch.randn(2, convolution.in_channels, 6, 6))


@pytest.mark.parametrize(
    "options",
    [{"dropout_p": 0.5}, {"is_causal": True}, {"attn_mask": torch.ones(5, 5, dtype=torch.bool)}, {"enable_gqa": True}],
)
def test_other_attention_is_torchs(monkeypatch, options):
    monkeypatch.setattr(Attention, "apply", None)
    tokens = torch.randn(2, 3, 5, 4)
    with MatrixProducts():
        functional.scaled_dot_product_attention(tokens, tokens, tokens, **options)
