"""A drawn set of skin-like textures, so that everything can be tried without a single real photo.

Nothing here is clinical. Five classes of computer-drawn textures are named after the five classes of the published
task because they borrow the plainest words of its textbook descriptions: thick plates with red fissures, fine polygonal
white scale, large dark plates, curved double-edged scale, plain skin. A score on this set says that software runs, and
how much a split by file flatters a model; it says nothing about any disease.

A synthetic *patient* is a skin: a pattern over an endless plane, drawn once. A *photo* of that patient looks at it from
another place, angle and distance, in other light. Photos of one patient therefore share tone, moles and the layout of
their scale, as real ones do, and a split that separates the photos of one patient leaks. Two things are built in:

- Every class is a table of parameter *ranges* over the same layers, and the ranges of the classes overlap: a mild case
  looks like healthy skin, dark plates like thick ones, curved scale like fine one.
- The camera's automatic exposure brings the mean colour of every photo to that of the bare skin, and skin tone is drawn
  without regard to the class: mean colour does not tell the class, texture does.

The bytes depend on the seed and the versions of NumPy, SciPy and Pillow only; nothing here runs in several threads.
"""

import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from uuid import uuid4

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates, spline_filter
from scipy.spatial import cKDTree

from hcoatnet.data.manifest import Manifest, write_manifest
from hcoatnet.errors import DataError
from hcoatnet.files import sha256_of_bytes

Array = NDArray[np.float64]

CLASS_SHARES = {
    "synthetic harlequin": 32,
    "synthetic healthy": 45,
    "synthetic lamellar": 22,
    "synthetic netherton": 13,
    "synthetic vulgaris": 46,
}
"""Photos of each class in the published test set (n = 158): the shares of the patients drawn."""

Range = tuple[float, float]


@dataclass(frozen=True)
class TextureRanges:
    """From where to where each parameter of a class is drawn. The defaults are those of plain skin.

    Sizes are in units of the width of a photo; strengths run from 0 (absent) to 1.

    Attributes:
        crease: Depth of the creases of the skin.
        cell_size: Width of the small polygons that creases and fine scale follow.
        scale: Whiteness of the fine scale on those polygons.
        scale_cover: Share of the polygons that carry scale.
        plate: Strength of the large plates: how thick they are, and how far apart.
        plate_size: Width of a plate.
        plate_darkness: How far a plate is darker (positive) or paler (negative) than the skin.
        fissure_width: Width of the fissures between plates.
        fissure_redness: How red they are.
        arc: Whiteness of the curved double-edged scale.
        arc_gap: Distance between its two edges.
        redness: Redness of the patches, which the curved scale surrounds where there is any.
    """

    crease: Range = (0.3, 1.0)
    cell_size: Range = (0.06, 0.12)
    scale: Range = (0.0, 0.3)
    scale_cover: Range = (0.1, 0.6)
    plate: Range = (0.0, 0.12)
    plate_size: Range = (0.14, 0.4)
    plate_darkness: Range = (-0.2, 0.3)
    fissure_width: Range = (0.006, 0.02)
    fissure_redness: Range = (0.0, 0.5)
    arc: Range = (0.0, 0.1)
    arc_gap: Range = (0.03, 0.06)
    redness: Range = (0.0, 0.5)


TEXTURES = {
    "synthetic harlequin": TextureRanges(
        scale=(0.0, 0.35),
        plate=(0.4, 1.0),
        plate_size=(0.2, 0.42),
        plate_darkness=(-0.5, 0.3),
        fissure_width=(0.016, 0.045),
        fissure_redness=(0.35, 1.0),
    ),
    "synthetic healthy": TextureRanges(),
    "synthetic lamellar": TextureRanges(
        scale=(0.0, 0.35),
        plate=(0.4, 1.0),
        plate_size=(0.14, 0.34),
        plate_darkness=(0.15, 0.8),
        fissure_width=(0.006, 0.022),
        fissure_redness=(0.0, 0.55),
    ),
    "synthetic netherton": TextureRanges(scale=(0.0, 0.45), arc=(0.4, 1.0), redness=(0.2, 0.9)),
    "synthetic vulgaris": TextureRanges(scale=(0.35, 1.0), scale_cover=(0.5, 1.0), arc=(0.0, 0.15)),
}

