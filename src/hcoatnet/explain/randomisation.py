"""Whether a map depends on what was learnt: the parameter randomisation check (Adebayo et al. 2018, arXiv 1810.03292).

The same map is made by untrained models: the same architecture with newly drawn weights. Where it hardly changes, it
shows the photo (its edges, say) and not what the model learnt, however convincing it looks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

DRAWS = 10
WARN_FROM = 0.5
"""Mean rank correlation from which a map is said not to depend on the weights: from there on, untrained weights
account for a quarter and more of the variance of the ranks. Chance hardly gets there, even on one photo: were each
correlation spread evenly over −1 to 1, the mean of ten draws would reach it in 0.2 % of all cases."""

Maps = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Randomisation:
    """How a trained model's maps agree with those of untrained ones.

    Attributes:
        correlations: Spearman's rank correlation for each photo and each draw of weights, (N, D); NaN where a map does
            not vary.
    """

    correlations: NDArray[np.float64]

    @property
    def mean(self) -> float | None:
        """Mean over photos and draws; None where no map varies."""
        return None if np.isnan(self.correlations).all() else float(np.nanmean(self.correlations))

    @property
    def spread(self) -> tuple[float, float] | None:
        """The lowest and the highest mean of one draw of weights."""
        if self.mean is None:
            return None
        of_draws = [float(np.nanmean(draw)) for draw in self.correlations.T if not np.isnan(draw).all()]
        return min(of_draws), max(of_draws)

    @property
    def hardly_depends(self) -> bool:
        """Whether to warn."""
        return self.mean is not None and self.mean >= WARN_FROM


def randomisation(trained: Maps, untrained: Callable[[int], Maps], draws: int = DRAWS) -> Randomisation:
    """Compare maps with those of untrained models.

    Signed maps are compared: without their negative side, too many places are equal, and many maps 0 everywhere.

    Args:
        trained: Signed maps (N, H, W) of the trained model.
        untrained: The same maps by a model with freshly drawn weights; its argument numbers the draw.
        draws: Number of draws.
    """
    columns = [
        [spearman(one, other) for one, other in zip(trained, untrained(draw), strict=True)] for draw in range(draws)
    ]
    return Randomisation(np.array(columns).T)


def spearman(one: Maps, other: Maps) -> float:
    """Spearman's rank correlation of two maps, equal values sharing their mean rank; NaN where a map does not vary."""
    ranks = [rankdata(each.ravel()) for each in (one, other)]
    if any(np.ptp(each) == 0 for each in ranks):
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])
