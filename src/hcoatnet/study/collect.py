"""From study and run directories to arms: the evidence that a comparison is made of. No torch, and no model."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hcoatnet.config import TrainConfig
from hcoatnet.data.tables import read_table, require_columns
from hcoatnet.errors import EvidenceError
from hcoatnet.evaluation.evidence import Arm, Cell, Subset
from hcoatnet.evaluation.predictions import Predictions, read_predictions
from hcoatnet.files import sha256_of_file
from hcoatnet.study.plan import StudyDirectory
from hcoatnet.training.run_directory import RunDirectory

SHOWN = 5

Key = tuple[str, str, int, int, int]
"""Row, kind of initial weights, seed, repeat and fold."""


@dataclass(frozen=True)
class _Source:
    """A place where a cell was, or will be, trained."""

    key: Key
    run: RunDirectory


def collect(paths: Sequence[Path], init: str | None = None, subset: Subset = "test") -> list[Arm]:
    """Read the finished runs of studies, and runs of their own, into arms.

    Cells of several directories are joined by the row's name and the kind of initial weights, so that seeds or shards
    that were trained apart come together.

    Args:
        paths: Study directories and run directories.
        init: ``scratch`` or ``pretrained``: only arms of this kind.
        subset: ``val`` judges every cell on its validation photos and opens no test prediction, so a closed test set is
            as good as an open one.

    Returns:
        The arms, in the order in which their rows are planned.

    Raises:
        EvidenceError: A planned cell is not finished, its test set is closed, files of a run do not fit together, cells
            of one arm were trained with different settings, or there are both kinds of initial weights and ``init``
            chooses none.
        RunError: A path is neither a study nor a run.
    """
    sources = [source for path in paths for source in _sources(path)]
    chosen = _of_one_kind(sources, init)
    finished = {source.key for source in chosen if source.run.finished}
    unfinished = list(dict.fromkeys(source.run.name for source in chosen if source.key not in finished))
    if unfinished:
        planned = len({source.key for source in chosen})
        raise EvidenceError(
            f"{len(unfinished)} of {planned} cells are not finished: {_some(unfinished)}. Finish them with `hcoatnet "
            "study run --out DIR`; `hcoatnet study status DIR` shows how far they are."
        )
    arms: dict[tuple[str, str], list[tuple[Cell, TrainConfig]]] = {}
    manifests: dict[str, dict[str, str]] = {}
    for source in chosen:
        if source.run.finished:
            arms.setdefault(source.key[:2], []).append(_read_cell(source, manifests, subset))
    for (name, _), cells in arms.items():
        _check_one_recipe(name, cells)
    return [
        Arm(name, kind, tuple(sorted((cell for cell, _ in cells), key=lambda cell: (cell.seed, *cell.place))), subset)
        for (name, kind), cells in arms.items()
    ]


def _sources(path: Path) -> list[_Source]:
    directory = StudyDirectory(path)
    if directory.exists:
        return [
            _Source((cell.model, cell.init, cell.seed, cell.repeat, cell.fold), directory.run(cell))
            for cell in directory.plan()
        ]
    run = RunDirectory(path)
    if not run.started:
        raise EvidenceError(
            f"{path} is neither a study nor a run: it has no plan.csv and no config.yaml. Give a directory that "
            "`hcoatnet study run` or `hcoatnet train` made."
        )
    config = run.settings()
    row = _row_name(config)
    if run.study is not None:
        planned = StudyDirectory(path.resolve().parent.parent).plan()
        row = next((cell.model for cell in planned if cell.cell == run.name), row)
    return [_Source((row, config.init_kind, config.seed, config.repeat, config.fold), run)]


def _of_one_kind(sources: Sequence[_Source], init: str | None) -> list[_Source]:
    kinds = sorted({source.key[1] for source in sources})
    if init is None and len(kinds) > 1:
        raise EvidenceError(
            f"There are runs from {' and from '.join(kinds)}; initial weights are part of a result, and the kinds are "
            f"not compared with each other. Choose one with --init {' or --init '.join(kinds)}."
        )
    chosen = [source for source in sources if init in (None, source.key[1])]
    if not chosen:
        raise EvidenceError(f"No run began from {init}. There are runs from {', '.join(kinds) or 'nothing'}.")
    return chosen


def _read_cell(source: _Source, manifests: dict[str, dict[str, str]], subset: Subset) -> tuple[Cell, TrainConfig]:
    run, (_, _, seed, repeat, fold) = source.run, source.key
    config, metrics = run.settings(), run.results()
    if subset not in metrics["subsets"]:
        raise EvidenceError(
            f"The test set of {run.path} is closed (--no-evaluate-test), so there is nothing to compare: validation "
            "photos chose its checkpoint. Train the final study with the test set open; to choose settings, use "
            "`hcoatnet compare --subset val`."
        )
    subsets = _read_subsets(run, metrics)
    val = _read_table(run, "val", subsets["val"])
    test = val if subset == "val" else _read_table(run, "test", subsets["test"])
    labels = _read_labels(run, manifests)
    if unknown := [path for path in subsets["train"] if path not in labels]:
        raise EvidenceError(
            f"{run.manifest_file} lacks {len(unknown)} training photos of the run's split.csv, first {unknown[0]}. "
            "Restore it, or train the run again."
        )
    training = [labels[path] for path in subsets["train"]]
    cell = Cell(
        run=run.name,
        seed=seed,
        repeat=repeat,
        fold=fold,
        val=val,
        test=test,
        train_counts=tuple(training.count(name) for name in test.classes),
        split_sha256=metrics["split_sha256"],
        config_sha256=metrics["config_sha256"],
    )
    return cell, config


def _read_subsets(run: RunDirectory, metrics: dict[str, Any]) -> dict[str, list[str]]:
    """Paths of each subset, from the run's own split, which must be the one that it was trained with."""
    table = read_table(run.split_file)
    require_columns(table, ("path", "subset"), run.split_file)
    if sha256_of_file(run.split_file) != metrics["split_sha256"]:
        raise EvidenceError(f"{run.split_file} has changed since the run was trained. Restore it, or train it again.")
    return {name: list(table.loc[table["subset"] == name, "path"]) for name in ("train", "val", "test")}


