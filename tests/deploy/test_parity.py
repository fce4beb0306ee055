"""The parity gate: everything that it must let pass, and everything that it must stop."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hcoatnet.deploy.answers import TokenStage, TokenTrace
from hcoatnet.deploy.backend import Output
from hcoatnet.deploy.parity import batches, check_parity
from hcoatnet.errors import BundleError

LOGITS = (2.0, 1.0, -1.0)
FIRST = TokenStage((0, 1, 2, 3), (0.4, 0.3, 0.2, 0.1), (0, 1, 2))
SECOND = TokenStage((0, 1, 2), (0.5, 0.3, 0.2), (0, 1))


class Fixed:
    """A backend that gives every photo the same answer, but the photos listed in ``others``."""

    name, image_size = "fixed", 1

    def __init__(self, *answers, members=1, others=None):
        self.answers = answers or (answer(),)
        self.members = members
        self.others = others or {}
        self.prunes = True
        self.seen = 0

    def run(self, photos):
        rows = []
        for _ in photos:
            rows.append(self.others.get(self.seen, self.answers))
            self.seen += 1
        logits = np.array([[logits for logits, _ in row] for row in rows], dtype=np.float32)
        traces = [tuple(TokenTrace(2, 2, stages) for _, stages in row) for row in rows]
        return Output(logits, traces if traces[0][0].stages else None)


def answer(logits=LOGITS, first=FIRST, second=SECOND):
    return tuple(logits), tuple(stage for stage in (first, second) if stage is not None)


def photos(count=20):
    return [np.zeros((count, 3, 1, 1), dtype=np.float32)]


def check(right, found, count=20):
    return check_parity(Fixed(right), Fixed(found), photos(count))


def test_equal_answers_pass():
    parity = check_parity(Fixed(), Fixed(), [*photos(1), *photos(7), *photos(7)])
    assert parity.photos == 15
    assert parity.batch_sizes == (1, 7)
    assert (parity.logit_difference, parity.score_difference, parity.ties) == (0, 0, 0)


def test_the_largest_differences_are_told():
    near = answer(np.add(LOGITS, (0, 9e-5, -5e-5)), TokenStage(FIRST.positions, (0.4005, 0.2995, 0.2, 0.1), FIRST.kept))
    parity = check_parity(Fixed(), Fixed(others={3: (near,)}), photos())
    assert parity.logit_difference == pytest.approx(9e-5, rel=1e-2)
    assert parity.score_difference == pytest.approx(5e-4, rel=1e-2)


def swapped(scores, kept, **changes):
    return answer(first=TokenStage(FIRST.positions, scores, kept), **changes)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (answer(np.add(LOGITS, (0, 0, 1.1e-4))), "logits differ by 0.00011"),
        (answer((np.nan, 1, -1)), "logits differ by nan"),
        (answer((np.inf, 1, -1)), "logits differ by inf"),
        (answer(second=None), "1 cuts in place of 2"),
        (answer(first=None, second=None), "0 cuts in place of 2"),
        (answer(first=TokenStage((0, 1, 3, 2), FIRST.scores, FIRST.kept)), "cut 1 sees other tokens"),
        (answer(second=TokenStage((0, 1, 3), SECOND.scores, (0, 1))), "cut 2 sees other tokens"),
        (swapped((0.4, 0.3, 0.19, 0.11), (0, 1, 2)), "scores at cut 1 differ by 0.01"),
        (swapped((np.nan, 0.3, 0.2, 0.1), (0, 1, 2)), "scores at cut 1 differ by nan"),
        (swapped(FIRST.scores, (0, 1, 3)), "cut 1 keeps other tokens, with scores from 0.1 to 0.2"),
        (swapped(FIRST.scores, (0, 1)), "cut 1 keeps 2 tokens in place of 3"),
    ],
)
def test_what_differs_is_stopped_wherever_it_stands(found, message):
    for place in (0, 11, 19):
        with pytest.raises(BundleError, match=message):
            check_parity(Fixed(), Fixed(others={place: (found,)}), photos())


def test_logits_of_another_shape_are_stopped():
    with pytest.raises(BundleError, match=r"logits have shape \(20, 1, 2\) in place of \(20, 1, 3\)"):
        check(answer(), answer((2.0, 1.0)))


def test_another_top_class_is_stopped_unless_it_ties():
    near, nearer = (1.0, 1.0 - 1.5e-4, 0), (1.0, 1.0 - 0.8e-4, 0)
    with pytest.raises(BundleError, match="top class is another"):
        check(answer(near), answer(np.add(near, (-0.9e-4, 0.9e-4, 0))))
    assert check(answer(nearer), answer(np.add(nearer, (-0.9e-4, 0.9e-4, 0)))).ties == 0


def tied(gap, kept, **changes):
    """Tokens 2 and 3, of which one is kept, score 0.15 and a share ``gap`` less."""
    return swapped((0.4, 0.3, 0.15, 0.15 * (1 - gap)), kept, **changes)


def test_tied_tokens_may_be_chosen_otherwise_and_end_the_comparison():
    right = tied(0.0009, (0, 1, 2))
    elsewhere = TokenStage((0, 1, 3), (0.6, 0.3, 0.1), (0, 3))
    other = tied(0.0009, (0, 1, 3), second=elsewhere, logits=(0.0, 5.0, 0.0))
    assert check_parity(Fixed(right), Fixed(right, others={4: (other,)}), photos()).ties == 1
    with pytest.raises(BundleError, match="cut 1 keeps other tokens"):
        check(tied(0.0011, (0, 1, 2)), tied(0.0011, (0, 1, 3)))


def test_too_many_ties_cannot_be_judged():
    right, other = tied(0, (0, 1, 2)), tied(0, (0, 1, 3))
    assert check_parity(Fixed(right), Fixed(right, others={4: (other,), 5: (other,)}), photos(20)).ties == 2
    with pytest.raises(BundleError, match="in 3 of 20 answers"):
        check_parity(Fixed(right), Fixed(right, others=dict.fromkeys((4, 5, 6), (other,))), photos(20))


def test_members_are_compared_each_with_itself():
    one, two = answer(), answer((0.0, 3.0, 1.0))
    assert check_parity(Fixed(one, two, members=2), Fixed(one, two, members=2), photos()).photos == 20
    with pytest.raises(BundleError, match="logits differ by 2"):
        check_parity(Fixed(one, two, members=2), Fixed(two, one, members=2), photos())


@given(st.integers(1, 90))
def test_batches_hold_every_size_and_as_many_photos_as_they_can(count):
    given_photos = np.arange(count, dtype=np.float32).reshape(-1, 1, 1, 1)
    made = batches(given_photos)
    sizes = [len(batch) for batch in made]
    assert sizes[:4] == [min(size, count) for size in (1, 2, 7, 16)]
    assert max(sizes) <= 16
    assert sum(sizes) <= 64
    seen = {int(photo) for batch in made for photo in batch.ravel()}
    assert len(seen) == min(count, 64)
    assert all(len(set(batch.ravel().tolist())) == len(batch) for batch in made)
