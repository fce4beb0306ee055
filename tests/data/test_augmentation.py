"""Random changes against torchvision's own transforms."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torchvision.transforms import v2

from hcoatnet.config import resolve_config
from hcoatnet.data.augmentation import FILL, OPERATIONS, Augmentation, Finish, draw_crop, draw_erased, trivial_augment
from hcoatnet.data.images import normalise

CPU = torch.device("cpu")


def config(**settings):
    return resolve_config({"image_size": 32, **settings})


def test_a_smaller_batch_is_finished_as_its_own_size_would_be():
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.integers(0, 256, (2, 3, 32, 32), dtype=np.uint8))
    marks = torch.tensor([[1, 0, 2, 3, 10, 32], [0, 1, 0, 0, 0, 0]], dtype=torch.int16)
    large = Finish(config(image_size=64, vertical_flip=0.5, random_erasing=0.5), CPU)
    own = Finish(config(image_size=32, vertical_flip=0.5, random_erasing=0.5), CPU)
    assert torch.equal(large(pixels, marks), own(pixels, marks))


@pytest.fixture
def photo():
    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, (9, 12, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((52, 40), Image.Resampling.BICUBIC))


def boxes(transform, shape, key):
    rows = []
    for _ in range(2000):
        made = transform.make_params([torch.zeros(3, *shape)])
        rows.append([made[name] for name in key])
    return np.array(rows)


@pytest.mark.parametrize(("width", "height", "least"), [(52, 40, 0.5), (40, 40, 0.8), (120, 20, 0.9), (20, 120, 0.9)])
def test_crops_are_distributed_as_torchvision_s(width, height, least):
    torch.manual_seed(0)
    reference = v2.RandomResizedCrop(32, scale=(least, 1.0))
    theirs = boxes(reference, (height, width), ("left", "top", "width", "height"))
    draws = np.random.default_rng(0)
    ours = np.array([draw_crop(width, height, least, draws) for _ in range(2000)])
    assert (ours[:, :2] >= 0).all() and (ours[:, 2] <= width).all() and (ours[:, 3] <= height).all()
    ours = np.column_stack([ours[:, :2], ours[:, 2:] - ours[:, :2]])
    for column in range(4):
        assert stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-4


def test_erased_rectangles_are_distributed_as_torchvision_s():
    torch.manual_seed(0)
    reference = v2.RandomErasing(1.0, scale=(0.02, 0.2))
    theirs = boxes(reference, (64, 64), ("j", "i", "w", "h"))
    draws = np.random.default_rng(0)
    ours = np.array([draw_erased(64, 1.0, draws) for _ in range(2000)])
    ours = np.column_stack([ours[:, :2], ours[:, 2:] - ours[:, :2]])
    for column in range(4):
        assert stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-4
    erased = sum(any(draw_erased(64, 0.3, draws)) for _ in range(4000))
    assert erased / 4000 == pytest.approx(0.3, abs=0.03)


def test_trivial_augment_has_torchvision_s_operations():
    reference = v2.TrivialAugmentWide(fill=FILL)
    assert list(OPERATIONS) == list(reference._AUGMENTATION_SPACE)
    for name, (magnitudes, signed) in reference._AUGMENTATION_SPACE.items():
        assert OPERATIONS[name][1] == signed
        if (values := magnitudes(31, 32, 32)) is not None and name not in ("Posterize", "Solarize"):
            assert OPERATIONS[name][0] == pytest.approx(float(values[-1]))


@pytest.mark.parametrize("name", list(OPERATIONS))
@pytest.mark.parametrize("step", [0, 13, 30])
def test_each_operation_gives_torchvision_s_pixels(photo, name, step):
    reference = v2.TrivialAugmentWide(fill=FILL)
    magnitudes = reference._AUGMENTATION_SPACE[name][0](31, 40, 52)
    largest, signed, change = OPERATIONS[name]
    theirs = 0.0 if magnitudes is None else float(magnitudes[step])
    if signed:
        assert theirs == pytest.approx(largest * step / 30)
        theirs = largest * step / 30  # torchvision's is rounded to float32
    for sign in (1, -1) if signed else (1,):
        image = Image.fromarray(photo)
        expected = reference._apply_image_or_video_transform(
            image, name, sign * theirs, interpolation=reference.interpolation, fill=reference._fill
        )
        assert np.array_equal(np.asarray(change(image, sign * largest * step / 30)), np.asarray(expected))


def test_trivial_augment_draws_every_operation_and_both_signs(monkeypatch):
    from hcoatnet.data import augmentation

    seen = []
    spies = {
        name: (largest, signed, lambda image, size, name=name: seen.append((name, size)))
        for name, (largest, signed, _) in OPERATIONS.items()
    }
    monkeypatch.setattr(augmentation, "OPERATIONS", spies)
    draws = np.random.default_rng(0)
    for _ in range(7000):
        trivial_augment(None, draws)
    counts = [sum(name == one for one, _ in seen) for name in OPERATIONS]
    assert stats.chisquare(counts).pvalue > 1e-4
    for name, (largest, signed, _) in OPERATIONS.items():
        sizes = [size for one, size in seen if one == name]
        assert max(sizes) == pytest.approx(largest)
        assert min(sizes) == pytest.approx(-largest if signed else 0.0)


def test_a_changed_photo_is_what_its_draws_say(photo):
    plain = config(rotation=0, trivial_augment=False, horizontal_flip=1, vertical_flip=0, random_erasing=1)
    pixels, marks = Augmentation(plain)(photo, np.random.default_rng(3), 32)
    assert (pixels.shape, pixels.dtype, marks.dtype) == ((32, 32, 3), np.uint8, np.int16)
    box = draw_crop(52, 40, plain.crop_scale, np.random.default_rng(3))
    expected = Image.fromarray(photo).resize((32, 32), Image.Resampling.BILINEAR, box=box)
    assert np.array_equal(pixels, np.asarray(expected))
    assert marks[:2].tolist() == [1, 0]
    assert 0 <= marks[2] < marks[4] <= 32
    assert 0 <= marks[3] < marks[5] <= 32


def test_batches_are_finished_as_photos_one_by_one():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    marks = np.array(
        [[0, 0, 0, 0, 0, 0], [1, 0, 2, 3, 10, 9], [0, 1, 0, 0, 32, 1], [1, 1, 5, 30, 6, 32]], dtype=np.int16
    )
    finish = Finish(config(vertical_flip=0.5, random_erasing=0.5), CPU)
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    finished = finish(batch, torch.from_numpy(marks))
    assert finished.dtype == torch.float32
    assert finished.is_contiguous(memory_format=torch.channels_last)
    for photo, (across, down, top, left, bottom, right), row in zip(pixels, marks, finished, strict=True):
        expected = normalise(photo[:: -1 if down else 1, :: -1 if across else 1])
        expected[:, top:bottom, left:right] = 0
        assert np.array_equal(row.numpy(), expected)
    assert np.array_equal(batch.permute(0, 2, 3, 1).numpy(), pixels)


def test_settings_reach_the_augmentation(photo):
    base = config(random_erasing=0)
    for name, value in {"crop_scale": 0.1, "rotation": 90.0, "vertical_flip": 1.0, "random_erasing": 1.0}.items():
        changed = dataclasses.replace(base, **{name: value})
        one, other = (
            [np.concatenate([part.ravel() for part in Augmentation(chosen)(photo, np.random.default_rng(seed), 32)])
             for seed in range(6)] for chosen in (base, changed)
        )  # fmt: skip
        assert not np.array_equal(one, other), name
