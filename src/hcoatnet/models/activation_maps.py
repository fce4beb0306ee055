"""Where a model's class-activation map is taken: a module, and how its output becomes a map.

A model of ours says so itself, in a method ``activation_place``; those of timm are known here by family.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from timm.models import ConvNeXt, EfficientNet, MaxxVit, SwinTransformer, VisionTransformer
from torch import nn

from hcoatnet.errors import ModelError


@dataclass(frozen=True)
class ActivationPlace:
    """Where a class-activation map is taken.

    Attributes:
        module: Its output is looked at: a tensor, or a tuple whose first item is the tensor.
        to_map: Makes such an output a map (B, C, H, W) that covers the whole photo. It only rearranges, so that the
            tensor's gradient, put in the tensor's place, becomes the map's gradient.
        words: The place in words.
    """

    module: nn.Module
    to_map: Callable[[Any], torch.Tensor]
    words: str


def activation_place(model: nn.Module) -> ActivationPlace:
    """The place that is right for ``model``: the last at which what counts of the photo still stands where it was.

    Raises:
        ModelError: The model is of a family for which no such place is known.
    """
    named = getattr(model, "activation_place", None)
    if named is not None:
        place: ActivationPlace = named()
        return place
    if isinstance(model, ConvNeXt):
        return ActivationPlace(model.stages[-1], as_it_is, "the last stage")
    if isinstance(model, EfficientNet):
        return ActivationPlace(model.bn2, as_it_is, "the last convolution, normalised and activated")
    if isinstance(model, MaxxVit):
        return ActivationPlace(model.norm, as_it_is, "the last stage")
    if isinstance(model, SwinTransformer):
        return ActivationPlace(model.norm, channels_first, "the last stage, normalised")
    if isinstance(model, VisionTransformer):
        last: Any = model.blocks[-1]
        return ActivationPlace(
            last.norm1, patches_of(model.num_prefix_tokens), "the patches that the attention of the last block reads"
        )
    return _place_by_feature_info(model)


def as_it_is(output: torch.Tensor) -> torch.Tensor:
    """A map (B, C, H, W) stays one."""
    return output


def channels_first(output: torch.Tensor) -> torch.Tensor:
    """A map (B, H, W, C) as (B, C, H, W)."""
    return output.permute(0, 3, 1, 2)


def patches_of(prefix: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """What makes tokens (B, prefix + N, C), N patches row by row after ``prefix`` others, a map of the patches."""
    return lambda output: to_grid(output[:, prefix:])


def to_grid(tokens: torch.Tensor) -> torch.Tensor:
    """Tokens (B, N, C) of a square map, row by row, as (B, C, √N, √N).

    Raises:
        ModelError: N is no square.
    """
    batch, count, channels = tokens.shape
    side = grid_side(count)
    return tokens.transpose(1, 2).reshape(batch, channels, side, side)


def grid_side(count: int) -> int:
    """Side of the square map that ``count`` tokens cover.

    Raises:
        ModelError: ``count`` is no square.
    """
    side = math.isqrt(count)
    if side * side != count:
        raise ModelError(f"{count} tokens are no square map: only square photos can be explained.")
    return side


def _place_by_feature_info(model: nn.Module) -> ActivationPlace:
    try:
        last = dict(list(model.feature_info)[-1])  # type: ignore[arg-type]
        module = model.get_submodule(last["module"])
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise _unknown(model) from error
    channels = last["num_chs"]

    def to_map(output: Any) -> torch.Tensor:
        if isinstance(output, torch.Tensor) and output.ndim == 4:
            if output.shape[1] == channels:
                return output
            if output.shape[3] == channels:
                return channels_first(output)
        raise _unknown(model)

    return ActivationPlace(module, to_map, f"the last of its maps ({last['module']})")


def _unknown(model: nn.Module) -> ModelError:
    return ModelError(
        f"No place for a class-activation map is known in a {type(model).__name__}: it is none of timm's ConvNeXt, "
        "EfficientNet, ViT, Swin and CoAtNet, and its last features are no map. Explain a model of those families."
    )
