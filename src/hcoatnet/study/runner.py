"""Where cells are trained: on this machine, or by whatever else fits :class:`Runner`."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hcoatnet.study.cell import Lifelines, Outcome, plain_settings, run_cell
from hcoatnet.study.plan import Task

Started = Callable[[Task], None]
"""Called when the process of a cell is about to start, from any thread; more than once where it is tried again."""


class Runner(Protocol):
    """Trains cells."""

    @property
    def jobs(self) -> int:
        """How many run at a time."""

    def running(self, tasks: Sequence[Task], started: Started) -> AbstractContextManager[Iterator[Outcome]]:
        """A context that gives how each cell ended, in the order in which they end; leaving it stops those left."""


@dataclass(frozen=True)
class LocalRunner:
    """Trains cells on this machine, which they share evenly.

    Attributes:
        jobs: How many run at a time.
    """

    jobs: int

    @contextmanager
    def running(self, tasks: Sequence[Task], started: Started) -> Iterator[Iterator[Outcome]]:
        """Train ``tasks``; see :class:`Runner`."""
        import joblib

        lifelines, threads, here = Lifelines(), threads_per_cell(self.jobs), Path.cwd()

        def train(task: Task) -> Outcome:
            if not lifelines.stopped:
                started(task)
            return run_cell(task.cell.cell, plain_settings(task.config), here, threads, lifelines)

        pool = joblib.Parallel(n_jobs=self.jobs, backend="threading", return_as="generator_unordered", batch_size=1)
        try:
            yield pool(joblib.delayed(train)(task) for task in tasks)
        finally:
            lifelines.stop()


def threads_per_cell(jobs: int) -> int:
    """Cores of this machine shared by ``jobs`` cells, and no more than OMP_NUM_THREADS asks for."""
    import joblib

    share = max(1, int(joblib.cpu_count()) // jobs)
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(share, int(asked)) if asked.isdigit() and int(asked) > 0 else share
