"""From photos on disk to batches for a model: datasets, order of an epoch, loaders."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from hcoatnet.config import TrainConfig
from hcoatnet.data.augmentation import build_augmentation
from hcoatnet.data.images import open_photo, preprocess
from hcoatnet.errors import HCoAtNetError
from hcoatnet.seeding import Purpose, cpu_draws, derive, generator

MARGIN = 1.15
"""Training photos are held at MARGIN times the model's input, which leaves the random crop room."""

Place = tuple[int, int]
"""Epoch and index of a photo: together with the run's seed they fix its augmentation."""


class EvaluationPhotos(Dataset[Any]):
    """Photos as the model sees them in validation, test and prediction: (index, (3, S, S) float32)."""

    def __init__(self, paths: Sequence[Path], image_size: int) -> None:
        self.paths = list(paths)
        self.image_size = image_size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
        try:
            return index, torch.from_numpy(preprocess(open_photo(self.paths[index]), self.image_size))
        except HCoAtNetError as error:
            return error


class TrainingPhotos(Dataset[Any]):
    """Photos with their random changes: (augmented (3, S, S) float32, class index).

    What is drawn for a photo depends on the run's seed, the epoch and the photo's index alone.
    """

    def __init__(self, paths: Sequence[Path], labels: Sequence[int], config: TrainConfig) -> None:
        self.paths = list(paths)
        self.labels = list(labels)
        self.shorter_side = math.ceil(MARGIN * config.image_size)
        self.seed = config.seed
        self.chain = build_augmentation(config)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: Place) -> Any:
        epoch, index = place
        try:
            photo = _with_shorter_side(open_photo(self.paths[index]), self.shorter_side)
        except HCoAtNetError as error:
            return error
        pixels = torch.from_numpy(np.array(photo)).permute(2, 0, 1)
        with cpu_draws(derive(self.seed, Purpose.AUGMENTATION, epoch, index)):
            return self.chain(pixels), self.labels[index]


class EpochOrder(Sampler[Place]):
    """Places of one epoch in random order; set ``epoch`` before each pass.

    With ``weights`` the photos are drawn with replacement in proportion to them, as many as there are.
    """

    def __init__(self, photos: int, seed: int, weights: Tensor | None = None) -> None:
        self.photos = photos
        self.seed = seed
        self.weights = weights
        self.epoch = 0

    def __len__(self) -> int:
        return self.photos

    def __iter__(self) -> Iterator[Place]:
        draws = generator(derive(self.seed, Purpose.ORDER, self.epoch))
        if self.weights is None:
            order = torch.randperm(self.photos, generator=draws)
        else:
            order = torch.multinomial(self.weights, self.photos, replacement=True, generator=draws)
        for index in order.tolist():
            yield self.epoch, index


class WholeBatches(Sampler[list[Place]]):
    """Batches that together hold every photo; a single photo left over joins the batch before it.

    Batch norm cannot train on a batch of one, and to drop the photo would be to lose it.
    """

    def __init__(self, sampler: EpochOrder, batch_size: int) -> None:
        self.sampler = sampler
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[list[Place]]:
        order = list(self.sampler)
        ends = [*range(self.batch_size, len(order), self.batch_size), len(order)]
        if self.batch_size > 1 and len(ends) > 1 and ends[-1] - ends[-2] == 1:
            del ends[-2]
        for start, end in zip([0, *ends[:-1]], ends, strict=True):
            yield order[start:end]

    def __len__(self) -> int:
        photos, size = len(self.sampler), self.batch_size
        whole = math.ceil(photos / size)
        return whole - 1 if whole > 1 and photos % size == 1 else whole


def training_loader(
    photos: TrainingPhotos, order: EpochOrder, config: TrainConfig, device: torch.device
) -> DataLoader[Any]:
    """Batches (photos (B, 3, S, S), labels (B,)) in the order of ``order``."""
    return DataLoader(
        photos,
        batch_sampler=WholeBatches(order, config.batch_size),
        collate_fn=collate,
        **_loader_options(config.workers, device),
    )


def evaluation_loader(paths: Sequence[Path], config: TrainConfig, device: torch.device) -> DataLoader[Any]:
    """Batches (indices (B,), photos (B, 3, S, S)) in the order of ``paths``."""
    return DataLoader(
        EvaluationPhotos(paths, config.image_size),
        batch_size=2 * config.batch_size,
        collate_fn=collate,
        **_loader_options(config.workers, device),
    )


def batches(loader: DataLoader[Any]) -> Iterator[tuple[Tensor, Tensor]]:
    """The loader's batches; a photo that could not be read raises its own error here, in the main process."""
    for batch in loader:
        if isinstance(batch, HCoAtNetError):
            raise batch
        yield batch


def collate(items: list[Any]) -> Any:
    """A batch of the items, or the first error among them (an error raised in a worker would lose its text)."""
    for item in items:
        if isinstance(item, HCoAtNetError):
            return item
    return torch.utils.data.default_collate(items)


def drawing_weights(labels: Sequence[int], classes: int) -> Tensor:
    """Weight of each photo, (N,) float64, with which every class is drawn equally often."""
    counts = torch.bincount(torch.tensor(labels), minlength=classes).double()
    return (1 / counts)[torch.tensor(labels)]


def _with_shorter_side(photo: Image.Image, side: int) -> Image.Image:
    scale = side / min(photo.size)
    size = (max(side, round(photo.width * scale)), max(side, round(photo.height * scale)))
    return photo.resize(size, Image.Resampling.BICUBIC)


def _loader_options(workers: int, device: torch.device) -> dict[str, Any]:
    """On a CPU extra processes would take the cores that compute; a GPU leaves them free."""
    if workers < 0:
        workers = 0 if device.type == "cpu" else min(8, torch.get_num_threads())
    return {"num_workers": workers, "persistent_workers": workers > 0, "pin_memory": device.type == "cuda"}
