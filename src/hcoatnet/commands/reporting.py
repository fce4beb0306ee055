"""Reports: ``report``."""

from pathlib import Path

from cyclopts import App

from hcoatnet.commands.evidence import Items
from hcoatnet.terminal import say


def report(
    folder: Path,
    *,
    reference: str | None = None,
    by: Items = None,
    out: Path | None = None,
) -> None:
    """Write the report of a run or study: one HTML page, its tables and figures, a model card and a checklist.

    Args:
        folder: Run or study directory.
        reference: Row that the others are compared with; h_coatnet, or else the first, by default.
        by: Metadata columns whose values become subgroups, such as `--by sex,age`.
        out: Where to write; the directory itself by default.
    """
    from hcoatnet.report.writing import write_report
    from hcoatnet.study.definition import split_list

    page = write_report(folder, reference=reference, by=split_list(by or []), out=out)
    say(f"Report: {page}")


def register(app: App) -> None:
    """Add these commands to the command line."""
    app.command(report)
