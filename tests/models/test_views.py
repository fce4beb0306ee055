"""The mean over views, against torch's own flips and turns."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hcoatnet.models import registry
from hcoatnet.models.views import MOVES, AveragedViews, count_views, moved, of_one_view, with_views

SYMMETRIES = {
    "flips": [lambda x: x, lambda x: x.flip(3), lambda x: x.flip(2), lambda x: torch.rot90(x, 2, (2, 3))],
    "dihedral": [lambda x, k=k, mirrored=mirrored: torch.rot90(x.flip(3) if mirrored else x, k, (2, 3))
                 for k in range(4) for mirrored in (False, True)],
}  # fmt: skip


class Uneven(nn.Module):
    """Weighs every pixel otherwise, and not linearly: no two views of a photo give the same."""

    def __init__(self, side, seed=0):
        super().__init__()
        drawn = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(3 * side * side, 4, generator=drawn, dtype=torch.float64))

    def forward(self, photos):
        return torch.tanh(photos.flatten(1) @ self.weight)


def some_photos(number=3, side=64, seed=1):
    return torch.randn(number, 3, side, side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pruning_model():
    torch.manual_seed(0)
    return registry.create("h_coatnet", 3, 64, backbone="test_convnext").double().eval()


@pytest.mark.parametrize("views", SYMMETRIES)
def test_the_views_are_all_symmetries_and_the_photo_as_it_is_comes_first(views):
    photos = some_photos(2, side=5)
    wanted = [turn(photos) for turn in SYMMETRIES[views]]
    found = [moved(photos, move) for move in MOVES[views]]
    assert torch.equal(found[0], photos)
    assert len(found) == len(wanted)
    assert [sum(torch.equal(one, other) for other in found) for one in wanted] == [1] * len(wanted)


@pytest.mark.parametrize("views", SYMMETRIES)
def test_the_mean_is_that_of_a_plain_loop_and_the_trace_that_of_the_photo(views):
    model, photos = pruning_model(), some_photos()
    averaged = AveragedViews(model, views).eval()
    with torch.inference_mode():
        expected = sum(model(turn(photos)) for turn in SYMMETRIES[views]) / len(SYMMETRIES[views])
        plain, wanted = model.forward_with_trace(photos)
        logits, traces = averaged.forward_with_trace(photos)
        together, cut_together = averaged._in_one_pass(photos)
        torch.testing.assert_close(averaged(photos), logits, rtol=0, atol=0)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(together, expected, rtol=0, atol=1e-12)
    assert (plain - expected).abs().max() > 1e-6
    assert len(traces) == len(cut_together) == len(wanted) == 2
    for right, *others in zip(wanted, traces, cut_together, strict=True):
        for other in others:
            assert torch.equal(other.positions, right.positions)
            assert torch.equal(other.kept, right.kept)
            torch.testing.assert_close(other.scores, right.scores)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(SYMMETRIES["dihedral"]), st.integers(2, 6), st.integers(0, 99))
def test_a_moved_photo_gets_the_logits_of_the_photo_from_any_model(turn, side, seed):
    averaged = AveragedViews(Uneven(side, seed), "dihedral")
    photos = some_photos(2, side, seed)
    torch.testing.assert_close(averaged(turn(photos)), averaged(photos), rtol=0, atol=1e-12)


def test_flips_do_not_make_up_for_quarter_turns():
    model, photos = Uneven(4), some_photos(side=4)
    averaged = AveragedViews(model, "flips")
    torch.testing.assert_close(averaged(photos.flip(2)), averaged(photos), rtol=0, atol=1e-12)
    assert (averaged(torch.rot90(photos, 1, (2, 3))) - averaged(photos)).abs().max() > 0.01
    assert (model(photos.flip(2)) - model(photos)).abs().max() > 0.01


def test_a_model_is_wrapped_only_where_there_is_something_to_average():
    model = Uneven(4).eval()
    assert with_views(model, "one") is model
    averaged = with_views(model, "dihedral")
    assert isinstance(averaged, AveragedViews) and not averaged.training
    assert of_one_view(averaged) is of_one_view(model) is model
    assert [count_views(with_views(model, views)) for views in MOVES] == [1, 4, 8]
    assert averaged.forward_with_trace(some_photos(side=4))[1] == ()
