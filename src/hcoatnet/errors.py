"""The errors a user can cause.

Each says what is wrong, where, what was found and what to do. The command line prints the message without a traceback
and exits with code 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass


class HCoAtNetError(Exception):
    """A mistake that a user can mend. Its text is the whole message."""


class ConfigError(HCoAtNetError):
    """An unknown setting, or a value outside its range."""


class DataError(HCoAtNetError):
    """Photos or tables that cannot be used as they are."""


class SplitError(DataError):
    """A split that leaks, misses photos, or cannot be made from these groups."""


class ModelError(HCoAtNetError):
    """An unknown model, an option it does not take, or weights that do not fit."""


class PredictionsError(HCoAtNetError):
    """A predictions table that is incomplete or inconsistent."""


class EvidenceError(HCoAtNetError):
    """Runs or studies that cannot be compared, or that cannot support what is asked of them."""


class RunError(HCoAtNetError):
    """A run directory that cannot be used as asked."""


class BundleError(HCoAtNetError):
    """A bundle that is incomplete, damaged or of another format, or a model that cannot be bundled or exported."""


class TrainingError(HCoAtNetError):
    """Training that cannot go on, such as a loss that is not finite."""


@dataclass(frozen=True)
class Problem:
    """One row of a table of data problems.

    Attributes:
        path: The file or the row concerned.
        rule: Short name of the rule that is broken, such as ``unreadable``.
        found: What was found.
        expected: What would have been right.
        fix: What the user can do about it.
    """

    path: str
    rule: str
    found: str
    expected: str
    fix: str


class DataProblems(DataError):
    """Several problems of one data set, collected and shown together.

    Attributes:
        problems: All of them, in the order in which they were found.
    """

    def __init__(self, summary: str, problems: Sequence[Problem]) -> None:
        super().__init__(summary, tuple(problems))
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return str(self.args[0])
