"""A model's logits for photos, the same in validation, test and evaluation of a run."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader

from hcoatnet.data.loading import batches
from hcoatnet.training.team import Team

Logits = NDArray[np.float32]


def predict_logits(model: nn.Module, loader: DataLoader[Any], device: torch.device, team: Team | None = None) -> Logits:
    """Logits (N, C) in the photos' order, computed in the model's own arithmetic, float32, in evaluation mode.

    Args:
        model: The model.
        loader: Batches of photos; with several processes this one's part of them.
        device: Where the model is.
        team: The processes among which the photos are shared out; every one gets all logits.
    """
    was_training = model.training
    model.eval()
    layout, dtype = memory_layout(model), next(model.parameters()).dtype
    numbers, rows = [], []
    with torch.inference_mode():
        for indices, photos in batches(loader):
            numbers.append(indices)
            rows.append(model(photos.to(device, dtype, non_blocking=True, memory_format=layout)).float())
    model.train(was_training)
    place = torch.cat(numbers) if numbers else torch.zeros(0, dtype=torch.int64)
    table = torch.cat(rows).cpu() if rows else torch.zeros(0)
    return table.numpy() if team is None else team.gather_rows(place, table)


def memory_layout(model: nn.Module) -> torch.memory_format:
    """The layout of the model's convolution weights, which its input should share."""
    for parameter in model.parameters():
        if parameter.ndim == 4 and parameter.shape[1] > 1 and not parameter.is_contiguous():
            return torch.channels_last
    return torch.contiguous_format
