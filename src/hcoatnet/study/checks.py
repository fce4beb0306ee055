"""Everything that can be known to be wrong with a study before its first cell starts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hcoatnet.config import TrainConfig
from hcoatnet.data.manifest import Manifest, read_manifest
from hcoatnet.data.splits import Folds, Split
from hcoatnet.errors import ConfigError, DataError, RunError
from hcoatnet.settings import SYNTHETIC
from hcoatnet.study.definition import StudyConfig
from hcoatnet.study.plan import StudyDirectory, Task


@dataclass(frozen=True)
class Photos:
    """Photos and split of a study.

    Attributes:
        manifest: The photos.
        split: The split file's content, or the hold-out split that is made where none is given.
        notes: What a person should know about how this came about.
    """

    manifest: Manifest
    split: Split | Folds
    notes: tuple[str, ...]

    def split_text(self, repeat: int, fold: int) -> str:
        """What a cell's ``split.csv`` holds."""
        cell = self.split.cell(repeat, fold) if isinstance(self.split, Folds) else self.split
        return cell.to_csv()


def load_photos(study: StudyConfig) -> tuple[StudyConfig, Photos]:
    """Read and prove the photos and the split, and draw the synthetic set where that is asked for.

    Returns:
        The study, whose ``data`` is then a folder or file that exists, and its photos.

    Raises:
        ConfigError: No photos are named.
        DataError: The photos or the split cannot be used.
    """
    from hcoatnet.data.sources.source import load_data
    from hcoatnet.data.splits import hold_out, read_split

    config = _any_config(study)
    drawn: tuple[str, ...] = ()
    if config.data == SYNTHETIC:
        from hcoatnet.training.preparation import with_drawn_photos

        config, drawn = with_drawn_photos(config)
    if config.data is None:
        raise ConfigError(
            "No photos are named. Give --data, or `data:` in the study file, with a manifest made by `hcoatnet data "
            "scan`, a folder that holds a folder of photos a class, or `synthetic`."
        )
    manifest, notes = load_data(config.data)
    split: Split | Folds
    if config.split is None:
        split = hold_out(manifest, val_share=config.val_share, test_share=config.test_share, seed=config.split_seed)
    else:
        split = read_split(config.split, manifest)
    settings = {**study.settings, "data": config.data}
    return replace(study, settings=settings), Photos(manifest, split, (*drawn, *notes))


def check_folder(directory: StudyDirectory) -> None:
    """Refuse a directory that holds something else.

    Raises:
        ConfigError: It has files, and is no study.
    """
    folder = directory.path
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file. Give a new directory with --out.")
    if directory.exists or not folder.exists():
        return
    foreign = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if foreign and foreign != [directory.study_file.name]:
        raise ConfigError(
            f"{folder} holds files and is not a study: {', '.join(foreign[:3])}. Give a new directory with --out."
        )


def check_models(tasks: Sequence[Task], photos: Photos) -> None:
    """Build the model of every arm once, with its weights where it starts from some.

    Raises:
        ModelError: An unknown model, an option or image size that it does not take, or weights that do not fit.
    """
    from hcoatnet.training.run import build_model

    for task in {task.cell.arm: task for task in tasks}.values():
        build_model(task.config, len(photos.manifest.classes))


def check_machine(study: StudyConfig) -> None:
    """Make sure that the device is there.

    Raises:
        ConfigError: It is not.
    """
    from hcoatnet.training.preparation import usable_device

    usable_device(_any_config(study))


def check_test_ledger(study: StudyConfig) -> None:
    """Make sure that openings of the test sets can be recorded.

    Raises:
        RunError: The ledger cannot be written.
    """
    from hcoatnet.evaluation.ledger import check_ledger
    from hcoatnet.training.preparation import ledger_of

    config = _any_config(study)
    if config.evaluate_test:
        check_ledger(ledger_of(config))


def check_cells(directory: StudyDirectory, tasks: Sequence[Task], photos: Photos) -> None:
    """Compare what was begun in a study with what is asked for now.

    Raises:
        RunError: A cell, or another of its arm, was begun with other settings, photos or splits; all that differs is
            named.
    """
    recipes = {task.cell.arm: task for task in tasks}
    for cell in directory.plan() if directory.exists else []:
        asked = recipes.get(cell.arm)
        if asked is not None and cell.config_sha256 != asked.cell.config_sha256 and directory.run(cell).started:
            begun = directory.run(cell).settings()
            place = replace(asked.config, seed=begun.seed, repeat=begun.repeat, fold=begun.fold)
            if differences := place.differences(begun):  # none where only a newer version has further settings
                raise _changed(directory, cell.cell, differences)
    manifest = photos.manifest.to_csv()
    parsed: dict[str, str] = {}  # the cells' copies are the same bytes, of a file that may have been made by hand
    for task in tasks:
        if not task.run.started:
            continue
        differences = task.config.differences(task.run.settings())
        stored = _text(task.run.manifest_file)
        if stored not in parsed:
            parsed[stored] = read_manifest(task.run.manifest_file).to_csv()
        if parsed[stored] != manifest:
            differences.append(f"the photos or labels in {task.config.data} have changed since")
        elif _text(task.run.split_file) != photos.split_text(task.cell.repeat, task.cell.fold):
            differences.append("the split is another")
        if differences:
            raise _changed(directory, task.cell.cell, differences)


def _changed(directory: StudyDirectory, cell: str, differences: Sequence[str]) -> RunError:
    return RunError(
        f"Cannot continue the study {directory.path}: its cell {cell} was begun with something else: "
        f"{'; '.join(differences)}. Continue with what it began with, or start a new study with another --out."
    )


def _any_config(study: StudyConfig) -> TrainConfig:
    """Settings of some cell; those in ``COMMON`` are the same in all."""
    variant = study.variants[0]
    return study.train_config(variant, study.inits_of(variant)[0])


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}). Restore it, or start a new study.") from error
