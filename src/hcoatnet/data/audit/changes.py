"""Changes that make one photo into another file: what the audit does to photos when it measures itself."""

from collections.abc import Callable, Mapping
from io import BytesIO

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

Change = Callable[[Image.Image, np.random.Generator], Image.Image]

_TURNS = tuple(Image.Transpose)  # the seven flips and right-angle rotations
_STORED_SIZE = 224


def flip_or_turn(photo: Image.Image, draws: np.random.Generator) -> Image.Image:
    """One of the seven flips and right-angle rotations."""
    return photo.transpose(_TURNS[int(draws.integers(len(_TURNS)))])


def brightness(photo: Image.Image, draws: np.random.Generator) -> Image.Image:
    """All values multiplied by 0.7 to 1.3, so that bright photos saturate."""
    return ImageEnhance.Brightness(photo).enhance(draws.uniform(0.7, 1.3))


def blur(photo: Image.Image, draws: np.random.Generator) -> Image.Image:
    """Gaussian blur with a standard deviation of 0.2 to 0.8 % of the longer side."""
    return photo.filter(ImageFilter.GaussianBlur(draws.uniform(0.002, 0.008) * max(photo.size)))


def jpeg(photo: Image.Image, draws: np.random.Generator) -> Image.Image:
    """Stored as JPEG with quality 30 to 80."""
    return _stored(photo, int(draws.integers(30, 81)))


def crop(photo: Image.Image, draws: np.random.Generator) -> Image.Image:
    """10 to 20 % cut from width and height, at a random place: 64 to 81 % of the area stays."""
    return _cropped(photo, draws.uniform(0.1, 0.2), draws)


def rotation(photo: Image.Image, draws: np.random.Generator) -> Image.Image:
    """Turned by up to 15° either way about the middle; the corners become black."""
    return photo.rotate(draws.uniform(-15, 15), resample=Image.Resampling.BICUBIC)


def stored_chain(photo: Image.Image, draws: np.random.Generator) -> Image.Image:
    """What an export with stored augmentations does, all at once.

    A flip or right-angle rotation (three times of four), up to 15°, a crop of up to 20 %, brightness 0.75 to 1.25, blur
    or noise, stretched to 224 × 224, JPEG with quality 75 to 95.
    """
    if draws.random() < 0.75:
        photo = flip_or_turn(photo, draws)
    photo = _cropped(rotation(photo, draws), draws.uniform(0, 0.2), draws)
    photo = ImageEnhance.Brightness(photo).enhance(draws.uniform(0.75, 1.25))
    photo = blur(photo, draws) if draws.random() < 0.5 else _noisy(photo, draws)
    photo = photo.resize((_STORED_SIZE, _STORED_SIZE), Image.Resampling.BICUBIC)
    return _stored(photo, int(draws.integers(75, 96)))


CHANGES: Mapping[str, Change] = {
    "flip or right angle": flip_or_turn,
    "brightness": brightness,
    "blur": blur,
    "JPEG": jpeg,
    "crop 10–20 %": crop,
    "rotation ±15°": rotation,
    "stored chain": stored_chain,
}
"""What is done to photos, under the names that the report prints."""


def _cropped(photo: Image.Image, share: float, draws: np.random.Generator) -> Image.Image:
    width, height = (max(1, round(side * (1 - share))) for side in photo.size)
    left = int(draws.integers(photo.width - width + 1))
    top = int(draws.integers(photo.height - height + 1))
    return photo.crop((left, top, left + width, top + height))


def _noisy(photo: Image.Image, draws: np.random.Generator) -> Image.Image:
    """Independent normal noise, standard deviation 8 of 255."""
    pixels = np.asarray(photo).astype(np.float64)
    return Image.fromarray(np.clip(np.rint(pixels + draws.normal(0, 8, pixels.shape)), 0, 255).astype(np.uint8))


def _stored(photo: Image.Image, quality: int) -> Image.Image:
    stream = BytesIO()
    photo.save(stream, "JPEG", quality=quality)
    with Image.open(stream) as stored:
        return stored.convert("RGB")
