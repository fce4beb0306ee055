"""What the checks of maps say of a model, from a sample of its photos rather than from one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hcoatnet.errors import Problem
from hcoatnet.evaluation.intervals import Estimate, Resampled, estimate
from hcoatnet.explain.explanation import Explanation, explain
from hcoatnet.explain.faithfulness import GAMES, Curves, Floats, Game
from hcoatnet.explain.randomisation import Randomisation
from hcoatnet.explain.subject import Subject
from hcoatnet.explain.writing import chunks, opened

BOOTSTRAP_DRAWS = 2000
SEED = 0


@dataclass(frozen=True)
class GameSummary:
    """One game over a sample of photos.

    Attributes:
        game: ``deletion`` or ``insertion``.
        area: Mean area under the maps' curves.
        chance_area: Mean area under the curves of random orders.
        gain: Mean of how much better the maps are than random orders, with an interval over groups.
    """

    game: Game
    area: float
    chance_area: float
    gain: Estimate


@dataclass(frozen=True, eq=False)
class SampleChecks:
    """The checks over a sample of photos.

    Attributes:
        photos: Number of photos.
        groups: Number of groups that they come from.
        empty: Photos of which no place speaks for the class; no game is played for them.
        games: Deletion and insertion; empty where no photo was played for.
        randomisation: All maps against those of untrained models.
    """

    photos: int
    groups: int
    empty: int
    games: tuple[GameSummary, ...]
    randomisation: Randomisation

    def to_dict(self) -> dict[str, Any]:
        """All numbers, ready for JSON."""
        found = self.randomisation
        return {
            "photos": self.photos,
            "groups": self.groups,
            "empty": self.empty,
            "games": {
                one.game: {
                    "area": one.area,
                    "chance_area": one.chance_area,
                    "gain": one.gain.value,
                    "low": None if one.gain.interval is None else one.gain.interval.low,
                    "high": None if one.gain.interval is None else one.gain.interval.high,
                }
                for one in self.games
            },
            "randomisation": {
                "mean": found.mean,
                "lowest_draw": None if found.spread is None else found.spread[0],
                "highest_draw": None if found.spread is None else found.spread[1],
                "hardly_depends": found.hardly_depends,
            },
        }


def check_photos(subject: Subject, group_of: Mapping[Path, str], problems: list[Problem]) -> SampleChecks | None:
    """Explain photos with all checks, and sum up what these say.

    Args:
        subject: The model.
        group_of: The photos, and the group of each.
        problems: Gets those that cannot be opened.

    Returns:
        None where no photo can be opened.
    """
    explained: list[Explanation] = []
    groups: list[str] = []
    for chunk in chunks(opened(group_of, subject.classifier.image_size, problems)):
        explained += explain(subject, [one.pixels for one in chunk], [one.name for one in chunk])
        groups += [group_of[one.path] for one in chunk]
    return summarise(explained, groups) if explained else None


def summarise(explanations: Sequence[Explanation], groups: Sequence[str]) -> SampleChecks:
    """Put the checks of photos together.

    Args:
        explanations: At least one, all with checks.
        groups: Name of the group of each.
    """
    played = [(one.curves, group) for one, group in zip(explanations, groups, strict=True) if one.curves is not None]
    games = []
    for place, game in enumerate(GAMES if played else ()):
        curves: list[Curves] = [pair[place] for pair, _ in played]
        games.append(
            GameSummary(
                game,
                area=float(np.mean([one.area for one in curves])),
                chance_area=float(np.mean([one.chance_areas.mean() for one in curves])),
                gain=mean_over_groups(np.array([one.gain for one in curves]), [group for _, group in played]),
            )
        )
    correlations = [one.randomisation.correlations for one in explanations if one.randomisation is not None]
    return SampleChecks(
        photos=len(explanations),
        groups=len(set(groups)),
        empty=len(explanations) - len(played),
        games=tuple(games),
        randomisation=Randomisation(np.concatenate(correlations)),
    )


def mean_over_groups(values: Floats, groups: Sequence[str]) -> Estimate:
    """Mean of values (N,) of photos, with the interval of a bootstrap that draws whole groups."""
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    sums, counts = np.bincount(index, weights=values), np.bincount(index)
    number = len(names)
    drawn = np.random.default_rng(SEED).multinomial(number, np.full(number, 1 / number), size=BOOTSTRAP_DRAWS)
    left = np.maximum(counts.sum() - counts, 1)
    without = (sums.sum() - sums) / left if number > 1 else np.full(1, np.nan)
    draws = (drawn @ sums) / (drawn @ counts)
    return estimate(Resampled(float(values.mean()), draws, without, np.zeros(number, dtype=np.int64)))
