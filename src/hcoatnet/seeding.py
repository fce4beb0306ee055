"""Random numbers that depend on what they are for, not on what was drawn before.

Each epoch, each photo's augmentation and each batch's mixing has a seed of its own, derived from the run's seed and its
place. A resumed run, another number of loader processes or another order of work therefore draws the same numbers.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch


class Purpose(IntEnum):
    """What a derived seed is for; keeps the streams of one run apart."""

    WEIGHTS = 0
    EPOCH = 1
    ORDER = 2
    AUGMENTATION = 3
    MIXING = 4


def derive(seed: int, purpose: Purpose, *place: int) -> int:
    """A 63-bit seed for ``purpose`` at ``place`` (for instance epoch and index) of the run with ``seed``."""
    words = np.random.SeedSequence([seed, int(purpose), *place]).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))


def seed_everything(seed: int) -> None:
    """Seed torch's generators on every device; nothing else in a run draws random numbers globally."""
    torch.manual_seed(seed)


def generator(seed: int) -> torch.Generator:
    """A CPU generator of its own, seeded."""
    return torch.Generator().manual_seed(seed)


@contextmanager
def cpu_draws(seed: int) -> Iterator[None]:
    """Within, torch's CPU draws come from ``seed``; afterwards the generator stands where it stood.

    Unlike ``torch.manual_seed`` it leaves the generators of GPUs alone.
    """
    state = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(state)


@contextmanager
def deterministic_algorithms(wanted: bool) -> Iterator[None]:
    """Within, torch uses only algorithms that give the same bits twice, if ``wanted``."""
    if not wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    benchmark = torch.backends.cudnn.benchmark
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.backends.cudnn.benchmark = benchmark
