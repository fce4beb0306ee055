"""H-CoAtNet: a convolutional backbone with a transformer in the middle and token pruning at the end.

After "H-CoAtNet: Hierarchically Enhanced Hybrid Learning for Ichthyosis Classification":

    photo → backbone to stride 8 → tokens + position embedding → 2 transformer blocks
          → rest of the backbone → tokens → H-SE twice → mean → LayerNorm → dropout → linear

The backbone is timm's ConvNeXt (Liu et al. 2022, arXiv 2201.03545) or EfficientNet (Tan & Le 2019, arXiv 1905.11946).
"""

import re
import warnings
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers.drop import DropPath
from timm.layers.helpers import to_2tuple
from timm.layers.norm import LayerNorm
from timm.layers.weight_init import trunc_normal_
from timm.models import (
    ConvNeXt,
    EfficientNet,
    build_model_with_cfg,
    generate_default_cfgs,
    get_pretrained_cfg,
    get_pretrained_cfg_value,
    group_parameters,
    is_model_in_modules,
    register_model,
)
from timm.models.convnext import checkpoint_filter_fn as convnext_filter_fn
from timm.models.vision_transformer import Block
from torch import nn
from torch.nn.functional import interpolate

from hcoatnet.errors import ModelError
from hcoatnet.models import gradient_checkpointing
from hcoatnet.models.ablations import expand_ablation
from hcoatnet.models.activation_maps import ActivationPlace
from hcoatnet.models.token_pruning import HierarchicalSE, StageTrace, kept_map, parse_stages

SPLIT_STRIDE = 8


