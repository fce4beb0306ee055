"""``hcoatnet study run``: from a definition to a directory of finished runs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from hcoatnet.errors import ConfigError
from hcoatnet.files import append_line, remove_leftovers, write_text
from hcoatnet.interruption import Terminated, sigterm_raises
from hcoatnet.study.checks import (
    check_cells,
    check_folder,
    check_machine,
    check_models,
    check_test_ledger,
    load_photos,
)
from hcoatnet.study.definition import StudyConfig, joined, study_yaml
from hcoatnet.study.display import Display
from hcoatnet.study.plan import (
    StudyDirectory,
    Task,
    merged_plan,
    places_of,
    read_shard,
    shard_of,
    tasks_of,
    write_plan,
)
from hcoatnet.study.runner import LocalRunner, Runner
from hcoatnet.terminal import say


@dataclass(frozen=True)
class StudyResult:
    """What a call of ``study run`` came to.

    Attributes:
        directory: The study.
        failed: Cells that failed, with their last error line.
    """

    directory: StudyDirectory
    failed: Mapping[str, str]


def run_study(
    study: StudyConfig,
    folder: Path,
    *,
    console: Console,
    jobs: int = 1,
    shard: str | None = None,
    cluster: str | None = None,
    planned_only: bool = False,
) -> StudyResult:
    """Train every cell of a study that is not finished, or continue it where it was stopped.

    Everything is checked before the first cell starts. A cell that fails does not stop the others.

    Args:
        study: From :func:`hcoatnet.study.definition.read_study` or ``overlay``.
        folder: The study's directory.
        console: Where to speak.
        jobs: Cells at a time, on this machine.
        shard: ``i/n``: only the i-th of n parts of the cells.
        cluster: Address of a Dask scheduler, to train there rather than here.
        planned_only: Only cells that stand in the plan already.

    Raises:
        HCoAtNetError: A mistake in the study, its photos, models or directory; nothing has been started then.
    """
    if jobs < 1:
        raise ConfigError(f"--jobs must be at least 1. Got {jobs} instead.")
    part = read_shard(shard) if shard else None
    directory = StudyDirectory(folder)
    check_folder(directory)
    study, photos = load_photos(study)
    tasks = tasks_of(study, places_of(study, photos.split), folder)
    if planned_only:
        known = {cell.cell for cell in directory.plan()}
        tasks = [task for task in tasks if task.cell.cell in known]
    check_cells(directory, tasks, photos)
    runner: Runner = LocalRunner(jobs)
    waiting = [task for task in shard_of(tasks, part) if not task.run.finished]
    if waiting:
        check_test_ledger(study)
        check_models(waiting, photos)
        if cluster is None:
            check_machine(study)
        else:
            runner = _on_cluster(cluster, directory)
    _store(directory, study, tasks)
    say(*photos.notes, console=console)
    failed: dict[str, str] = {}
    with Display(console, shard_of(tasks, part), runner.jobs) as display:
        if waiting:
            failed = _run_all(directory, waiting, runner, display)
    return StudyResult(directory, failed)


def _store(directory: StudyDirectory, study: StudyConfig, tasks: Sequence[Task]) -> None:
    """Write the definition and the plan, grown by what is new; the definition only where it says something else."""
    directory.path.mkdir(parents=True, exist_ok=True)
    with directory.locked():
        for file in (directory.study_file, directory.plan_file):
            remove_leftovers(directory.path, file.name)
        before = directory.definition()
        grown = joined(before, study)
        if before != grown:
            write_text(directory.study_file, study_yaml(grown, directory.path))
        cells = directory.plan() if directory.exists else []
        plan = merged_plan(cells, [task.cell for task in tasks])
        if plan != cells:
            write_plan(directory, plan)


def _run_all(directory: StudyDirectory, tasks: Sequence[Task], runner: Runner, display: Display) -> dict[str, str]:
    """Train ``tasks``, whatever becomes of each; gives the last error line of those that failed."""
    failed: dict[str, str] = {}

    def started(task: Task) -> None:
        record(directory, task.cell.cell, "resumed" if task.run.started else "started")
        display.started(task.cell.cell)

    with sigterm_raises():
        try:
            with runner.running(tasks, started) as outcomes:
                for outcome in outcomes:
                    record(directory, outcome.cell, outcome.state, outcome.seconds, outcome.message)
                    display.ended(outcome)
                    if outcome.state == "failed":
                        failed[outcome.cell] = outcome.message
        except (KeyboardInterrupt, Terminated):
            for task in tasks:
                if task.cell.cell in display.running():
                    record(directory, task.cell.cell, "finished" if task.run.finished else "interrupted")
            display.say(f"Interrupted. Continue with: hcoatnet study run --out {directory.path}")
            raise
    return failed


def record(directory: StudyDirectory, cell: str, event: str, seconds: float | None = None, message: str = "") -> None:
    """Append one event to ``cells.jsonl``."""
    line: dict[str, Any] = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "cell": cell, "event": event}
    if seconds is not None:
        line["seconds"] = seconds
    if message:
        line["message"] = message
    append_line(directory.events_file, json.dumps(line, ensure_ascii=False))


def _on_cluster(address: str, directory: StudyDirectory) -> Runner:
    from hcoatnet.study.cluster import ClusterRunner

    return ClusterRunner(address, directory)
