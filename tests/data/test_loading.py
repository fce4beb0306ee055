import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hcoatnet.config import resolve_config
from hcoatnet.data.augmentation import Finish
from hcoatnet.data.images import normalise, open_photo, preprocess
from hcoatnet.data.loading import (
    EpochOrder,
    EvaluationPhotos,
    Share,
    TrainingPhotos,
    WholeBatches,
    batches,
    drawing_weights,
    evaluation_loader,
    training_loader,
)
from hcoatnet.data.pixels import HeldPhotos, Holding, PhotoFiles
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


def for_training(files, chosen, labels=(0, 1, 0, 1, 0)):
    return TrainingPhotos(HeldPhotos(PhotoFiles(files), Holding.for_training(16)), labels, chosen)


def for_evaluation(files):
    return HeldPhotos(PhotoFiles(files), Holding.for_evaluation(16))


def epoch_of(loader, epoch):
    loader.batch_sampler.sampler.epoch = epoch
    return [torch.cat([one.flatten().float() for one in batch]) for batch in batches(loader)]


def make_loader(files, **settings):
    chosen = config(**settings)
    return training_loader(for_training(files, chosen), EpochOrder(5, chosen.seed), chosen, CPU)


def test_a_photo_is_the_same_in_evaluation_as_through_the_contract(files):
    loader = evaluation_loader(for_evaluation(files), config(), CPU)
    rows = torch.cat([photos for _, photos in batches(loader)])
    expected = np.stack([preprocess(open_photo(path), 16) for path in files])
    assert np.array_equal(rows.numpy(), expected)
    assert torch.cat([indices for indices, _ in batches(loader)]).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_nothing(files, workers):
    alone, helped = make_loader(files, workers=0), make_loader(files, workers=workers)
    for epoch in (0, 1):
        for one, other in zip(epoch_of(alone, epoch), epoch_of(helped, epoch), strict=True):
            assert torch.equal(one, other)


def test_augmentation_depends_on_seed_epoch_and_index_only(files):
    photos = for_training(files, config())
    first = photos[3, 2][0]
    torch.rand(7)
    photos[0, 0]
    assert np.array_equal(photos[3, 2][0], first)
    assert not np.array_equal(photos[4, 2][0], first)
    assert not np.array_equal(for_training(files, config(seed=43))[3, 2][0], first)


@pytest.mark.parametrize("workers", [0, 2])
def test_making_batches_leaves_torch_s_own_draws_alone(files, workers):
    loader = make_loader(files, workers=workers)
    torch.manual_seed(1)
    expected = torch.rand(4)
    torch.manual_seed(1)
    epoch_of(loader, 0)
    assert torch.equal(torch.rand(4), expected)


def test_a_pass_that_is_left_early_ends_its_thread(files):
    import threading

    before = threading.active_count()
    for _ in range(3):
        next(iter(batches(make_loader(files))))
    assert threading.active_count() == before


def test_without_augmentation_a_square_photo_of_the_held_size_is_only_normalised(tmp_path):
    side = math.ceil(1.15 * 16)
    Image.new("RGB", (side, side), (200, 100, 50)).save(tmp_path / "plain.png")
    plain = config(crop_scale=1.0, horizontal_flip=0, rotation=0, trivial_augment=False, random_erasing=0)
    pixels, marks, label = for_training([tmp_path / "plain.png"], plain, [7])[0, 0]
    assert label == 7
    assert pixels.shape == (16, 16, 3)
    batch = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
    finished = Finish(plain, CPU)(batch, torch.from_numpy(marks)[None])
    assert np.array_equal(finished[0].numpy(), preprocess(open_photo(tmp_path / "plain.png"), 16))
    assert np.array_equal(finished[0].numpy(), normalise(pixels))


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
    for loader in (
        make_loader(files, workers=workers),
        evaluation_loader(for_evaluation(files), config(workers=workers), CPU),
    ):
        with pytest.raises(DataError) as caught:
            list(batches(loader))
        assert "3.png" in str(caught.value)
        assert "Traceback" not in str(caught.value)


def test_datasets_survive_pickling(files):
    import pickle

    photos = for_training(files, config())
    assert np.array_equal(pickle.loads(pickle.dumps(photos))[1, 1][0], photos[1, 1][0])
    evaluation = EvaluationPhotos(for_evaluation(files))
    assert np.array_equal(pickle.loads(pickle.dumps(evaluation))[1][1], evaluation[1][1])


@given(
    photos=st.integers(1, 60), size=st.integers(1, 5), processes=st.integers(1, 4), weighted=st.booleans(),
)  # fmt: skip
def test_processes_share_out_the_batches_of_one(photos, size, processes, weighted):
    weights = torch.ones(photos).double() if weighted else None
    alone = list(WholeBatches(EpochOrder(photos, 5, weights), size * processes))
    shared = [
        list(WholeBatches(EpochOrder(photos, 5, weights), size, Share(rank, processes))) for rank in range(processes)
    ]
    assert {len(one) for one in shared} == {len(alone)}
    for batch, *parts in zip(alone, *shared, strict=True):
        assert all(parts)
        assert sorted(place for part in parts for place in part if place[1] >= 0) == sorted(batch)


def test_a_photo_that_does_not_count_is_marked(files):
    photos = for_training(files, config())
    pixels, _, label = photos[0, -1 - 3]
    assert label == -1
    assert np.array_equal(pixels, photos[0, 3][0])


def test_each_photo_is_evaluated_by_one_process(files):
    loaders = [evaluation_loader(for_evaluation(files), config(), CPU, Share(rank, 3)) for rank in range(3)]
    seen = [index for loader in loaders for indices, _ in batches(loader) for index in indices.tolist()]
    assert sorted(seen) == [0, 1, 2, 3, 4]
