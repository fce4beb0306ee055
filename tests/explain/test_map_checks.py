"""The page on maps says when there is a warning, and how often chance alone would give one."""

from math import comb, factorial
from pathlib import Path

from hcoatnet.explain.randomisation import WARN_FROM

PAGE = " ".join((Path(__file__).parents[2] / "docs/explanation/maps.md").read_text(encoding="utf-8").split())


def test_chance_seldom_warns():
    """The mean of ten numbers spread evenly over −1 to 1: Irwin and Hall's distribution."""
    least = 10 * (1 - WARN_FROM) / 2
    p = sum((-1) ** k * comb(10, k) * (least - k) ** 10 for k in range(int(least) + 1)) / factorial(10)
    assert f"From a mean of {WARN_FROM} on" in PAGE
    assert f"the mean of ten would reach {WARN_FROM} in {100 * p:.1f} % of all cases" in PAGE
