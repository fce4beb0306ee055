"""A model's logits for photos, the same in validation, test and evaluation of a run."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader

from hcoatnet.data.loading import batches

Logits = NDArray[np.float32]


def predict_logits(model: nn.Module, loader: DataLoader[Any], device: torch.device) -> Logits:
    """Logits (N, C) in the loader's order, computed in float32 with the model in evaluation mode."""
    was_training = model.training
    model.eval()
    layout = memory_layout(model)
    rows = []
    with torch.inference_mode():
        for _, photos in batches(loader):
            logits = model(photos.to(device, non_blocking=True, memory_format=layout))
            rows.append(logits.float().cpu())
    model.train(was_training)
    return torch.cat(rows).numpy()


def memory_layout(model: nn.Module) -> torch.memory_format:
    """The layout of the model's convolution weights, which its input should share."""
    for parameter in model.parameters():
        if parameter.ndim == 4 and parameter.shape[1] > 1 and not parameter.is_contiguous():
            return torch.channels_last
    return torch.contiguous_format
