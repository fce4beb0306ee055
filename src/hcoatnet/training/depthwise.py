"""Depthwise convolutions whose weights' gradient is computed by matrix products.

In bf16 on a CPU, oneDNN takes ten to forty times as long for that gradient as for the convolution itself. For a row
offset d the gradient at all column offsets is a sum along diagonals of one product of matrices for each channel:

    M_d[c] = Σ_{b,y} grad[b, c, y, :] · padded[b, c, y + d, :]ᵀ          (W × (W + k − 1))
    gradient[c, d, e] = Σ_x M_d[c][x, x + e]

What is computed is the same; it is rounded once more, to bf16, before the last sum.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution of stride 1 that keeps the map's size; only its backward pass under bf16 is another."""

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, C, H, W) to a map of the same shape."""
        if torch.is_grad_enabled() and torch.is_autocast_enabled("cpu"):
            result: Tensor = _Convolution.apply(input, self.weight, self.bias)
            return result
        return super().forward(input)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, photos: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        dtype = torch.get_autocast_dtype("cpu")
        low, kernel = photos.to(dtype), weight.to(dtype)
        ctx.save_for_backward(low, kernel)
        ctx.dtypes = photos.dtype, weight.dtype, None if bias is None else bias.dtype
        padding = [side // 2 for side in weight.shape[2:]]
        return functional.conv2d(low, kernel, None if bias is None else bias.to(dtype), 1, padding, 1, len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        photos, kernel = ctx.saved_tensors
        photos_dtype, weight_dtype, bias_dtype = ctx.dtypes
        grad_photos = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            # a depthwise convolution of this kind is undone by the same one with its kernels turned by 180°
            padding = [side // 2 for side in kernel.shape[2:]]
            grad_photos = functional.conv2d(grad, kernel.flip(2, 3), None, 1, padding, 1, len(kernel)).to(photos_dtype)
        if ctx.needs_input_grad[1]:
            grad_weight = weight_gradient(photos, grad, (kernel.shape[2], kernel.shape[3])).to(weight_dtype)
        if ctx.needs_input_grad[2]:
            grad_bias = grad.sum((0, 2, 3), dtype=bias_dtype)
        return grad_photos, grad_weight, grad_bias


def weight_gradient(photos: Tensor, grad: Tensor, kernel: tuple[int, int]) -> Tensor:
    """Gradient of a depthwise convolution's weights.

    Args:
        photos: What was convolved, (B, C, H, W).
        grad: Gradient of what came out, (B, C, H, W).
        kernel: Height and width k of the kernels, both odd; padding k // 2, stride 1.

    Returns:
        (C, 1, *kernel), summed in float32, or in float64 where the inputs are.
    """
    batch, channels, height, width = grad.shape
    down, across = kernel
    padded = functional.pad(
        photos.permute(1, 2, 0, 3), (across // 2, across // 2, 0, 0, down // 2, down // 2)
    )  # (C, H + down − 1, B, W + across − 1)
    wide = padded.shape[3]
    grads = grad.permute(1, 3, 2, 0).reshape(channels, width, height * batch)
    products = torch.stack(
        [
            torch.bmm(grads, padded[:, offset : offset + height].reshape(channels, height * batch, wide))
            for offset in range(down)
        ],
        dim=1,
    )  # (C, down, W, W + across − 1)
    strides = (down * width * wide, width * wide, 1, wide + 1)
    diagonals = products.as_strided((channels, down, across, width), strides)
    dtype = torch.promote_types(products.dtype, torch.float32)
    return diagonals.sum(-1, dtype=dtype).unsqueeze(1)


def use_matrix_products(model: nn.Module) -> int:
    """Exchange the depthwise convolutions of ``model`` to which this applies; its parameters stay the very same.

    Returns:
        How many were exchanged.
    """
    found = {name: module for name, module in model.named_modules() if type(module) is nn.Conv2d and _applies(module)}
    for name, module in found.items():
        model.set_submodule(name, _with_parameters_of(module))
    return len(found)


def _with_parameters_of(convolution: nn.Conv2d) -> DepthwiseConv2d:
    channels, kernel, padding = convolution.in_channels, convolution.kernel_size, convolution.padding
    biased = convolution.bias is not None
    exchanged = DepthwiseConv2d(channels, channels, kernel, 1, padding, 1, channels, biased, device="meta")  # type: ignore[arg-type]
    exchanged.weight, exchanged.bias = convolution.weight, convolution.bias
    return exchanged.train(convolution.training)


def _applies(convolution: nn.Conv2d) -> bool:
    kernel = convolution.kernel_size
    return (
        convolution.groups == convolution.in_channels == convolution.out_channels > 1
        and convolution.stride == convolution.dilation == (1, 1)
        and convolution.padding_mode == "zeros"
        and convolution.padding == tuple(side // 2 for side in kernel)
        and all(side % 2 == 1 and side > 1 for side in kernel)
    )
