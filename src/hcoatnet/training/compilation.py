"""Whether, and how, the training step is compiled with torch.compile."""

from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from hcoatnet.config import TrainConfig
from hcoatnet.training.journal import Journal
from hcoatnet.training.team import Team

WORTH_COMPILING = 6e12
"""Multiply-adds of all forward passes of a training from which compiling is taken to pay on a CPU.

Measured with ConvNeXt-Atto at 128² on two cores: compiling took 45 s (110 s beside other busy processes) and then saved
a fifth of each step, which makes up for it after about 2 × 10¹² (5 × 10¹²) multiply-adds.
"""


class Switch(nn.Module):
    """A model that runs compiled on batches of the usual size, and as it is on others.

    A batch of another size, such as the last of an epoch, would be compiled for anew.

    Args:
        model: The model.
        batch_size: The usual size.
    """

    def __init__(self, model: nn.Module, batch_size: int) -> None:
        super().__init__()
        self.model = model
        self.batch_size = batch_size
        self.compiled: Callable[[Tensor], Any] | None = None

    def forward(self, photos: Tensor) -> Any:
        """Logits (B, C) of photos (B, 3, S, S)."""
        if self.compiled is not None and len(photos) == self.batch_size:
            return self.compiled(photos)
        return self.model(photos)


def compiled_switch(
    switch: Switch, prepared: nn.Module, config: TrainConfig, accelerator: Accelerator, photos: int, journal: Journal
) -> None:
    """Compile the model of ``switch`` where the settings ask for it or it pays; where that fails, say so and go on.

    Compiling takes place here, in a trial step that changes nothing, because its errors can come as late as in the
    backward pass. All processes compile, or none does.

    Args:
        switch: Holds the model.
        prepared: What accelerate made of ``switch``.
        config: The settings.
        accelerator: Knows the device and the precision.
        photos: Photos in an epoch.
        journal: Where to speak.
    """
    if config.compile == "false" or (config.compile == "auto" and not pays(config, accelerator, photos)):
        return
    team = Team(accelerator)
    journal.say("Compiling the model; this takes about a minute (--compile false leaves it out).")
    switch.compiled = torch.compile(switch.model.forward, dynamic=False)
    failure = _trial(switch, prepared, config, accelerator)
    if not team.all_agree(failure is None):
        switch.compiled = None
        reason = "another process could not" if failure is None else (str(failure).strip() or type(failure).__name__)
        journal.say(f"The model could not be compiled and runs as it is: {reason.splitlines()[0]}")


def pays(config: TrainConfig, accelerator: Accelerator, photos: int) -> bool:
    """Whether compiling saves more time than it takes, for epochs of so many ``photos``.

    Decided from the whole training, not from what is left, so that a resumed run does what it did before.

    Runs that must give the same bits twice are not compiled unasked, and neither is anything on a GPU: there, nothing
    has been measured.
    """
    if config.deterministic or accelerator.device.type != "cpu":
        return False
    from hcoatnet.models import registry

    summary = registry.describe(config.model, config.image_size, 2, **config.model_options)
    mine = summary.multiply_adds * photos * config.epochs / int(accelerator.num_processes)
    return mine >= WORTH_COMPILING


def _trial(switch: Switch, prepared: nn.Module, config: TrainConfig, accelerator: Accelerator) -> Exception | None:
    """One forward and backward pass on blank photos; buffers, gradients and random states are as they were."""
    model = switch.model
    parameter = next(model.parameters())
    side = config.image_size
    photos = torch.zeros(config.batch_size, 3, side, side, device=parameter.device, dtype=parameter.dtype)
    if config.channels_last:
        photos = photos.contiguous(memory_format=torch.channels_last)
    kept = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.train()
    failure = None
    with torch.random.fork_rng(devices=[parameter.device] if parameter.is_cuda else []):
        try:
            with Team(accelerator).unsynchronised(prepared):
                prepared(photos).float().sum().backward()
        except Exception as error:  # whatever the compiler and its tools raise
            failure = error
    model.zero_grad()
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(kept[name])
    return failure
