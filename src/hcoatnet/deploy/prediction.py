"""``hcoatnet predict``: photo after photo through a classifier, in memory that does not grow with their number."""

import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hcoatnet.data.images import PhotoError
from hcoatnet.deploy.answers import Answer
from hcoatnet.deploy.classifier import BATCH, Classifier
from hcoatnet.deploy.photo_search import Found, printable
from hcoatnet.errors import Problem

AHEAD = 2 * BATCH
"""Photos that are read, or being read, before their turn."""

READERS = min(4, os.cpu_count() or 1)

Pixels = NDArray[np.float32]


@dataclass(frozen=True)
class Row:
    """What is said of one photo, or of a place without photos: an answer, or why there is none.

    Attributes:
        name: Its path.
        answer: The answer.
        problem: What is wrong with it; None where there is an answer.
    """

    name: str
    answer: Answer | None
    problem: Problem | None


@dataclass
class Tally:
    """Counts rows as they pass.

    Attributes:
        answered: Photos with an answer to rely on.
        abstained: Photos with an answer that is to be left to a person.
        failed: Rows without an answer.
    """

    answered: int = 0
    abstained: int = 0
    failed: int = 0

    def count(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The same rows."""
        for row in rows:
            if row.answer is None:
                self.failed += 1
            elif row.answer.abstain:
                self.abstained += 1
            else:
                self.answered += 1
            yield row

    def __str__(self) -> str:
        photos = self.answered + self.abstained + self.failed
        parts = [
            f"{self.answered:,} answered",
            f"{self.abstained:,} left to a person",
            f"{self.failed:,} without an answer",
        ]
        return f"{photos:,} photo{'s' * (photos != 1)}: {', '.join(parts)}."


def predict_rows(classifier: Classifier, photos: Iterable[Found]) -> Generator[Row, None, None]:
    """Answer photos in their order; one that cannot be read gets a row that says why, and the rest go on.

    A few threads read ahead while the model computes, and never more than ``AHEAD`` photos wait.

    Args:
        classifier: What answers, in batches of at most 16.
        photos: Files, and places without any.
    """
    read = _read_ahead(classifier, photos)
    while some := list(islice(read, BATCH)):
        ready = [(name, pixels) for name, pixels in some if not isinstance(pixels, Problem)]
        answers: Iterator[Answer] = iter(())
        if ready:
            answers = iter(classifier.answer(np.stack([pixels for _, pixels in ready]), [name for name, _ in ready]))
        for name, pixels in some:
            yield Row(name, None, pixels) if isinstance(pixels, Problem) else Row(name, next(answers), None)


def _read_ahead(classifier: Classifier, photos: Iterable[Found]) -> Iterator[tuple[str, Pixels | Problem]]:
    def read(path: Path, name: str) -> Pixels | Problem:
        try:
            return classifier.prepare(path, name)
        except PhotoError as error:
            return error.problem

    waiting: deque[tuple[str, Future[Pixels | Problem] | Problem]] = deque()
    pool = ThreadPoolExecutor(READERS, "reader")
    try:
        for photo in photos:
            if isinstance(photo, Problem):
                waiting.append((photo.path, photo))
            else:
                name = printable(photo)
                waiting.append((name, pool.submit(read, photo, name)))
            if len(waiting) == AHEAD:
                yield _next(waiting)
        while waiting:
            yield _next(waiting)
    finally:
        pool.shutdown(cancel_futures=True)


def _next(waiting: "deque[tuple[str, Future[Pixels | Problem] | Problem]]") -> tuple[str, Pixels | Problem]:
    name, read = waiting.popleft()
    return name, read.result() if isinstance(read, Future) else read