_TONES = np.array(
    [(245, 214, 194), (232, 190, 160), (208, 160, 126), (172, 122, 88), (128, 85, 60), (92, 60, 44), (66, 44, 35)]
) / 255.0
_SCALE_COLOUR = np.array([0.95, 0.93, 0.90])
_FISSURE_COLOUR = np.array([0.74, 0.25, 0.22])
_REACH = 1.6  # half the width of the drawn plane: farther than any photo sees


@dataclass(frozen=True)
class Noise:
    """Smooth noise over the plane, about zero, of unit variance at its lattice points.

    Attributes:
        coefficients: Cubic spline coefficients of a periodic lattice of random values.
        frequency: Lattice points per unit of length.
    """

    coefficients: Array
    frequency: float

    def at(self, x: Array, y: Array) -> Array:
        """Values at the points of the plane."""
        points = [y * self.frequency, x * self.frequency]
        return map_coordinates(self.coefficients, points, order=3, mode="grid-wrap", prefilter=False)


@dataclass(frozen=True)
class Cells:
    """Voronoi cells over the plane.

    Attributes:
        tree: Their centres.
        size: Their mean width.
        values: One random number in [0, 1) for each cell.
    """

    tree: cKDTree
    size: float
    values: Array

    def at(self, x: Array, y: Array) -> tuple[Array, Array, Array]:
        """Distance to the nearest border, distance to the own centre, and the value of the own cell."""
        points = np.stack([x, y], axis=-1)
        distance, index = self.tree.query(points, k=2)
        centres = self.tree.data[index]
        apart = np.hypot(*np.moveaxis(centres[..., 1, :] - centres[..., 0, :], -1, 0))
        border = (distance[..., 1] ** 2 - distance[..., 0] ** 2) / (2 * apart)
        return border, distance[..., 0], self.values[index[..., 0]]


@dataclass(frozen=True)
class Skin:
    """A synthetic patient: everything that stays the same from photo to photo.

    Attributes:
        tone: Colour of the bare skin, sRGB in [0, 1].
        texture: The parameters drawn from the ranges of the class.
        direction: Angle along which cells and creases are drawn out, in radians.
        stretch: By how much.
        warp: Two noises that bend every line.
        blotches: Slow noise: uneven tone, and where scale is thick or thin.
        grain: Fast noise: the grain of the surface.
        cells: The small polygons.
        plates: The large plates.
        rings: Centre x, centre y, radius of the round patches; shape (n, 3).
        moles: Centre x, centre y, radius, strength; shape (n, 4).
    """

    tone: Array
    texture: dict[str, float]
    direction: float
    stretch: float
    warp: tuple[Noise, Noise]
    blotches: Noise
    grain: Noise
    cells: Cells
    plates: Cells
    rings: Array
    moles: Array


def draw_skin(label: str, random: np.random.Generator) -> Skin:
    """Draw a synthetic patient of a class."""
    texture = {name: random.uniform(low, high) for name, (low, high) in asdict(TEXTURES[label]).items()}
    depth = random.uniform(0, len(_TONES) - 1)
    tone = np.array([np.interp(depth, np.arange(len(_TONES)), channel) for channel in _TONES.T])
    return Skin(
        tone=np.clip(tone * random.uniform(0.97, 1.03, 3), 0, 0.97),
        texture=texture,
        direction=random.uniform(0, math.pi),
        stretch=random.uniform(1.0, 1.5),
        warp=(_noise(random, 4.0), _noise(random, 4.0)),
        blotches=_noise(random, 3.0),
        grain=_noise(random, 40.0),
        cells=_cells(random, texture["cell_size"]),
        plates=_cells(random, texture["plate_size"]),
        rings=_rings(random),
        moles=_moles(random),
    )


def _noise(random: np.random.Generator, frequency: float) -> Noise:
    lattice = random.standard_normal((64, 64))
    return Noise(spline_filter(lattice, order=3, mode="grid-wrap"), frequency)


