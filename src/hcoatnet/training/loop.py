"""The training loop: epochs of optimiser steps, each followed by validation and a checkpoint."""

import math
import time
from collections.abc import Collection, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from hcoatnet.config import TrainConfig
from hcoatnet.data.augmentation import Finish
from hcoatnet.data.loading import EpochOrder, batches
from hcoatnet.errors import RunError, TrainingError
from hcoatnet.evaluation.metrics import score
from hcoatnet.seeding import Purpose, cpu_draws, derive, seed_everything
from hcoatnet.training.checkpoint import load_state, save_state, save_weights
from hcoatnet.training.compilation import Switch, compiled_switch
from hcoatnet.training.history import append_history, start_history
from hcoatnet.training.inference import memory_layout, predict_logits
from hcoatnet.training.journal import Journal
from hcoatnet.training.objective import Objective, mix_batch
from hcoatnet.training.optimisation import build_average, build_optimizer, build_schedule
from hcoatnet.training.run_directory import RunDirectory
from hcoatnet.training.team import Team
from hcoatnet.training.trial import trial_step

CHECK_EVERY = 20
"""Steps between looks at whether the losses are finite; a look makes a GPU wait."""


@dataclass(frozen=True)
class Material:
    """What a training works on.

    Attributes:
        training: Loader of training batches, whose random changes ``finish`` completes.
        order: The order of photos inside it.
        finish: What is done with a batch on the device.
        validation: Loader of validation batches.
        validation_labels: (N,) int64 class indices in the order of the photos.
        objective: The loss, its weights on the training device.
        classes: Names of the classes, in the order of the logits.
    """

    training: DataLoader[Any]
    order: EpochOrder
    finish: Finish
    validation: DataLoader[Any]
    validation_labels: Tensor
    objective: Objective
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One epoch in ``history.csv``; the losses are a photo's mean, the validation loss unweighted and unsmoothed.

    The learning rate is that of the classifier, which ``layer_decay`` does not lower.
    """

    epoch: int
    train_loss: float
    val_loss: float
    val_accuracy: float
    val_balanced_accuracy: float
    val_macro_f1: float
    learning_rate: float
    photos_per_second: float
    seconds: float
    best: int


@dataclass(frozen=True)
class MicroBatch:
    """What one forward and backward pass works on, on the device.

    Attributes:
        photos: (B, 3, S, S).
        targets: (B, C).
        counts: False where the process has no photo of its own in this batch.
    """

    photos: Tensor
    targets: Tensor
    counts: bool


class Learner:
    """A model with everything that changes while it learns, and how to store and restore all of it.

    Args:
        model: The model.
        config: The settings.
        accelerator: Knows the device, the precision and the other processes.
        steps_per_epoch: Optimiser steps in an epoch.
        random_start: Names of the parameters without pretrained weights, where the settings treat them apart.
    """

    def __init__(
        self,
        model: nn.Module,
        config: TrainConfig,
        accelerator: Accelerator,
        steps_per_epoch: int,
        random_start: Collection[str] = (),
    ) -> None:
        self.config = config
        self.accelerator = accelerator
        self.team = Team(accelerator)
        self.model = model.to(accelerator.device)
        if config.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
        self.average = build_average(self.model, config)
        self.optimizer = build_optimizer(self.model, config, random_start)
        self.schedule = build_schedule(self.optimizer, config, steps_per_epoch)
        learning = [(name, one) for name, one in self.model.named_parameters() if one.requires_grad]
        self.pretrained = [one for name, one in learning if name not in random_start]
        self.updates = 0
        self.rows: list[Row] = []
        self.layout = memory_layout(self.model)
        self.dtype = next(self.model.parameters()).dtype
        # accelerate puts mixed precision into the forward of what it is given: a shell keeps the model in float32
        self.switch = Switch(self.model, config.batch_size, config.image_size)
        if not self.team.alone:  # parameters that never get a gradient must be known before the processes wait for it
            idle = trial_step(self.model, self.model, config, photos=2)
            accelerator.ddp_handler = DistributedDataParallelKwargs(
                find_unused_parameters=bool(idle), gradient_as_bucket_view=True
            )
        self.prepared, self.prepared_optimizer = accelerator.prepare(self.switch, self.optimizer)

    @property
    def evaluated(self) -> nn.Module:
        """The model to evaluate: the averaged weights where there are any."""
        return self.model if self.average is None else self.average.module

    def state(self) -> dict[str, Any]:
        """Everything needed to continue. Random states are not among it: each epoch has a seed of its own."""
        scaler = self.accelerator.scaler
        return {
            "model": self.model.state_dict(),
            "average": None if self.average is None else self.average.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "updates": self.updates,
            "processes": self.team.share.size,
            "rows": [asdict(row) for row in self.rows],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` gave."""
        self.model.load_state_dict(state["model"])
        if self.average is not None:
            self.average.module.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.updates = state["updates"]
        self.rows = [Row(**row) for row in state["rows"]]
        self.schedule.step_update(self.updates)

    def begin_epoch(self, epoch: int) -> None:
        """Training mode; in the first ``frozen_epochs`` pretrained parts keep their weights and batch-norm statistics.

        The optimiser passes over parameters without a gradient; their own course in it begins when they are freed.
        """
        self.prepared.train()
        if not self.config.frozen_epochs:
            return
        frozen = epoch < self.config.frozen_epochs
        self.switch.all_learns = not frozen
        for parameter in self.pretrained:
            parameter.requires_grad_(not frozen)
        for module in self.model.modules():
            if isinstance(module, _BatchNorm) and not any(one.requires_grad for one in module.parameters()):
                module.eval()

    def step(self, group: list[MicroBatch], objective: Objective) -> Tensor:
        """One optimiser step over the micro-batches of ``group``; returns this process's part of the loss.

        The loss is Σ w·ℓ / Σ w over the micro-batches of all processes. Gradients are averaged over the processes,
        hence the factor. What is returned stays on the device: to read it here would make a GPU wait.
        """
        weight = torch.stack([objective.total_weight(batch.targets) for batch in group]).sum()
        weight = self.team.sum(weight)
        total = torch.zeros((), device=self.accelerator.device)
        for number, batch in enumerate(group, start=1):
            more = nullcontext() if number == len(group) else self.team.unsynchronised(self.prepared)
            with more:
                loss = objective.weighted_sum(self.prepared(batch.photos), batch.targets) / weight
                if not batch.counts:
                    loss = 0 * loss
                self.accelerator.backward(loss * self.team.share.size)
            total += loss.detach()
        if self.config.clip_grad > 0:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.clip_grad)
        self.prepared_optimizer.step()
        self.prepared_optimizer.zero_grad()
        self.updates += 1
        self.schedule.step_update(self.updates)
        if self.average is not None:
            self.average.update(self.updates)
        return total


