import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hcoatnet.config import resolve_config
from hcoatnet.data.images import open_photo, preprocess
from hcoatnet.data.loading import (
    EpochOrder,
    EvaluationPhotos,
    TrainingPhotos,
    WholeBatches,
    batches,
    drawing_weights,
    evaluation_loader,
    training_loader,
)
from hcoatnet.errors import DataError

CPU = torch.device("cpu")


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for number in range(5):
        path = tmp_path / f"{number}.png"
        Image.fromarray(rng.integers(0, 255, (30 + number, 50, 3), dtype=np.uint8)).save(path)
        paths.append(path)
    return paths


def config(**settings):
    return resolve_config({"image_size": 16, "batch_size": 2, "workers": 0, **settings})


def epoch_of(loader, epoch):
    loader.batch_sampler.sampler.epoch = epoch
    return [(photos, labels) for photos, labels in batches(loader)]


def make_loader(files, **settings):
    chosen = config(**settings)
    photos = TrainingPhotos(files, [0, 1, 0, 1, 0], chosen)
    return training_loader(photos, EpochOrder(5, chosen.seed), chosen, CPU)


def test_a_photo_is_the_same_in_evaluation_as_through_the_contract(files):
    loader = evaluation_loader(files, config(), CPU)
    rows = torch.cat([photos for _, photos in batches(loader)])
    expected = np.stack([preprocess(open_photo(path), 16) for path in files])
    assert np.array_equal(rows.numpy(), expected)
    assert torch.cat([indices for indices, _ in batches(loader)]).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_nothing(files, workers):
    alone, helped = make_loader(files, workers=0), make_loader(files, workers=workers)
    for epoch in (0, 1):
        for (one, labels), (other, other_labels) in zip(epoch_of(alone, epoch), epoch_of(helped, epoch), strict=True):
            assert torch.equal(one, other)
            assert torch.equal(labels, other_labels)


def test_augmentation_depends_on_seed_epoch_and_index_only(files):
    photos = TrainingPhotos(files, [0] * 5, config())
    first = photos[3, 2][0]
    torch.rand(7)
    photos[0, 0]
    assert torch.equal(photos[3, 2][0], first)
    assert not torch.equal(photos[4, 2][0], first)
    assert not torch.equal(TrainingPhotos(files, [0] * 5, config(seed=43))[3, 2][0], first)


def test_without_augmentation_a_square_photo_of_the_held_size_is_only_normalised(tmp_path):
    side = math.ceil(1.15 * 16)
    Image.new("RGB", (side, side), (200, 100, 50)).save(tmp_path / "plain.png")
    plain = config(crop_scale=1.0, horizontal_flip=0, rotation=0, trivial_augment=False, random_erasing=0)
    pixels, label = TrainingPhotos([tmp_path / "plain.png"], [7], plain)[0, 0]
    assert label == 7
    assert pixels.shape == (3, 16, 16)
    assert np.allclose(pixels.numpy(), preprocess(open_photo(tmp_path / "plain.png"), 16), atol=1e-5)


@given(photos=st.integers(1, 60), size=st.integers(1, 17), epoch=st.integers(0, 3))
def test_an_epoch_holds_every_photo_once_and_no_batch_of_one(photos, size, epoch):
    order = EpochOrder(photos, seed=5)
    order.epoch = epoch
    sampler = WholeBatches(order, size)
    made = list(sampler)
    assert len(made) == len(sampler)
    assert sorted(index for batch in made for _, index in batch) == list(range(photos))
    assert {place[0] for batch in made for place in batch} == {epoch}
    if size > 1 and photos > 1:
        assert min(map(len, made)) > 1
    assert list(sampler) == made


def test_the_order_changes_with_the_epoch():
    order = EpochOrder(50, seed=5)
    first = [index for _, index in order]
    order.epoch = 1
    assert [index for _, index in order] != first


def test_the_weighted_sampler_draws_classes_equally_often():
    labels = [0] * 900 + [1] * 90 + [2] * 10
    order = EpochOrder(1000, seed=1, weights=drawing_weights(labels, 3))
    counts = np.zeros(3)
    for epoch in range(30):
        order.epoch = epoch
        counts += np.bincount([labels[index] for _, index in order], minlength=3)
    assert counts / counts.sum() == pytest.approx([1 / 3] * 3, abs=0.015)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_photo_is_named_whatever_the_workers(files, workers):
    files[3].write_bytes(b"no photo")
    for loader in (make_loader(files, workers=workers), evaluation_loader(files, config(workers=workers), CPU)):
        with pytest.raises(DataError) as caught:
            list(batches(loader))
        assert "3.png" in str(caught.value)
        assert "Traceback" not in str(caught.value)


def test_datasets_survive_pickling(files):
    import pickle

    photos = TrainingPhotos(files, [0] * 5, config())
    assert torch.equal(pickle.loads(pickle.dumps(photos))[1, 1][0], photos[1, 1][0])
    evaluation = EvaluationPhotos(files, 16)
    assert torch.equal(pickle.loads(pickle.dumps(evaluation))[1][1], evaluation[1][1])


def test_settings_reach_the_augmentation(files):
    base = config()
    for name, value in {"crop_scale": 0.1, "rotation": 90.0, "vertical_flip": 1.0, "random_erasing": 1.0}.items():
        changed = dataclasses.replace(base, **{name: value})
        one = torch.stack([TrainingPhotos(files, [0] * 5, base)[epoch, 0][0] for epoch in range(6)])
        other = torch.stack([TrainingPhotos(files, [0] * 5, changed)[epoch, 0][0] for epoch in range(6)])
        assert not torch.equal(one, other), name
