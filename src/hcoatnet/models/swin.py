"""A small Swin transformer for machines without a GPU (Liu et al. 2021, arXiv 2103.14030)."""

from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import SwinTransformer, build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.swin_transformer import checkpoint_filter_fn

default_cfgs = generate_default_cfgs(
    {
        "swin_atto": {
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "pool_size": (7, 7),
            "crop_pct": 1.0,
            "interpolation": "bicubic",
            "mean": IMAGENET_DEFAULT_MEAN,
            "std": IMAGENET_DEFAULT_STD,
            "fixed_input_size": True,
            "first_conv": "patch_embed.proj",
            "classifier": "head.fc",
        }
    }
)


@register_model
def swin_atto(pretrained: bool = False, **kwargs: Any) -> SwinTransformer:
    """Swin, 40 wide with heads of 20 channels, depths 2-2-6-2, window 7."""
    shape = {"patch_size": 4, "window_size": 7, "embed_dim": 40, "depths": (2, 2, 6, 2), "num_heads": (2, 4, 8, 16)}
    return build_model_with_cfg(
        SwinTransformer,
        "swin_atto",
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"flatten_sequential": True, "out_indices": (0, 1, 2, 3)},
        **{**shape, **kwargs},
    )
