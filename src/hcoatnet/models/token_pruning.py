"""Hierarchical squeeze-excitation (H-SE): gate the tokens, score them, keep the best.

After "H-CoAtNet: Hierarchically Enhanced Hybrid Learning for Ichthyosis Classification". Nothing here needs a label or
looks at another photo of the batch, and every operation exports to ONNX.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn.functional import gelu

from hcoatnet.errors import ModelError
from hcoatnet.models.activation_maps import to_grid

IMPORTANCES = ("gradient", "norm", "raw_norm", "random", "none")


@dataclass(frozen=True)
class StageTrace:
    """What one cut saw and kept. Positions count the tokens of the uncut last map row by row, from 0.

    A cut before the last map counts the same positions: each stands for the part of the photo under that token.

    Attributes:
        positions: (B, N) positions of the tokens that were scored, ascending.
        scores: (B, N) importance of each, positive, with sum 1 over the tokens.
        kept: (B, k) positions of the tokens that stay, ascending.
    """

    positions: torch.Tensor
    scores: torch.Tensor
    kept: torch.Tensor


def logits_and_traces(model: nn.Module, photos: torch.Tensor) -> tuple[torch.Tensor, Sequence[StageTrace]]:
    """A model's logits (B, C), and what each of its cuts saw and kept; no trace where it cuts nothing."""
    forward_with_trace: Any = getattr(model, "forward_with_trace", None)
    if forward_with_trace is None:
        return model(photos), ()
    answer: tuple[torch.Tensor, Sequence[StageTrace]] = forward_with_trace(photos)
    return answer


