"""What training minimises: class-weighted cross-entropy, and the photos mixed to compute it on."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

EFFECTIVE_BETA = 0.999


def class_weights(counts: Sequence[int], kind: str) -> Tensor:
    """Weight of each class in the loss, from its number of training photos.

    With N photos in C classes, N_c of class c: ``inverse`` N/(C·N_c); ``sqrt`` √(N/(C·N_c)); ``effective``
    (1 − β)/(1 − β^N_c) with β = 0.999, scaled to a mean of 1 (Cui et al. 2019, "Class-Balanced Loss Based on Effective
    Number of Samples", eq. 2); ``none`` 1.

    Returns:
        float32, shape (C,).
    """
    n = torch.tensor(counts, dtype=torch.float64)
    if kind == "none":
        weights = torch.ones_like(n)
    elif kind == "effective":
        raw = (1 - EFFECTIVE_BETA) / (1 - EFFECTIVE_BETA**n)
        weights = raw / raw.mean()
    else:
        weights = n.sum() / (len(n) * n)
        if kind == "sqrt":
            weights = weights.sqrt()
    return weights.float()


class Objective:
    """Cross-entropy with class weights and label smoothing, for soft or hard targets.

    For a set of photos the loss is Σ_i ℓ_i / Σ_i w_i, where ℓ_i = −Σ_c w_c q_ic log p_ic with q the smoothed target,
    and w_i = Σ_c w_c y_ic with y the target before smoothing. For hard targets this is PyTorch's weighted mean. Sum and
    weight are given apart, so that micro-batches and processes add up to exactly the loss of the whole.

    Args:
        weights: (C,) class weights.
        label_smoothing: In [0, 1).
    """

    def __init__(self, weights: Tensor, label_smoothing: float) -> None:
        self.weights = weights
        self.label_smoothing = label_smoothing

    def total_weight(self, targets: Tensor) -> Tensor:
        """Σ_i w_i over targets of shape (B, C)."""
        return (targets * self.weights).sum()

    def weighted_sum(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Σ_i ℓ_i of logits and targets, both (B, C); in float32, or in float64 where the logits are."""
        logits = logits if logits.dtype == torch.float64 else logits.float()
        weights, targets = self.weights.to(logits.dtype), targets.to(logits.dtype)
        return functional.cross_entropy(
            logits, targets, weight=weights, label_smoothing=self.label_smoothing, reduction="sum"
        )


def mix_batch(photos: Tensor, targets: Tensor, mixup: float, cutmix: float) -> tuple[Tensor, Tensor]:
    """Mix each photo with its neighbour in the batch, by mixup or CutMix; with both on, one of them by a fair coin.

    Mixup: Zhang et al. 2018; CutMix: Yun et al. 2019. Draws from torch's CPU generator.

    Args:
        photos: (B, 3, S, S).
        targets: (B, C), each row sums to 1.
        mixup: Alpha of the Beta distribution, 0 for off.
        cutmix: Likewise.
    """
    if mixup == 0 and cutmix == 0:
        return photos, targets
    use_cutmix = cutmix > 0 and (mixup == 0 or torch.rand(()).item() < 0.5)
    alpha = cutmix if use_cutmix else mixup
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    if use_cutmix:
        height, width = photos.shape[-2:]
        top, bottom = _cut(height, share)
        left, right = _cut(width, share)
        photos = photos.clone(memory_format=torch.preserve_format)
        photos[..., top:bottom, left:right] = photos.roll(1, 0)[..., top:bottom, left:right]
        share = 1 - (bottom - top) * (right - left) / (height * width)
    else:
        photos = share * photos + (1 - share) * photos.roll(1, 0)
    return photos, share * targets + (1 - share) * targets.roll(1, 0)


def _cut(side: int, share: float) -> tuple[int, int]:
    """Ends of a cut of √(1 − share) of ``side`` around a uniform centre, clipped to the photo."""
    half = side * math.sqrt(1 - share) / 2
    centre = torch.rand(()).item() * side
    return max(0, round(centre - half)), min(side, round(centre + half))
