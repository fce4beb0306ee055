"""Synthetic skins and photos of them: textures drawn from noise and Voronoi cells.

A synthetic patient is a skin: a pattern over a plane, drawn once. A photo looks at it from another place, angle and
distance, in other light. Photos of one patient share tone, moles and the layout of their scale, as real ones do, so a
split that separates them leaks.

Every class is a table of parameter ranges over the same layers, and every range overlaps that of another class, so
that no parameter alone tells the class. Skin tone is drawn without regard to the class, and the camera evens out
brightness and cast: texture tells the class, mean colour hardly does.

Coordinates and sizes are in widths of a photo at mean distance; colours are sRGB in [0, 1]. Nothing here runs in
several threads, and no sum depends on how many there are.
"""

import math
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates, spline_filter
from scipy.spatial import cKDTree

Array = NDArray[np.float64]
Layer = tuple[Array, Array]
Range = tuple[float, float]


@dataclass(frozen=True)
class TextureRanges:
    """From where to where each parameter of a class is drawn. The defaults are those of plain skin.

    Strengths run from 0 (absent) to 1.

    Attributes:
        crease: Depth of the creases of the skin.
        cell_size: Width of the small polygons that creases and fine scale follow.
        scale: Whiteness of the fine scale on those polygons.
        scale_cover: Share of the polygons that carry scale.
        plate: Strength of the large plates and of the fissures between them.
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
    scale: Range = (0.0, 0.22)
    scale_cover: Range = (0.1, 0.5)
    plate: Range = (0.0, 0.12)
    plate_size: Range = (0.14, 0.4)
    plate_darkness: Range = (-0.2, 0.3)
    fissure_width: Range = (0.006, 0.02)
    fissure_redness: Range = (0.0, 0.5)
    arc: Range = (0.0, 0.1)
    arc_gap: Range = (0.04, 0.075)
    redness: Range = (0.0, 0.35)


TEXTURES = {
    "synthetic harlequin": TextureRanges(
        scale=(0.0, 0.35),
        plate=(0.4, 1.0),
        plate_size=(0.2, 0.42),
        plate_darkness=(-0.6, 0.15),
        fissure_width=(0.018, 0.05),
        fissure_redness=(0.45, 1.0),
    ),
    "synthetic healthy": TextureRanges(),
    "synthetic lamellar": TextureRanges(
        scale=(0.0, 0.35),
        plate=(0.4, 1.0),
        plate_size=(0.14, 0.34),
        plate_darkness=(0.25, 0.95),
        fissure_width=(0.006, 0.022),
        fissure_redness=(0.0, 0.55),
    ),
    "synthetic netherton": TextureRanges(scale=(0.0, 0.5), arc=(0.35, 1.0), redness=(0.3, 0.85)),
    "synthetic vulgaris": TextureRanges(scale=(0.4, 1.0), scale_cover=(0.45, 1.0), arc=(0.0, 0.4)),
}

SKIN_TONES = (
    np.array(
        [(245, 214, 194), (232, 190, 160), (208, 160, 126), (172, 122, 88), (128, 85, 60), (92, 60, 44), (66, 44, 35)]
    )
    / 255.0
)
"""Stops of the path along which skin tones are drawn, sRGB in [0, 1]."""

SCALE_COLOUR = np.array([0.95, 0.93, 0.90])
REACH = 1.4
"""Half the width of the drawn plane: farther than any photo sees."""


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
        values: Array = map_coordinates(self.coefficients, points, order=3, mode="grid-wrap", prefilter=False)
        return values


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

    def at(self, x: Array, y: Array) -> "CellMap":
        """Where the points of the plane lie in their cells."""
        distance, index = self.tree.query(np.stack([x, y], axis=-1), k=4)
        own, others = self.tree.data[index[..., :1]], self.tree.data[index[..., 1:]]
        apart = np.hypot(others[..., 0] - own[..., 0], others[..., 1] - own[..., 1])
        # The distance to the border with each of the next three cells, which is exact where it is small.
        border = (distance[..., 1:] ** 2 - distance[..., :1] ** 2) / (2 * apart)
        return CellMap(border.min(axis=-1), distance[..., 0], self.values[index[..., 0]])


class CellMap(NamedTuple):
    """Where points lie in their cells.

    Attributes:
        border: Distance to the nearest border.
        centre: Distance to the centre of the own cell.
        value: The random number of the own cell.
    """

    border: Array
    centre: Array
    value: Array


@dataclass(frozen=True)
class Skin:
    """A synthetic patient: everything that stays the same from photo to photo.

    Attributes:
        tone: Colour of the bare skin, sRGB in [0, 1].
        texture: The parameters drawn from the ranges of the class.
        direction: Angle along which cells and creases are drawn out, in radians.
        stretch: By how much.
        bend_x: Slow noise that bends every line.
        bend_y: The same, the other way.
        uneven: Slow noise: uneven tone, and where scale is thick or thin.
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
    bend_x: Noise
    bend_y: Noise
    uneven: Noise
    grain: Noise
    cells: Cells
    plates: Cells
    rings: Array
    moles: Array


