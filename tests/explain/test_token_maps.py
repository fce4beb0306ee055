"""Pictures of kept tokens show what the trace says, where it says it, and need neither torch nor matplotlib."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hcoatnet.deploy.answers import TokenStage, TokenTrace
from hcoatnet.explain.token_maps import ANCHORS, colour_of, describe_kept, draw_kept, kept_map, shades
from hcoatnet.report.drawing import luminance

FIRST = TokenStage(positions=tuple(range(6)), scores=(0.05, 0.4, 0.1, 0.2, 0.05, 0.2), kept=(1, 2, 3, 5))
SECOND = TokenStage(positions=(1, 2, 3, 5), scores=(0.1, 0.2, 0.3, 0.4), kept=(3, 5))
TRACE = TokenTrace(rows=2, columns=3, stages=(FIRST, SECOND))


def photo(width=90, height=60):
    pixels = np.random.default_rng(0).integers(60, 250, size=(height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_what_stays_is_as_it_was_inside_its_frame_and_the_rest_is_dark_and_grey():
    before = np.asarray(photo())
    drawn = np.asarray(draw_kept(photo(), TRACE, 1))
    for position in range(6):
        row, column = divmod(position, 3)
        inside = (slice(30 * row + 5, 30 * row + 25), slice(30 * column + 5, 30 * column + 25))
        if position in FIRST.kept:
            assert np.array_equal(drawn[inside], before[inside])
            shade = shades(FIRST)[position]
            assert tuple(drawn[30 * row, 30 * column]) == colour_of(shade)
            assert tuple(drawn[30 * row + 29, 30 * column + 29]) == colour_of(shade)
        else:
            assert drawn[inside].max() <= 0.3 * 250 + 1
            assert np.ptp(drawn[inside], axis=2).max() == 0
    assert np.array_equal(before, np.asarray(photo()))


def test_before_any_cut_only_a_grid_is_drawn():
    before, drawn = np.asarray(photo()), np.asarray(draw_kept(photo(), TRACE, 0))
    changed = (drawn != before).any(axis=2)
    assert (drawn[changed] == 255).all()
    assert changed[0].all()
    assert changed[:, 29].all()
    assert not changed[5:25, 5:25].any()


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(1, 70), height=st.integers(1, 70), side=st.integers(1, 14), data=st.data(),
    score=st.floats(1e-38, 1.0),
)  # fmt: skip
def test_any_photo_under_any_trace(width, height, side, data, score):
    kept = sorted(data.draw(st.sets(st.integers(0, side * side - 1), min_size=1)))
    scores = (score, *([0.5] * (side * side - 1)))
    trace = TokenTrace(side, side, (TokenStage(tuple(range(side * side)), scores, tuple(kept)),))
    for stage in (0, 1):
        drawn = draw_kept(photo(width, height), trace, stage)
        assert drawn.size == (width, height)
        assert drawn.mode == "RGB"
        assert len(describe_kept(trace, stage)) > 20
    assert np.flatnonzero(kept_map(trace, 1)).tolist() == kept
    assert np.isfinite(shades(trace.stages[0])).all()


@pytest.mark.parametrize("stage", [-1, 3])
def test_there_is_no_such_cut(stage):
    with pytest.raises(IndexError, match=f"2 cuts. Got stage {stage}"):
        draw_kept(photo(), TRACE, stage)


def test_shades_are_the_standardised_importance_again():
    raw = np.array([-1.2, 0.3, 2.0, 0.0])
    for temperature in (1.0, 0.1):
        scores = np.exp(raw / temperature) / np.exp(raw / temperature).sum()
        found = shades(TokenStage((0, 1, 2, 3), tuple(scores), (0,)))
        np.testing.assert_allclose(found, (raw - raw.min()) / np.ptp(raw), rtol=1e-6)
    assert shades(TokenStage((0, 1), (0.5, 0.5), (0,))).tolist() == [0.5, 0.5]


def test_colours_get_lighter_all_along():
    light = [luminance(tuple(channel / 255 for channel in colour_of(x))) for x in np.linspace(0, 1, 33)]
    assert all(after > before for before, after in pairwise(light))
    assert colour_of(0) == ANCHORS[0]
    assert colour_of(1) == ANCHORS[-1]


def test_the_words_say_what_was_kept():
    assert describe_kept(TRACE, 2) == (
        "After cut 2 of 2, 2 of 6 tokens are kept; the others are dark. The most important of 4 stands in row 2 of 2, "
        "column 3 of 3, with 1.6 times an even share of the importance."
    )
    assert "6 tokens, 2 rows by 3 columns" in describe_kept(TRACE, 0)


def test_a_server_can_draw_without_anything_heavy():
    check = (
        "import sys, hcoatnet.explain.token_maps\n"
        "print([n for n in ('torch', 'timm', 'matplotlib', 'pandas', 'scipy') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
