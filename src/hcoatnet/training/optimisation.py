"""Optimiser, learning-rate schedule and averaged weights, through timm's factories."""

import math
from typing import Any

from torch import nn
from torch.optim import Optimizer

from hcoatnet.config import TrainConfig


def build_optimizer(model: nn.Module, config: TrainConfig) -> Optimizer:
    """The optimiser of ``config``; biases, norms and what the model names in ``no_weight_decay`` are not decayed."""
    from timm.optim import create_optimizer_v2

    optimizer: Optimizer = create_optimizer_v2(
        model, opt=config.optimizer, lr=config.lr, weight_decay=config.weight_decay, momentum=config.momentum
    )
    return optimizer


def build_schedule(optimizer: Optimizer, config: TrainConfig, steps_per_epoch: int) -> Any:
    """The schedule, a function of the number of optimiser steps done; call its ``step_update`` after each.

    ``constant`` is timm's ``step`` with a decay that lies beyond the end.
    """
    from timm.scheduler import create_scheduler_v2

    schedule, _ = create_scheduler_v2(
        optimizer,
        sched="step" if config.schedule == "constant" else config.schedule,
        num_epochs=config.epochs,
        decay_epochs=config.epochs + 1 if config.schedule == "constant" else max(1, math.ceil(config.epochs / 3)),
        decay_rate=0.1 if config.schedule == "step" else 1.0,
        min_lr=config.min_lr,
        warmup_epochs=config.warmup_epochs,  # type: ignore[arg-type]  # halves of an epoch are fine: it counts steps
        warmup_lr=config.lr * 1e-3,
        warmup_prefix=False,
        step_on_epochs=False,
        updates_per_epoch=steps_per_epoch,
    )
    schedule.step_update(0)
    return schedule


def build_average(model: nn.Module, config: TrainConfig) -> Any | None:
    """An exponential moving average of the weights, with a warm-up of its decay; None where it is off."""
    if config.ema == 0:
        return None
    from timm.utils import ModelEmaV3

    return ModelEmaV3(model, decay=config.ema, use_warmup=True)