def draw_skin(label: str, random: np.random.Generator) -> Skin:
    """Draw a synthetic patient of a class."""
    texture = {name: random.uniform(low, high) for name, (low, high) in asdict(TEXTURES[label]).items()}
    depth = random.uniform(0, len(SKIN_TONES) - 1)
    tone = np.array([np.interp(depth, np.arange(len(SKIN_TONES)), channel) for channel in SKIN_TONES.T])
    return Skin(
        tone=np.clip(tone * random.uniform(0.97, 1.03, 3), 0, 0.97),
        texture=texture,
        direction=random.uniform(0, math.pi),
        stretch=random.uniform(1.0, 1.5),
        bend_x=_noise(random, 4.0),
        bend_y=_noise(random, 4.0),
        uneven=_noise(random, 3.0),
        grain=_noise(random, 40.0),
        cells=_cells(random, texture["cell_size"]),
        plates=_cells(random, texture["plate_size"]),
        rings=_rings(random),
        moles=_moles(random),
    )


def _noise(random: np.random.Generator, frequency: float) -> Noise:
    lattice = random.standard_normal((64, 64))
    return Noise(spline_filter(lattice, order=3, mode="grid-wrap"), frequency)


def _scattered(random: np.random.Generator, spacing: float) -> Array:
    """Points (n, 2) all over the plane, one at a random place near each point of a square grid."""
    ticks = np.arange(-REACH, REACH + spacing, spacing)
    points = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    return points + random.uniform(-0.42, 0.42, points.shape) * spacing


def _cells(random: np.random.Generator, size: float) -> Cells:
    centres = _scattered(random, size)
    return Cells(cKDTree(centres), size, random.random(len(centres)))


def _rings(random: np.random.Generator) -> Array:
    centres = _scattered(random, 0.34)
    radii = random.uniform(0.07, 0.2, len(centres))
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
    ticks = ((np.arange(size) + 0.5) / size - 0.5) * random.uniform(0.9, 1.1)
    across, down = np.meshgrid(ticks, ticks)
    turn = random.uniform(-0.25, 0.25)
    x = across * math.cos(turn) - down * math.sin(turn) + random.uniform(-0.1, 0.1)
    y = across * math.sin(turn) + down * math.cos(turn) + random.uniform(-0.1, 0.1)
    height, colour = _paint(skin, x, y)
    return _expose(height, colour, skin.tone, random)


def _paint(skin: Skin, x: Array, y: Array) -> tuple[Array, Array]:
    """Height (H, W) and colour (H, W, 3) at points of the plane: the bare skin, then each layer over the last."""
    bend_x, bend_y = skin.bend_x.at(x, y), skin.bend_y.at(x, y)
    uneven, grain = skin.uneven.at(x, y), skin.grain.at(x, y)
    cosine, sine = math.cos(skin.direction), math.sin(skin.direction)
    bend = 0.1 * skin.plates.size
    along = (x * cosine + y * sine) / skin.stretch + bend * bend_x
    across = y * cosine - x * sine + bend * bend_y

    small = skin.cells.at(along, across)
    height, colour = _bare_skin(skin, small, uneven, grain)
    height, colour = _add_moles(skin, x, y, grain, height, colour)
    height, colour = _add_round_patches(skin, x + 0.05 * bend_x, y + 0.05 * bend_y, uneven, height, colour)
    height, colour = _add_plates(skin, skin.plates.at(along, across), height, colour)
    return _add_fine_scale(skin, small, uneven, height, colour)


def _bare_skin(skin: Skin, small: CellMap, uneven: Array, grain: Array) -> Layer:
    """Creases between the small polygons, a pore in some of them, an uneven tone."""
    crease = skin.texture["crease"] * _ridge(small.border, 0.1 * skin.cells.size)
    pore = _ridge(small.centre, 0.13 * skin.cells.size) * (small.value < 0.35)
    height = 0.003 * grain - 0.012 * crease - 0.015 * pore
    shade = 1 + 0.05 * uneven + 0.015 * grain - 0.07 * crease - 0.12 * pore
    return height, skin.tone * shade[..., None]


def _add_moles(skin: Skin, x: Array, y: Array, grain: Array, height: Array, colour: Array) -> Layer:
    for mole_x, mole_y, radius, strength in skin.moles:
        inside = _step(radius * (1 - 0.2 * grain) - np.hypot(x - mole_x, y - mole_y), 0.3 * radius)
        height = height + 0.01 * inside
        colour = colour * (1 - strength * inside)[..., None]
    return height, colour


