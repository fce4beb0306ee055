"""Optimiser, learning-rate schedule and averaged weights, through timm's factories."""

import math
from collections.abc import Collection
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from hcoatnet.config import TrainConfig


def build_optimizer(model: nn.Module, config: TrainConfig, random_start: Collection[str] = ()) -> Optimizer:
    """The optimiser of ``config``; biases, norms and what the model names in ``no_weight_decay`` are not decayed.

    On CPUs and NVIDIA GPUs it is fused: one pass over the weights, not one for each operation.

    Args:
        model: The model.
        config: The settings.
        random_start: Names of the parameters without pretrained weights, which ``layer_decay`` leaves alone.
    """
    from timm.optim import create_optimizer_v2

    plain = config.optimizer == "sgd" and config.momentum == 0  # timm's sgd is Nesterov's, which needs a momentum
    optimizer: Optimizer = create_optimizer_v2(
        model,
        opt="momentum" if plain else config.optimizer,
        lr=config.lr,
        weight_decay=config.weight_decay,
        momentum=config.momentum,
        param_group_fn=None if config.layer_decay == 1 else lambda _: layer_groups(model, config, random_start),
        fused=next(model.parameters()).device.type in ("cpu", "cuda"),
    )
    return optimizer


def layer_groups(model: nn.Module, config: TrainConfig, random_start: Collection[str]) -> list[dict[str, Any]]:
    """Groups of parameters with a ``lr_scale`` that falls by ``layer_decay`` from each layer to the one before it.

    The layers are timm's. What starts random stands in the last one, with a scale of 1, wherever it stands in the
    network, and is not counted: to put a new block into a backbone does not slow its layers down. (BEiT, Bao et al.
    2022, decays through all layers, of which the head alone is new.)
    """
    from timm.models import group_parameters
    from timm.optim import auto_group_layers, param_groups_layer_decay

    group_matcher: Any = getattr(model, "group_matcher", None)
    layers: dict[str, int] = (
        auto_group_layers(model)  # type: ignore[no-untyped-call]
        if group_matcher is None
        else group_parameters(model, group_matcher(coarse=False), reverse=True)
    )
    last = max(layers.values())
    seen: Any = SimpleNamespace(
        named_parameters=model.named_parameters,
        group_matcher=lambda coarse: lambda name: last if name in random_start else layers[name],
    )
    groups: list[dict[str, Any]] = param_groups_layer_decay(
        seen,
        weight_decay=config.weight_decay,
        no_weight_decay_list=getattr(model, "no_weight_decay", frozenset)(),
        layer_decay=config.layer_decay,
    )
    return groups


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


class Average:
    """An exponential moving average of a model's parameters and buffers.

    The decay warms up as 1 − n^(−2/3) in step n, up to ``decay``, as in timm's ModelEmaV3. Which tensor follows which
    is settled once; a step is one call for all of them.

    Args:
        model: The model to follow.
        decay: Share of the average that a step keeps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.module = deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        pairs = list(zip(_tensors(self.module), _tensors(model), strict=True))
        self._floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._others = [pair for pair in pairs if not pair[0].is_floating_point()]

    def update(self, step: int) -> None:
        """Take in the weights after optimiser step ``step``, counted from 1."""
        decay = min(self.decay, 1 - step ** (-2 / 3))
        with torch.no_grad():
            torch._foreach_lerp_([mine for mine, _ in self._floats], [theirs for _, theirs in self._floats], 1 - decay)
            for mine, theirs in self._others:
                mine.copy_(theirs)


def _tensors(model: nn.Module) -> list[Tensor]:
    """Parameters and buffers themselves; a state dict's would lose them where a wrapper gives them new memory."""
    return [*model.parameters(), *model.buffers()]


def build_average(model: nn.Module, config: TrainConfig) -> Average | None:
    """The moving average of the weights; None where it is off."""
    return Average(model, config.ema) if config.ema else None
