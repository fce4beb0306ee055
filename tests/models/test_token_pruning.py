from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from hcoatnet.errors import ModelError
from hcoatnet.models.token_pruning import (
    IMPORTANCES,
    HierarchicalSE,
    SqueezeExcitation,
    Stage,
    StageTrace,
    as_distribution,
    gradient_importance,
    kept_map,
    logits_and_traces,
    norm_importance,
    parse_stages,
    random_importance,
    select,
    take,
)


def random_head(dim, classes, generator, dtype=torch.float64):
    norm = nn.LayerNorm(dim, eps=1e-6, dtype=dtype)
    classifier = nn.Linear(dim, classes, dtype=dtype)
    for parameter in (*norm.parameters(), *classifier.parameters()):
        nn.init.normal_(parameter, generator=generator)
    return norm, classifier


def importance_by_autograd(tokens, norm, classifier):
    tokens = tokens.clone().requires_grad_()
    logits = classifier(norm(tokens.mean(dim=1)))
    chosen = logits.gather(1, logits.argmax(dim=1, keepdim=True)).sum()
    (gradient,) = torch.autograd.grad(chosen, tokens)
    return (tokens * gradient).sum(dim=-1).detach()


@settings(deadline=None, max_examples=60)
@given(
    batch=st.integers(1, 4),
    count=st.integers(1, 20),
    dim=st.integers(2, 24),
    classes=st.integers(1, 7),
    seed=st.integers(0, 2**31),
    scale=st.sampled_from([1e-2, 1.0, 30.0]),
)
def test_closed_form_importance_equals_autograd(batch, count, dim, classes, seed, scale):
    generator = torch.Generator().manual_seed(seed)
    norm, classifier = random_head(dim, classes, generator)
    tokens = scale * torch.randn(batch, count, dim, generator=generator, dtype=torch.float64)

    expected = importance_by_autograd(tokens, norm, classifier)
    found = gradient_importance(tokens, norm, classifier)

    # Where the terms of the sum cancel (always, with two channels), rounding is in proportion to the terms.
    terms = tokens.abs().max() * classifier.weight.abs().max() * norm.weight.abs().max() * dim
    spread = tokens.mean(dim=1).std(dim=1, correction=0).min() * count
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13 * (terms / spread).item())


def test_importance_is_float32_even_from_half_precision_and_under_autocast():
    generator = torch.Generator().manual_seed(0)
    norm, classifier = random_head(16, 5, generator, torch.float32)
    tokens = torch.randn(2, 9, 16, generator=generator)
    expected = gradient_importance(tokens, norm, classifier)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = gradient_importance(tokens, norm, classifier)
    assert torch.equal(under_autocast, expected)
    for score in (gradient_importance(tokens.bfloat16(), norm, classifier), norm_importance(tokens.bfloat16())):
        assert score.dtype == torch.float32


def test_importance_needs_no_autograd_and_passes_no_gradient():
    generator = torch.Generator().manual_seed(0)
    norm, classifier = random_head(8, 3, generator)
    tokens = torch.randn(2, 5, 8, dtype=torch.float64, requires_grad=True)
    assert not gradient_importance(tokens, norm, classifier).requires_grad
    assert not norm_importance(tokens).requires_grad
    with torch.inference_mode():
        assert gradient_importance(tokens, norm, classifier).shape == (2, 5)


scores_with_ties = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=30),
    elements=st.integers(-4, 4).map(float),
)


@settings(deadline=None)
@given(scores=scores_with_ties, data=st.data())
def test_selection_equals_a_stable_sort(scores, data):
    keep = data.draw(st.integers(1, scores.shape[1]))
    expected = np.sort(np.argsort(-scores, axis=1, kind="stable")[:, :keep], axis=1)
    np.testing.assert_array_equal(select(torch.from_numpy(scores), keep).numpy(), expected)


