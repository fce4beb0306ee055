"""A step on blank photos before the first real one, to learn what a model does; it leaves no trace."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hcoatnet.config import TrainConfig
from hcoatnet.training.inference import memory_layout


def trial_step(model: nn.Module, forward: Callable[[Tensor], Any], config: TrainConfig, photos: int) -> list[str]:
    """One forward and backward pass in training mode; buffers, gradients and random states are then as they were.

    Args:
        model: The model.
        forward: The forward pass to try: the model's own, or what a wrapper made of it.
        config: The settings, for the size of the photos.
        photos: How many.

    Returns:
        Names of the parameters that had no part in it.

    Raises:
        Exception: Whatever the pass raises.
    """
    some = next(model.parameters())
    blank = torch.zeros(photos, 3, config.image_size, config.image_size, device=some.device, dtype=some.dtype)
    blank = blank.contiguous(memory_format=memory_layout(model))
    kept = [buffer.clone() for buffer in model.buffers()]
    was_training = model.training
    model.train()
    try:
        with torch.random.fork_rng(devices=[some.device] if some.is_cuda else []):
            forward(blank).float().sum().backward()
        return [name for name, parameter in model.named_parameters() if parameter.grad is None]
    finally:
        model.train(was_training)
        model.zero_grad()
        with torch.no_grad():
            for buffer, before in zip(model.buffers(), kept, strict=True):
                buffer.copy_(before)
