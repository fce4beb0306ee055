"""Random changes to training photos: what is drawn for one photo, and how it is carried out.

Everything is drawn from a generator of the photo's own, never from torch's: photos can be made ready in another thread
or process while the model draws its dropout. What changes a single photo is done with Pillow, on 8 bits a channel;
flips, normalisation and erasing wait for the whole batch, and are done where the model computes.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from hcoatnet.config import TrainConfig
from hcoatnet.data.cache import Pixels
from hcoatnet.data.images import MEAN, STD

ERASED_AREA = (0.02, 0.2)
ERASED_ASPECT = (0.3, 3.3)
CROP_ASPECT = (3 / 4, 4 / 3)
TRIES = 10
"""Draws of a rectangle until one fits inside the photo."""

FILL = [round(float(value) * 255) for value in MEAN]
"""What fills corners that a rotation leaves bare."""

Marks = NDArray[np.int16]
"""What is left to do for a photo: flip across, flip down, and the erased rectangle's top, left, bottom and right."""

MAGNITUDES = 31

Box = tuple[int, int, int, int]
"""Left, top, right and bottom, as Pillow has them."""


def _shear(photo: Image.Image, x: float, y: float) -> Any:
    degrees = [math.degrees(math.atan(x)), math.degrees(math.atan(y))]
    return functional.affine(photo, 0.0, [0, 0], 1.0, degrees, fill=FILL, center=[0, 0])


def _shift(photo: Image.Image, x: float, y: float) -> Any:
    return functional.affine(photo, 0.0, [int(x), int(y)], 1.0, [0.0, 0.0], fill=FILL)


Operation = Callable[[Image.Image, float], Any]

OPERATIONS: Mapping[str, tuple[float, bool, Operation]] = {
    "Identity": (0.0, False, lambda photo, size: photo),
    "ShearX": (0.99, True, lambda photo, size: _shear(photo, size, 0.0)),
    "ShearY": (0.99, True, lambda photo, size: _shear(photo, 0.0, size)),
    "TranslateX": (32.0, True, lambda photo, size: _shift(photo, size, 0.0)),
    "TranslateY": (32.0, True, lambda photo, size: _shift(photo, 0.0, size)),
    "Rotate": (135.0, True, lambda photo, size: functional.rotate(photo, size, fill=FILL)),
    "Brightness": (0.99, True, lambda photo, size: functional.adjust_brightness(photo, 1.0 + size)),
    "Color": (0.99, True, lambda photo, size: functional.adjust_saturation(photo, 1.0 + size)),
    "Contrast": (0.99, True, lambda photo, size: functional.adjust_contrast(photo, 1.0 + size)),
    "Sharpness": (0.99, True, lambda photo, size: functional.adjust_sharpness(photo, 1.0 + size)),
    "Posterize": (6.0, False, lambda photo, size: functional.posterize(photo, 8 - round(size))),
    "Solarize": (1.0, False, lambda photo, size: functional.solarize(photo, 255.0 * (1.0 - size))),
    "AutoContrast": (0.0, False, lambda photo, size: functional.autocontrast(photo)),
    "Equalize": (0.0, False, lambda photo, size: functional.equalize(photo)),
}
"""TrivialAugmentWide (Müller and Hutter 2021, table 1): largest magnitude, whether its sign is drawn, what it does.

torchvision's own transform draws from torch's global generator. The operations are torchvision's.
"""


