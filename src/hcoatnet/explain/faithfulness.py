"""Whether a map is faithful to its model: deletion and insertion (Petsiuk et al. 2018, "RISE", arXiv 1806.07421).

The photo is divided into cells, ordered by the map. *Deletion* fills cells with the photo's mean colour, the most
important first: the faster the probability of the class falls, the better the map (a small area under the curve).
*Insertion* starts from a blurred photo and puts cells back, the most important first: the faster the probability rises,
the better (a large area). The paper goes pixel by pixel; cells are what a map of a few places can tell apart. Random
orders of the same cells say what any order would reach. A filled or blurred photo is one that the model never saw, so
only the comparison counts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from hcoatnet.data.images import normalise
from hcoatnet.explain.overlays import upsample

GRID = 7
STEPS = 20
RANDOM_ORDERS = 8
SEED = 0
BLUR = 0.1
"""Standard deviation of the blur, in sides of the photo."""
BATCH = 16

Game = Literal["deletion", "insertion"]
GAMES: tuple[Game, ...] = ("deletion", "insertion")
Floats = NDArray[np.float64]
Probability = Callable[[NDArray[np.float32]], NDArray[np.floating[Any]]]
"""Probability (N,) of the class in question for preprocessed photos (N, 3, S, S)."""


@dataclass(frozen=True, eq=False)
class Curves:
    """One game, played by a map and by random orders.

    Attributes:
        game: ``deletion`` or ``insertion``.
        shares: Shares of the cells that are changed at each step, (K,), from 0 to 1.
        by_map: Probability at each step, (K,), in the map's order.
        by_chance: The same for every random order, (R, K).
    """

    game: Game
    shares: Floats
    by_map: Floats
    by_chance: Floats

    @property
    def area(self) -> float:
        """Area under the map's curve, 0 to 1."""
        return float(area_under(self.shares, self.by_map[np.newaxis])[0])

    @property
    def chance_areas(self) -> Floats:
        """Area under each random order's curve, (R,)."""
        return area_under(self.shares, self.by_chance)

    @property
    def gain(self) -> float:
        """How much better the map's area is than the mean of the random orders: positive is better, in either game."""
        difference = self.area - float(self.chance_areas.mean())
        return -difference if self.game == "deletion" else difference

    @property
    def beaten(self) -> int:
        """Number of random orders that are worse than the map."""
        areas = self.chance_areas
        return int((areas > self.area).sum() if self.game == "deletion" else (areas < self.area).sum())


def play(
    pixels: NDArray[np.uint8],
    importance: NDArray[np.floating[Any]],
    probability: Probability,
    *,
    random_orders: int = RANDOM_ORDERS,
    seed: int = SEED,
) -> tuple[Curves, Curves]:
    """Play deletion and insertion for one photo.

    Args:
        pixels: The photo as the model gets it, before normalisation, (S, S, 3).
        importance: A map of any size that covers the photo.
        probability: Asks the model, in batches of at most :data:`BATCH`.
        random_orders: Number of random orders.
        seed: Draws the random orders, and the order of cells that the map does not tell apart.
    """
    draws = np.random.default_rng(seed)
    cells = GRID * GRID
    first = by_importance(importance, draws)
    orders = np.stack([first, *(draws.permutation(cells) for _ in range(random_orders))])
    counts = np.linspace(0, cells, STEPS + 1).round().astype(int)
    return (
        _play(pixels, orders, counts, probability, "deletion"),
        _play(pixels, orders, counts, probability, "insertion"),
    )


def by_importance(importance: NDArray[np.floating[Any]], draws: np.random.Generator) -> NDArray[np.intp]:
    """Numbers of the cells, row by row from 0, the most important first; equal ones in random order."""
    means = upsample(importance, 8 * GRID, 8 * GRID).reshape(GRID, 8, GRID, 8).mean(axis=(1, 3)).ravel()
    order: NDArray[np.intp] = np.lexsort((draws.permutation(len(means)), -means))
    return order


def area_under(shares: Floats, curves: Floats) -> Floats:
    """Area under curves (N, K) over ``shares`` (K,), by trapezoids; shape (N,)."""
    return np.asarray(np.trapezoid(curves, shares, axis=1))


def fill_of(pixels: NDArray[np.uint8], game: Game) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """What a game starts from and what it puts into changed cells, both (S, S, 3)."""
    if game == "deletion":
        mean = pixels.reshape(-1, 3).mean(axis=0).round().astype(np.uint8)
        return pixels, np.broadcast_to(mean, pixels.shape)
    blurred = Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(BLUR * len(pixels)))
    return np.asarray(blurred), pixels


def changed(start: NDArray[np.uint8], fill: NDArray[np.uint8], cells: NDArray[np.intp]) -> NDArray[np.uint8]:
    """``start`` (S, S, 3) with the given cells taken from ``fill``."""
    inside = np.zeros(GRID * GRID, dtype=bool)
    inside[cells] = True
    side = len(start)
    places = np.arange(side) * GRID // side
    mask = inside.reshape(GRID, GRID)[places][:, places]
    picture: NDArray[np.uint8] = np.where(mask[..., None], fill, start)
    return picture


def _play(
    pixels: NDArray[np.uint8], orders: NDArray[np.intp], counts: NDArray[np.intp], probability: Probability, game: Game
) -> Curves:
    start, fill = fill_of(pixels, game)
    # The ends are the same for every order: they are asked once.
    inner = [(row, step) for row in range(len(orders)) for step in range(1, len(counts) - 1)]
    wanted = [orders[0, :0], orders[0], *(orders[row, : counts[step]] for row, step in inner)]
    answers = np.empty(len(wanted))
    for begin in range(0, len(wanted), BATCH):
        batch = [normalise(changed(start, fill, cells)) for cells in wanted[begin : begin + BATCH]]
        answers[begin : begin + BATCH] = probability(np.stack(batch))
    curves = np.empty((len(orders), len(counts)))
    curves[:, 0], curves[:, -1] = answers[0], answers[1]
    curves[:, 1:-1] = answers[2:].reshape(len(orders), -1)
    return Curves(game, counts / counts[-1], curves[0], curves[1:])
