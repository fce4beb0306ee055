"""Two operations whose backward pass torch computes slowly in bf16 on a CPU, put down to matrix products.

- **Depthwise convolution.** With kernels over 3 × 3, oneDNN takes ten to forty times as long for the gradient of the
  weights as for the convolution itself, and with a stride s as long for that of the photos. At a row offset d, the
  gradient of the weights for all column offsets e is a sum along the diagonals of one product for each channel:

      M_d[c] = Σ_{b,y} grad[b, c, y, :] · padded[b, c, s y + d, :]ᵀ
      gradient[c, d, e] = Σ_x M_d[c][x, s x + e]

- **Attention.** torch's fused kernel gains nothing from bf16 there. Plain products keep the attention of all tokens in
  memory, (B, heads, N, N) in bf16, from the forward to the backward pass.

Both round to bf16 as torch does where it computes the same operations unfused under autocast.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.grad import conv2d_input, conv2d_weight
from torch.overrides import TorchFunctionMode

LOW = torch.bfloat16

SMALL_KERNEL = 3
"""Largest kernel for which oneDNN is quick with the gradient of the weights."""

Sides = tuple[int, int]
"""Down and across."""


class MatrixProducts(TorchFunctionMode):
    """While entered, depthwise convolutions and attention of a training step under bf16 autocast are computed so.

    What it does not cover (dilation, padding by a word, attention with dropout or a causal mask) is left to torch.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Called by torch for each of its functions."""
        kwargs = kwargs or {}
        if func is torch.conv2d:
            return _conv2d(*args, **kwargs)
        if func is functional.scaled_dot_product_attention:
            return _scaled_dot_product_attention(*args, **kwargs)
        return func(*args, **kwargs)


def matrix_products(device: str) -> AbstractContextManager[Any]:
    """:class:`MatrixProducts` where it is quicker: for gradients under bf16 autocast on a CPU."""
    low = device == "cpu" and torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == LOW
    return MatrixProducts() if low and torch.is_grad_enabled() else nullcontext()


def _conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """In the place of torch's: a depthwise convolution that is not dilated and is padded by numbers."""
    covered = (
        groups == weight.shape[0] == input.shape[1] > 1
        and weight.shape[2:] != (1, 1)
        and dilation == (1, 1)
        and all(isinstance(sides, tuple) for sides in (stride, padding))
    )
    convolve = _DepthwiseConvolution.apply if covered else torch.conv2d
    return convolve(input, weight, bias, stride, padding, dilation, groups)


def _scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """In the place of torch's: attention without dropout, and without a mask but one that is added."""
    added = attn_mask is None or attn_mask.dtype != torch.bool
    if not added or dropout_p or is_causal or enable_gqa:
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    mask = None if attn_mask is None else attn_mask.to(LOW)
    return Attention.apply(query.to(LOW), key.to(LOW), value.to(LOW), mask, scale)


class _DepthwiseConvolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        photos: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: Sides,
        padding: Sides,
        dilation: Sides,
        groups: int,
    ) -> Tensor:
        low, kernel = photos.to(LOW), weight.to(LOW)
        ctx.save_for_backward(low, kernel)
        ctx.settings = stride, padding, dilation, groups
        ctx.dtypes = photos.dtype, weight.dtype, None if bias is None else bias.dtype
        return torch.conv2d(low, kernel, None if bias is None else bias.to(LOW), *ctx.settings)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        photos, kernel = ctx.saved_tensors
        photos_dtype, weight_dtype, bias_dtype = ctx.dtypes
        stride, padding, _, _ = ctx.settings
        grad_photos = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_photos = photo_gradient(photos.shape, kernel, grad, stride, padding).to(photos_dtype)
        if ctx.needs_input_grad[1]:
            small = max(kernel.shape[2:]) <= SMALL_KERNEL
            grad_weight = (
                conv2d_weight(photos, kernel.shape, grad, *ctx.settings)  # type: ignore[no-untyped-call]
                if small
                else weight_gradient(photos, grad, kernel.shape[2:], stride, padding)
            ).to(weight_dtype)
        if ctx.needs_input_grad[2]:
            grad_bias = grad.sum((0, 2, 3), dtype=bias_dtype)
        return grad_photos, grad_weight, grad_bias, None, None, None, None


def photo_gradient(shape: torch.Size, kernel: Tensor, grad: Tensor, stride: Sides, padding: Sides) -> Tensor:
    """Gradient of what a depthwise convolution read, (B, C, H, W) = ``shape``, from that of what came out.

    A stride is put down to a stride of 1: what comes out in between has no gradient.
    """
    if stride != (1, 1):
        sides = [
            side + 2 * border - span + 1
            for side, border, span in zip(shape[2:], padding, kernel.shape[2:], strict=True)
        ]
        spread = torch.empty(
            (*shape[:2], *sides), dtype=grad.dtype, device=grad.device, memory_format=torch.channels_last
        ).zero_()
        spread[:, :, :: stride[0], :: stride[1]][:, :, : grad.shape[2], : grad.shape[3]] = grad
        grad = spread
    found: Tensor = conv2d_input(shape, kernel, grad, 1, padding, 1, len(kernel))  # type: ignore[no-untyped-call]
    return found


def weight_gradient(
    photos: Tensor, grad: Tensor, kernel: Sequence[int], stride: Sides = (1, 1), padding: Sides = (0, 0)
) -> Tensor:
    """Gradient of a depthwise convolution's weights.

    Args:
        photos: What was convolved, (B, C, H, W).
        grad: Gradient of what came out, (B, C, H', W').
        kernel: Height and width of the kernels.
        stride: Down and across.
        padding: Rows above and below, columns left and right.

    Returns:
        (C, 1, *kernel), summed in float32, or in float64 where the inputs are.
    """
    batch, channels, height, width = grad.shape
    (down, across), (step, skip), (rows, columns) = kernel, stride, padding
    padded = functional.pad(photos.permute(1, 2, 0, 3), (columns, columns, 0, 0, rows, rows))
    wide = padded.shape[3]
    grads = grad.permute(1, 3, 2, 0).reshape(channels, width, height * batch)
    products = torch.stack(
        [
            torch.bmm(grads, padded[:, offset::step][:, :height].reshape(channels, height * batch, wide))
            for offset in range(down)
        ],
        dim=1,
    )  # (C, down, W', W + 2 · columns)
    strides = (down * width * wide, width * wide, 1, wide + skip)
    diagonals = products.as_strided((channels, down, across, width), strides)
    return diagonals.sum(-1, dtype=torch.promote_types(products.dtype, torch.float32)).unsqueeze(1)


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