class HCoAtNet(nn.Module):
    """H-CoAtNet over a timm backbone.

    Args:
        backbone: Name of a timm ConvNeXt (v1) or EfficientNet.
        img_size: Photo size for which the position embedding is made; at other sizes it is interpolated.
        in_chans: Channels of the photos.
        num_classes: Classes of the linear layer; 0 leaves it out.
        global_pool: Only ``avg``.
        drop_rate: Dropout before the linear layer.
        drop_path_rate: Stochastic depth of the backbone, rising as timm has it; the transformer blocks take the rate
            that the backbone has reached where they stand.
        transformer: Whether the transformer blocks and the position embedding are there.
        stages: Stages of H-SE (see :func:`~hcoatnet.models.token_pruning.parse_stages`).
        importance: How tokens are scored (see :class:`~hcoatnet.models.token_pruning.HierarchicalSE`).
        stage1_repeats: How often a ConvNeXt's first stage is applied, with the same weights.

    Raises:
        ModelError: A backbone of another family, or an option outside its range.
    """

    # Parts that a checkpoint of the backbone alone lacks, and parts of it that have no place here.
    own_parts: tuple[str, ...] = ("pos_embed", "transformer", "hse", "norm")
    foreign_parts = ("backbone.head",)
    # Parts that stand between the two halves of the backbone.
    middle_parts: tuple[str, ...] = ("pos_embed", "transformer")

    def __init__(
        self,
        backbone: str = "convnext_tiny",
        img_size: int | tuple[int, int] = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        drop_rate: float = 0.2,
        drop_path_rate: float = 0.0,
        transformer: bool = True,
        stages: str | float = "gate:0.75,gate:0.5",
        importance: str = "gradient",
        stage1_repeats: int = 1,
    ) -> None:
        super().__init__()
        if not isinstance(transformer, bool):
            raise ModelError(f"The 'transformer' option must be true or false. Got {transformer!r} instead.")
        self.in_chans = in_chans
        self.drop_rate = drop_rate
        self.grad_checkpointing = False
        self.backbone_name = backbone
        self.backbone = _create_backbone(backbone, in_chans, drop_path_rate)
        self.early_parts, self.late_parts, self.split_width = _split_backbone(self.backbone, backbone, stage1_repeats)
        self.num_features = self.head_hidden_size = self.backbone.num_features

        self.pos_embed: nn.Parameter | None = None
        self.transformer: nn.Sequential | None = None
        if transformer:
            height, breadth = (side // SPLIT_STRIDE for side in to_2tuple(img_size))
            self.pos_embed = nn.Parameter(torch.zeros(1, height, breadth, self.split_width))
            rates = [part.drop_prob for name in self.early_parts for part in _drop_paths(self.backbone, name)]
            self.transformer = nn.Sequential(
                *(_transformer_block(self.split_width, drop_path=max(rates, default=0.0)) for _ in range(2))
            )
        self.hse = HierarchicalSE(self.num_features, parse_stages(stages), importance)
        self.hse.apply(initialise)
        self.norm = nn.LayerNorm(self.num_features, eps=_norm_epsilon(self.backbone))
        self.head_drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes, global_pool)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the linear layer by a new one; 0 classes leave it out."""
        if global_pool not in (None, "avg"):
            raise ModelError(
                f"H-CoAtNet pools by the average: 'global_pool' must be 'avg'. Got {global_pool!r} instead."
            )
        self.num_classes = num_classes
        self.head: nn.Module = nn.Identity()
        if num_classes > 0:
            like = self.norm.weight
            self.head = nn.Linear(self.num_features, num_classes, device=like.device, dtype=like.dtype)
            initialise(self.head)
        elif self.hse.cuts and self.hse.importance == "gradient":
            warnings.warn("Without classes there is no head to score tokens by: their norm is used.", stacklevel=2)

    def get_classifier(self) -> nn.Module:
        """The linear layer."""
        return self.head

    def activation_place(self) -> ActivationPlace:
        """The tokens that the head takes the mean of, each where it stands, and 0 where tokens were cut.

        On the map before H-SE the weights of the channels would be spread over cut tokens, too, which reach the logits
        through the gates alone: it would show as important what the model left out.
        """
        return ActivationPlace(self.hse, kept_map, "the tokens that are kept, after the last cut")

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute activations again in the backward pass instead of storing them."""
        self.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that weight decay should leave alone."""
        return {"pos_embed"}

    def group_matcher(self, coarse: bool = False) -> Callable[[str], tuple[int, ...]]:
        """Order of the parameters from photo to logits, as timm's layer-wise learning rates need it.

        Layers of the backbone are those that it has alone; what stands in the middle follows the last early one.
        """
        layers = group_parameters(self.backbone, self.backbone.group_matcher(coarse), reverse=True)
        early = tuple(f"{part}." for part in self.early_parts)
        split = max(layer for name, layer in layers.items() if name.startswith(early))
        last = max(layers.values()) + 1

        def place(parameter: str) -> tuple[int, ...]:
            part, _, inner = parameter.partition(".")
            if part == "backbone":
                return (layers[inner],)
            if part not in self.middle_parts:
                return (last,)
            block = re.match(r"\d+", inner)
            return split, self.middle_parts.index(part), 0 if coarse or block is None else int(block[0])

        return place

    def forward_tokens(self, x: torch.Tensor) -> tuple[torch.Tensor, tuple[StageTrace, ...]]:
        """Photos (B, 3, H, W) to the kept tokens (B, k, C) and the trace of every cut."""
        x = self._run_backbone(self.early_parts, x)
        if self.transformer is not None:
            tokens = self._run_blocks(self.transformer, self._to_tokens(x))
            x = to_map(tokens, x.shape[2], x.shape[3])
        x = self._run_backbone(self.late_parts, x)
        tokens, traces = self.hse(x.flatten(2).transpose(1, 2), self.norm, self.head)
        return tokens, traces

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Photos (B, 3, H, W) to the kept tokens (B, k, C)."""
        return self.forward_tokens(x)[0]

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Kept tokens (B, k, C) to logits (B, classes), or with ``pre_logits`` to features (B, C)."""
        x = self.head_drop(self.norm(x.mean(dim=1)))
        return x if pre_logits else self.head(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Photos (B, 3, H, W) to logits (B, classes)."""
        return self.forward_head(self.forward_features(x))

    def forward_with_trace(self, x: torch.Tensor) -> tuple[torch.Tensor, tuple[StageTrace, ...]]:
        """Photos (B, 3, H, W) to logits (B, classes) and what every cut saw and kept."""
        tokens, traces = self.forward_tokens(x)
        return self.forward_head(tokens), traces

    def _run_backbone(self, parts: tuple[str, ...], x: torch.Tensor) -> torch.Tensor:
        for name in parts:
            x = gradient_checkpointing.run(self.backbone.get_submodule(name), x, self.grad_checkpointing)
        return x

    def _to_tokens(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W) to tokens (B, H · W, C) that know their position."""
        tokens = x.flatten(2).transpose(1, 2)
        if self.pos_embed is None:
            return tokens
        return tokens + resample_position_embedding(self.pos_embed, x.shape[2], x.shape[3]).flatten(1, 2)

    def _run_blocks(self, blocks: Iterable[nn.Module], tokens: torch.Tensor) -> torch.Tensor:
        for block in blocks:
            tokens = gradient_checkpointing.run(block, tokens, self.grad_checkpointing)
        return tokens


def to_map(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Tokens (B, height · width, C) to a map (B, C, height, width)."""
    return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], height, width)


