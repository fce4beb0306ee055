"""The sides with which training photos grow."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hcoatnet.config import resolve_config
from hcoatnet.data.loading import EpochOrder, TrainingPhotos, batches, training_loader
from hcoatnet.data.pixels import HeldPhotos, Holding, PhotoFiles
from hcoatnet.data.progressive import training_sides


@given(start=st.integers(1, 7), more=st.integers(1, 200), epochs=st.integers(1, 60))
def test_sides_grow_from_the_start_to_the_full_size_for_the_last_third(start, more, epochs):
    size = 32 * start + more
    sides = training_sides(resolve_config({"start_size": 32 * start, "image_size": size, "epochs": epochs}))
    full = math.ceil(epochs / 3)
    assert len(sides) == epochs
    assert sides == sorted(sides)
    assert sides[-full:] == [size] * full
    assert all(side % 32 == 0 for side in sides if side != size)
    if epochs > 1:
        assert sides[0] == 32 * start
    steps = np.diff(sides)
    if epochs - full >= math.ceil(more / 32):
        assert steps.max(initial=0) <= 32


def test_sides_of_two_trainings():
    growing = resolve_config({"start_size": 64, "image_size": 160, "epochs": 9})
    assert training_sides(growing) == [64, 64, 96, 96, 128, 128, 160, 160, 160]
    assert training_sides(resolve_config({"image_size": 160, "epochs": 2})) == [160, 160]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_gives_each_epoch_its_side(tmp_path, workers):
    import torch

    files = [tmp_path / f"{number}.png" for number in range(3)]
    for number, file in enumerate(files):
        Image.new("RGB", (90, 80), (40 * number, 90, 120)).save(file)
    config = resolve_config({"start_size": 32, "image_size": 64, "epochs": 3, "batch_size": 3, "workers": workers})
    order = EpochOrder(3, config.seed)
    photos = TrainingPhotos(HeldPhotos(PhotoFiles(files), Holding.for_training(64)), [0, 1, 2], config)
    loader = training_loader(photos, order, config, torch.device("cpu"))
    shapes = []
    for epoch in range(3):
        order.epoch = epoch
        shapes += [tuple(pixels.shape) for pixels, _, _ in batches(loader)]
    assert shapes == [(3, 3, 32, 32), (3, 3, 32, 32), (3, 3, 64, 64)]
