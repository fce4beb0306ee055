"""Two operations whose backward pass torch computes slowly in bf16 on a CPU, put down to matrix products.

- **Depthwise convolution.** oneDNN takes ten to forty times as long for the gradient of the weights as for the
  convolution itself. At a row offset d, the gradient for all column offsets e is a sum along the diagonals of one
  product for each channel:

      M_d[c] = Σ_{b,y} grad[b, c, y, :] · padded[b, c, y + d, :]ᵀ     (W × (W + k − 1))
      gradient[c, d, e] = Σ_x M_d[c][x, x + e]

- **Attention.** torch's fused kernel gains nothing from bf16 there. Plain products keep the attention of all tokens in
  memory, (B, heads, N, N) in bf16, from the forward to the backward pass.

Both round to bf16 as torch does where it computes the same operations unfused under autocast.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.overrides import TorchFunctionMode

LOW = torch.bfloat16


class MatrixProducts(TorchFunctionMode):
    """While entered, depthwise convolutions and attention of a training step under bf16 autocast are computed so.

    What it does not cover (strides, dilation, attention with dropout or a causal mask) is left to torch.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Called by torch for each of its functions."""
        kwargs = kwargs or {}
        if func is torch.conv2d and is_covered_convolution(*args, **kwargs):
            return _DepthwiseConvolution.apply(*args[:3])
        if func is functional.scaled_dot_product_attention and is_covered_attention(*args, **kwargs):
            return _attention(*args, **kwargs)
        return func(*args, **kwargs)


def matrix_products(device: str) -> AbstractContextManager[Any]:
    """:class:`MatrixProducts` where it is quicker: for gradients under bf16 autocast on a CPU."""
    low = device == "cpu" and torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == LOW
    return MatrixProducts() if low and torch.is_grad_enabled() else nullcontext()


def is_covered_convolution(
    photos: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> bool:
    """Whether a convolution is depthwise, of stride 1, and keeps the size of the map; arguments as torch's."""
    sides = weight.shape[2:]
    return (
        groups == weight.shape[0] == photos.shape[1] > 1
        and all(side % 2 == 1 and side > 1 for side in sides)
        and stride == dilation == (1, 1)
        and padding == tuple(side // 2 for side in sides)
    )


def is_covered_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> bool:
    """Whether attention has no dropout and no mask but one that is added; arguments as torch's."""
    added = attn_mask is None or attn_mask.dtype != torch.bool
    return added and dropout_p == 0 and not is_causal and not enable_gqa


class _DepthwiseConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, photos: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        low, kernel = photos.to(LOW), weight.to(LOW)
        ctx.save_for_backward(low, kernel)
        ctx.dtypes = photos.dtype, weight.dtype, None if bias is None else bias.dtype
        return _depthwise(low, kernel, None if bias is None else bias.to(LOW))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        photos, kernel = ctx.saved_tensors
        photos_dtype, weight_dtype, bias_dtype = ctx.dtypes
        grad_photos = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:  # by the same convolution with its kernels turned by 180°
            grad_photos = _depthwise(grad, kernel.flip(2, 3)).to(photos_dtype)
        if ctx.needs_input_grad[1]:
            grad_weight = weight_gradient(photos, grad, kernel.shape[2], kernel.shape[3]).to(weight_dtype)
        if ctx.needs_input_grad[2]:
            grad_bias = grad.sum((0, 2, 3), dtype=bias_dtype)
        return grad_photos, grad_weight, grad_bias


def _depthwise(photos: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    padding = [side // 2 for side in kernel.shape[2:]]
    return torch.conv2d(photos, kernel, bias, padding=padding, groups=len(kernel))


def weight_gradient(photos: Tensor, grad: Tensor, down: int, across: int) -> Tensor:
    """Gradient of a depthwise convolution's weights.

    Args:
        photos: What was convolved, (B, C, H, W).
        grad: Gradient of what came out, (B, C, H, W).
        down: Height of the kernels, odd; padding is half of it, the stride 1.
        across: Width of the kernels, odd, likewise.

    Returns:
        (C, 1, down, across), summed in float32, or in float64 where the inputs are.
    """
    batch, channels, height, width = grad.shape
    border = (across // 2, across // 2, 0, 0, down // 2, down // 2)
    padded = functional.pad(photos.permute(1, 2, 0, 3), border)  # (C, H + down − 1, B, W + across − 1)
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
    return diagonals.sum(-1, dtype=torch.promote_types(products.dtype, torch.float32)).unsqueeze(1)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    mask = None if attn_mask is None else attn_mask.to(LOW)
    result: Tensor = Attention.apply(query.to(LOW), key.to(LOW), value.to(LOW), mask, scale)
    return result


class Attention(torch.autograd.Function):
    """softmax(scale · q kᵀ + mask) v with q, k, v (…, N, d) and an additive mask that broadcasts to (…, N, N)."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
        """The output, (…, N, d)."""
        scores = (query * scale) @ key.transpose(-1, -2)
        attention = (scores if mask is None else scores + mask).softmax(-1)
        ctx.save_for_backward(query, key, value, attention)
        ctx.scale, ctx.mask_shape = scale, None if mask is None else mask.shape
        return attention @ value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None, None]:
        """Gradients of query, key, value and mask."""
        query, key, value, attention = ctx.saved_tensors
        grad_attention = grad @ value.transpose(-1, -2)
        grad_scores = torch._softmax_backward_data(grad_attention, attention, -1, attention.dtype)
        return (
            grad_scores @ key * ctx.scale,
            grad_scores.transpose(-1, -2) @ query * ctx.scale,
            attention.transpose(-1, -2) @ grad,
            grad_scores.sum_to_size(ctx.mask_shape) if ctx.needs_input_grad[3] else None,
            None,
        )