def _add_round_patches(skin: Skin, x: Array, y: Array, uneven: Array, height: Array, colour: Array) -> Layer:
    """Red patches that run into one another, and scale with two edges along their common outline."""
    texture = skin.texture
    outline = np.full(x.shape, np.inf)
    middle_x, middle_y = x.mean(), y.mean()
    for ring_x, ring_y, radius in skin.rings:
        if math.hypot(ring_x - middle_x, ring_y - middle_y) < 1 + radius:  # the others are out of sight
            outline = np.minimum(outline, np.hypot(x - ring_x, y - ring_y) - radius)
    colour = _redden(colour, texture["redness"] * _step(-outline, 0.04))
    unbroken = _step(uneven + 0.9, 0.3)
    edge = texture["arc"] * unbroken * _ridge(np.abs(outline) - texture["arc_gap"] / 2, 0.015)
    return height + 0.03 * edge, _mix(colour, SCALE_COLOUR, 0.9 * edge)


def _add_plates(skin: Skin, large: CellMap, height: Array, colour: Array) -> Layer:
    """Domed plates, each a little darker or paler than the next, and the fissures between them."""
    texture = skin.texture
    plate = _step(large.border - texture["fissure_width"], 0.4 * texture["fissure_width"])
    dome = 1 - np.exp(-large.border / (0.12 * skin.plates.size))
    darkness = texture["plate_darkness"] * (0.6 + 0.8 * large.value)
    shade = np.where(darkness > 0, -0.75 * darkness, -0.5 * darkness)
    fissure = texture["plate"] * (1 - plate)
    colour = colour * (1 + texture["plate"] * plate * shade - 0.27 * fissure)[..., None]
    colour = _redden(colour, texture["fissure_redness"] * fissure)
    return height + texture["plate"] * (0.05 * plate + 0.04 * dome), colour


def _add_fine_scale(skin: Skin, small: CellMap, uneven: Array, height: Array, colour: Array) -> Layer:
    """A white flake on some of the small polygons, whitest along its lifted rim."""
    size = skin.cells.size
    present = _step(skin.texture["scale_cover"] - small.value + 0.2 * uneven, 0.1)
    flake = skin.texture["scale"] * present * _step(small.border - 0.1 * size, 0.05 * size)
    rim = _ridge(small.border - 0.16 * size, 0.1 * size)
    return height + 0.03 * flake * (0.5 + rim), _mix(colour, SCALE_COLOUR, 0.9 * flake * (0.4 + 0.6 * rim))


def _expose(height: Array, colour: Array, tone: Array, random: np.random.Generator) -> Image.Image:
    """Light the surface from one side and develop the photo.

    As a telephone's camera does, automatic exposure takes the mean brightness more than half the way to a middle grey,
    and automatic white balance takes a part of any cast away.
    """
    size = len(height)
    angle = random.uniform(0, 2 * math.pi)
    slope_y, slope_x = np.gradient(height * size)
    relief = random.uniform(0.16, 0.36) * (math.cos(angle) * slope_x + math.sin(angle) * slope_y)
    ticks = np.linspace(-1, 1, size)
    fall_off = random.uniform(0, 0.2) * (math.cos(angle) * ticks[None, :] + math.sin(angle) * ticks[:, None])
    photo = colour * (np.clip(1 + relief, 0.45, 1.6) * (1 - fall_off))[..., None]
    photo = photo * (tone / photo.mean(axis=(0, 1))) ** 0.35
    photo = photo * (0.5 / photo.mean()) ** 0.7
    photo = photo * random.uniform(0.92, 1.08) * random.uniform(0.98, 1.02, 3)
    blur = random.uniform(0.3, 0.9) * size / 128
    photo = gaussian_filter(photo, (blur, blur, 0))
    photo = photo + random.normal(0, random.uniform(0.003, 0.015), photo.shape)
    return Image.fromarray((np.clip(photo, 0, 1) * 255 + 0.5).astype(np.uint8))


def _step(value: Array, softness: float) -> Array:
    """0 well below zero, 1 well above, smooth between ``-softness`` and ``softness``."""
    ramp = np.clip(value / (2 * softness) + 0.5, 0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def _ridge(value: Array, width: float) -> Array:
    """1 where ``value`` is zero, falling to 0 on both sides."""
    ridge: Array = np.exp(-((value / width) ** 2))
    return ridge


def _mix(colour: Array, other: Array, share: Array) -> Array:
    return colour + (other - colour) * share[..., None]


def _redden(colour: Array, share: Array) -> Array:
    """Take green and blue away, as blood under the surface does; on dark skin that darkens more than it reddens."""
    absorbed = np.array([0.02, 0.5, 0.46])
    return colour * (1 - absorbed * share[..., None])
