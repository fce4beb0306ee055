"""What goes into a bundle: the models of a run or of a study's folds, their calibration, and what is known of them."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hcoatnet.config import TrainConfig
from hcoatnet.errors import BundleError, EvidenceError
from hcoatnet.evaluation.calibration_file import calibration_of_study
from hcoatnet.evaluation.evidence import Arm
from hcoatnet.files import sha256_of_file
from hcoatnet.report.examination import Examination, examine
from hcoatnet.report.facts import Fact, Subject, facts_of
from hcoatnet.report.record import RunRecord, openings_of
from hcoatnet.study.collect import collect
from hcoatnet.study.plan import PlannedCell, StudyDirectory
from hcoatnet.training.run_directory import RunDirectory

AVERAGE_REASON = (
    "Temperature and thresholds were fitted on the answers of single models, each to photos that it had not seen; what "
    "answers here is their average, which no photo is left to test."
)
"""Of a bundle of several models; it stands in its ``calibration.json`` in place of what a study's says."""


@dataclass(frozen=True, eq=False)
class BundleSource:
    """What a bundle is made of.

    Attributes:
        name: How the model is called.
        runs: A run for each member.
        config: Settings of the first run; the others differ in fold only.
        results: The ``metrics.json`` of each run.
        calibration: Content of the bundle's ``calibration.json``.
        facts: What files say of the model, for its card.
    """

    name: str
    runs: tuple[RunDirectory, ...]
    config: TrainConfig
    results: tuple[Mapping[str, Any], ...]
    calibration: Mapping[str, Any]
    facts: Mapping[str, Fact]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        return tuple(self.results[0]["classes"])


def read_source(folder: Path, model: str | None = None, init: str | None = None) -> BundleSource:
    """Read a finished run, or the folds of one model of a study in its first seed and repeat.

    Args:
        folder: A run or study directory.
        model: Row of the study; needed where it has several.
        init: ``scratch`` or ``pretrained``; needed where the study trained that row from both.

    Raises:
        BundleError: It is neither a run nor a study, no such model, or several to choose from.
        RunError: A run is not finished, or its files do not fit together.
        EvidenceError: Runs of the model are not finished, or cannot stand side by side.
    """
    if StudyDirectory(folder).exists:
        return _of_study(StudyDirectory(folder), model, init)
    run = RunDirectory(folder)
    if not run.started:
        why = "is neither a study (no plan.csv) nor a run (no config.yaml)" if folder.exists() else "does not exist"
        raise BundleError(f"{folder} {why}. Give a directory that `hcoatnet study run` or `hcoatnet train` made.")
    if model is not None or init is not None:
        raise BundleError(f"{folder} is one run: there is nothing to choose from. Leave --model and --init out.")
    return _of_run(run)


def _of_run(run: RunDirectory) -> BundleSource:
    run.results()
    arms = collect([run.path]) if "test" in run.results()["subsets"] else []
    name = arms[0].name if arms else run.settings().model
    return _source(name, [run], run.calibration(), arms)


def _of_study(study: StudyDirectory, model: str | None, init: str | None) -> BundleSource:
    cells = _chosen_cells(study, model, init)
    if waiting := [cell.cell for cell in cells if not study.run(cell).finished]:
        raise EvidenceError(
            f"{len(waiting)} of {len(cells)} runs of {cells[0].model} are not finished: {', '.join(waiting[:5])}. "
            f"Finish them with `hcoatnet study run --out {study.path}`."
        )
    first = min((cell.seed, cell.repeat) for cell in cells)
    members = sorted((cell for cell in cells if (cell.seed, cell.repeat) == first), key=lambda cell: cell.fold)
    if len(members) == 1:
        return _of_run(study.run(members[0]))
    (arm,) = collect([study.run(cell).path for cell in cells])
    calibration = calibration_of_study(arm) | {"approximate_because": AVERAGE_REASON}
    return _source(arm.name, [study.run(cell) for cell in members], calibration, [arm])


def _chosen_cells(study: StudyDirectory, model: str | None, init: str | None) -> list[PlannedCell]:
    cells = study.plan()
    models = list(dict.fromkeys(cell.model for cell in cells))
    if model is None and len(models) > 1:
        raise BundleError(f"{study.path} has several models: {', '.join(models)}. Choose one with --model.")
    if model is not None and model not in models:
        near = difflib.get_close_matches(model, models, n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise BundleError(f"{study.path} has no model {model!r}. {hint}It has: {', '.join(models)}.")
    chosen = [cell for cell in cells if cell.model == (model or models[0])]
    inits = list(dict.fromkeys(cell.init for cell in chosen))
    if init is None and len(inits) > 1:
        raise BundleError(f"{chosen[0].model} was trained from {' and from '.join(inits)}. Choose one with --init.")
    if init is not None and init not in inits:
        raise BundleError(f"{chosen[0].model} was not trained from {init}, but from {', '.join(inits)}.")
    return [cell for cell in chosen if cell.init == (init or inits[0])]


def _source(
    name: str, runs: Sequence[RunDirectory], calibration: Mapping[str, Any], arms: Sequence[Arm]
) -> BundleSource:
    results = [run.results() for run in runs]
    for run, metrics in zip(runs, results, strict=True):
        if not run.weights_file.is_file() or sha256_of_file(run.weights_file) != metrics["weights_sha256"]:
            raise BundleError(
                f"{run.weights_file} is missing, or not what its metrics.json describes. Restore it, or train again."
            )
    records = [RunRecord(run.path, metrics) for run, metrics in zip(runs, results, strict=True)]
    facts = facts_of(Subject({name: records}, _examined(arms), openings_of(records)))
    return BundleSource(name, tuple(runs), runs[0].settings(), tuple(results), calibration, facts)


def _examined(arms: Sequence[Arm]) -> tuple[Examination, ...]:
    """What the test photos say; nothing where they are too few to say anything."""
    try:
        return (examine(arms),) if arms else ()
    except EvidenceError:
        return ()