def fit(learner: Learner, material: Material, run: RunDirectory, journal: Journal) -> None:
    """Train from where ``learner`` stands to the last epoch, with a checkpoint after each.

    Raises:
        TrainingError: The loss is no finite number. The last good checkpoint stays.
    """
    config, team = learner.config, learner.team
    if state := team.first(lambda: stored_state(run, team)):
        try:
            learner.restore(state)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise RunError(
                f"{run.state_file} is not the state of the model in the run's config.yaml. Restore the two files "
                "together, or start a new run."
            ) from error
        journal.say(f"Continuing after epoch {len(learner.rows)} of {config.epochs}.")
    if team.leads:
        start_history(run.history_file, [asdict(row) for row in learner.rows])
    compiled_switch(learner.switch, learner.prepared, config, learner.accelerator, len(material.order), journal)
    for epoch in range(len(learner.rows), config.epochs):
        started = time.perf_counter()
        loss, rate = train_epoch(learner, material, epoch, journal)
        validated = validate(learner.evaluated, material, team)
        if not math.isfinite(validated["val_loss"]):
            raise _not_finite("validation loss", validated["val_loss"], f"after epoch {epoch + 1}")
        best = _is_best(config.monitor, validated, learner.rows)
        row = Row(
            epoch=epoch + 1,
            train_loss=loss,
            **validated,
            learning_rate=max(group["lr"] for group in learner.optimizer.param_groups),
            photos_per_second=round(rate, 1),
            seconds=round(time.perf_counter() - started, 2),
            best=int(best),
        )
        learner.rows.append(row)
        if team.leads:
            if best:
                save_weights(learner.evaluated, run.weights_file, describe_weights(config, material.classes, epoch))
            save_state(learner.state(), run.state_file)
            append_history(run.history_file, asdict(row))
        journal.say(_line(row, config.epochs))


def stored_state(run: RunDirectory, team: Team) -> dict[str, Any] | None:
    """What a run was left with; None where it has come to no epoch's end.

    Raises:
        RunError: It is damaged, or of another number of processes.
    """
    if not run.state_file.exists():
        return None
    state = load_state(run.state_file)
    if (before := state.get("processes", 1)) != team.share.size:
        raise RunError(
            f"The processes of {run.path} were {before}, and now they are {team.share.size}, with which its batches "
            "would be others. Continue it with as many as before."
        )
    return state


