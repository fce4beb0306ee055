"""Everything that a report computes from arms: the comparison, calibration, abstaining, prediction sets, subgroups."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hcoatnet.evaluation.calibration import CalibrationResult, calibrate_out_of_fold
from hcoatnet.evaluation.comparison import Comparison, Row, compare
from hcoatnet.evaluation.conformal import ConformalResult, conformal_out_of_fold
from hcoatnet.evaluation.evidence import Arm
from hcoatnet.evaluation.floors import MAJORITY, majority
from hcoatnet.evaluation.selective import SelectiveResult, selective_out_of_fold
from hcoatnet.evaluation.subgroups import Subgroups, subgroups
from hcoatnet.report.ranking import ranked_rows
from hcoatnet.study.ablation import confident_errors


@dataclass(frozen=True, eq=False)
class Examination:
    """Arms of one kind of initial weights and what was measured of them.

    Attributes:
        arms: By macro F1, the largest first, without the row of the most common class.
        comparison: Of these arms and that row.
        confident_errors: By row, the share of photos that are wrong with a probability of at least ``CONFIDENT``.
        calibration: By arm.
        selective: By arm.
        conformal: By arm.
        subgroups: By column and arm.
    """

    arms: tuple[Arm, ...]
    comparison: Comparison
    confident_errors: Mapping[str, float]
    calibration: Mapping[str, CalibrationResult]
    selective: Mapping[str, SelectiveResult]
    conformal: Mapping[str, tuple[ConformalResult, ...]]
    subgroups: Mapping[str, Mapping[str, Subgroups]]

    @property
    def reference(self) -> Arm:
        """The arm that the others are compared with; the first where that is the row of the most common class."""
        return next((arm for arm in self.arms if arm.name == self.comparison.reference), self.arms[0])

    @property
    def rows(self) -> list[Row]:
        """All rows of the comparison, the largest macro F1 first."""
        return ranked_rows(self.comparison)

    def row(self, name: str) -> Row:
        """The row of an arm."""
        return next(row for row in self.comparison.rows if row.name == name)


def examine(arms: Sequence[Arm], reference: str | None = None, by: Sequence[str] = ()) -> Examination:
    """Compute everything that a report says of some arms.

    Args:
        arms: Of one kind of initial weights; the row of the most common class is added.
        reference: Name of the arm that the others are compared with.
        by: Metadata columns whose values become subgroups.

    Raises:
        EvidenceError: The arms cannot be compared, or there is no such reference or column.
    """
    trained = [arm for arm in arms if arm.name != MAJORITY]
    floor = majority(trained[0])
    comparison = compare([*trained, floor], reference)
    places = {row.name: place for place, row in enumerate(ranked_rows(comparison))}
    ranked = tuple(sorted(trained, key=lambda arm: places[arm.name]))
    by_column = {column: {arm.name: subgroups(arm, column) for arm in ranked} for column in by}
    return Examination(
        arms=ranked,
        comparison=comparison,
        confident_errors={arm.name: confident_errors(arm) for arm in (*ranked, floor)},
        calibration={arm.name: calibrate_out_of_fold(arm) for arm in ranked},
        selective={arm.name: selective_out_of_fold(arm) for arm in ranked},
        conformal={arm.name: conformal_out_of_fold(arm) for arm in ranked},
        subgroups=by_column,
    )
