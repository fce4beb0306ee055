"""A plain convolutional network: the smallest baseline of the description."""

from typing import Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from hcoatnet.errors import ModelError
from hcoatnet.models import gradient_checkpointing
from hcoatnet.models.activation_maps import ActivationPlace, as_it_is


class ConvBlock(nn.Sequential):
    """3 × 3 convolution, batch norm, ReLU; (B, in, H, W) to (B, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class CNN(nn.Module):
    """Four convolutions (32, 64, pool, 128, 128, pool), global average, linear.

    Args:
        num_classes: Classes of the linear layer; 0 leaves it out.
        in_chans: Channels of the photos.
        global_pool: Only ``avg``.
        drop_rate: Dropout before the linear layer.
        drop_path_rate: Taken because one recipe serves every model; without effect, as there is no residual branch.

    Raises:
        ModelError: ``global_pool`` is something else.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.in_chans = in_chans
        self.drop_rate = drop_rate
        self.num_features = self.head_hidden_size = 128
        self.grad_checkpointing = False
        self.features = nn.Sequential(
            ConvBlock(in_chans, 32),
            ConvBlock(32, 64),
            nn.MaxPool2d(2),
            ConvBlock(64, 128),
            ConvBlock(128, 128),
            nn.MaxPool2d(2),
        )
        self.head_drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes, global_pool)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the linear layer by a new one; 0 classes leave it out."""
        if global_pool not in (None, "avg"):
            raise ModelError(f"cnn pools by the average: 'global_pool' must be 'avg'. Got {global_pool!r} instead.")
        self.num_classes = num_classes
        like = next(self.parameters())
        self.head = (
            nn.Linear(self.num_features, num_classes, device=like.device, dtype=like.dtype)
            if num_classes > 0
            else nn.Identity()
        )

    def get_classifier(self) -> nn.Module:
        """The linear layer."""
        return self.head

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Order of the parameters from photo to logits, as timm's layer-wise learning rates need it."""
        return {"blocks": r"^features\.(\d+)"}

    def activation_place(self) -> ActivationPlace:
        """The map of which the head takes the mean."""
        return ActivationPlace(self.features[-1], as_it_is, "the last map")

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute activations again in the backward pass instead of storing them."""
        self.grad_checkpointing = enable

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Photos (B, 3, H, W) to a map (B, 128, H / 4, W / 4)."""
        for block in self.features:
            x = gradient_checkpointing.run(block, x, self.grad_checkpointing)
        return x

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Map to logits (B, classes), or with ``pre_logits`` to features (B, 128)."""
        x = self.head_drop(x.mean(dim=(2, 3)))
        return x if pre_logits else self.head(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Photos (B, 3, H, W) to logits (B, classes)."""
        return self.forward_head(self.forward_features(x))


default_cfgs = generate_default_cfgs(
    {
        "cnn": {
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "pool_size": (56, 56),
            "crop_pct": 1.0,
            "interpolation": "bicubic",
            "mean": IMAGENET_DEFAULT_MEAN,
            "std": IMAGENET_DEFAULT_STD,
            "first_conv": "features.0.0",
            "classifier": "head",
        }
    }
)


@register_model
def cnn(pretrained: bool = False, **kwargs: Any) -> CNN:
    """Four convolutions and a linear layer; 242,181 parameters with five classes."""
    model: CNN = build_model_with_cfg(CNN, "cnn", pretrained, **kwargs)
    return model