class Augmentation:
    """The part of the random changes that is done photo by photo.

    Random resized crop, rotation, TrivialAugmentWide. Random flips and random erasing (Zhong et al. 2020) are drawn
    here and carried out by `Finish`.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    def __call__(self, pixels: Pixels, draws: np.random.Generator, side: int) -> tuple[Pixels, Marks]:
        """Change one photo.

        Args:
            pixels: (H, W, 3).
            draws: The photo's own generator.
            side: The side S of what comes out, in pixels.

        Returns:
            Pixels (S, S, 3), and the marks (6,).
        """
        config = self.config
        height, width = pixels.shape[:2]
        box = draw_crop(width, height, config.crop_scale, draws)
        photo = Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR, box=box)
        if config.rotation > 0:
            angle = float(draws.uniform(-config.rotation, config.rotation))
            photo = functional.rotate(photo, angle, InterpolationMode.BILINEAR, fill=FILL)
        if config.trivial_augment:
            photo = trivial_augment(photo, draws)
        flips = draws.random(2) < (config.horizontal_flip, config.vertical_flip)
        left, top, right, bottom = draw_erased(side, config.random_erasing, draws)
        return np.asarray(photo), np.array([*flips, top, left, bottom, right], np.int16)


class Finish:
    """The part of the random changes that is done for a whole batch, on the device that trains."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.flips = tuple(
            (column, axis)
            for column, axis, chance in ((0, 3, config.horizontal_flip), (1, 2, config.vertical_flip))
            if chance > 0
        )
        self.erases = config.random_erasing > 0
        self.places = torch.arange(config.image_size, device=device)
        self.mean = torch.from_numpy(MEAN).to(device).view(1, 3, 1, 1)
        self.std = torch.from_numpy(STD).to(device).view(1, 3, 1, 1)
        self.white = torch.tensor(255.0, device=device)

    def __call__(self, photos: Tensor, marks: Tensor) -> Tensor:
        """Flip, normalise and erase: what is erased holds the ImageNet mean.

        Args:
            photos: (B, 3, S, S) uint8, S at most the image size.
            marks: (B, 6), see `Marks`.

        Returns:
            What the model reads, (B, 3, S, S) float32, in the memory layout of ``photos``.
        """
        for column, axis in self.flips:
            photos = torch.where(marks[:, column].bool().view(-1, 1, 1, 1), photos.flip(axis), photos)
        finished = photos.float().div_(self.white).sub_(self.mean).div_(self.std)
        if self.erases:
            top, left, bottom, right = (marks[:, column, None] for column in range(2, 6))
            places = self.places[: photos.shape[-1]]
            rows = (places >= top) & (places < bottom)
            columns = (places >= left) & (places < right)
            finished.masked_fill_((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)
        return finished


def draw_crop(width: int, height: int, least: float, draws: np.random.Generator) -> Box:
    """A crop of ``least`` to all of the area, aspect 3:4 to 4:3, as torchvision's RandomResizedCrop draws it."""
    for _ in range(TRIES):
        area = width * height * draws.uniform(least, 1.0)
        aspect = math.exp(draws.uniform(math.log(CROP_ASPECT[0]), math.log(CROP_ASPECT[1])))
        across, down = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < across <= width and 0 < down <= height:
            return _somewhere(across, down, width, height, draws)
    across = min(width, round(height * CROP_ASPECT[1]))
    down = min(height, round(width / CROP_ASPECT[0]))
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down


def draw_erased(side: int, chance: float, draws: np.random.Generator) -> Box:
    """A rectangle to erase, as torchvision's RandomErasing draws it; all zeros for none."""
    if draws.random() >= chance:
        return 0, 0, 0, 0
    for _ in range(TRIES):
        area = side * side * draws.uniform(*ERASED_AREA)
        aspect = math.exp(draws.uniform(math.log(ERASED_ASPECT[0]), math.log(ERASED_ASPECT[1])))
        across, down = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if across < side and down < side:
            return _somewhere(across, down, side, side, draws)
    return 0, 0, 0, 0


def trivial_augment(photo: Image.Image, draws: np.random.Generator) -> Any:
    """One operation of `OPERATIONS`, drawn evenly, with a magnitude drawn evenly from 31."""
    largest, signed, change = tuple(OPERATIONS.values())[int(draws.integers(len(OPERATIONS)))]
    size = largest * int(draws.integers(MAGNITUDES)) / (MAGNITUDES - 1)
    return change(photo, -size if signed and draws.random() < 0.5 else size)


def _somewhere(across: int, down: int, width: int, height: int, draws: np.random.Generator) -> Box:
    top = int(draws.integers(height - down + 1))
    left = int(draws.integers(width - across + 1))
    return left, top, left + across, top + down