def train_epoch(learner: Learner, material: Material, epoch: int, journal: Journal) -> tuple[float, float]:
    """One pass over the training photos; returns the mean loss of a step and the photos trained on a second."""
    config, team = learner.config, learner.team
    seed_everything(derive(config.seed, Purpose.EPOCH, epoch, *team.place))
    learner.begin_epoch(epoch)
    material.order.epoch = epoch
    losses: list[Tensor] = []
    started = time.perf_counter()
    with journal.steps(f"epoch {epoch + 1}/{config.epochs}", len(material.training)) as steps:
        for group in _groups(learner, material, epoch):
            losses.append(learner.step(group, material.objective))
            for _ in group:
                steps.advance()
            if len(losses) % CHECK_EVERY == 0:
                _check_finite(losses[-CHECK_EVERY:], len(losses) - CHECK_EVERY, epoch, team)
    mean = float(_check_finite(losses, 0, epoch, team).double().mean())
    return mean, len(material.order) / (time.perf_counter() - started)


def validate(model: nn.Module, material: Material, team: Team) -> dict[str, float]:
    """Loss, accuracy, balanced accuracy and macro F1 on the validation photos, as columns of a row."""
    team.spread_buffers(model)
    logits = predict_logits(model, material.validation, team.device, team)
    loss = functional.cross_entropy(torch.from_numpy(logits).double(), material.validation_labels)
    figures = score(material.validation_labels.numpy(), logits)
    return {
        "val_loss": float(loss),
        "val_accuracy": figures.accuracy,
        "val_balanced_accuracy": figures.balanced_accuracy,
        "val_macro_f1": figures.macro_f1,
    }


def _groups(learner: Learner, material: Material, epoch: int) -> Iterator[list[MicroBatch]]:
    """The micro-batches of each optimiser step, finished and mixed."""
    config, device = learner.config, learner.accelerator.device
    stream = enumerate(batches(material.training))
    while chunk := list(islice(stream, config.accumulation)):
        group = []
        for number, (pixels, marks, labels) in chunk:
            counts = bool(labels[0] >= 0)
            targets = functional.one_hot(labels.clamp(min=0), len(material.classes)).float() * counts
            photos = material.finish(pixels.to(device, non_blocking=True), marks.to(device, non_blocking=True))
            targets = targets.to(device, non_blocking=True)
            with cpu_draws(derive(config.seed, Purpose.MIXING, epoch, number, *learner.team.place)):
                photos, targets = mix_batch(photos, targets, config.mixup, config.cutmix)
            photos = photos.to(learner.dtype).contiguous(memory_format=learner.layout)
            group.append(MicroBatch(photos, targets, counts))
        yield group


def _check_finite(losses: list[Tensor], before: int, epoch: int, team: Team) -> Tensor:
    """The losses of all processes together: the same in each, so that all of them stop where one is not finite."""
    whole = team.sum(torch.stack(losses))
    finite = whole.isfinite()
    if not bool(finite.all()):
        first = int((~finite).nonzero()[0])
        raise _not_finite("loss", float(whole[first]), f"at step {before + first + 1} of epoch {epoch + 1}")
    return whole


def _not_finite(what: str, value: float, where: str) -> TrainingError:
    return TrainingError(
        f"The {what} is {value} {where}. Training stopped; the checkpoint of the last epoch before it is kept. "
        "Lower --lr, set --clip-grad 1, or use --precision fp32."
    )


def _is_best(monitor: str, validated: dict[str, float], rows: list[Row]) -> bool:
    name = f"val_{monitor}"
    sign = -1 if monitor == "loss" else 1
    values = [sign * getattr(row, name) for row in rows]
    return sign * validated[name] > max(values, default=-math.inf)


def describe_weights(config: TrainConfig, classes: tuple[str, ...], epoch: int) -> dict[str, Any]:
    """What a file of weights says about itself; epochs count from 0."""
    return {"model": config.model, "image_size": config.image_size, "classes": list(classes), "epoch": epoch + 1}


def _line(row: Row, epochs: int) -> str:
    return (
        f"epoch {row.epoch:>{len(str(epochs))}}/{epochs}  train loss {row.train_loss:.4f}  "
        f"val loss {row.val_loss:.4f}  macro F1 {row.val_macro_f1:.4f}  balanced accuracy "
        f"{row.val_balanced_accuracy:.4f}  {row.photos_per_second:.0f} photos/s{'  best' if row.best else ''}"
    )
