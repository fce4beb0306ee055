"""Whether, and how, the training step is compiled with torch.compile."""

from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from hcoatnet.config import TrainConfig
from hcoatnet.data.progressive import training_sides
from hcoatnet.training.journal import Journal
from hcoatnet.training.matrix_products import matrix_products
from hcoatnet.training.team import Team
from hcoatnet.training.trial import trial_step

WORTH_COMPILING = 1e14
"""Multiply-adds of all forward passes of a training from which compiling is taken to pay on a CPU.

Compiling takes 45 s on a machine with two cores (110 s and more beside other busy processes), and then saves 2 % of
H-CoAtNet-Atto's bf16 step at 128², 4 % of ConvNeXt-Atto's and 12 % of ViT-Tiny's. For ConvNeXt-Atto 4 % make up for
110 s after about 8 × 10¹³ multiply-adds. In float32 nothing is saved, so that is not compiled unasked.
"""


class Switch(nn.Module):
    """A model that runs compiled on batches of the usual size, and as it is on others.

    A batch of another size, such as the last of an epoch or one of photos that still grow, would be compiled for anew,
    and so would a model with frozen parts.

    Args:
        model: The model.
        batch_size: Photos in a usual batch.
        side: Their side, in pixels.

    Attributes:
        all_learns: Whether no part is frozen.
    """

    def __init__(self, model: nn.Module, batch_size: int, side: int) -> None:
        super().__init__()
        self.model = model
        self.batch_size = batch_size
        self.side = side
        self.compiled: Callable[[Tensor], Any] | None = None
        self.all_learns = True

    def forward(self, photos: Tensor) -> Any:
        """Logits (B, C) of photos (B, 3, S, S)."""
        usual = len(photos) == self.batch_size and photos.shape[-1] == self.side and self.all_learns
        forward = self.compiled if self.compiled is not None and usual else self.model
        with matrix_products(photos.device.type):
            return forward(photos)


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
    failure = None
    try:
        with team.unsynchronised(prepared):
            trial_step(switch.model, prepared, config, config.batch_size)
    except Exception as error:  # whatever the compiler and its tools raise
        failure = error
    if not team.all_agree(failure is None):
        switch.compiled = None
        reason = "another process could not" if failure is None else (str(failure).strip() or type(failure).__name__)
        journal.say(f"The model could not be compiled and runs as it is: {reason.splitlines()[0]}")


def pays(config: TrainConfig, accelerator: Accelerator, photos: int) -> bool:
    """Whether compiling saves more time than it takes, for epochs of so many ``photos``.

    Decided from the whole training, not from what is left, so that a resumed run does what it did before. Epochs with
    smaller photos or frozen parts do not run compiled and do not count.

    Runs that must give the same bits twice are not compiled unasked, and neither is anything on a GPU: there, nothing
    has been measured.
    """
    if config.deterministic or accelerator.device.type != "cpu" or accelerator.mixed_precision == "no":
        return False
    from hcoatnet.models import registry

    summary = registry.describe(config.model, config.image_size, 2, **config.model_options)
    sides = training_sides(config)[config.frozen_epochs :]
    mine = summary.multiply_adds * photos * sides.count(config.image_size) / int(accelerator.num_processes)
    return mine >= WORTH_COMPILING
