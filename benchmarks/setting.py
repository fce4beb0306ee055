"""How much the suite measures, and on what."""

from dataclasses import dataclass, replace
from pathlib import Path

Subject = tuple[str, int]
"""A model and the side of its photos, in pixels."""


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        subjects: Models whose training is timed.
        train_photos: Training photos; None for all.
        val_photos: Validation photos; None for all.
        batch_size: Photos a step.
        rounds: Epochs of each contestant; the first is reported apart.
        compiled: Whether the first model is also trained with compiling asked for.
        steps: Models whose optimiser step is timed.
        step_rounds: Turns of each way to compute it.
        inference: Models whose answers are timed.
        inference_rounds: Turns of each way to answer.
        inference_seconds: Least seconds of a turn.
        start_rounds: Turns of each command whose start is timed.
        read_photos: Numbers of photos in the memory of an epoch of reading.
        predict_photos: Numbers of photos in the memory of ``predict``.
        scaling_model: Model of the grid.
        scaling_rounds: Epochs of each point of the grid; the first is reported apart.
        grid_photos: Numbers of training photos.
        grid_sizes: Sides of photos, in pixels.
        grid_classes: Numbers of classes.
        target: Model and size of the race to a fixed score.
        target_epochs: Epochs of the plain script in it; those of the published recipe.
        target_seeds: Races.
    """

    subjects: tuple[Subject, ...] = (("h_coatnet_atto", 128), ("convnext_atto", 128))
    train_photos: int | None = None
    val_photos: int | None = None
    batch_size: int = 24
    rounds: int = 4
    compiled: bool = True
    steps: tuple[Subject, ...] = (
        ("h_coatnet_atto", 128), ("h_coatnet_atto", 96), ("convnext_atto", 128), ("swin_atto", 128),
        ("vit_tiny_patch16_224", 96), ("cnn", 96), ("efficientnet_b0", 128),
    )  # fmt: skip
    step_rounds: int = 5
    inference: tuple[Subject, ...] = (("h_coatnet_atto", 128), ("h_coatnet_tiny", 224))
    inference_rounds: int = 5
    inference_seconds: float = 0.4
    start_rounds: int = 5
    read_photos: tuple[int, ...] = (1000, 100_000)
    predict_photos: tuple[int, ...] = (32, 256, 1024)
    scaling_model: str = "h_coatnet_atto"
    scaling_rounds: int = 3
    grid_photos: tuple[int, ...] = (96, 192, 384)
    grid_sizes: tuple[int, ...] = (64, 96, 128)
    grid_classes: tuple[int, ...] = (2, 6, 48)
    target: Subject = ("h_coatnet_atto", 96)
    target_epochs: int = 30
    target_seeds: tuple[int, ...] = (1,)


FULL = Scale()
QUICK = replace(
    FULL,
    subjects=(("h_coatnet_atto", 128),),
    train_photos=240,
    val_photos=96,
    rounds=3,
    steps=(("h_coatnet_atto", 128), ("vit_tiny_patch16_224", 96)),
    step_rounds=3,
    inference=(("h_coatnet_atto", 128),),
    inference_rounds=4,
    inference_seconds=0.3,
    start_rounds=3,
    read_photos=(1000, 10_000),
    predict_photos=(32, 256),
    scaling_rounds=2,
    grid_photos=(48, 96, 192),
    target_epochs=10,
)
CUDA = replace(
    FULL,
    subjects=(("h_coatnet_tiny", 224), ("convnext_tiny", 224)),
    inference=(("h_coatnet_tiny", 224),),
    target=("h_coatnet_atto", 128),
)
"""On a GPU; of the parts, only `training` has been tried on one."""


@dataclass(frozen=True)
class Setting:
    """What is measured on.

    Attributes:
        data: Manifest of the photos.
        split: Its split file; of folds, the first cell is taken. None to make a split.
        work: Folder for everything that is written on the way.
        threads: Threads of each contestant.
        device: ``cpu`` or ``cuda``.
        augmentation: ``mild`` or ``strong``, see ``training_speed``.
        scale: How much.
    """

    data: Path
    split: Path | None
    work: Path
    threads: int
    device: str
    augmentation: str
    scale: Scale