def _read_table(run: RunDirectory, subset: str, paths: Iterable[str]) -> Predictions:
    file = run.predictions_file(subset)
    predictions = read_predictions(file)
    if odd := sorted(set(predictions.table["path"]) ^ set(paths)):
        raise EvidenceError(
            f"{file} does not hold the {subset} photos of the run's split.csv: {len(odd)} differ, first {odd[0]}. "
            "Restore it, or train the run again."
        )
    return predictions


def _read_labels(run: RunDirectory, manifests: dict[str, dict[str, str]]) -> dict[str, str]:
    """Label of each photo; the runs of a study share one manifest, which is read once."""
    digest = sha256_of_file(run.manifest_file)
    if digest not in manifests:
        table = read_table(run.manifest_file)
        require_columns(table, ("path", "label"), run.manifest_file)
        manifests[digest] = dict(zip(table["path"], table["label"], strict=True))
    return manifests[digest]


def _check_one_recipe(name: str, cells: Sequence[tuple[Cell, TrainConfig]]) -> None:
    (first, recipe), *others = cells
    for cell, config in others:
        same_place = replace(config, seed=recipe.seed, repeat=recipe.repeat, fold=recipe.fold)
        if differences := same_place.differences(recipe):
            raise EvidenceError(
                f"The runs {first.run} and {cell.run} of {name} were trained with different settings, in the second "
                f"{'; '.join(differences)}. Give one of them another row's name, or leave it out."
            )


def _row_name(config: TrainConfig) -> str:
    """Name of the row of a run that belongs to no study."""
    options = [f"{key}={value}" for key, value in sorted(config.model_options.items())]
    return " ".join([config.model, *options, *(["probe"] if config.probe else [])])


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
