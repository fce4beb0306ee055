"""Maps that ignore the weights are found out, and maps that follow them are not."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from hcoatnet.explain.class_activation import class_activation
from hcoatnet.explain.randomisation import DRAWS, WARN_FROM, Randomisation, randomisation, spearman
from hcoatnet.models import registry


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), side=st.integers(2, 8), ties=st.booleans())
def test_the_rank_correlation_is_scipys(seed, side, ties):
    draws = np.random.default_rng(seed)
    one, other = draws.normal(size=(2, side, side))
    if ties:
        one, other = one.round(), other.round()
    found = spearman(one, other)
    if np.ptp(one) and np.ptp(other):
        assert found == pytest.approx(spearmanr(one.ravel(), other.ravel()).statistic, abs=1e-12)
    else:
        assert np.isnan(found)


def photos():
    """Each with a dark side and a red side, at another place."""
    pictures = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.2
    for number, picture in enumerate(pictures):
        picture[0, 8 * number : 8 * number + 8] += 2.0
    return pictures


def edges(pictures):
    """An edge detector: what a map looks like that shows the photo alone."""
    grey = pictures.mean(dim=1).numpy()
    return np.abs(np.diff(grey, axis=1))[:, :, :-1] + np.abs(np.diff(grey, axis=2))[:, :-1]


def test_an_edge_detector_is_found_out():
    found = randomisation(edges(photos()), lambda draw: edges(photos()))
    assert found.mean == pytest.approx(1)
    assert found.hardly_depends
    assert found.correlations.shape == (4, DRAWS)


def test_an_edge_detector_with_a_little_noise_of_the_weights_is_found_out_too():
    clean = edges(photos())

    def noisy(draw):
        return clean + np.random.default_rng(draw).normal(scale=0.15 * clean.std(), size=clean.shape)

    assert randomisation(noisy(99), noisy).hardly_depends


def test_a_model_that_learnt_to_see_red_is_not():
    def model_of(seed):
        torch.manual_seed(seed)
        return registry.create("cnn", 2, 32).eval()

    trained = model_of(100)
    optimiser = torch.optim.Adam(trained.parameters(), lr=1e-2)
    examples = torch.cat([photos(), photos().flip(1)])  # red against blue
    labels = torch.tensor([1] * 4 + [0] * 4)
    for _ in range(30):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(trained(examples), labels)
        loss.backward()
        optimiser.step()
    assert loss < 0.1
    classes = torch.ones(4, dtype=torch.long)
    found = randomisation(
        class_activation(trained, photos(), classes).signed,
        lambda draw: class_activation(model_of(draw), photos(), classes).signed,
    )
    assert abs(found.mean) < WARN_FROM
    assert not found.hardly_depends
    low, high = found.spread
    assert low <= found.mean <= high


def test_maps_that_do_not_vary_are_left_out():
    flat, sloping = np.zeros((2, 3, 3)), np.stack([np.zeros((3, 3)), np.arange(9.0).reshape(3, 3)])
    nothing = randomisation(flat, lambda draw: sloping, draws=3)
    assert nothing.mean is None
    assert nothing.spread is None
    assert not nothing.hardly_depends
    half = randomisation(sloping, lambda draw: sloping * (1 if draw else -1), draws=3)
    assert half.mean == pytest.approx(1 / 3)
    assert half.spread == pytest.approx((-1, 1))


def test_the_threshold_is_hardly_reached_by_chance():
    """The claim beside WARN_FROM."""
    draws = np.random.default_rng(0).uniform(-1, 1, size=(200_000, DRAWS)).mean(axis=1)
    assert (draws >= WARN_FROM).mean() == pytest.approx(0.0024, abs=0.0006)
    assert Randomisation(np.full((1, 10), WARN_FROM)).hardly_depends
    assert not Randomisation(np.full((1, 10), WARN_FROM - 0.01)).hardly_depends
