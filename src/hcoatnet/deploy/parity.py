"""Whether one backend answers as another: the gate of every export."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from hcoatnet.deploy.answers import TokenStage
from hcoatnet.deploy.backend import Backend, Output
from hcoatnet.errors import BundleError

Photos = NDArray[np.float32]

BATCH_SIZES = (1, 2, 7, 16)
MOST_PHOTOS = 64
LOGIT_TOLERANCE = 1e-4
"""Largest difference between two logits of the same thing; closer ones than that tie for the top class, too."""
SCORE_TOLERANCE = 1e-3
"""Largest difference between two scores of a token; a photo's scores have sum 1."""
TIE = 1e-3
"""Tokens tie where the lowest score among them is less than this share below the highest.

A score is the softmax of a standardised importance, so that its relative error is that importance's absolute one."""
MOST_TIES = 0.1
"""Share of the answers in which a tie may be broken otherwise: their later cuts and logits cannot be compared."""


@dataclass(frozen=True)
class Parity:
    """How close two backends came.

    Attributes:
        photos: Photos that were compared; one that stood in two batches counts twice.
        batch_sizes: In batches of these sizes.
        logit_difference: Largest absolute difference between logits.
        score_difference: Largest absolute difference between scores of tokens; 0 without any.
        ties: Answers of a member to a photo in which tied tokens were chosen otherwise.
    """

    photos: int
    batch_sizes: tuple[int, ...]
    logit_difference: float
    score_difference: float
    ties: int


def batches(photos: Photos) -> list[Photos]:
    """Batches of 1, 2, 7, 16, 16 … and the rest of at most 64 photos (N, 3, S, S).

    Where they do not suffice for the first four, they are taken from their start again; a size beyond N becomes N.
    """
    photos = photos[:MOST_PHOTOS]
    sizes = list(BATCH_SIZES)
    while (left := len(photos) - sum(sizes)) > 0:
        sizes.append(min(BATCH_SIZES[-1], left))
    around = np.arange(sum(sizes)) % len(photos)
    ends = np.cumsum(sizes)
    return [photos[around[end - size : end][: len(photos)]] for size, end in zip(sizes, ends, strict=True)]


def check_parity(expected: Backend, found: Backend, batches: Sequence[Photos]) -> Parity:
    """Compare two backends of the same members, photo by photo and member by member.

    Args:
        expected: What is right.
        found: What is to be judged.
        batches: Preprocessed photos, (n, 3, S, S) each.

    Raises:
        BundleError: Logits differ by more than 1e-4, the top class is another without a tie, or other tokens are kept
            without a tie of their scores; or there were too many ties to judge.
    """
    comparison = _Comparison()
    for batch in batches:
        right, other = expected.run(batch), found.run(batch)
        if right.logits.shape != other.logits.shape:
            _fail(f"its logits have shape {other.logits.shape} in place of {right.logits.shape}")
        for photo in range(len(batch)):
            for member in range(expected.members):
                comparison.add(
                    right.logits[photo, member],
                    other.logits[photo, member],
                    _stages(right, photo, member),
                    _stages(other, photo, member),
                )
    photos = sum(len(batch) for batch in batches)
    answers = photos * expected.members
    if comparison.ties > MOST_TIES * answers:
        _fail(
            f"in {comparison.ties} of {answers} answers, tokens of tied scores were chosen otherwise, too many to judge"
        )
    sizes = tuple(sorted({len(batch) for batch in batches}))
    return Parity(photos, sizes, comparison.logit_difference, comparison.score_difference, comparison.ties)


class _Comparison:
    """Keeps the largest differences of answer after answer."""

    def __init__(self) -> None:
        self.logit_difference = 0.0
        self.score_difference = 0.0
        self.ties = 0

    def add(
        self,
        right: NDArray[np.float32],
        other: NDArray[np.float32],
        right_stages: Sequence[TokenStage],
        other_stages: Sequence[TokenStage],
    ) -> None:
        if len(right_stages) != len(other_stages):
            _fail(f"it shows {len(other_stages)} cuts in place of {len(right_stages)}")
        for number, stages in enumerate(zip(right_stages, other_stages, strict=True), start=1):
            if self._tied(number, *stages):
                self.ties += 1
                return
        difference = float(np.abs(right - other).max())
        if not difference <= LOGIT_TOLERANCE:  # written so that NaN fails, too
            _fail(f"logits differ by {difference:.2g}, and {LOGIT_TOLERANCE:g} is allowed")
        if right.max() - right[other.argmax()] > LOGIT_TOLERANCE:
            _fail("its top class is another")
        self.logit_difference = max(self.logit_difference, difference)

    def _tied(self, number: int, right: TokenStage, other: TokenStage) -> bool:
        """Whether one cut kept other tokens only because their scores tie."""
        if right.positions != other.positions:
            _fail(f"cut {number} sees other tokens")
        if len(right.kept) != len(other.kept):
            _fail(f"cut {number} keeps {len(other.kept)} tokens in place of {len(right.kept)}")
        scores = np.array(right.scores)
        difference = float(np.abs(scores - other.scores).max())
        if not difference <= SCORE_TOLERANCE:
            _fail(f"scores at cut {number} differ by {difference:.2g}, and {SCORE_TOLERANCE:g} is allowed")
        self.score_difference = max(self.score_difference, difference)
        swapped = scores[np.isin(right.positions, np.setxor1d(right.kept, other.kept))]
        if not len(swapped):
            return False
        low, high = swapped.min(), swapped.max()
        if low < (1 - TIE) * high:
            _fail(f"cut {number} keeps other tokens, with scores from {low:.6g} to {high:.6g}")
        return True


def _stages(output: Output, photo: int, member: int) -> Sequence[TokenStage]:
    return () if output.traces is None else output.traces[photo][member].stages


def _fail(what: str) -> NoReturn:
    raise BundleError(
        f"The exported model does not answer as torch does: {what}. Nothing was written. Please report this with your "
        "versions of torch, onnx and onnxruntime."
    )
