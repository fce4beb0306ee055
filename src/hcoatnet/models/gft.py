"""Gradient Focal Transformer: a vision transformer that looks at fewer and fewer patches.

After Kriuk et al. 2025 (arXiv 2504.09852), with the choices that the paper leaves open stated where they are made:

    photo → 16 × 16 patches + class token → 8 ordinary blocks
          → 3 × (gradient attention → keep 75 %, 50 %, 25 % of the original patches) → LayerNorm → class token → linear
"""

from fractions import Fraction
from typing import Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers.drop import DropPath
from timm.layers.norm import LayerNorm
from timm.layers.patch_embed import PatchEmbed
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.layers.weight_init import trunc_normal_
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import Block
from torch import nn
from torch.nn.functional import pad

from hcoatnet.errors import ModelError
from hcoatnet.models import gradient_checkpointing
from hcoatnet.models.activation_maps import ActivationPlace, patches_of
from hcoatnet.models.token_pruning import Stage, StageTrace, as_distribution, select, take

TEMPERATURE = 0.1
EMA_DECAY = 0.9
KEEP = (Fraction(3, 4), Fraction(1, 2), Fraction(1, 4))


class GradientAttention(nn.Module):
    """Pre-norm self-attention with residual that also scores the patches (the paper's GALA, without its MLP).

    The attention that a patch receives, averaged over all queries (the class token's included), gives a row of numbers
    for each head; where that row changes along the order of the patches, the photo has something to show.

    Args:
        dim: Channels.
        num_heads: Attention heads.
        drop_path: Stochastic depth of the residual branch.
    """

    def __init__(self, dim: int, num_heads: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.drop_path = DropPath(drop_path)
        self.smoothing = nn.Parameter(torch.full((3,), 1 / 3))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens (B, 1 + N, C), the class token first, to new tokens and the importance (B, N) of the patches."""
        batch, count, dim = x.shape
        qkv = self.qkv(self.norm(x)).reshape(batch, count, 3, self.num_heads, dim // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        attention = torch.softmax(query @ key.transpose(-2, -1) * (dim // self.num_heads) ** -0.5, dim=-1)
        mixed = (attention @ value).transpose(1, 2).reshape(batch, count, dim)
        received = attention.mean(dim=2)[:, :, 1:] * count  # 1 is an even share, however many tokens there are
        return x + self.drop_path(self.proj(mixed)), self._importance(received)

    def _importance(self, received: torch.Tensor) -> torch.Tensor:
        change = pad(spatial_gradient(received).abs().sum(dim=1), (1, 1))
        weight = self.smoothing
        return weight[0] * change[:, :-2] + weight[1] * change[:, 1:-1] + weight[2] * change[:, 2:]


def spatial_gradient(values: torch.Tensor) -> torch.Tensor:
    """Central differences of values (…, N) along the last axis, one-sided at both ends; 0 for a single value."""
    if values.shape[-1] == 1:
        return torch.zeros_like(values)
    first = values[..., 1:2] - values[..., :1]
    last = values[..., -1:] - values[..., -2:-1]
    return torch.cat([first, (values[..., 2:] - values[..., :-2]) / 2, last], dim=-1)


class PatchSelection(nn.Module):
    """Keep the patches of highest importance, in their order.

    The importance, standardised, passes a softmax of temperature 0.1 to p. Kept patches are multiplied by
    1 + p − stop_gradient(p): their values stay, while the importance learns (our choice; the paper lets no gradient
    through).

    Args:
        stage: Share of the original patches that stays.
        total: Original number of patches.
        importance_ema: In training, blend every photo's importance with a running mean over past batches (the paper's
            "temporal consistency", decay 0.9). Never used in evaluation, so no photo depends on others there.
    """

    running_importance: torch.Tensor | None

    def __init__(self, stage: Stage, total: int, importance_ema: bool) -> None:
        super().__init__()
        self.total = total
        self.keep = stage.count(total)
        self.register_buffer("running_importance", torch.zeros(total) if importance_ema else None)

    def forward(
        self, x: torch.Tensor, importance: torch.Tensor, positions: torch.Tensor
    ) -> tuple[torch.Tensor, StageTrace]:
        """Tokens (B, 1 + N, C), importance (B, N) and positions (B, N) of the patches to fewer tokens and a trace."""
        if self.training and self.running_importance is not None:
            importance = self._blend(importance, positions, self.running_importance)
        scores = as_distribution(importance, TEMPERATURE)
        index = select(importance, self.keep)
        kept_scores = scores.gather(1, index).unsqueeze(-1)
        patches = take(x[:, 1:], index) * (1 + (kept_scores - kept_scores.detach())).to(x.dtype)
        return torch.cat([x[:, :1], patches], dim=1), StageTrace(positions, scores.detach(), positions.gather(1, index))

    def _blend(self, importance: torch.Tensor, positions: torch.Tensor, running: torch.Tensor) -> torch.Tensor:
        past = running.clone()
        where, now = positions.flatten(), importance.detach().flatten().to(running.dtype)
        seen = torch.zeros_like(running).index_add_(0, where, torch.ones_like(now))
        mean = torch.zeros_like(running).index_add_(0, where, now) / seen.clamp(min=1)
        running.copy_(torch.where(seen > 0, EMA_DECAY * past + (1 - EMA_DECAY) * mean, past))
        return EMA_DECAY * past[positions] + (1 - EMA_DECAY) * importance


class FocalStage(nn.Module):
    """Gradient attention and the cut that follows it.

    Args:
        dim: Channels.
        num_heads: Attention heads.
        keep: Share of the original patches that stays.
        total: Original number of patches.
        drop_path: Stochastic depth of the attention.
        importance_ema: See :class:`PatchSelection`.
    """

    def __init__(
        self, dim: int, num_heads: int, keep: Fraction, total: int, drop_path: float, importance_ema: bool
    ) -> None:
        super().__init__()
        self.attention = GradientAttention(dim, num_heads, drop_path)
        self.selection = PatchSelection(Stage(gate=False, keep=keep), total, importance_ema)

    def forward(self, x: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, StageTrace]:
        """Tokens (B, 1 + N, C) and positions (B, N) of their patches to fewer tokens and the trace of the cut."""
        x, importance = self.attention(x)
        pruned: tuple[torch.Tensor, StageTrace] = self.selection(x, importance, positions)
        return pruned


class GradientFocalTransformer(nn.Module):
    """Gradient Focal Transformer. Its first blocks have the names of timm's vision transformer and load its weights.

    The class token has read the patches before the last cut, so that cut changes the trace and no logit; its smoothing
    kernel, which no gradient can reach, is a fixed mean of three.

    Args:
        img_size: Photo size, which the model then demands.
        in_chans: Channels of the photos.
        num_classes: Classes of the linear layer; 0 leaves it out.
        global_pool: Only ``token``.
        embed_dim: Channels of the tokens.
        num_heads: Attention heads.
        depth: Ordinary blocks.
        drop_rate: Dropout before the linear layer.
        drop_path_rate: Stochastic depth, rising linearly to this rate in the last stage.
        importance_ema: See :class:`PatchSelection`.

    Raises:
        ModelError: ``global_pool`` or ``importance_ema`` is something else.
    """

    # Parts that a checkpoint of an ordinary vision transformer lacks, and parts of it that have no place here.
    own_parts = ("stages",)
    foreign_parts = ("blocks.8", "blocks.9", "blocks.10", "blocks.11")

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "token",
        embed_dim: int = 192,
        num_heads: int = 3,
        depth: int = 8,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        importance_ema: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(importance_ema, bool):
            raise ModelError(f"The 'importance_ema' option must be true or false. Got {importance_ema!r} instead.")
        self.in_chans = in_chans
        self.drop_rate = drop_rate
        self.num_features = self.head_hidden_size = embed_dim
        self.grad_checkpointing = False
        rates = [drop_path_rate * i / (depth + len(KEEP) - 1) for i in range(depth + len(KEEP))]

        self.patch_embed = PatchEmbed(img_size=img_size, patch_size=16, in_chans=in_chans, embed_dim=embed_dim)
        patches = self.patch_embed.num_patches
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + patches, embed_dim))
        self.blocks = nn.Sequential(
            *(
                Block(embed_dim, num_heads, qkv_bias=True, drop_path=rate, norm_layer=LayerNorm)
                for rate in rates[:depth]
            )
        )
        stages = [
            FocalStage(embed_dim, num_heads, keep, patches, rate, importance_ema)
            for keep, rate in zip(KEEP, rates[depth:], strict=True)
        ]
        stages[-1].attention.smoothing.requires_grad_(False)
        self.stages = nn.ModuleList(stages)
        self.norm = LayerNorm(embed_dim)
        self.head_drop = nn.Dropout(drop_rate)
        self.apply(_initialise)
        trunc_normal_(self.cls_token, std=0.02)
        trunc_normal_(self.pos_embed, std=0.02)
        self.reset_classifier(num_classes, global_pool)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the linear layer by a new one; 0 classes leave it out."""
        if global_pool not in (None, "token"):
            raise ModelError(f"GFT reads its class token: 'global_pool' must be 'token'. Got {global_pool!r} instead.")
        self.num_classes = num_classes
        self.head: nn.Module = nn.Identity()
        if num_classes > 0:
            like = self.pos_embed
            self.head = nn.Linear(self.num_features, num_classes, device=like.device, dtype=like.dtype)
            _initialise(self.head)

    def get_classifier(self) -> nn.Module:
        """The linear layer."""
        return self.head

    def activation_place(self) -> ActivationPlace:
        """All patches, as the attention of the last ordinary block reads them: after it, cuts begin."""
        last: Any = self.blocks[-1]
        return ActivationPlace(last.norm1, patches_of(1), "all patches, before the first cut")

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute the activations of the ordinary blocks again in the backward pass instead of storing them."""
        self.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that weight decay should leave alone."""
        return {"pos_embed", "cls_token"}

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Order of the parameters from photo to logits, as timm's layer-wise learning rates need it."""
        return {
            "stem": r"^(?:cls_token|pos_embed|patch_embed)",
            "blocks": r"^blocks\.(\d+)",
            "stages": r"^stages\.(\d+)",
        }

    def forward_tokens(self, x: torch.Tensor) -> tuple[torch.Tensor, tuple[StageTrace, ...]]:
        """Photos (B, 3, H, W) to the class token and the kept patches (B, 1 + k, C), and the trace of every cut."""
        x = self.patch_embed(x)
        batch, patches, _ = x.shape
        x = torch.cat([self.cls_token.expand(batch, -1, -1), x], dim=1) + self.pos_embed
        for block in self.blocks:
            x = gradient_checkpointing.run(block, x, self.grad_checkpointing)
        positions = torch.arange(patches, device=x.device).expand(batch, patches)
        traces = []
        for stage in self.stages:
            x, trace = stage(x, positions)
            positions = trace.kept
            traces.append(trace)
        return self.norm(x), tuple(traces)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Photos (B, 3, H, W) to the class token and the kept patches (B, 1 + k, C)."""
        return self.forward_tokens(x)[0]

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Tokens (B, 1 + k, C) to logits (B, classes), or with ``pre_logits`` to features (B, C)."""
        x = self.head_drop(x[:, 0])
        return x if pre_logits else self.head(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Photos (B, 3, H, W) to logits (B, classes)."""
        return self.forward_head(self.forward_features(x))

    def forward_with_trace(self, x: torch.Tensor) -> tuple[torch.Tensor, tuple[StageTrace, ...]]:
        """Photos (B, 3, H, W) to logits (B, classes) and what every cut saw and kept."""
        tokens, traces = self.forward_tokens(x)
        return self.forward_head(tokens), traces


def checkpoint_filter_fn(
    state_dict: dict[str, torch.Tensor], model: GradientFocalTransformer
) -> dict[str, torch.Tensor]:
    """Checkpoint of a GFT or of timm's vision transformer, with its position embedding at the model's photo size."""
    if "pos_embed" not in state_dict:
        return state_dict
    resampled = resample_abs_pos_embed(state_dict["pos_embed"], model.patch_embed.grid_size)
    return {**state_dict, "pos_embed": resampled}


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


def _cfg(vision_transformer: str) -> dict[str, Any]:
    return {
        "hf_hub_id": f"timm/{vision_transformer}",  # "pretrained" means the ordinary blocks
        "license": "apache-2.0",
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "fixed_input_size": True,
        "pool_size": None,
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    }


default_cfgs = generate_default_cfgs(
    {
        "gft_tiny": _cfg("vit_tiny_patch16_224.augreg_in21k_ft_in1k"),
        "gft_base": _cfg("vit_base_patch16_224.augreg2_in21k_ft_in1k"),
    }
)


def _create(variant: str, pretrained: bool, **options: Any) -> GradientFocalTransformer:
    model: GradientFocalTransformer = build_model_with_cfg(
        GradientFocalTransformer,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        pretrained_strict=False,
        **options,
    )
    return model


@register_model
def gft_tiny(pretrained: bool = False, **kwargs: Any) -> GradientFocalTransformer:
    """Gradient Focal Transformer, 192 wide, 3 heads."""
    return _create("gft_tiny", pretrained, **{"embed_dim": 192, "num_heads": 3, **kwargs})


@register_model
def gft_base(pretrained: bool = False, **kwargs: Any) -> GradientFocalTransformer:
    """Gradient Focal Transformer, 768 wide, 12 heads."""
    return _create("gft_base", pretrained, **{"embed_dim": 768, "num_heads": 12, **kwargs})
