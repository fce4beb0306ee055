"""How weights start that are not read from a file."""

from collections.abc import Collection

import torch
from timm.layers.weight_init import trunc_normal_
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

LAYER_SCALE = 0.1
"""Least factor of a residual branch, where the model learns one."""


def scale_to_inputs(model: nn.Module, only: Collection[str] | None = None) -> None:
    """Draw weights anew, truncated normal of variance 1 / fan-in (LeCun et al. 1998), and open residual branches.

    ConvNeXt, ViT and Swin publish weights of a deviation of 0.02 whatever a layer's width, and ConvNeXt factors of 10⁻⁶
    on its residual branches (layer scale, Touvron et al. 2021): made for hundreds of epochs of a million photos. In
    narrow models nearly nothing passes at first, and the first of a few hundred steps go into letting it pass.
    EfficientNet draws its classifier for a thousand classes: for six, the first logits are eight times too large.

    Convolutions of models with batch norm, in which the scale of their weights does not matter, stay as they are.

    Args:
        model: The model; its weights are changed in place, drawn from torch's generator.
        only: Names of the parameters that may change; None for all.
    """
    normed = any(isinstance(module, _BatchNorm) for module in model.modules())
    redrawn = (nn.Linear,) if normed else (nn.Linear, nn.Conv2d)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if only is not None and name not in only:
                continue
            if name.endswith(".gamma") and parameter.ndim == 1:
                parameter.clamp_(min=LAYER_SCALE)
        for name, module in model.named_modules():
            if isinstance(module, redrawn) and (only is None or f"{name}.weight" in only):
                trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5, a=-10.0, b=10.0)