def resample_position_embedding(embedding: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Position embedding (1, H, W, C) for a map of another size, bicubic; the same tensor if the size is its own."""
    if embedding.shape[1:3] == (height, width):
        return embedding
    channels_first = embedding.permute(0, 3, 1, 2).float()
    resampled = interpolate(channels_first, size=(height, width), mode="bicubic", antialias=True)
    return resampled.permute(0, 2, 3, 1).to(embedding.dtype)


def checkpoint_filter_fn(state_dict: dict[str, torch.Tensor], model: HCoAtNet) -> dict[str, torch.Tensor]:
    """Checkpoint of an H-CoAtNet, or of its backbone under timm's or the original names, as ``model`` names it."""
    if not any(key.startswith("backbone.") for key in state_dict):
        state_dict = _adopt_backbone(state_dict, model)
    if model.pos_embed is not None and "pos_embed" in state_dict:
        _, height, width, _ = model.pos_embed.shape
        resampled = resample_position_embedding(state_dict["pos_embed"], height, width)
        state_dict = {**state_dict, "pos_embed": resampled}
    return state_dict


def _adopt_backbone(state_dict: dict[str, torch.Tensor], model: HCoAtNet) -> dict[str, torch.Tensor]:
    if isinstance(model.backbone, ConvNeXt):
        state_dict = convnext_filter_fn(state_dict, model.backbone)  # type: ignore[no-untyped-call]
    own_names = {f"{get_pretrained_cfg_value(model.backbone_name, 'classifier')}.": "head."}
    if "head.norm.bias" in state_dict:  # else it is another kind of norm
        own_names["head.norm."] = "norm."
    adopted = {}
    for key, tensor in state_dict.items():
        prefix = next((prefix for prefix in own_names if key.startswith(prefix)), "")
        adopted[own_names.get(prefix, "backbone.") + key.removeprefix(prefix)] = tensor
    return adopted


def _create_backbone(name: str, in_chans: int, drop_path_rate: float) -> ConvNeXt | EfficientNet:
    wanted = "The 'backbone' option must be a timm ConvNeXt (v1) or EfficientNet"
    if not timm.is_model(name):
        raise ModelError(f"{wanted}. timm has no model {name!r}.")
    if not is_model_in_modules(name, ("convnext", "efficientnet")):
        raise ModelError(f"{wanted}. Got {name!r}, which is neither.")
    backbone = timm.create_model(name, num_classes=0, in_chans=in_chans, drop_path_rate=drop_path_rate)
    if any(part.endswith(".grn") for part, _ in backbone.named_modules()):
        raise ModelError(f"{wanted}. Got {name!r}, a ConvNeXt v2.")
    if isinstance(backbone, ConvNeXt):
        backbone.head = nn.Identity()  # type: ignore[assignment]
        return backbone
    assert isinstance(backbone, EfficientNet)
    return backbone


def _split_backbone(
    backbone: ConvNeXt | EfficientNet, name: str, repeats: int
) -> tuple[tuple[str, ...], tuple[str, ...], int]:
    """Names of the parts up to stride 8 and of those after it, in order of use, and the width at the split."""
    if isinstance(backbone, ConvNeXt):
        parts = ["stem", *(f"stages.{i}" for i in range(len(backbone.stages))), "norm_pre"]
    else:
        parts = ["conv_stem", "bn1", *(f"blocks.{i}" for i in range(len(backbone.blocks))), "conv_head", "bn2"]
    features: list[dict[str, Any]] = list(backbone.feature_info)
    split = [info for info in features if info["reduction"] == SPLIT_STRIDE][-1]
    end = parts.index(split["module"]) + 1
    early, late = parts[:end], parts[end:]
    if repeats < 1 or (repeats > 1 and not isinstance(backbone, ConvNeXt)):
        raise ModelError(
            "The 'stage1_repeats' option must be at least 1, and 1 over an EfficientNet. "
            f"Got {repeats} over {name!r} instead."
        )
    repeated = ["stages.0"] * (repeats - 1)
    return (*early[:1], *repeated, *early[1:]), tuple(late), split["num_chs"]


def _norm_epsilon(backbone: ConvNeXt | EfficientNet) -> float:
    # A ConvNeXt has one for all its norms, the discarded one of its head included.
    last_of_stem: Any = backbone.stem[-1] if isinstance(backbone, ConvNeXt) else None
    return getattr(last_of_stem, "eps", 1e-6)


def _transformer_block(width: int, drop_path: float) -> nn.Module:
    divisors = [heads for heads in range(1, width + 1) if width % heads == 0]
    heads = min(divisors, key=lambda divisor: abs(divisor - width / 32))
    block: nn.Module = Block(width, heads, mlp_ratio=4.0, qkv_bias=False, drop_path=drop_path, norm_layer=LayerNorm)
    return block.apply(initialise)


def _drop_paths(backbone: nn.Module, part: str) -> list[DropPath]:
    return [module for module in backbone.get_submodule(part).modules() if isinstance(module, DropPath)]


def initialise(module: nn.Module) -> None:
    """Linear layers as ConvNeXt starts them: truncated normal weights of deviation 0.02, no bias."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def family_cfg() -> dict[str, Any]:
    """What timm wants to know of any model of the family."""
    return {
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "fixed_input_size": True,  # the position embedding is made for a size, so timm passes img_size on
        "pool_size": (7, 7),
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "classifier": "head",
    }


SIZES = ("atto", "femto", "pico", "nano", "tiny", "small", "base")
default_cfgs = generate_default_cfgs(
    {"h_coatnet": family_cfg(), **{f"h_coatnet_{size}": family_cfg() for size in SIZES}}
)


Variant = TypeVar("Variant", bound=HCoAtNet)


def build_variant(
    model: type[Variant], variant: str, backbone: str, pretrained: bool, ablation: str | None, options: dict[str, Any]
) -> Variant:
    """Build a registered variant of ``model`` over a timm backbone.

    Raises:
        ModelError: ``options`` names another backbone, or an option has no such value.
    """
    if "backbone" in options:
        general = variant.rpartition("_")[0]
        raise ModelError(f"{variant} stands on {backbone}. For another backbone, use the model {general} instead.")
    if ablation is not None:
        options = expand_ablation(ablation, options)
    # There are no weights of H-CoAtNet itself: "pretrained" means those of its backbone.
    overlay = options.pop("pretrained_cfg_overlay", None) or {}
    if weights := get_pretrained_cfg(backbone):
        source = {"url": weights.url, "hf_hub_id": weights.hf_hub_id, "license": weights.license}
        overlay = {**source, "first_conv": f"backbone.{weights.first_conv}", **overlay}
    built: Variant = build_model_with_cfg(
        model,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        pretrained_strict=False,
        pretrained_cfg_overlay=overlay,
        backbone=backbone,
        **options,
    )
    return built


@register_model
def h_coatnet(
    pretrained: bool = False, backbone: str = "convnext_tiny", ablation: str | None = None, **kwargs: Any
) -> HCoAtNet:
    """H-CoAtNet over any timm ConvNeXt (v1) or EfficientNet."""
    return build_variant(HCoAtNet, "h_coatnet", backbone, pretrained, ablation, kwargs)


@register_model
def h_coatnet_atto(pretrained: bool = False, ablation: str | None = None, **kwargs: Any) -> HCoAtNet:
    """H-CoAtNet over ConvNeXt-Atto."""
    return build_variant(HCoAtNet, "h_coatnet_atto", "convnext_atto", pretrained, ablation, kwargs)


@register_model
def h_coatnet_femto(pretrained: bool = False, ablation: str | None = None, **kwargs: Any) -> HCoAtNet:
    """H-CoAtNet over ConvNeXt-Femto."""
    return build_variant(HCoAtNet, "h_coatnet_femto", "convnext_femto", pretrained, ablation, kwargs)


@register_model
def h_coatnet_pico(pretrained: bool = False, ablation: str | None = None, **kwargs: Any) -> HCoAtNet:
    """H-CoAtNet over ConvNeXt-Pico."""
    return build_variant(HCoAtNet, "h_coatnet_pico", "convnext_pico", pretrained, ablation, kwargs)


@register_model
def h_coatnet_nano(pretrained: bool = False, ablation: str | None = None, **kwargs: Any) -> HCoAtNet:
    """H-CoAtNet over ConvNeXt-Nano."""
    return build_variant(HCoAtNet, "h_coatnet_nano", "convnext_nano", pretrained, ablation, kwargs)


@register_model
def h_coatnet_tiny(pretrained: bool = False, ablation: str | None = None, **kwargs: Any) -> HCoAtNet:
    """H-CoAtNet over ConvNeXt-Tiny; the published model, 29,012,165 parameters with five classes."""
    return build_variant(HCoAtNet, "h_coatnet_tiny", "convnext_tiny", pretrained, ablation, kwargs)


@register_model
def h_coatnet_small(pretrained: bool = False, ablation: str | None = None, **kwargs: Any) -> HCoAtNet:
    """H-CoAtNet over ConvNeXt-Small."""
    return build_variant(HCoAtNet, "h_coatnet_small", "convnext_small", pretrained, ablation, kwargs)


@register_model
def h_coatnet_base(pretrained: bool = False, ablation: str | None = None, **kwargs: Any) -> HCoAtNet:
    """H-CoAtNet over ConvNeXt-Base."""
    return build_variant(HCoAtNet, "h_coatnet_base", "convnext_base", pretrained, ablation, kwargs)
