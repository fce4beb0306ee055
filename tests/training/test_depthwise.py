"""The gradient of a depthwise convolution by matrix products, against autograd of the ordinary convolution."""

from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from hcoatnet.models import registry
from hcoatnet.training.depthwise import DepthwiseConv2d, use_matrix_products, weight_gradient

sides = st.integers(1, 9)
kernels = st.sampled_from([1, 3, 5, 7])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(2, 5), sides, sides, kernels, kernels, st.integers(0, 2**16))
def test_the_weights_gradient_is_autograds_in_float64(batch, channels, height, width, down, across, seed):
    draws = torch.Generator().manual_seed(seed)
    photos = torch.randn(batch, channels, height, width, dtype=torch.float64, generator=draws)
    weight = torch.randn(channels, 1, down, across, dtype=torch.float64, generator=draws, requires_grad=True)
    out = functional.conv2d(photos, weight, padding=(down // 2, across // 2), groups=channels)
    grad = torch.randn(out.shape, dtype=torch.float64, generator=draws)
    out.backward(grad)
    torch.testing.assert_close(weight_gradient(photos, grad, (down, across)), weight.grad, rtol=1e-10, atol=1e-10)


def gradients(convolution, photos, grad):
    photos = photos.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = convolution(photos)
    out.backward(grad.to(out.dtype))
    return out, photos.grad, convolution.weight.grad, convolution.bias.grad


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_in_bf16_it_is_as_near_to_float64_as_the_ordinary_convolution(layout):
    torch.manual_seed(0)
    ordinary = nn.Sequential(nn.Conv2d(16, 16, 7, padding=3, groups=16))
    quick = deepcopy(ordinary)
    assert use_matrix_products(quick) == 1
    photos = torch.randn(8, 16, 12, 12).to(memory_format=layout)
    grad = torch.randn(8, 16, 12, 12)
    exact = deepcopy(ordinary).double()
    exact_photos = photos.double().requires_grad_()
    exact_out = exact(exact_photos)
    exact_out.backward(grad.double())
    truth = (exact_out, exact_photos.grad, exact[0].weight.grad, exact[0].bias.grad)
    plain = gradients(ordinary[0], photos, grad)
    ours = gradients(quick[0], photos, grad)
    assert torch.equal(ours[0], plain[0])
    for true, usual, found in zip(truth, plain, ours, strict=True):
        usual_error = (usual.double() - true).abs().max()
        assert (found.double() - true).abs().max() <= 1.5 * usual_error
        assert found.dtype == usual.dtype


def test_the_parameters_stay_the_very_same_under_their_names():
    model = registry.create("test_convnext", 3, 32)
    before = dict(model.named_parameters())
    outputs = model.eval()(photos := torch.randn(2, 3, 32, 32))
    assert use_matrix_products(model) == sum(isinstance(one, DepthwiseConv2d) for one in model.modules()) > 0
    assert {name: id(one) for name, one in model.named_parameters()} == {name: id(one) for name, one in before.items()}
    assert torch.equal(model(photos), outputs)


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.Conv2d(4, 8, 3, padding=1, groups=4),
        nn.Conv2d(4, 4, 3, padding=1, groups=4, stride=2),
        nn.Conv2d(4, 4, 3, padding=2, groups=4, dilation=2),
        nn.Conv2d(4, 4, 3, padding=0, groups=4),
        nn.Conv2d(4, 4, 3, padding=1, groups=4, padding_mode="reflect"),
        nn.Conv2d(4, 4, 1, groups=4),
        nn.Conv2d(1, 1, 3, padding=1),
    ],
)
def test_other_convolutions_are_left_alone(convolution):
    assert use_matrix_products(nn.Sequential(convolution)) == 0
