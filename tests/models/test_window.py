from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hcoatnet.errors import ModelError
from hcoatnet.models.window import CELL, Window, window_side


def window(share="1/2", placement="importance", dim=6):
    torch.manual_seed(0)
    made = Window(dim, 4, share, placement).double()
    torch.nn.init.normal_(made.query, generator=torch.Generator().manual_seed(1))
    return made


def draw_tokens(seed, height, width, batch=3, dim=6):
    return torch.randn(batch, height * width, dim, generator=torch.Generator().manual_seed(seed)).double()


def importance(made, tokens):
    centred = tokens - tokens.mean(dim=-1, keepdim=True)
    normalised = centred / (tokens.var(dim=-1, unbiased=False, keepdim=True) + 1e-6).sqrt()
    logits = normalised @ made.query
    return logits.exp() / logits.exp().sum(dim=1, keepdim=True), normalised


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 1000),
    height=st.integers(8, 23),
    width=st.integers(8, 23),
    share=st.sampled_from(["1/4", "1/2", "4/7", 0.75]),
)
def test_the_window_is_the_best_of_all_windows(seed, height, width, share):
    made, tokens = window(share), draw_tokens(seed, height, width)
    rows, columns = height // CELL, width // CELL
    h, w = window_side(rows, made.share), window_side(columns, made.share)
    kept, _, size, trace = made(tokens, height, width)
    if (h, w) == (rows, columns):
        assert trace is None
        assert kept is tokens
        assert size == (height, width)
        return
    weights, _ = importance(made, tokens)
    assert size == (4 * h, 4 * w)
    for photo, by_place in enumerate(weights.unflatten(1, (height, width)).tolist()):
        sums = {}
        for top in range(rows - h + 1):
            for left in range(columns - w + 1):
                inside = (
                    by_place[y][x] for y in range(4 * top, 4 * (top + h)) for x in range(4 * left, 4 * (left + w))
                )
                sums[top, left] = sum(inside)
        top, left = max(sums, key=sums.get)
        assert trace.kept[photo].tolist() == [
            y * columns + x for y in range(top, top + h) for x in range(left, left + w)
        ]
        map_ = tokens[photo].unflatten(0, (height, width))
        expected = map_[4 * top : 4 * (top + h), 4 * left : 4 * (left + w)].flatten(0, 1)
        assert torch.equal(kept[photo], expected)


def test_the_trace_counts_cells_of_four_by_four_tokens():
    made, tokens = window(), draw_tokens(3, 16, 12)
    *_, trace = made(tokens, 16, 12)
    weights, _ = importance(made, tokens)
    by_place = weights.unflatten(1, (16, 12))
    cells = [by_place[:, 4 * r : 4 * r + 4, 4 * c : 4 * c + 4].sum(dim=(1, 2)) for r in range(4) for c in range(3)]
    assert torch.equal(trace.positions, torch.arange(12).expand(3, 12))
    torch.testing.assert_close(trace.scores, torch.stack(cells, dim=1))
    assert not trace.scores.requires_grad


def test_tokens_outside_whole_cells_leave_the_scores_a_distribution():
    *_, trace = window()(draw_tokens(3, 15, 14), 15, 14)
    torch.testing.assert_close(trace.scores.sum(dim=1), torch.ones(3).double())


def test_the_context_is_the_weighted_sum_over_the_whole_photo():
    made, tokens = window(), draw_tokens(4, 12, 12)
    _, context, _, _ = made(tokens, 12, 12)
    weights, normalised = importance(made, tokens)
    expected = torch.einsum("bn,bnc->bc", weights, normalised) @ made.context.weight.T + made.context.bias
    torch.testing.assert_close(context.squeeze(1), expected)


def test_equal_windows_leave_the_first():
    *_, trace = window()(torch.ones(1, 256, 6).double(), 16, 16)
    assert trace.kept.tolist() == [[0, 1, 4, 5]]


def test_the_centre_does_not_depend_on_the_photo():
    *_, trace = window("3/7", "centre")(draw_tokens(5, 28, 28), 28, 28)
    middle = [row * 7 + column for row in (2, 3, 4) for column in (2, 3, 4)]
    assert trace.kept.tolist() == [middle] * 3


def test_half_precision_rounds_no_importance():
    made, tokens = window().float(), draw_tokens(6, 16, 16).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        *_, rounded = made(tokens, 16, 16)
    *_, exact = made(tokens, 16, 16)
    assert torch.equal(rounded.scores, exact.scores)
    *_, trace = made.bfloat16()(tokens.bfloat16(), 16, 16)
    assert trace.scores.dtype == torch.float32


@pytest.mark.parametrize(
    ("cells", "share", "side"),
    [
        (7, "4/7", 4),
        (5, "4/7", 3),
        (4, "4/7", 2),
        (3, "4/7", 2),
        (2, "4/7", 2),
        (1, "4/7", 1),
        (7, "1/7", 2),
        (7, "1", 7),
    ],
)
def test_side_of_the_window(cells, share, side):
    assert window_side(cells, Fraction(share)) == side


@pytest.mark.parametrize("share", ["0", "-1/2", "8/7", "wide", 2, float("nan"), float("inf"), "1/0"])
def test_a_share_outside_its_range_is_refused(share):
    with pytest.raises(ModelError, match=r"'window' option must be a share in \(0, 1\]"):
        window(share)


def test_a_placement_of_another_name_is_refused():
    with pytest.raises(ModelError, match="'placement' option must be one of importance, centre"):
        window(placement="middle")