@settings(deadline=None)
@given(scores=hnp.arrays(np.float64, (3, 12), elements=st.floats(-1e3, 1e3)))
def test_distribution_sums_to_one_and_keeps_the_order(scores):
    distribution = as_distribution(torch.from_numpy(scores)).numpy()
    np.testing.assert_allclose(distribution.sum(axis=1), 1)
    order = np.argsort(scores, axis=1, kind="stable")
    assert (np.diff(np.take_along_axis(distribution, order, axis=1), axis=1) >= 0).all()


def test_distribution_by_hand():
    scores = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    z = np.array([-1.0, 0.0, 1.0]) / np.sqrt(2 / 3)
    for temperature in (1.0, 0.1):
        expected = np.exp(z / temperature) / np.exp(z / temperature).sum()
        np.testing.assert_allclose(as_distribution(scores, temperature)[0].numpy(), expected, rtol=1e-4)
    assert torch.equal(as_distribution(scores), as_distribution(scores, temperature=1.0))
    assert torch.equal(as_distribution(torch.full((1, 4), 7.0)), torch.full((1, 4), 0.25))


def test_take_returns_the_tokens_at_the_index():
    tokens = torch.arange(24.0).reshape(2, 4, 3)
    taken = take(tokens, torch.tensor([[0, 3], [1, 2]]))
    assert torch.equal(taken, torch.stack([tokens[0, [0, 3]], tokens[1, [1, 2]]]))


def test_random_importance_never_changes():
    # Recorded once: another order would change what trained models keep.
    assert random_importance(9, torch.device("cpu")).tolist() == [3, 7, 5, 2, 8, 4, 1, 6, 0]
    assert sorted(random_importance(49, torch.device("cpu")).tolist()) == list(range(49))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none", ()),
        ("gate", (Stage(True, None),)),
        ("0.5", (Stage(False, Fraction(1, 2)),)),
        (0.5, (Stage(False, Fraction(1, 2)),)),
        ("gate:0.75, gate:0.5", (Stage(True, Fraction(3, 4)), Stage(True, Fraction(1, 2)))),
        ("0.75,gate,0.5", (Stage(False, Fraction(3, 4)), Stage(True, None), Stage(False, Fraction(1, 2)))),
        ("gate:1", (Stage(True, Fraction(1)),)),
        ("0.5,gate:1/2", (Stage(False, Fraction(1, 2)), Stage(True, Fraction(1, 2)))),
    ],
)
def test_stages_are_read(text, expected):
    assert parse_stages(text) == expected


@pytest.mark.parametrize(
    "text", ["", "gates", "gate:", "gate:0", "1.5", "-0.5", "gate:x", "0.5,", "1/0", "nan", "none,gate"]
)
def test_wrong_stages_are_refused(text):
    with pytest.raises(ModelError, match="'stages' option"):
        parse_stages(text)


def test_stages_that_would_keep_more_than_the_last_are_refused():
    with pytest.raises(ModelError, match="none may exceed"):
        parse_stages("gate:0.5,gate:0.75")


