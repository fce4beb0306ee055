"""Checks over a sample of photos: means, and intervals that know which photos belong together."""

import numpy as np
import pytest

from hcoatnet.deploy.answers import Answer
from hcoatnet.explain.explanation import Explanation
from hcoatnet.explain.faithfulness import Curves
from hcoatnet.explain.randomisation import Randomisation
from hcoatnet.explain.sampling import mean_over_groups, summarise

SHARES = np.linspace(0, 1, 5)


def curves(game, by_map, by_chance):
    return Curves(game, SHARES, np.full(5, by_map), np.full((3, 5), by_chance))


def explained(name, deletion, insertion, correlation):
    answer = Answer(name, "red", 0.7, {"red": 0.7, "blue": 0.3}, None, abstain=False, reason=None)
    signed = np.ones((1, 2, 2), dtype=np.float32)
    if deletion is None:
        return Explanation(answer, "red", -signed, None, Randomisation(np.array([[correlation, np.nan]])))
    pair = (curves("deletion", *deletion), curves("insertion", *insertion))
    return Explanation(answer, "red", signed, pair, Randomisation(np.array([[correlation, 0.0]])))


def test_a_sample_is_put_together():
    sample = [
        explained("a", (0.2, 0.5), (0.6, 0.5), 0.4),
        explained("b", (0.4, 0.5), (0.5, 0.6), 0.2),
        explained("c", None, None, -0.6),
    ]
    found = summarise(sample, ["one", "two", "two"])
    assert (found.photos, found.groups, found.empty) == (3, 2, 1)
    deletion, insertion = found.games
    assert deletion.area == pytest.approx(0.3)
    assert deletion.chance_area == pytest.approx(0.5)
    assert deletion.gain.value == pytest.approx(0.2)  # lower is better
    assert insertion.area == pytest.approx(0.55)
    assert insertion.gain.value == pytest.approx(0.0)
    assert found.randomisation.mean == pytest.approx((0.4 + 0.2 - 0.6 + 0 + 0) / 5)
    numbers = found.to_dict()
    assert numbers["games"]["deletion"]["gain"] == pytest.approx(0.2)
    assert numbers["randomisation"]["hardly_depends"] is False


def test_of_maps_that_are_0_everywhere_nothing_is_said():
    found = summarise([explained("c", None, None, 0.0)], ["one"])
    assert found.games == ()
    assert found.empty == 1


def test_the_interval_draws_whole_groups():
    rng = np.random.default_rng(3)
    of_group = rng.normal(size=40)
    values = np.repeat(of_group, 4) + rng.normal(scale=0.1, size=160)
    groups = np.repeat([f"g{number}" for number in range(40)], 4).tolist()
    found = mean_over_groups(values, groups)
    assert found.value == pytest.approx(values.mean())
    assert found.standard_error == pytest.approx(of_group.std(ddof=1) / np.sqrt(40), rel=0.1)
    assert found.interval.low < found.value < found.interval.high
    alone = mean_over_groups(values, [str(number) for number in range(160)])
    assert alone.standard_error < 0.6 * found.standard_error


def test_one_group_has_no_interval():
    found = mean_over_groups(np.array([0.1, 0.3]), ["a", "a"])
    assert found.value == pytest.approx(0.2)
    assert found.interval is None