@dataclass(frozen=True)
class Stage:
    """One stage of H-SE.

    Attributes:
        gate: Whether the tokens pass a squeeze-excitation gate.
        keep: Share of the original tokens that stays; None cuts nothing.
    """

    gate: bool
    keep: Fraction | None

    def count(self, tokens: int) -> int:
        """How many of ``tokens`` original tokens stay: ⌊keep · tokens⌋, at least one."""
        assert self.keep is not None
        return max(1, tokens * self.keep.numerator // self.keep.denominator)


def parse_stages(text: str | float) -> tuple[Stage, ...]:
    """Read stages such as ``gate:0.75,gate:0.5`` (two gates with cuts), ``gate`` (no cut), ``0.5`` (no gate), ``none``.

    Raises:
        ModelError: The text is not of this form, or a share is outside (0, 1] or larger than the one before.
    """
    items = [item.strip() for item in str(text).split(",")]
    stages = () if items == ["none"] else tuple(_parse_stage(item, text) for item in items)
    shares = [stage.keep for stage in stages if stage.keep is not None]
    if any(later > earlier for earlier, later in pairwise(shares)):
        raise ModelError(
            f"'stages' counts every share of the original tokens, so none may exceed the last. Got {text!r}."
        )
    return stages


def _parse_stage(item: str, text: str | float) -> Stage:
    if item == "gate":
        return Stage(gate=True, keep=None)
    keep = as_share(item.removeprefix("gate:"))
    if keep is None:
        raise ModelError(
            "The 'stages' option must be 'none' or a list such as 'gate:0.75,gate:0.5', 'gate' or '0.75,0.5' with "
            f"shares in (0, 1]. Got {text!r} instead."
        )
    return Stage(item.startswith("gate:"), keep)


def as_share(value: str | float) -> Fraction | None:
    """A share in (0, 1], written as a number or as a fraction such as ``4/7``; None if it is none."""
    try:
        share = Fraction(value)
    except (ValueError, OverflowError, ZeroDivisionError):
        return None
    return share if 0 < share <= 1 else None


class SqueezeExcitation(nn.Module):
    """Gate on the channels of tokens (Hu et al. 2018, arXiv 1709.01507, over tokens instead of a map).

    tokens · sigmoid(W₂ · dropout(GELU(W₁ · mean of the tokens))), for tokens (B, N, C).

    Args:
        dim: Channels C.
        reduction: The hidden layer has C / reduction channels.
        drop_rate: Dropout in the hidden layer.
    """

    def __init__(self, dim: int, reduction: int = 16, drop_rate: float = 0.05) -> None:
        super().__init__()
        hidden = max(1, dim // reduction)
        self.fc1 = nn.Linear(dim, hidden)
        self.drop = nn.Dropout(drop_rate)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Gated tokens (B, N, C)."""
        hidden = self.drop(gelu(self.fc1(tokens.mean(dim=1, keepdim=True))))
        return tokens * torch.sigmoid(self.fc2(hidden))


class HierarchicalSE(nn.Module):
    """The stages of H-SE, one after another.

    Args:
        dim: Channels of the tokens.
        stages: Gate and cut of every stage.
        importance: Which tokens a cut keeps: ``gradient``, ``norm`` (L2, gated), ``raw_norm`` (L2 before the gate),
            ``random`` (the same positions always), or ``none`` for no cut at all.

    Raises:
        ModelError: ``importance`` is none of these.
    """

    def __init__(self, dim: int, stages: tuple[Stage, ...], importance: str) -> None:
        super().__init__()
        if importance not in IMPORTANCES:
            raise ModelError(
                f"The 'importance' option must be one of {', '.join(IMPORTANCES)}. Got {importance!r} instead."
            )
        self.stages = stages
        self.importance = importance
        self.gates = nn.ModuleList(SqueezeExcitation(dim) if stage.gate else nn.Identity() for stage in stages)

    @property
    def cuts(self) -> bool:
        """Whether any token is ever left out."""
        return self.importance != "none" and any(stage.keep is not None for stage in self.stages)

    def forward(
        self, tokens: torch.Tensor, norm: nn.LayerNorm, classifier: nn.Module, earlier: StageTrace | None = None
    ) -> tuple[torch.Tensor, tuple[StageTrace, ...]]:
        """Gate and cut tokens (B, N, C).

        Args:
            tokens: (B, N, C).
            norm: The layer norm between the mean token and the classifier, for ``gradient``.
            classifier: The model's linear layer, for ``gradient``; without one the token norm is used.
            earlier: The cut that left these tokens, if one did. Shares are of what it left.

        Returns:
            The kept tokens (B, k, C) in their original order, and the trace of every cut, the earlier one's first.
        """
        batch, total, _ = tokens.shape
        positions, traces, uncut = torch.arange(total, device=tokens.device).expand(batch, total), [], total
        if earlier is not None:
            positions, traces, uncut = earlier.kept, [earlier], earlier.positions.shape[1]
        for stage, gate in zip(self.stages, self.gates, strict=True):
            raw, tokens = tokens, gate(tokens)
            if stage.keep is None or self.importance == "none":
                continue
            scores = self._score(raw, tokens, positions, uncut, norm, classifier)
            index = select(scores, stage.count(total))
            kept = positions.gather(1, index)
            traces.append(StageTrace(positions, as_distribution(scores), kept))
            tokens, positions = take(tokens, index), kept
        return tokens, tuple(traces)

    def _score(
        self,
        raw: torch.Tensor,
        gated: torch.Tensor,
        positions: torch.Tensor,
        uncut: int,
        norm: nn.LayerNorm,
        classifier: nn.Module,
    ) -> torch.Tensor:
        if self.importance == "random":
            return random_importance(uncut, positions.device)[positions]
        if self.importance == "raw_norm":
            return norm_importance(raw)
        if self.importance == "gradient" and isinstance(classifier, nn.Linear):
            return gradient_importance(gated, norm, classifier)
        return norm_importance(gated)


def gradient_importance(tokens: torch.Tensor, norm: nn.LayerNorm, classifier: nn.Linear) -> torch.Tensor:
    """Score tᵢ · ∂ℓ_c/∂tᵢ of every token, with ℓ = classifier(norm(mean of the tokens)) and c = argmax ℓ.

    A probe with the model's own head: no label, no dropout, no later gate or cut. The mean gives every token the same
    gradient, so it is written out instead of asked of autograd. With x̂ the normalised mean token (before the affine
    part), σ its divisor, g = (row c of the classifier) · (norm weight):

        ∂ℓ_c/∂tᵢ = (g − mean(g) − x̂ · mean(g · x̂)) / (σ N)

    Computed in float32 or wider; no gradient flows through the score.

    Args:
        tokens: (B, N, C).
        norm: Layer norm over C, with weight and bias.
        classifier: Linear layer from C.

    Returns:
        (B, N), signed.
    """
    dtype = torch.promote_types(tokens.dtype, torch.float32)
    tokens = tokens.detach().to(dtype)
    norm_weight, norm_bias = norm.weight.detach().to(dtype), norm.bias.detach().to(dtype)
    weight, bias = classifier.weight.detach().to(dtype), classifier.bias.detach().to(dtype)
    mean_token = tokens.mean(dim=1)
    centred = mean_token - mean_token.mean(dim=-1, keepdim=True)
    divisor = torch.sqrt(centred.square().mean(dim=-1, keepdim=True) + norm.eps)
    normalised = centred / divisor
    # Products and sums, not matrix multiplications: autocast would round those to half precision.
    logits = ((normalised * norm_weight + norm_bias).unsqueeze(1) * weight).sum(dim=-1) + bias
    slope = weight[logits.argmax(dim=-1)] * norm_weight
    along = (slope * normalised).mean(dim=-1, keepdim=True)
    gradient = (slope - slope.mean(dim=-1, keepdim=True) - normalised * along) / (divisor * tokens.shape[1])
    return (tokens * gradient.unsqueeze(1)).sum(dim=-1)


def norm_importance(tokens: torch.Tensor) -> torch.Tensor:
    """L2 norm (B, N) of tokens (B, N, C), in float32 or wider and without gradient."""
    dtype = torch.promote_types(tokens.dtype, torch.float32)
    return tokens.detach().to(dtype).square().sum(dim=-1).sqrt()


def random_importance(total: int, device: torch.device) -> torch.Tensor:
    """Scores (total,) that put the positions into a fixed random order, the same in every run and on every machine."""
    generator = random.Random(0)
    order = sorted(range(total), key=lambda _: generator.random())
    return torch.tensor(order, dtype=torch.float32, device=device)


def as_distribution(scores: torch.Tensor, temperature: float = 1.0, epsilon: float = 1e-6) -> torch.Tensor:
    """Standardise scores (B, N) over the tokens and pass them through a softmax. Their order stays."""
    centred = scores - scores.mean(dim=-1, keepdim=True)
    deviation = centred.square().mean(dim=-1, keepdim=True).sqrt()
    return torch.softmax(centred / (deviation + epsilon) / temperature, dim=-1)


def select(scores: torch.Tensor, keep: int) -> torch.Tensor:
    """Indices (B, keep) of the highest scores (B, N), ascending; of equal scores the lower index wins.

    Ranks are counted by comparing all pairs: a stable sort has no ONNX counterpart, and ``topk`` leaves ties open.
    """
    count = scores.shape[-1]
    index = torch.arange(count, device=scores.device)
    mine, other = scores.unsqueeze(-1), scores.unsqueeze(-2)
    rank = ((other > mine) | ((other == mine) & (index < index.unsqueeze(-1)))).sum(dim=-1)
    # Every kept token gets its own positive number, falling with the index, so that topk has no tie to break.
    return count - torch.topk(torch.where(rank < keep, count - index, 0), keep, dim=-1).values


def take(tokens: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Tokens (B, k, C) at ``index`` (B, k) of tokens (B, N, C)."""
    return tokens.gather(1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def kept_map(pruned: tuple[torch.Tensor, tuple[StageTrace, ...]]) -> torch.Tensor:
    """What :class:`HierarchicalSE` gives for a square map, as (B, C, H, W) with 0 where tokens were cut."""
    tokens, traces = pruned
    if not traces:
        return to_grid(tokens)
    whole = tokens.new_zeros(tokens.shape[0], traces[0].positions.shape[1], tokens.shape[2])
    return to_grid(whole.scatter(1, traces[-1].kept.unsqueeze(-1).expand_as(tokens), tokens))
