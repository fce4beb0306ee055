"""Choose a window of a map of tokens: the part of the photo that the costly rest of a network looks at.

Nothing here needs a label or looks at another photo of the batch, and every operation exports to ONNX.
"""

from fractions import Fraction

import torch
from torch import nn
from torch.nn.functional import avg_pool2d

from hcoatnet.errors import ModelError
from hcoatnet.models.token_pruning import StageTrace, as_share, take

# Tokens along the side of a cell. The window moves by whole cells, so that after two more halvings of the map each of
# its tokens is one cell, the same part of the photo as in the map of the uncut network.
CELL = 4
PLACEMENTS = ("importance", "centre")


class Window(nn.Module):
    """Score the tokens of a map, gather what they say in one context token, and keep those in the best window.

    The importance of token i is p = softmax(q · LayerNorm(tᵢ)) over all tokens of the photo. It has two uses. The sum
    of the normalised tokens, weighted by p, becomes the context: it carries what lies outside the window, and through
    it q learns, by ordinary gradients and over the whole photo. The window is the one with the largest sum of p; of
    equal sums the first, row by row. (Kept tokens are not multiplied by their score: the layer norm that follows in a
    ConvNeXt would take any factor out again, and q would learn nothing.)

    Args:
        dim: Channels C of the tokens.
        context_dim: Channels of the context.
        share: Share of the map's height, and of its width, that the window has.
        placement: ``importance``, or ``centre`` for the middle of the photo whatever it shows.

    Raises:
        ModelError: ``share`` or ``placement`` is outside its range.
    """

    def __init__(self, dim: int, context_dim: int, share: str | float, placement: str) -> None:
        super().__init__()
        parsed = as_share(share)
        if parsed is None:
            raise ModelError(
                f"The 'window' option must be a share in (0, 1], such as '4/7' or 0.5. Got {share!r} instead."
            )
        self.share = parsed
        if placement not in PLACEMENTS:
            raise ModelError(
                f"The 'placement' option must be one of {', '.join(PLACEMENTS)}. Got {placement!r} instead."
            )
        self.placement = placement
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.query = nn.Parameter(nn.init.trunc_normal_(torch.empty(dim), std=0.02))
        self.context = nn.Linear(dim, context_dim)

    def forward(
        self, tokens: torch.Tensor, height: int, width: int
    ) -> tuple[torch.Tensor, torch.Tensor, tuple[int, int], StageTrace | None]:
        """Cut tokens (B, height · width, C) of a map.

        Returns:
            The tokens (B, h · w, C) of the window, row by row; the context (B, 1, context_dim); (h, w); the trace of
            the cut, which counts cells instead of tokens. Without a trace the window is the whole map.
        """
        normalised = self.norm(tokens)
        importance = self._importance(normalised)
        weighted = (importance.unsqueeze(-1) * normalised).sum(dim=1, keepdim=True)
        context = self.context(weighted.to(normalised.dtype))
        rows, columns = height // CELL, width // CELL
        h, w = window_side(rows, self.share), window_side(columns, self.share)
        if (h, w) == (rows, columns):
            return tokens, context, (height, width), None
        cells = avg_pool2d(importance.detach().reshape(-1, 1, height, width), CELL)
        place = self._place(cells, h, w)
        index = CELL * rectangle(rows - h + 1, columns - w + 1, width, tokens.device)[place]
        index = index.unsqueeze(1) + rectangle(CELL * h, CELL * w, width, tokens.device)
        trace = self._trace(cells, place, h, w)
        return take(tokens, index), context, (CELL * h, CELL * w), trace

    def _importance(self, normalised: torch.Tensor) -> torch.Tensor:
        # Products and sums in float32 or wider: in half precision the sums of many windows would be equal.
        dtype = torch.promote_types(normalised.dtype, torch.float32)
        return torch.softmax((normalised.to(dtype) * self.query.to(dtype)).sum(dim=-1), dim=-1)

    def _place(self, cells: torch.Tensor, h: int, w: int) -> torch.Tensor:
        """Which of the possible windows of h × w cells, counted row by row, for each map of cells (B, 1, R, C)."""
        if self.placement == "centre":
            rows, columns = cells.shape[2] - h, cells.shape[3] - w
            return torch.full_like(cells[:, 0, 0, 0], rows // 2 * (columns + 1) + columns // 2, dtype=torch.long)
        return avg_pool2d(cells, (h, w), stride=1).flatten(1).argmax(dim=1)

    def _trace(self, cells: torch.Tensor, place: torch.Tensor, h: int, w: int) -> StageTrace:
        batch, _, rows, columns = cells.shape
        corner = rectangle(rows - h + 1, columns - w + 1, columns, cells.device)[place]
        scores = cells.flatten(1)
        return StageTrace(
            positions=torch.arange(rows * columns, device=cells.device).expand(batch, -1),
            scores=scores / scores.sum(dim=1, keepdim=True),
            kept=corner.unsqueeze(1) + rectangle(h, w, columns, cells.device),
        )


def window_side(cells: int, share: Fraction) -> int:
    """Cells along a side of the window: ``share`` of the map's ``cells``, rounded, and at least 2 where it has them."""
    return min(cells, max(2, round(share * cells)))


def rectangle(height: int, width: int, columns: int, device: torch.device) -> torch.Tensor:
    """Positions (height · width,) of the rectangle in the first corner of a map with ``columns``, row by row."""
    rows = columns * torch.arange(height, device=device)
    return (rows.unsqueeze(1) + torch.arange(width, device=device)).flatten()
