"""One model or several side by side: their logits, and what each kept of a photo."""

from collections.abc import Sequence

import torch
from torch import nn

from hcoatnet.models.token_pruning import logits_and_traces


class Members(nn.Module):
    """One model, or several side by side, with what their cuts kept as further outputs.

    Args:
        models: The members; all prune at the same places, or none does.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(models)

    def forward(self, photos: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Photos (B, 3, S, S) to logits (B, [M,] C) and for each cut its positions, scores and kept (B, [M,] k)."""
        answers = []
        for member in self.members:
            logits, traces = logits_and_traces(member, photos)
            cuts = [part for trace in traces for part in (trace.positions, trace.scores, trace.kept)]
            answers.append((logits, *cuts))
        if len(answers) == 1:
            return answers[0]
        return tuple(torch.stack(same, dim=1) for same in zip(*answers, strict=True))
