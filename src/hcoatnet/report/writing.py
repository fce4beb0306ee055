"""``hcoatnet report``: find out what a directory holds, and write its report."""

from collections.abc import Sequence
from pathlib import Path

from hcoatnet.errors import RunError
from hcoatnet.evaluation.evidence import Arm
from hcoatnet.report.html import run_report
from hcoatnet.report.page import write_report_files
from hcoatnet.report.record import RunRecord
from hcoatnet.report.study_page import study_report
from hcoatnet.study.collect import collect
from hcoatnet.study.plan import StudyDirectory


def write_report(
    folder: Path, *, reference: str | None = None, by: Sequence[str] = (), out: Path | None = None
) -> Path:
    """Write the report of a run or study: the page, its tables and figures, the model card and the checklist.

    Args:
        folder: A run or study directory.
        reference: Row of a study that the others are compared with.
        by: Metadata columns whose values become subgroups.
        out: Where to write; the directory itself by default.

    Returns:
        The page.

    Raises:
        RunError: The directory is neither, or a file in it is missing.
        EvidenceError: Runs that cannot be compared, or no such reference or column.
    """
    if (folder / "plan.csv").is_file():
        report = study_report(folder, _arms_of(folder), reference, by)
    elif (folder / "config.yaml").is_file():
        if reference is not None:
            raise RunError(f"{folder} is one run: there is nothing to compare it with. Leave --reference out.")
        report = run_report(RunRecord.of(folder), by)
    else:
        raise RunError(
            f"{folder} is neither a run (no config.yaml) nor a study (no plan.csv). Give a directory that "
            "`hcoatnet train` or `hcoatnet study run` made."
        )
    return write_report_files(report, out or folder)


def _arms_of(study: Path) -> list[Arm]:
    """All arms of a study, of one kind of initial weights after the other."""
    inits = dict.fromkeys(cell.init for cell in StudyDirectory(study).plan())
    return [arm for init in inits for arm in collect([study], init)]
