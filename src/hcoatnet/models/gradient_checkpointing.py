"""Gradient checkpointing that leaves batch-norm statistics alone."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

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
    tracking = [part for part in module.modules() if getattr(part, "track_running_stats", False)]
    for part in tracking:
        part.track_running_stats = False
    try:
        yield
    finally:
        for part in tracking:
            part.track_running_stats = True
