"""H-CoAtNet with a window: a cut where it saves time.

H-CoAtNet cuts tokens after its last stage, when the work is done. Here one transformer block looks at the whole photo,
and all that follows looks at one window of it:

    photo → backbone to stride 8 → tokens + position embedding → transformer block → importance ──┬→ context
          → window → transformer block → rest of the backbone → tokens + context ←────────────────┘
          → H-SE twice → mean → LayerNorm → dropout → linear

At 224 × 224 the window has 16 × 16 of the 28 × 28 tokens.
"""

from typing import Any

import torch
from timm.models import generate_default_cfgs, register_model

from hcoatnet.errors import ModelError
from hcoatnet.models.h_coatnet import (
    SIZES,
    HCoAtNet,
    build_variant,
    checkpoint_filter_fn,
    family_cfg,
    initialise,
    to_map,
)
from hcoatnet.models.token_pruning import StageTrace
from hcoatnet.models.window import Window

__all__ = ["HCoAtNetWindow", "checkpoint_filter_fn", "default_cfgs"]


class HCoAtNetWindow(HCoAtNet):
    """H-CoAtNet that runs its later stages on one window of the photo. The cuts of H-SE count the window's tokens.

    Args:
        window: Share of the photo's height, and of its width, that the window has, rounded to whole tokens of the last
            map, at least 2. At 1, or where the last map is 2 × 2, nothing is cut.
        placement: How the window is placed (see :class:`~hcoatnet.models.window.Window`).
        blocks_before: Transformer blocks that see the whole photo: 0, 1 or 2. The others see the window.
        options: Of :class:`~hcoatnet.models.h_coatnet.HCoAtNet`.

    Raises:
        ModelError: An option outside its range.
    """

    own_parts = (*HCoAtNet.own_parts, "window")
    middle_parts = (*HCoAtNet.middle_parts, "window")

    def __init__(
        self, *, window: str | float = "4/7", placement: str = "importance", blocks_before: int = 1, **options: Any
    ) -> None:
        super().__init__(**options)
        if blocks_before not in (0, 1, 2):
            raise ModelError(f"The 'blocks_before' option must be 0, 1 or 2. Got {blocks_before!r} instead.")
        self.blocks_before = blocks_before
        self.window = Window(self.split_width, self.num_features, window, placement)
        self.window.apply(initialise)

    def forward_tokens(self, x: torch.Tensor) -> tuple[torch.Tensor, tuple[StageTrace, ...]]:
        """Photos (B, 3, H, W) to the kept tokens (B, k, C) and the trace of every cut, the window's first."""
        x = self._run_backbone(self.early_parts, x)
        blocks = () if self.transformer is None else tuple(self.transformer)
        tokens = self._run_blocks(blocks[: self.blocks_before], self._to_tokens(x))
        tokens, context, (height, width), cut = self.window(tokens, x.shape[2], x.shape[3])
        tokens = self._run_blocks(blocks[self.blocks_before :], tokens)
        x = self._run_backbone(self.late_parts, to_map(tokens, height, width))
        pruned: tuple[torch.Tensor, tuple[StageTrace, ...]] = self.hse(
            x.flatten(2).transpose(1, 2) + context, self.norm, self.head, cut
        )
        return pruned


default_cfgs = generate_default_cfgs(
    {"h_coatnet_window": family_cfg(), **{f"h_coatnet_window_{size}": family_cfg() for size in SIZES}}
)


@register_model
def h_coatnet_window(
    pretrained: bool = False, backbone: str = "convnext_tiny", ablation: str | None = None, **kwargs: Any
) -> HCoAtNetWindow:
    """H-CoAtNet with a window, over any timm ConvNeXt (v1) or EfficientNet."""
    return build_variant(HCoAtNetWindow, "h_coatnet_window", backbone, pretrained, ablation, kwargs)


@register_model
def h_coatnet_window_atto(pretrained: bool = False, ablation: str | None = None, **kwargs: Any) -> HCoAtNetWindow:
    """H-CoAtNet with a window, over ConvNeXt-Atto."""
    return build_variant(HCoAtNetWindow, "h_coatnet_window_atto", "convnext_atto", pretrained, ablation, kwargs)


@register_model
def h_coatnet_window_femto(pretrained: bool = False, ablation: str | None = None, **kwargs: Any) -> HCoAtNetWindow:
    """H-CoAtNet with a window, over ConvNeXt-Femto."""
    return build_variant(HCoAtNetWindow, "h_coatnet_window_femto", "convnext_femto", pretrained, ablation, kwargs)


@register_model
def h_coatnet_window_pico(pretrained: bool = False, ablation: str | None = None, **kwargs: Any) -> HCoAtNetWindow:
    """H-CoAtNet with a window, over ConvNeXt-Pico."""
    return build_variant(HCoAtNetWindow, "h_coatnet_window_pico", "convnext_pico", pretrained, ablation, kwargs)


@register_model
def h_coatnet_window_nano(pretrained: bool = False, ablation: str | None = None, **kwargs: Any) -> HCoAtNetWindow:
    """H-CoAtNet with a window, over ConvNeXt-Nano."""
    return build_variant(HCoAtNetWindow, "h_coatnet_window_nano", "convnext_nano", pretrained, ablation, kwargs)


@register_model
def h_coatnet_window_tiny(pretrained: bool = False, ablation: str | None = None, **kwargs: Any) -> HCoAtNetWindow:
    """H-CoAtNet with a window, over ConvNeXt-Tiny."""
    return build_variant(HCoAtNetWindow, "h_coatnet_window_tiny", "convnext_tiny", pretrained, ablation, kwargs)


@register_model
def h_coatnet_window_small(pretrained: bool = False, ablation: str | None = None, **kwargs: Any) -> HCoAtNetWindow:
    """H-CoAtNet with a window, over ConvNeXt-Small."""
    return build_variant(HCoAtNetWindow, "h_coatnet_window_small", "convnext_small", pretrained, ablation, kwargs)


@register_model
def h_coatnet_window_base(pretrained: bool = False, ablation: str | None = None, **kwargs: Any) -> HCoAtNetWindow:
    """H-CoAtNet with a window, over ConvNeXt-Base."""
    return build_variant(HCoAtNetWindow, "h_coatnet_window_base", "convnext_base", pretrained, ablation, kwargs)