@given(tokens=st.integers(1, 5000))
def test_counts_are_exact(tokens):
    assert Stage(True, Fraction("0.75")).count(tokens) == max(1, tokens * 3 // 4)
    assert Stage(True, Fraction("0.5")).count(tokens) == max(1, tokens // 2)
    assert Stage(True, Fraction("0.7")).count(10 * tokens) == 7 * tokens


def test_gate_by_hand():
    torch.manual_seed(0)
    gate = SqueezeExcitation(32).double().eval()
    assert gate.fc1.out_features == 2
    tokens = torch.randn(2, 5, 32, dtype=torch.float64)
    hidden = nn.functional.gelu(tokens.mean(1) @ gate.fc1.weight.T + gate.fc1.bias)
    factor = 1 / (1 + torch.exp(-(hidden @ gate.fc2.weight.T + gate.fc2.bias)))
    torch.testing.assert_close(gate(tokens), tokens * factor[:, None])
    assert gate.drop.p == 0.05
    assert [SqueezeExcitation(dim).fc1.out_features for dim in (8, 16, 240)] == [1, 1, 15]


def run_stages(importance, stages="gate:0.75,gate:0.5", count=12):
    torch.manual_seed(0)
    norm, classifier = random_head(16, 4, torch.Generator().manual_seed(1), torch.float32)
    module = HierarchicalSE(16, parse_stages(stages), importance).eval()
    tokens = torch.randn(3, count, 16)
    kept, traces = module(tokens, norm, classifier)
    return module, tokens, kept, traces


@pytest.mark.parametrize("importance", [name for name in IMPORTANCES if name != "none"])
def test_trace_tells_what_was_kept(importance):
    _, _, kept, (first, second) = run_stages(importance)
    assert first.positions.tolist() == [list(range(12))] * 3
    assert first.kept.shape == (3, 9)
    assert second.kept.shape == (3, 6)
    assert kept.shape == (3, 6, 16)
    assert torch.equal(second.positions, first.kept)
    for trace in (first, second):
        best = trace.positions.gather(1, select(trace.scores, trace.kept.shape[1]))
        assert torch.equal(best, trace.kept)
        assert (trace.kept.diff(dim=1) > 0).all()
        torch.testing.assert_close(trace.scores.sum(dim=1), torch.ones(3))


def test_every_importance_scores_what_its_name_says():
    scores = {}
    for importance in IMPORTANCES[:-1]:
        module, tokens, _, traces = run_stages(importance, "gate:0.5")
        scores[importance] = traces[0].scores
    gated = module.gates[0](tokens)
    norm, classifier = random_head(16, 4, torch.Generator().manual_seed(1), torch.float32)
    torch.testing.assert_close(scores["norm"], as_distribution(gated.norm(dim=-1).detach()))
    torch.testing.assert_close(scores["raw_norm"], as_distribution(tokens.norm(dim=-1)))
    torch.testing.assert_close(
        scores["gradient"], as_distribution(importance_by_autograd(gated.detach(), norm, classifier))
    )
    torch.testing.assert_close(
        scores["random"], as_distribution(random_importance(12, torch.device("cpu")).expand(3, 12))
    )


def test_random_cuts_are_nested_and_equal_for_every_photo():
    _, _, _, (first, second) = run_stages("random")
    ranks = random_importance(12, torch.device("cpu"))
    assert sorted(ranks.argsort(descending=True)[:9].tolist()) == first.kept[0].tolist()
    assert sorted(ranks.argsort(descending=True)[:6].tolist()) == second.kept[0].tolist()
    assert (first.kept == first.kept[0]).all()


def test_none_keeps_everything_but_still_gates():
    module, tokens, kept, traces = run_stages("none")
    assert traces == ()
    assert not module.cuts
    torch.testing.assert_close(kept, module.gates[1](module.gates[0](tokens)))


def test_without_classifier_the_gradient_gives_way_to_the_norm():
    torch.manual_seed(0)
    module = HierarchicalSE(16, parse_stages("gate:0.5"), "gradient").eval()
    tokens = torch.randn(2, 8, 16)
    _, (trace,) = module(tokens, nn.LayerNorm(16), nn.Identity())
    torch.testing.assert_close(trace.scores, as_distribution(norm_importance(module.gates[0](tokens))))


def test_one_token_is_never_cut():
    _, _, kept, traces = run_stages("gradient", count=1)
    assert kept.shape[1] == 1
    assert [trace.kept.tolist() for trace in traces] == [[[0]] * 3] * 2


@pytest.mark.parametrize("importance", IMPORTANCES)
@pytest.mark.parametrize(("stages", "cuts"), [("none", False), ("gate", False), ("gate,0.5", True), ("gate:0.5", True)])
def test_what_cuts(importance, stages, cuts):
    module, tokens, kept, traces = run_stages(importance, stages)
    assert module.cuts == (cuts and importance != "none") == bool(traces)
    gated = tokens if stages == "none" else module.gates[0](tokens)
    assert torch.equal(kept, take(gated, traces[0].kept) if traces else gated)


def test_only_gates_change_tokens():
    _, tokens, kept, (trace,) = run_stages("norm", "0.5")
    assert torch.equal(kept, take(tokens, trace.kept))
    module, tokens, kept, _ = run_stages("norm", "gate")
    factors = kept / tokens
    torch.testing.assert_close(factors, factors[:, :1].expand_as(factors))
    assert 0 < factors.min() < factors.max() < 1
    assert len(list(module.parameters())) == 4


@pytest.mark.parametrize("importance", IMPORTANCES[:-1])
def test_after_an_earlier_cut_shares_are_of_what_it_left_and_positions_of_the_uncut_map(importance):
    left = torch.tensor([[0, 2, 3, 5, 8, 11, 13, 15], [1, 2, 4, 6, 7, 9, 10, 14]])
    earlier = StageTrace(torch.arange(16).expand(2, 16), torch.full((2, 16), 1 / 16), left)
    module = HierarchicalSE(6, parse_stages("gate:0.75,gate:0.5"), importance).eval()
    tokens = torch.randn(2, 8, 6, generator=torch.Generator().manual_seed(3))
    norm, classifier = random_head(6, 3, torch.Generator().manual_seed(1), torch.float32)
    kept, (first, second, third) = module(tokens, norm, classifier, earlier)
    assert first is earlier
    assert torch.equal(second.positions, left)
    assert torch.equal(third.positions, second.kept)
    assert (second.kept.shape, third.kept.shape, kept.shape) == ((2, 6), (2, 4), (2, 4, 6))
    alone, (begun, ended) = module(tokens, norm, classifier)
    if importance == "random":
        ranks = random_importance(16, torch.device("cpu"))
        best = [sorted(sorted(row, key=lambda position: -ranks[position])[:4]) for row in left.tolist()]
        assert third.kept.tolist() == best
    else:
        assert torch.equal(kept, alone)
        assert torch.equal(second.kept, left.gather(1, begun.kept))
        assert torch.equal(third.kept, left.gather(1, ended.kept))


def test_the_kept_map_has_each_token_at_its_place_and_nothing_elsewhere():
    tokens = 1 + torch.arange(24.0).reshape(2, 3, 4)
    kept = [[0, 4, 7], [2, 3, 8]]
    whole, scores = torch.arange(9).expand(2, 9), torch.full((2, 9), 1 / 9)
    first = StageTrace(whole, scores, torch.tensor([[0, 1, 4, 6, 7], [1, 2, 3, 5, 8]]))
    second = StageTrace(first.kept, scores[:, :5], torch.tensor(kept))
    expected = torch.zeros(2, 4, 3, 3)
    for photo, positions in enumerate(kept):
        for number, position in enumerate(positions):
            expected[photo, :, position // 3, position % 3] = tokens[photo, number]
    assert torch.equal(kept_map((tokens, (first, second))), expected)
    assert torch.equal(kept_map((tokens, (StageTrace(whole, scores, second.kept),))), expected)
    uncut = torch.arange(36.0).reshape(2, 9, 2)
    assert torch.equal(kept_map((uncut, ())), uncut.transpose(1, 2).reshape(2, 2, 3, 3))


def test_only_a_model_that_cuts_has_traces():
    class Cutting(nn.Flatten):
        def forward_with_trace(self, photos):
            return self(photos) + 1, ("a trace",)

    photos = torch.arange(8.0).reshape(2, 1, 2, 2)
    logits, traces = logits_and_traces(nn.Flatten(), photos)
    assert (traces, logits.tolist()) == ((), photos.flatten(1).tolist())
    logits, traces = logits_and_traces(Cutting(), photos)
    assert (traces, logits.tolist()) == (("a trace",), (photos.flatten(1) + 1).tolist())


def test_unknown_importance_is_refused():
    with pytest.raises(ModelError, match=r"must be one of gradient, norm.*'entropy'"):
        HierarchicalSE(8, (), "entropy")
