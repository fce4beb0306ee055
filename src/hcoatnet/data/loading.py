"""From held photos to batches for a model: datasets, order of an epoch, loaders."""

import math
import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from hcoatnet.config import TrainConfig
from hcoatnet.data.augmentation import Augmentation
from hcoatnet.data.images import normalise
from hcoatnet.data.pixels import HeldPhotos
from hcoatnet.data.progressive import training_sides
from hcoatnet.errors import HCoAtNetError
from hcoatnet.seeding import Purpose, derive, generator

AHEAD = 2
"""Batches that are made ready while the model computes."""

Place = tuple[int, int]
"""Epoch and index of a photo: together with the run's seed they fix its augmentation.

An index i below 0 stands for photo −1 − i that does not count: a process with no photo of its own in a batch computes
on it, with weight 0.
"""


@dataclass(frozen=True)
class Share:
    """Which part of the work a process does.

    Attributes:
        rank: Number of the process, from 0.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1


class EvaluationPhotos(Dataset[Any]):
    """Photos as the model sees them in validation, test and prediction: (index, (3, S, S) float32)."""

    def __init__(self, photos: HeldPhotos) -> None:
        self.photos = photos

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> Any:
        try:
            return index, normalise(self.photos[index])
        except HCoAtNetError as error:
            return error


class TrainingPhotos(Dataset[Any]):
    """Photos with their random changes: (pixels (S, S, 3) uint8, marks (6,), class index).

    What is drawn for a photo depends on the run's seed, the epoch and the photo's index alone, and the side S on the
    epoch. Photos that do not count have the class −1.
    """

    def __init__(self, photos: HeldPhotos, labels: Sequence[int], config: TrainConfig) -> None:
        self.photos = photos
        self.labels = np.array(labels, dtype=np.int64)
        self.seed = config.seed
        self.augmentation = Augmentation(config)
        self.sides = training_sides(config)

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, place: Place) -> Any:
        epoch, index = place
        photo = max(index, -1 - index)
        try:
            pixels = self.photos[photo]
        except HCoAtNetError as error:
            return error
        draws = np.random.default_rng(derive(self.seed, Purpose.AUGMENTATION, epoch, photo))
        pixels, marks = self.augmentation(pixels, draws, self.sides[epoch])
        return pixels, marks, self.labels[photo] if photo == index else np.int64(-1)


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

    Args:
        sampler: The order of the photos.
        batch_size: Photos a batch of one process.
        share: With several processes a batch has ``batch_size`` photos for each; each process gets every ``size``-th
            photo of it. So N processes work through the same batches as one with N times their batch size.
    """

    def __init__(self, sampler: EpochOrder, batch_size: int, share: Share = Share()) -> None:
        self.sampler = sampler
        self.batch_size = batch_size * share.size
        self.share = share

    def __iter__(self) -> Iterator[list[Place]]:
        order = list(self.sampler)
        ends = [*range(self.batch_size, len(order), self.batch_size), len(order)]
        if self.batch_size > 1 and len(ends) > 1 and ends[-1] - ends[-2] == 1:
            del ends[-2]
        for start, end in zip([0, *ends[:-1]], ends, strict=True):
            mine = order[start + self.share.rank : end : self.share.size]
            yield mine or [(order[start][0], -1 - order[start][1])]

    def __len__(self) -> int:
        photos, size = len(self.sampler), self.batch_size
        whole = math.ceil(photos / size)
        return whole - 1 if whole > 1 and size > 1 and photos % size == 1 else whole


def training_loader(
    photos: TrainingPhotos, order: EpochOrder, config: TrainConfig, device: torch.device, share: Share = Share()
) -> DataLoader[Any]:
    """Batches (pixels (B, 3, S, S) uint8 in channels-last memory, marks (B, 6), labels (B,)), ordered by ``order``."""
    return DataLoader(
        photos,
        batch_sampler=WholeBatches(order, config.batch_size, share),
        collate_fn=collate_training,
        **_loader_options(config.workers, device),
    )


def evaluation_loader(
    photos: HeldPhotos, config: TrainConfig, device: torch.device, share: Share = Share()
) -> DataLoader[Any]:
    """Batches (indices (B,), photos (B, 3, S, S)) in the order of ``photos``; of several processes each has a part."""
    return DataLoader(
        EvaluationPhotos(photos),
        sampler=range(share.rank, len(photos), share.size),
        batch_size=2 * config.batch_size,
        collate_fn=collate_evaluation,
        **_loader_options(config.workers, device),
    )


def batches(loader: DataLoader[Any]) -> Iterator[Any]:
    """The loader's batches, made ready while the one before is worked on.

    A photo that could not be read raises its own error here, in the caller's thread.
    """
    for batch in _ahead(loader) if loader.num_workers == 0 else loader:
        if isinstance(batch, BaseException):
            raise batch
        yield batch


def collate_training(items: list[Any]) -> Any:
    """A batch of the items, or the first error among them (an error raised in a worker would lose its text)."""
    if error := _first_error(items):
        return error
    pixels, marks, labels = zip(*items, strict=True)
    photos = torch.from_numpy(_stacked(pixels)).permute(0, 3, 1, 2)
    return photos, torch.from_numpy(_stacked(marks)), torch.tensor(labels)


def collate_evaluation(items: list[Any]) -> Any:
    """As `collate_training`, for evaluation."""
    if error := _first_error(items):
        return error
    indices, photos = zip(*items, strict=True)
    return torch.tensor(indices), torch.from_numpy(_stacked(photos))


def drawing_weights(labels: Sequence[int], classes: int) -> Tensor:
    """Weight of each photo, (N,) float64, with which every class is drawn equally often."""
    counts = torch.bincount(torch.tensor(labels), minlength=classes).double()
    return (1 / counts)[torch.tensor(labels)]


def _first_error(items: list[Any]) -> HCoAtNetError | None:
    return next((item for item in items if isinstance(item, HCoAtNetError)), None)


def _stacked(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Stacked by NumPy: torch would start its threads, in competition with those that compute."""
    return np.stack(arrays)


def _ahead(loader: DataLoader[Any]) -> Iterator[Any]:
    """Batches of a loader without processes of its own, made in a thread; an error comes as an item."""
    ready: queue.Queue[Any] = queue.Queue(AHEAD)
    stopped = threading.Event()
    end = object()

    def put(item: Any) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for batch in loader:
                if not put(batch):
                    return
            put(end)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=work, name="photos", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not end:
            yield item
    finally:
        stopped.set()
        thread.join()


def _loader_options(workers: int, device: torch.device) -> dict[str, Any]:
    """On a CPU extra processes would take the cores that compute; a GPU leaves them free.

    Without a generator of its own a loader would draw from torch's at the start of each pass, in another thread.
    """
    if workers < 0:
        workers = 0 if device.type == "cpu" else min(8, torch.get_num_threads())
    return {
        "num_workers": workers,
        "persistent_workers": workers > 0,
        "pin_memory": device.type == "cuda",
        "generator": torch.Generator(),
    }
