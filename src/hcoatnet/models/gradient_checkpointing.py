"""Gradient checkpointing that leaves batch-norm statistics alone."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def run(module: nn.Module, inputs: torch.Tensor, recompute: bool) -> torch.Tensor:
    """``module(inputs)``; with ``recompute``, its activations are not stored but computed again in the backward pass.

    Output, gradients and batch-norm statistics are those of an ordinary call (Chen et al. 2016, arXiv 1604.06174).
    """
    if not (recompute and torch.is_grad_enabled()):
        return module(inputs)  # type: ignore[no-any-return]
    result: torch.Tensor = checkpoint(
        module, inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), _statistics_frozen(module))
    )
    return result


@contextmanager
def _statistics_frozen(module: nn.Module) -> Iterator[None]:
    # The second forward pass would otherwise move the running mean and variance a second time.
    parts: list[Any] = [part for part in module.modules() if getattr(part, "track_running_stats", False)]
    before = [(part.momentum, part.num_batches_tracked.clone()) for part in parts]
    for part in parts:
        part.momentum = 0.0
    try:
        yield
    finally:
        for part, (momentum, batches) in zip(parts, before, strict=True):
            part.momentum = momentum
            part.num_batches_tracked.copy_(batches)
