"""A photo seen several times: the mean of a model's logits over flips and quarter turns of it."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from hcoatnet.config import Views
from hcoatnet.models.token_pruning import StageTrace, logits_and_traces

Move = tuple[bool, tuple[int, ...]]
"""Whether rows and columns of photos (B, 3, S, S) are exchanged, and the axes that are turned round after it."""

AS_IT_IS: Move = (False, ())
FLIPS: tuple[Move, ...] = (AS_IT_IS, (False, (3,)), (False, (2,)), (False, (2, 3)))
MOVES: Mapping[Views, tuple[Move, ...]] = {
    "one": (AS_IT_IS,),
    "flips": FLIPS,
    "dihedral": (*FLIPS, *((True, axes) for _, axes in FLIPS)),
}
"""The photo as it is comes first. A quarter turn is an exchange and a flip, so ``dihedral`` holds all 8 symmetries of
the square."""


class AveragedViews(nn.Module):
    """Answers with the mean of a model's logits over views of each photo.

    The views pass the model one after the other, so that they cost time and hardly any memory. In a graph that is
    exported or compiled they pass together: one of eight copies of the model would be large, slow to make and to load.

    Args:
        model: A classifier of square photos.
        views: Which views.
    """

    def __init__(self, model: nn.Module, views: Views) -> None:
        super().__init__()
        self.model = model
        self.views = views

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        """Photos (B, 3, S, S) to logits (B, classes)."""
        return self.forward_with_trace(photos)[0]

    def forward_with_trace(self, photos: torch.Tensor) -> tuple[torch.Tensor, Sequence[StageTrace]]:
        """Photos (B, 3, S, S) to logits (B, classes), and what every cut kept of the photos as they are."""
        if torch.compiler.is_compiling():
            return self._in_one_pass(photos)
        logits, traces = logits_and_traces(self.model, photos)
        others = [self.model(moved(photos, move)) for move in MOVES[self.views][1:]]
        return torch.stack([logits, *others]).mean(dim=0), traces

    def _in_one_pass(self, photos: torch.Tensor) -> tuple[torch.Tensor, Sequence[StageTrace]]:
        number, moves = photos.shape[0], MOVES[self.views]
        logits, traces = logits_and_traces(self.model, torch.cat([moved(photos, move) for move in moves]))
        own = [StageTrace(one.positions[:number], one.scores[:number], one.kept[:number]) for one in traces]
        return logits.reshape(len(moves), number, -1).mean(dim=0), own


def moved(photos: torch.Tensor, move: Move) -> torch.Tensor:
    """One view of photos (B, 3, S, S)."""
    exchanged, axes = move
    turned = photos.transpose(2, 3) if exchanged else photos
    return turned.flip(axes) if axes else turned


def with_views(model: nn.Module, views: Views) -> nn.Module:
    """The model, or what averages it over the views, in the same mode."""
    return model if views == "one" else AveragedViews(model, views).train(model.training)


def of_one_view(model: nn.Module) -> nn.Module:
    """The model that sees each view."""
    return model.model if isinstance(model, AveragedViews) else model


def count_views(model: nn.Module) -> int:
    """In how many views a model sees each photo."""
    return len(MOVES[model.views]) if isinstance(model, AveragedViews) else 1
