"""The plan of a study: which cells there are, where each lies, and ``plan.csv``, which says so."""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hcoatnet.config import TrainConfig
from hcoatnet.errors import ConfigError, RunError, SplitError
from hcoatnet.files import csv_line, write_text
from hcoatnet.study.definition import StudyConfig, read_study
from hcoatnet.training.run_directory import RunDirectory

if TYPE_CHECKING:
    from hcoatnet.data.splits import Folds, Split

PLAN_COLUMNS = ("cell", "model", "init", "seed", "repeat", "fold", "config_sha256", "run")


@dataclass(frozen=True)
class PlannedCell:
    """One row of ``plan.csv``.

    Attributes:
        cell: Its name.
        model: Name of the study's row: a model, or a variant of one.
        init: ``scratch`` or ``pretrained``.
        seed: Seed of the training.
        repeat: Repeat of the split file.
        fold: Fold of the split file; a hold-out split has repeat 0 and fold 0 only.
        config_sha256: Digest of the recipe.
        run: Its run directory, relative to the study's.
    """

    cell: str
    model: str
    init: str
    seed: int
    repeat: int
    fold: int
    config_sha256: str
    run: str

    @property
    def arm(self) -> tuple[str, str]:
        """What is compared as one: the row and its kind of initial weights."""
        return self.model, self.init


@dataclass(frozen=True)
class Task:
    """A cell with all that its training needs.

    Attributes:
        cell: Its row of the plan.
        config: Its settings, ``out`` and ``resume`` included.
    """

    cell: PlannedCell
    config: TrainConfig

    @property
    def run(self) -> RunDirectory:
        """Its run directory."""
        assert self.config.out is not None
        return RunDirectory(self.config.out)


@dataclass(frozen=True)
class StudyDirectory:
    """The files of one study.

    Attributes:
        path: The directory.
    """

    path: Path

    @property
    def plan_file(self) -> Path:
        """Every cell there is."""
        return self.path / "plan.csv"

    @property
    def study_file(self) -> Path:
        """The definition, in a form that ``--config`` takes."""
        return self.path / "study.yaml"

    @property
    def events_file(self) -> Path:
        """What happened to the cells, a line an event."""
        return self.path / "cells.jsonl"

    @property
    def exists(self) -> bool:
        """Whether there is a study here."""
        return self.plan_file.exists()

    def run(self, cell: PlannedCell) -> RunDirectory:
        """The run directory of a cell."""
        return RunDirectory(self.path / cell.run)

    def plan(self) -> list[PlannedCell]:
        """All cells of ``plan.csv``.

        Raises:
            RunError: This is no study, or its plan cannot be read.
        """
        try:
            with self.plan_file.open(encoding="utf-8", newline="") as stream:
                return [_planned(row) for row in csv.DictReader(stream)]
        except OSError:
            raise RunError(
                f"{self.path} is not a study: it has no plan.csv. Give a directory that `hcoatnet study run` made."
            ) from None
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise RunError(
                f"{self.plan_file} cannot be read ({error}). Restore it, or delete it and run the study again: "
                "finished cells are kept."
            ) from error

    def definition(self) -> StudyConfig | None:
        """The stored definition, paths as seen from the working directory; None where there is none yet."""
        return read_study(self.study_file) if self.study_file.exists() else None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let one process at a time change the plan; others wait."""
        from filelock import FileLock

        with FileLock(self.path / ".plan.lock"):
            yield


def tasks_of(study: StudyConfig, places: Sequence[tuple[int, int]], folder: Path) -> list[Task]:
    """Every cell of a study: seed by seed and repeat by repeat, so that a first answer is complete early.

    Args:
        study: The definition.
        places: Repeat and fold of each test set.
        folder: The study's directory.
    """
    tasks = []
    for seed in study.seeds:
        for repeat in sorted({repeat for repeat, _ in places}):
            for variant in study.variants:
                for init in study.inits_of(variant):
                    for fold in sorted(fold for other, fold in places if other == repeat):
                        config = study.train_config(variant, init, seed, repeat, fold)
                        tasks.append(_task(variant.name, config, folder))
    return tasks


def places_of(study: StudyConfig, split: "Split | Folds") -> tuple[tuple[int, int], ...]:
    """Repeats and folds that a study uses of its split.

    Raises:
        SplitError: It names a repeat or fold that the split has not.
    """
    from hcoatnet.data.splits import Folds

    repeats, folds = (split.repeats, split.folds) if isinstance(split, Folds) else (1, 1)
    for name, wanted, there in (("repeats", study.repeats, repeats), ("folds", study.folds, folds)):
        if lacking := sorted(set(wanted or ()) - set(range(there))):
            kind = f"{name} 0 to {there - 1}" if isinstance(split, Folds) else "one hold-out split, repeat 0 and fold 0"
            raise SplitError(f"The study names {name[:-1]} {lacking[0]}, but its split file has {kind}.")
    return tuple((repeat, fold) for repeat in study.repeats or range(repeats) for fold in study.folds or range(folds))


def read_shard(text: str) -> tuple[int, int]:
    """``i/n``: the i-th of n parts, from 1.

    Raises:
        ConfigError: It is of another form.
    """
    match = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(f"--shard must be i/n with i from 1 to n, such as 1/3. Got {text!r} instead.")
    return int(match[1]), int(match[2])


def shard_of(tasks: Sequence[Task], shard: tuple[int, int] | None) -> list[Task]:
    """Every n-th task from the i-th on: the shards are disjoint, and together all."""
    return list(tasks) if shard is None else list(tasks)[shard[0] - 1 :: shard[1]]


def merged_plan(old: Sequence[PlannedCell], new: Sequence[PlannedCell]) -> list[PlannedCell]:
    """All cells of both, the newer row where both have one."""
    rows = {cell.cell: cell for cell in (*old, *new)}
    return list(rows.values())


def write_plan(directory: StudyDirectory, cells: Sequence[PlannedCell]) -> None:
    """Write ``plan.csv``."""
    lines = [csv_line(list(PLAN_COLUMNS)), *(csv_line([asdict(cell)[name] for name in PLAN_COLUMNS]) for cell in cells)]
    write_text(directory.plan_file, "\n".join(lines) + "\n")


def _task(row: str, config: TrainConfig, folder: Path) -> Task:
    name = f"{row}-{config.init_kind}-s{config.seed}-r{config.repeat}-f{config.fold}"
    cell = PlannedCell(
        cell=name,
        model=row,
        init=config.init_kind,
        seed=config.seed,
        repeat=config.repeat,
        fold=config.fold,
        config_sha256=config.sha256,
        run=f"runs/{name}",
    )
    return Task(cell, replace(config, out=folder / cell.run, resume="auto"))


def _planned(row: Mapping[str, str]) -> PlannedCell:
    if not all(row[name] for name in PLAN_COLUMNS):
        raise ValueError("a row is torn")
    return PlannedCell(
        cell=row["cell"],
        model=row["model"],
        init=row["init"],
        seed=int(row["seed"]),
        repeat=int(row["repeat"]),
        fold=int(row["fold"]),
        config_sha256=row["config_sha256"],
        run=row["run"],
    )