def _jittered_grid(random: np.random.Generator, spacing: float, reach: float, jitter: float) -> Array:
    ticks = np.arange(-reach, reach + spacing, spacing)
    centres = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    return centres + random.uniform(-jitter, jitter, centres.shape) * spacing


def _cells(random: np.random.Generator, size: float) -> Cells:
    centres = _jittered_grid(random, size, _REACH, jitter=0.45)
    return Cells(cKDTree(centres), size, random.random(len(centres)))


def _rings(random: np.random.Generator) -> Array:
    centres = _jittered_grid(random, 0.42, _REACH, jitter=0.35)
    radii = random.uniform(0.08, 0.24, len(centres))
    return np.column_stack([centres, radii])[random.random(len(centres)) < 0.7]


def _moles(random: np.random.Generator) -> Array:
    number = random.integers(0, 6)
    centres = random.uniform(-0.6, 0.6, (number, 2))
    return np.column_stack([centres, random.uniform(0.01, 0.028, number), random.uniform(0.3, 0.7, number)])


def photograph(skin: Skin, size: int, random: np.random.Generator) -> Image.Image:
    """Take one photo of a skin: another place, angle, distance, light and sharpness each time.

    Args:
        skin: The synthetic patient.
        size: Width and height in pixels.
        random: Source of everything that changes from photo to photo.
    """
    ticks = ((np.arange(size) + 0.5) / size - 0.5) * random.uniform(0.8, 1.2)
    across, down = np.meshgrid(ticks, ticks)
    turn = random.normal(0, 0.35)
    x = across * math.cos(turn) - down * math.sin(turn) + random.uniform(-0.2, 0.2)
    y = across * math.sin(turn) + down * math.cos(turn) + random.uniform(-0.2, 0.2)
    height, colour = _paint(skin, x, y)
    return _expose(skin, height, colour, random)


def _paint(skin: Skin, x: Array, y: Array) -> tuple[Array, Array]:
    """Height and colour of the skin at points of the plane: bare skin, then each layer over the last."""
    bend = 0.1 * skin.texture["plate_size"]
    cosine, sine = math.cos(skin.direction), math.sin(skin.direction)
    along, across = (x * cosine + y * sine) / skin.stretch, (y * cosine - x * sine)
    along, across = along + bend * skin.warp[0].at(x, y), across + bend * skin.warp[1].at(x, y)
    uneven = skin.blotches.at(x, y)
    cells = skin.cells.at(along, across)

    height, colour = _bare_skin(skin, x, y, uneven, cells)
    height, colour = _rounded_patches(skin, x, y, height, colour)
    height, colour = _plates(skin, along, across, height, colour)
    return _fine_scale(skin, uneven, cells, height, colour)


def _bare_skin(skin: Skin, x: Array, y: Array, uneven: Array, cells: tuple[Array, Array, Array]) -> tuple[Array, Array]:
    border, centre, value = cells
    size, crease = skin.cells.size, skin.texture["crease"]
    groove = np.exp(-((border / (0.1 * size)) ** 2))
    pore = np.exp(-((centre / (0.13 * size)) ** 2)) * (value < 0.35)
    grain = skin.grain.at(x, y)
    height = -0.012 * crease * groove - 0.015 * pore + 0.003 * grain
    shade = 1 + 0.05 * uneven + 0.015 * grain - 0.07 * crease * groove - 0.12 * pore
    for mole_x, mole_y, radius, strength in skin.moles:
        distance = np.hypot(x - mole_x, y - mole_y) + 0.2 * radius * grain
        inside = _step(radius - distance, 0.3 * radius)
        shade = shade * (1 - strength * inside)
        height = height + 0.01 * inside
    return height, skin.tone * shade[..., None]


