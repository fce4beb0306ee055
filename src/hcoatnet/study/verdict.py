"""From directories to a comparison: the arms with their floor, estimates, tests, and subgroups where they are asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hcoatnet.evaluation.calibration_file import CALIBRATION_FORMAT, calibration_of_study
from hcoatnet.evaluation.comparison import Comparison, compare
from hcoatnet.evaluation.evidence import Subset
from hcoatnet.evaluation.floors import MAJORITY, majority
from hcoatnet.evaluation.subgroups import Subgroups, subgroups
from hcoatnet.files import write_json
from hcoatnet.study.ablation import CONFIDENT, confident_errors
from hcoatnet.study.collect import collect

COMPARISON_NAMES: Mapping[Subset, str] = {"test": "comparison.json", "val": "comparison_val.json"}
CALIBRATION_NAME = "calibration.json"


@dataclass(frozen=True)
class Verdict:
    """What ``hcoatnet compare`` finds.

    Attributes:
        comparison: Estimates and differences of all rows, the majority row among them.
        confident_errors: Of each row, the share of photos that are wrong with a probability of at least ``CONFIDENT``.
        subgroups: For each column asked for, one table a trained row.
        calibration: Content of ``calibration.json`` of each trained row; empty on validation photos.
        sources: Names of the directories.
    """

    comparison: Comparison
    confident_errors: Mapping[str, float]
    subgroups: Mapping[str, tuple[Subgroups, ...]]
    calibration: Mapping[str, Mapping[str, Any]]
    sources: tuple[str, ...]


def judge(
    paths: Sequence[Path],
    *,
    reference: str | None = None,
    by: Sequence[str] = (),
    init: str | None = None,
    subset: Subset = "test",
    draws: int = 2000,
    seed: int = 0,
) -> Verdict:
    """Compare the rows of studies and runs.

    Args:
        paths: Study and run directories.
        reference: Row that the others are compared with.
        by: Metadata columns for subgroups.
        init: Only rows that began from these weights.
        subset: Photos that every cell is judged on; ``val`` opens no test prediction.
        draws: Bootstrap draws.
        seed: Seed of the draws and permutations.

    Raises:
        EvidenceError: The directories cannot be compared; see :func:`hcoatnet.study.collect.collect` and
            :func:`hcoatnet.evaluation.comparison.compare`.
    """
    trained = collect(paths, init, subset)
    floor = [] if any(arm.name == MAJORITY for arm in trained) else [majority(trained[0])]
    arms = [*trained, *floor]
    comparison = compare(arms, reference, replicates=draws, seed=seed)
    return Verdict(
        comparison=comparison,
        confident_errors={arm.name: confident_errors(arm) for arm in arms},
        subgroups={
            column: tuple(subgroups(arm, column, replicates=draws, seed=seed) for arm in trained) for column in by
        },
        calibration={arm.name: calibration_of_study(arm) for arm in trained} if subset == "test" else {},
        sources=tuple(path.resolve().name for path in paths),
    )


def write_verdict(verdict: Verdict, folder: Path) -> Path:
    """Write the comparison, and the calibration where there is one, into ``folder`` and give the path of the first."""
    name = COMPARISON_NAMES[verdict.comparison.subset]
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "format": 1,
        "sources": list(verdict.sources),
        **verdict.comparison.to_json(),
        "confident_errors": {"threshold": CONFIDENT, "share": dict(verdict.confident_errors)},
        "subgroups": {name: [part.to_json() for part in parts] for name, parts in verdict.subgroups.items()},
    }
    if verdict.calibration:
        write_json(folder / CALIBRATION_NAME, {"format": CALIBRATION_FORMAT, "rows": dict(verdict.calibration)})
    write_json(folder / name, content)
    return folder / name