def _rounded_patches(skin: Skin, x: Array, y: Array, height: Array, colour: Array) -> tuple[Array, Array]:
    """Red patches that run into one another, and the double-edged scale along their outline."""
    texture = skin.texture
    x, y = x + 0.05 * skin.warp[0].at(x, y), y + 0.05 * skin.warp[1].at(x, y)
    distance = np.full(x.shape, np.inf)
    for ring_x, ring_y, radius in skin.rings:
        distance = np.minimum(distance, np.hypot(x - ring_x, y - ring_y) - radius)
    colour = _redden(colour, texture["redness"] * _step(-distance, 0.04))
    broken = _step(skin.grain.at(0.25 * x, 0.25 * y) + 0.8, 0.3)
    edge = np.exp(-(((np.abs(distance) - texture["arc_gap"] / 2) / 0.011) ** 2)) * broken
    return height + 0.03 * texture["arc"] * edge, _mix(colour, _SCALE_COLOUR, 0.9 * texture["arc"] * edge)


def _plates(skin: Skin, along: Array, across: Array, height: Array, colour: Array) -> tuple[Array, Array]:
    texture, strength = skin.texture, skin.texture["plate"]
    border, _, value = skin.plates.at(along, across)
    width = texture["fissure_width"]
    plate = _step(border - width, 0.4 * width)
    dome = 1 - np.exp(-border / (0.12 * skin.plates.size))
    darkness = texture["plate_darkness"] * (0.6 + 0.8 * value)
    shade = np.where(darkness > 0, 1 - 0.75 * darkness, 1 - 0.5 * darkness)
    colour = colour * (1 + strength * plate * (shade - 1))[..., None]
    fissure = strength * (1 - plate)
    colour = _mix(colour, colour * 0.55, 0.6 * fissure)
    colour = _redden(colour, fissure * texture["fissure_redness"])
    return height + strength * (0.05 * plate + 0.04 * dome), colour


def _fine_scale(
    skin: Skin, uneven: Array, cells: tuple[Array, Array, Array], height: Array, colour: Array
) -> tuple[Array, Array]:
    """A white flake on some of the small polygons, whitest along its lifted rim."""
    border, _, value = cells
    size, scale = skin.cells.size, skin.texture["scale"]
    flake = _step(border - 0.1 * size, 0.05 * size)
    flake = flake * _step(skin.texture["scale_cover"] - value + 0.2 * uneven, 0.1)
    rim = np.exp(-(((border - 0.16 * size) / (0.1 * size)) ** 2))
    return (
        height + 0.03 * scale * flake * (0.5 + rim),
        _mix(colour, _SCALE_COLOUR, 0.9 * scale * flake * (0.4 + 0.6 * rim)),
    )


def _expose(skin: Skin, height: Array, colour: Array, random: np.random.Generator) -> Image.Image:
    """Light the surface from one side and develop the photo.

    The mean colour is brought to that of the bare skin, times a random exposure and white balance.
    """
    size = len(height)
    angle = random.uniform(0, 2 * math.pi)
    slope_down, slope_across = np.gradient(height * size)
    relief = random.uniform(0.16, 0.36) * (math.cos(angle) * slope_across + math.sin(angle) * slope_down)
    ticks = np.linspace(-1, 1, size)
    fall = math.cos(angle) * ticks[None, :] + math.sin(angle) * ticks[:, None]
    light = np.clip(1 + relief, 0.45, 1.6) * (1 - random.uniform(0, 0.2) * fall)
    photo = colour * light[..., None]
    photo = photo * (skin.tone / photo.mean(axis=(0, 1))) ** 0.35
    photo = photo * (0.5 / photo.mean()) ** 0.6
    photo = photo * random.uniform(0.88, 1.1) * random.uniform(0.97, 1.03, 3)
    blur = random.uniform(0.3, 0.9) * size / 128
    photo = gaussian_filter(photo, (blur, blur, 0))
    photo = photo + random.normal(0, random.uniform(0.003, 0.015), photo.shape)
    return Image.fromarray((np.clip(photo, 0, 1) * 255 + 0.5).astype(np.uint8))


def _step(value: Array, softness: float) -> Array:
    """0 well below zero, 1 well above, smooth between ``-softness`` and ``softness``."""
    ramp = np.clip(value / (2 * softness) + 0.5, 0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def _mix(colour: Array, other: Array, share: Array) -> Array:
    return colour + (other - colour) * share[..., None]


def _redden(colour: Array, share: Array) -> Array:
    return colour * (1 - share[..., None] * np.array([0.04, 0.42, 0.40]))
